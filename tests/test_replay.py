"""Replaying records: answers and errors of the log, candidates restricted to it for every policy, one-line complaints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ansor_py import te
from ansor_py.errors import OptionError, RecordError
from ansor_py.measure import MeasureInput, Origin, Record, RecordWriter, create_measurer, read_records
from ansor_py.measure.result import MeasureResult
from ansor_py.schedule.steps import Split
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.loop.pooled_policy import PooledPolicy
from ansor_py.search.loop.tuning import tune, tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import create_policy, sketches_for
from ansor_py.target import Target

TARGET = Target.parse("x86-64 cpu=skylake-avx512 cores=2 l1=32KiB l2=1MiB l3=16MiB")
TASK = Task.from_compute(te.matmul(64, 64, 64), TARGET, "product")
SMALL = SearchOptions(population=64, iterations=1)
OPTIONS = TuningOptions(search=SMALL, cost_model="random", batch=8)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a simulated search, one of them made a failure."""
    result = tune(TASK, trials=40, runner="simulated", options=replace(OPTIONS, policy="random"))
    records = list(result.records)
    records[5] = msgspec.structs.replace(
        records[5], result=MeasureResult(error="wrong-result", error_text="output 'C': it is wrong", error_stage="check")
    )
    path = tmp_path_factory.mktemp("log") / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write(records)
    return path


def known(log: Path) -> list[Record]:
    return read_records(log)[0]


def measured(log: Path, records: Sequence[Record]) -> list[tuple[float, ...]]:
    inputs = [
        MeasureInput(TASK.workload_key, TASK.dag, r.concrete_steps(TASK.dag), TARGET, 2, cut_seconds=1e-9) for r in records
    ]
    with create_measurer(f"replay:{log}", target=TARGET, threads=2) as measurer:
        return [result.costs for result in measurer.measure(inputs)]


def test_answers_are_those_of_the_log(log: Path) -> None:
    assert measured(log, known(log)) == [record.result.costs for record in known(log)]
    assert measured(log.parent, known(log)[:3]) == [record.result.costs for record in known(log)[:3]]


def test_failed_trials_answer_with_their_error_and_unknown_programs_have_none(log: Path) -> None:
    failed = known(log)[5]
    unknown = (Split("C", "i", (3,)),)
    inputs = [MeasureInput(TASK.workload_key, TASK.dag, s, TARGET, 2) for s in (failed.concrete_steps(TASK.dag), unknown)]
    with create_measurer(f"replay:{log}", target=TARGET, threads=2) as measurer:
        results = measurer.measure(inputs)
    assert (results[0].error, results[0].error_text, results[0].error_stage) == (
        "wrong-result",
        failed.result.error_text,
        "check",
    )
    assert results[1].error == "build"
    assert "no record of this program" in results[1].error_text


def test_of_several_records_of_a_program_the_first_counts(log: Path, tmp_path: Path) -> None:
    first = known(log)[1]
    with RecordWriter(tmp_path / "twice.jsonl") as writer:
        writer.write([first, msgspec.structs.replace(first, trial=99, result=MeasureResult((1.0,)))])
    assert measured(tmp_path / "twice.jsonl", [first]) == [first.result.costs]


@pytest.mark.parametrize("policy", ["random", "evolution"])
def test_a_search_measures_programs_of_the_log_only_each_once(log: Path, policy: str) -> None:
    result = tune(TASK, trials=30, runner=f"replay:{log}", options=replace(OPTIONS, policy=policy, cost_model="lightgbm"))
    pool = {json.dumps(record.steps) for record in known(log)}
    tried = [json.dumps(record.steps) for record in result.records]
    assert len(tried) == len(set(tried)) == 30
    assert set(tried) <= pool
    assert {record.host for record in result.records} == {None}
    costs = {json.dumps(record.steps): record.result.costs for record in known(log)}
    assert all(record.result.costs == costs[json.dumps(record.steps)] for record in result.records)


def test_a_search_ends_when_the_log_is_exhausted_and_has_found_its_best(log: Path) -> None:
    result = tune(TASK, trials=1000, runner=f"replay:{log}", options=OPTIONS)
    assert len(result.records) == len({json.dumps(record.steps) for record in known(log)})
    assert result.best is not None
    assert result.best.cost == min(record.cost for record in known(log))
    assert result.tasks[0].ended


def test_a_search_is_resumed_without_repeating_programs(log: Path) -> None:
    first = tune(TASK, trials=20, runner=f"replay:{log}", options=OPTIONS)
    again = tune_tasks([TASK], replace(OPTIONS, trials=35), f"replay:{log}", restored=first.records)
    tried = [json.dumps(record.steps) for record in again.records]
    assert len(tried) == len(set(tried)) == 35


def test_the_nearest_program_takes_the_place_of_a_wish(log: Path) -> None:
    sketches = sketches_for("random", TASK.dag, TARGET, SMALL)
    pool = [record for record in known(log) if record.sketch_id is not None]
    inner = create_policy("random", sketches, TARGET, lambda p: [], np.random.default_rng(0), SMALL)
    policy = PooledPolicy(inner, lambda populations: [], pool)
    taken: set[tuple[int, tuple[int, ...]]] = set()
    twin = create_policy("random", sketches, TARGET, lambda p: [], np.random.default_rng(0), SMALL)
    for wish, found in zip(twin.propose(10), policy.propose(10), strict=True):
        left = [r for r in pool if r.sketch_id == wish.sketch and (wish.sketch, r.genes) not in taken]
        other = [sum(a != b for a, b in zip(r.genes, wish.genes, strict=True)) for r in left]
        if left:
            assert found.sketch == wish.sketch
            differing = int((found.genes != wish.genes).sum())
            assert differing <= min(other) + len(wish.genes) // 2
        taken.add((found.sketch, tuple(map(int, found.genes))))
    assert len(taken) == 10


def test_logs_that_do_not_fit_are_one_clear_error(log: Path, tmp_path: Path) -> None:
    where = "the 40 of this task are for skylake-avx512, 2 cores"
    for target, threads, words in ((TARGET, 1, "1 core"), (Target.parse("aarch64 cores=2"), 2, "generic")):
        with (
            create_measurer(f"replay:{log}", target=target, threads=threads) as measurer,
            pytest.raises(OptionError, match=f"no record of task .* {words}.*{where}"),
        ):
            measurer.known_programs(TASK.workload_key)
    with pytest.raises(OptionError, match="records are of product"):
        tune(Task.from_compute(te.matmul(32, 32, 32), TARGET), trials=4, runner=f"replay:{log}", options=OPTIONS)
    with pytest.raises(RecordError, match="cannot read records"):
        create_measurer(f"replay:{tmp_path / 'none.jsonl'}", target=TARGET, threads=2)
    default = next(record for record in known(log) if record.origin.operator == "default")
    with RecordWriter(tmp_path / "default.jsonl") as writer:
        writer.write([msgspec.structs.replace(default, origin=Origin(operator="default"))])  # as other rules leave it
    with pytest.raises(OptionError, match="the policy and the rules of the search"):
        tune(TASK, trials=4, runner=f"replay:{tmp_path / 'default.jsonl'}", options=OPTIONS)


def test_the_command_line_replays_and_complains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--target", str(TARGET), "--search", "population=64", "--search", "iterations=1", "--cost-model", "random"]
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    assert main(["--op", "matmul:64,64,64", "--runner", "simulated", "--trials", "24", "--out", first, *shared]) == 0
    for out in (second, third):
        words = ["--op", "matmul:64,64,64", "--runner", f"replay:{first}", "--trials", "16", "--seed", "3", "--out", out]
        assert main([*words, *shared]) == 0
    for name in ("records.jsonl", "curve.csv"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "third" / name).read_bytes()
    assert len(known(tmp_path / "second" / "records.jsonl")) == 16
    capsys.readouterr()
    for runner, op, complaint in (
        ("replay", "matmul:64,64,64", "write replay:RECORDS"),
        (f"replay:{first}", "matmul:64,64,65", "has no record of task"),
        (f"replay:{tmp_path}/none", "matmul:64,64,64", "cannot read records"),
    ):
        assert main(["--op", op, "--runner", runner, "--trials", "4", "--out", str(tmp_path / "no"), *shared]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
    assert not (tmp_path / "no").exists()
