"""One conformance suite for every kind of measurer that runs real programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansor_py.measure import MeasureInput, MeasureOptions, Measurer, MeasureResult, create_measurer
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.target import Target
from measure_faults import PROGRAM_FAULTS, MeasurerCache, build_good, build_word, doubling_dag

DAG = doubling_dag()
TARGET = Target.detect()
KINDS = ("inline", "process", "ray")
PROTECTED = ("process", "ray")

OPTIONS = MeasureOptions(builder=build_word, reference_builder=build_good, build_timeout=5, run_timeout=4, builders=2)


def of_task(key: str, items: Sequence[MeasureInput]) -> list[MeasureInput]:
    """The programs as those of a task of their own, of which the measurer has seen none."""
    return [replace(item, workload_key=key) for item in items]


def distinct(items: Sequence[MeasureInput]) -> list[MeasureInput]:
    """The programs with steps that differ, so that each is built; their code does not."""
    return [replace(item, steps=(*item.steps, number)) for number, item in enumerate(items)]


def programs(*words: str, cut_seconds: float | None = None, dag: ComputeDAG = DAG) -> list[MeasureInput]:
    steps: Sequence[tuple[Any, ...]] = [(word,) for word in words]
    return [MeasureInput(dag.workload_key, dag, step, TARGET, 1, cut_seconds) for step in steps]


@pytest.fixture(params=KINDS)
def measurer(request: pytest.FixtureRequest, measurers: MeasurerCache) -> Measurer:
    return measurers.get(request.param, OPTIONS)


@pytest.fixture(params=PROTECTED)
def protected(request: pytest.FixtureRequest, measurers: MeasurerCache) -> Measurer:
    """A measurer that survives programs which end their process."""
    return measurers.get(request.param, OPTIONS)


def errors(results: Sequence[MeasureResult]) -> list[tuple[str, str]]:
    return [(result.error, result.error_stage) for result in results]


def expected_of(word: str) -> tuple[str, str]:
    return PROGRAM_FAULTS[word].error, PROGRAM_FAULTS[word].stage


def test_good_programs_have_costs_and_times(measurer: Measurer) -> None:
    results = measurer.measure(of_task("times", programs("good", "good", "good")))
    for result in results:
        assert result.error == "none", result.error_text
        assert result.output_checked
        assert 1 <= len(result.costs) <= 5
        assert 0 < result.cost < 1e-3
        assert result.run is not None
        assert result.run.started < result.run.finished
    first, last = results[0], results[-1]
    assert first.build is not None
    assert first.run is not None
    assert first.build.started < first.build.finished <= first.run.started
    assert "compile" in first.build.phases
    assert last.build is None  # built before by one of the two builders


def test_candidates_with_the_code_of_another_have_its_costs(measurer: Measurer) -> None:
    """Unless they are to have all their samples, as when the best programs are measured again."""
    whole = distinct(of_task("twins", programs("good", "good")))
    candidates = [replace(item, best_seconds=1.0) for item in whole]
    first, twin, again = measurer.measure([*candidates, whole[1]])
    assert errors([first, twin, again]) == [("none", "")] * 3
    assert [result.same_code for result in (first, twin, again)] == [False, True, False]
    assert (twin.costs, twin.output_checked, twin.run) == (first.costs, True, None)
    assert again.run is not None


def test_ids_are_unique_and_in_the_order_of_batches(measurer: Measurer) -> None:
    first, second = measurer.submit(programs("good", "wrong")), measurer.submit(programs("good"))
    assert len({*first, *second}) == 3
    assert measurer.outstanding == 3
    results: dict[int, MeasureResult] = {}
    while measurer.outstanding:
        results.update(measurer.poll(timeout=30))
    assert [results[number].error for number in (*first, *second)] == ["none", "wrong-result", "none"]


def test_faults_are_results(measurer: Measurer) -> None:
    faults = {word: fault for word, fault in PROGRAM_FAULTS.items() if fault.harmless}
    words = [*faults, "good"]
    results = measurer.measure(programs(*words))
    expected = {word: (fault.error, fault.stage) for word, fault in faults.items()}
    expected["good"] = ("none", "")  # also after the inputs were overwritten
    assert dict(zip(words, errors(results), strict=True)) == expected
    text = {word: result.error_text for word, result in zip(words, results, strict=True)}
    assert "this program cannot be built" in text["build-error"]
    assert "'B'" in text["overrun"]
    assert "workspace" in text["workspace"]
    assert "99" in text["incomplete"]
    assert "status 3" in text["status"]


def test_slow_program_is_cut_with_a_lower_bound(measurer: Measurer) -> None:
    (result,) = measurer.measure(programs("spin", cut_seconds=0.02))
    assert result.error == "cut"
    assert result.costs[0] >= 0.02
    assert not result.valid


def test_a_program_slower_than_the_best_is_timed_for_less_long_and_checked(measurer: Measurer) -> None:
    whole, *others = of_task("slower", programs("good", "good", "wrong"))
    results = measurer.measure([*(replace(item, best_seconds=1e-9) for item in others), whole])
    assert errors(results) == [("none", ""), ("wrong-result", "check"), ("none", "")]
    assert [result.early_end is not None for result in results] == [True, False, False]
    assert all(result.output_checked for result in results)


def test_crashes_are_results_and_workers_are_replaced(protected: Measurer) -> None:
    words = ["crash", "trap", "build-crash", "build-exit"]
    results = protected.measure(programs("good", *words, "good"))
    assert errors(results) == [("none", ""), *map(expected_of, words), ("none", "")]
    assert all(result.error_text for result in results[1:-1])
    assert [result.error for result in protected.measure(programs("good", "good"))] == ["none", "none"]


def test_hanging_run_is_killed(protected: Measurer) -> None:
    results = protected.measure(programs("good", "hang", "good"))
    assert errors(results) == [("none", ""), expected_of("hang"), ("none", "")]


def test_hanging_build_is_killed(protected: Measurer) -> None:
    results = protected.measure(programs("good", "build-hang", "good"))
    assert errors(results) == [("none", ""), expected_of("build-hang"), ("none", "")]


def test_failed_reference_fails_the_programs_of_its_task(tmp_path: Path) -> None:
    from measure_faults import build_failing_reference

    options = MeasureOptions(builder=build_word, reference_builder=build_failing_reference)
    with create_measurer("inline", target=TARGET, threads=1, options=options) as inline:
        results = inline.measure(programs("good", "build-error"))
    assert errors(results) == [("build", "reference"), ("build", "build")]
    assert "no reference today" in results[0].error_text


def test_without_checks_no_reference_is_needed() -> None:
    options = MeasureOptions(builder=build_word, check_outputs=False)
    with create_measurer("inline", target=TARGET, threads=1, options=options) as inline:
        results = inline.measure(programs("wrong", "overrun"))
    assert errors(results) == [("none", ""), ("out-of-bounds", "check")]
    assert not results[0].output_checked


def test_cold_timing() -> None:
    from dataclasses import replace

    options = replace(OPTIONS, run=replace(OPTIONS.run, cold=True))
    with create_measurer("inline", target=TARGET, threads=1, options=options) as inline:
        (result,) = inline.measure(programs("good"))
    assert result.error == "none"
    assert len(result.costs) > 5  # every call is a sample
