"""Programs are chosen inside the network: the rule, what is linked and kept, the command line, records that say so."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import ansor_py
from ansor_py import te
from ansor_py.errors import SizeError
from ansor_py.graph import CompiledModel, build_variants, choose_in_place, extract_tasks, in_place, partition_model
from ansor_py.graph.in_place import CLEAR_SHARE, MARGIN, Variants, choose, time_variants
from ansor_py.measure import Origin, Record, best_records, read_records
from ansor_py.measure.records import CLOSE, best_first
from ansor_py.measure.result import InPlace, MeasureResult
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.command_line.workloads import ModelWorkload
from ansor_py.search.loop.results import TuningResult
from ansor_py.search.loop.retiming import ALGORITHM_MARGIN, IN_PLACE_MARGIN, IN_PLACE_PROGRAMS, in_place_contenders
from ansor_py.search.loop.run_directory import RunDirectory
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.scheduler.networks import Network, describe_networks
from ansor_py.target import Target
from doc_examples import run_examples
from graph_interpreter import floats, make_model, reference
from search_fakes import FakeMeasurer

TARGET = Target.detect().with_cores(1)
OPTIONS = TuningOptions(policy="random", cost_model="random", trials=16, batch=7)
CHEAP = ["--threads", "1", "--cost-model", "random", "--policy", "random", "--batch", "7", "--fusion", "narrow"]
FEED = {"x": floats(1, 4, 10, 10)}


def small_model() -> onnx.ModelProto:
    """Two equal convolutions and a mean: two tasks, three calls."""
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "v"], ["a"], **conv),
        onnx.helper.make_node("Conv", ["a", "w"], ["b"], **conv),
        onnx.helper.make_node("GlobalAveragePool", ["b"], ["y"]),
    ]
    return make_model(nodes, FEED, ["y"], {"v": floats(4, 4, 3, 3, seed=1), "w": floats(4, 4, 3, 3, seed=2)})


PARTS = partition_model(small_model(), fusion="narrow")
CONV, MEAN = (unit.workload_key for unit in PARTS.tasks)


def check(model: CompiledModel) -> None:
    expected = reference(small_model(), FEED)["y"]
    np.testing.assert_allclose(np.asarray(model.run(FEED)["y"]), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def searched() -> TuningResult:
    return tune_tasks(extract_tasks(PARTS, TARGET), OPTIONS, measurer=FakeMeasurer())


@pytest.fixture(scope="module")
def variants(searched: TuningResult) -> Variants:
    """Of all contenders, whose costs are arbitrary ones; the default schedule never is the best."""
    contenders = {key: sorted(mine, key=lambda record: record.is_default) for key, mine in searched.contenders.items()}
    return build_variants(PARTS, contenders, TARGET, 1, workers=0)


# The rule: a table of times becomes a choice.

_tables = st.tuples(st.integers(1, 8), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.floats(1e-7, 1e-1), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@given(_tables, st.data())
def test_another_program_is_taken_only_if_it_was_clearly_faster(table: list[list[float]], data: st.DataObject) -> None:
    seconds = np.array(table)
    preferred = data.draw(st.integers(0, seconds.shape[1] - 1))
    chosen = choose(seconds, preferred)
    faster = (seconds < (1 - MARGIN) * seconds[:, [preferred]]).mean(axis=0)
    if chosen == preferred:
        assert (faster < 1).all() or seconds.shape[1] == 1
    else:
        assert faster[chosen] >= CLEAR_SHARE
        ratios = np.median(seconds / seconds[:, [preferred]], axis=0)
        assert ratios[chosen] <= ratios[faster == 1].min(initial=np.inf)


@given(_tables, st.data())
def test_slow_minutes_of_the_machine_change_no_choice(table: list[list[float]], data: st.DataObject) -> None:
    """What a whole turn is slowed by is a power of two, so that no ratio is rounded differently."""
    seconds = np.array(table)
    preferred = data.draw(st.integers(0, seconds.shape[1] - 1))
    powers = data.draw(st.lists(st.integers(-3, 6), min_size=len(table), max_size=len(table)))
    assert choose(seconds * 2.0 ** np.array(powers)[:, None], preferred) == choose(seconds, preferred)


def test_what_was_best_alone_is_kept_at_a_tie_and_left_for_what_is_faster() -> None:
    turns = np.array([[1.0, 1.0, 0.99]] * 8)
    assert choose(turns, 1) == 1
    turns[:, 2] = 0.9
    assert choose(turns, 1) == 2
    turns[:3, 2] = 1.1  # not in three quarters of the turns any more
    assert choose(turns, 1) == 1
    assert choose(np.array([[3.0, 2.0, 1.0]]), 0) == 2


# The contenders of a task.


def record(trial: int, cost: float, step: int = -1, operator: str = "random", place: InPlace | None = None) -> Record:
    return Record(
        workload_key="key",
        target=str(TARGET),
        threads=1,
        trial=trial,
        elapsed=float(trial),
        steps=([trial if step < 0 else step],),
        origin=Origin(operator=operator),
        result=MeasureResult((cost,), in_place=place),
    )


def test_contenders_are_the_best_few_the_default_schedule_and_the_earlier_choice() -> None:
    slow = IN_PLACE_MARGIN * 1.01
    default, chosen = record(0, 9.0, operator="default"), record(1, 8.0, place=InPlace(1.0, True))
    other, left = record(2, 7.0, place=InPlace(2.0, False)), record(3, slow)
    near = [record(number, 1 + number / 100) for number in range(10, 10 + IN_PLACE_PROGRAMS)]
    same = record(20, 1.0, step=10)
    found = in_place_contenders(near[0], [default, chosen, other, left, *near, same], [])
    assert found == (*near, chosen, default)
    again = msgspec.structs.replace(near[1], result=MeasureResult((0.5, 0.6, 0.7)))
    assert in_place_contenders(again, [default, *near], [again])[0] is again
    assert in_place_contenders(default, [record(4, 9.5, step=0), default], []) == (default,)


def test_the_best_program_of_every_algorithm_is_a_contender() -> None:
    def by(algorithm: str, trial: int, cost: float) -> Record:
        return msgspec.structs.replace(record(trial, cost), steps=(["use_algorithm", "C", algorithm], [trial]))

    fast = [by("winograd", number, 1 + number / 100) for number in range(IN_PLACE_PROGRAMS + 2)]
    slow = [record(10, 2 * IN_PLACE_MARGIN), record(11, 2 * IN_PLACE_MARGIN + 1)]
    hopeless = by("direct", 12, ALGORITHM_MARGIN * 1.01)
    assert in_place_contenders(fast[0], [*fast, *slow, hopeless], []) == (*fast[:IN_PLACE_PROGRAMS], slow[0])


def test_an_interrupted_search_has_no_contenders() -> None:
    measurer = FakeMeasurer(interrupt_after=5)
    result = tune_tasks(extract_tasks(PARTS, TARGET), OPTIONS, measurer=measurer)
    assert result.interrupted
    assert not result.contenders


# What is linked and chosen.


def origins(model: CompiledModel) -> dict[str, str]:
    return {symbol.removeprefix("kernel_"): text for symbol, text in model.plan.schedules.items()}


def test_every_program_is_in_a_variant_and_every_variant_is_right(variants: Variants) -> None:
    assert set(origins(variants.models[0]).values()) == {"default"}
    for key in (CONV, MEAN):
        programs = [program.origin for program in variants.programs[key]]
        assert programs[0] == "default"
        assert len(set(programs)) == len(programs) > 1
        assert {origins(model)[key] for model in variants.models} == set(programs)
        assert variants.preferred[key] == 1
    assert len(variants.models) == max(len(programs) for programs in variants.programs.values())
    for model in variants.models:
        check(model)


def test_variants_are_timed_call_by_call(variants: Variants) -> None:
    turns = time_variants(variants.models)
    assert {turn.shape for turn in turns} == {(len(variants.models), 2)}
    assert (np.array(turns) > 0).all()
    seconds = in_place.program_seconds(variants, turns)
    for column, key in enumerate((CONV, MEAN)):
        assert seconds[key].shape == (len(turns), len(variants.programs[key]))
        calls = {CONV: 2, MEAN: 1}[key]
        np.testing.assert_allclose(seconds[key][:, 0], np.array(turns)[:, 0, column] / calls)


Cost = Callable[[str, str], float]


def with_times(
    monkeypatch: pytest.MonkeyPatch, variants: Variants, cost: Cost, network: Callable[[dict[str, str]], float]
) -> in_place.InPlaceChoice:
    """The choice where kernels and networks take the seconds of these functions of the origins of their programs."""

    def kernels(models: Sequence[CompiledModel]) -> list[NDArray[np.float64]]:
        calls = {CONV: 2, MEAN: 1}
        return [np.array([[calls[key] * cost(key, origins(model)[key]) for key in calls] for model in models])] * 4

    monkeypatch.setattr(in_place, "time_variants", kernels)
    monkeypatch.setattr(in_place, "time_in_turns", lambda models: [network(origins(model)) for model in models])
    return choose_in_place(variants)


def test_the_program_that_is_fastest_in_place_is_taken(monkeypatch: pytest.MonkeyPatch, variants: Variants) -> None:
    last = {key: programs[-1].origin for key, programs in variants.programs.items()}

    def cost(key: str, origin: str) -> float:
        return 1e-5 if origin == last[key] else 2e-5

    choice = with_times(monkeypatch, variants, cost, lambda found: sum(cost(key, origin) for key, origin in found.items()))
    assert origins(choice.model) == last
    assert choice.seconds < choice.untuned_seconds
    for key, programs in variants.programs.items():
        item, told = choice.tasks[key], choice.records[key]
        assert programs[-1].record is not None
        assert item.trial == programs[-1].record.trial
        assert (item.seconds, item.default_seconds) == pytest.approx((1e-5, 2e-5))
        times = [entry.result.in_place for entry in told]
        assert [time.chosen for time in times if time is not None] == [False] * (len(told) - 1) + [True]
        assert best_first(told)[0].trial == item.trial
    check(choice.model)


def test_a_default_schedule_may_win_in_place(monkeypatch: pytest.MonkeyPatch, variants: Variants) -> None:
    def cost(key: str, origin: str) -> float:
        return 1e-5 if (origin == "default") == (key == MEAN) else 2e-5

    choice = with_times(monkeypatch, variants, cost, lambda found: sum(cost(key, origin) for key, origin in found.items()))
    best = variants.programs[CONV][1].origin
    assert origins(choice.model) == {CONV: best, MEAN: "default"}
    check(choice.model)


def test_a_network_is_never_slower_than_untuned(monkeypatch: pytest.MonkeyPatch, variants: Variants) -> None:
    """Default schedules within the margin are taken where what is chosen is slower as a whole, and everywhere if that is."""

    def cost(key: str, origin: str) -> float:
        return 1.001e-5 if key == MEAN and origin != "default" else 1e-5 if origin == "default" else 0.999e-5

    def slow_mean(found: dict[str, str]) -> float:
        return 2.0 if found[MEAN] != "default" else 1.0 if found[CONV] == "default" else 0.9

    choice = with_times(monkeypatch, variants, cost, slow_mean)
    assert origins(choice.model) == {CONV: variants.programs[CONV][1].origin, MEAN: "default"}
    assert (choice.untuned_seconds, choice.seconds) == (1.0, 0.9)
    choice = with_times(monkeypatch, variants, cost, lambda found: float(set(found.values()) != {"default"}) + 1)
    assert set(origins(choice.model).values()) == {"default"}
    assert choice.seconds == choice.untuned_seconds == 1.0
    chosen = [entry for told in choice.records.values() for entry in told if entry.result.in_place == InPlace(1e-5, True)]
    assert [entry.is_default for entry in chosen] == [True, True]


def test_variants_that_do_not_fit_into_memory_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, searched: TuningResult, variants: Variants
) -> None:
    largest = max(sum(model.plan.memory.values()) for model in variants.models)
    monkeypatch.setattr("ansor_py.codegen.machine_memory.machine_memory", lambda: largest * 3 // 2)
    with pytest.raises(SizeError, match=r"choosing programs inside model .* \(variant 0 .*, variant 1 "):
        build_variants(PARTS, searched.contenders, TARGET, 1, workers=0)


# Records that say so.


def test_what_was_chosen_in_place_goes_first_until_something_new_is_clearly_faster() -> None:
    place = InPlace(3e-3, True), InPlace(4e-3, False)
    chosen, fast, other = record(1, 2.0, place=place[0]), record(2, 1.0, place=place[1]), record(3, 1.5)
    assert best_first([fast, other, chosen]) == [chosen, fast, other]
    assert best_records([fast, other, chosen]) == {"key": chosen}
    luck, new = record(4, 0.999 / CLOSE), record(5, 1.001 / CLOSE)
    assert best_first([fast, other, chosen, new])[0] is chosen
    assert [entry.trial for entry in best_first([fast, other, chosen, luck])] == [4, 2, 3, 1]
    quicker = record(6, 5.0, place=InPlace(2e-3, True))  # of another run whose records were added
    assert best_first([chosen, fast, quicker])[0] is quicker
    assert best_first([other, record(7, 1.0)])[0].trial == 7


def test_a_trial_is_one_record_however_often_it_was_timed(tmp_path: Path) -> None:
    default, first, second = record(0, 3.0, operator="default"), record(1, 1.0), record(2, 1.1)
    lucky = record(3, 0.5)  # it was as slow as the default schedule when it was measured again
    known = [default, first, second, lucky]

    def timed(entry: Record, seconds: float, chosen: bool) -> Record:
        result = MeasureResult((entry.cost,) * 3, in_place=InPlace(seconds, chosen))
        return msgspec.structs.replace(entry, result=result)

    with RunDirectory.create(tmp_path, {}) as run:
        run._writer.write(known)  # as a search does
        run.add_times_in_place(known, {"key": [timed(first, 2.0, True), timed(second, 3.0, False)], "else": []})
    records, lost = read_records(tmp_path / "records.jsonl")
    assert not lost
    assert [entry.trial for entry in records] == [0, 1, 2, 3]
    assert [entry.result.costs for entry in records] == [(3.0,), (1.0,), (1.1,), (0.5,)]  # those of the trials themselves
    rest = InPlace(None, False)
    assert [entry.result.in_place for entry in records] == [None, InPlace(2.0, True), InPlace(3.0, False), rest]
    assert best_records(records)["key"].trial == 1
    with RunDirectory.create(tmp_path, {}, resume=True) as run:
        assert run.restored == tuple(records)
        run.add_times_in_place(run.restored, {"key": [timed(second, 1.5, True)]})
    records, _ = read_records(tmp_path / "records.jsonl")
    assert [entry.result.in_place for entry in records] == [None, InPlace(2.0, False), InPlace(1.5, True), rest]
    assert best_records(records)["key"].trial == 2
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 4 + 3 + 2


def test_trials_of_other_programs_are_kept_apart(tmp_path: Path) -> None:
    """The records of two runs in one file."""
    path = tmp_path / "records.jsonl"
    entries = [record(1, 1.0, step=1), record(1, 2.0, step=2, place=InPlace(1.0, True)), record(1, 3.0, step=1)]
    path.write_text("".join(json.dumps(entry.to_json()) + "\n" for entry in entries))
    assert read_records(path)[0] == entries


def test_records_from_before_the_field_are_read() -> None:
    old = record(1, 1.0).to_json()
    assert old["result"].pop("in_place") is None
    assert Record.from_json(old) == record(1, 1.0)


# The task scheduler.


def test_a_task_counts_as_much_as_its_default_schedule_takes_inside_the_network() -> None:
    tasks = extract_tasks(PARTS, TARGET)
    known = [Network("a", {CONV: 2, MEAN: 1}, {CONV: 3e-3}), Network("b", {MEAN: 4}, {MEAN: 1e-3})]
    networks = describe_networks(tasks, known)
    np.testing.assert_allclose(networks.in_place([1e-3, 2e-3]).weights, [[6, 1], [0, 2]])
    np.testing.assert_allclose(networks.in_place([None, 2e-3]).weights, [[2, 1], [0, 2]])
    np.testing.assert_allclose(networks.in_place([1e-3, 2e-3]).compared_with([1e-3, 2e-3]).references, [8e-3, 4e-3])
    plain = describe_networks(tasks, [Network("a", {CONV: 2, MEAN: 1})])
    np.testing.assert_array_equal(plain.in_place([1e-3, 2e-3]).weights, plain.weights)


def test_what_is_slow_inside_the_network_gets_the_trials() -> None:
    tasks = [Task.from_compute(te.matmul(n, n, n), TARGET, name=f"matmul{n}") for n in (16, 32)]
    first, second = (task.workload_key for task in tasks)
    options = TuningOptions(policy="counting", cost_model="even", batch=4, trials=80)

    def trials_of(default: float) -> int:
        networks = [Network("a", {first: 1, second: 1}, {first: default, second: 1e-3})]
        return tune_tasks(tasks, options, measurer=FakeMeasurer(), networks=networks).tasks[0].trials

    assert trials_of(1e-6) < 20 < 60 < trials_of(1.0)


# The command line.


def saved(tmp_path: Path) -> str:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return str(path)


def summary_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


@pytest.mark.parametrize("runner", ["process", "inline"])
def test_a_run_chooses_in_place_and_its_records_say_what(runner: str, tmp_path: Path) -> None:
    run, path = tmp_path / "run", saved(tmp_path)
    words = [path, "--runner", runner, "--out", str(run), *CHEAP]
    assert main([*words, "--trials", "16"]) == 0
    for resumed in (False, True):
        if resumed:
            assert main([*words, "--trials", "20", "--resume"]) == 0
        summary, model = summary_of(run), ansor_py.load(run / "model.ansor")
        assert summary["tuned_latency_ms"] <= summary["untuned_latency_ms"]
        assert all(task["in_place_ms"] > 0 and task["default_in_place_ms"] > 0 for task in summary["tasks"])
        total = sum(task["weight"] * task["in_place_ms"] for task in summary["tasks"])
        assert summary["estimated_total_ms"] == pytest.approx(total, abs=1e-5)
        assert summary["networks"][0]["estimated_ms"] == pytest.approx(total, abs=1e-5)
        records, lost = read_records(run / "records.jsonl")
        assert not lost
        assert [entry.trial for entry in records] == list(range(20 if resumed else 16)) == list(range(summary["trials"]))
        chosen = [entry for entry in records if entry.result.in_place is not None and entry.result.in_place.chosen]
        trials = {entry.workload_key: entry.trial for entry in chosen}
        assert trials == {task["key"]: task["in_place_trial"] for task in summary["tasks"]}
        assert len(chosen) == 2
        kept = {entry.workload_key: "default" if entry.is_default else f"trial {entry.trial}" for entry in chosen}
        assert origins(model) == kept
        again = ansor_py.compile(path, records=run / "records.jsonl", threads=1, workers=0, fusion="narrow")
        programs = {entry.workload_key: f"trial {entry.trial}" for entry in chosen}
        assert origins(again) == programs
        check(model)
        check(again)


def test_a_runner_that_runs_nothing_times_nothing_in_place(tmp_path: Path) -> None:
    words = [saved(tmp_path), "--trials", "8", "--runner", "simulated", "--out", str(tmp_path / "run"), *CHEAP]
    assert main(words) == 0
    for task in summary_of(tmp_path / "run")["tasks"]:
        assert (task["in_place_ms"], task["default_in_place_ms"], task["in_place_trial"]) == (None, None, None)
    records, _ = read_records(tmp_path / "run" / "records.jsonl")
    assert {entry.result.in_place for entry in records} == {None}


def test_a_model_that_does_not_fit_several_times_is_tuned_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise SizeError("it is too large")

    monkeypatch.setattr(ModelWorkload, "_choose_in_place", refuse)
    assert main([saved(tmp_path), "--trials", "8", "--runner", "inline", "--out", str(tmp_path / "run"), *CHEAP]) == 0
    assert "it is too large; the programs that were best alone are taken" in capsys.readouterr().out
    check(ansor_py.load(tmp_path / "run" / "model.ansor"))


def test_two_networks_are_served_by_one_search(tmp_path: Path) -> None:
    """The convolution is in both; the network that spends more time in it has the last word, though each model its own."""
    path, other = saved(tmp_path), tmp_path / "deep.onnx"
    names = ["x", "a", "b", "c", "d", "y"]
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [onnx.helper.make_node("Conv", [one, "w"], [two], **conv) for one, two in itertools.pairwise(names)]
    onnx.save(make_model(nodes, FEED, ["y"], {"w": floats(4, 4, 3, 3, seed=2)}), other)
    run = tmp_path / "run"
    assert main([path, str(other), "--together", "--trials", "16", "--runner", "inline", "--out", str(run), *CHEAP]) == 0
    summary = summary_of(run)
    records, _ = read_records(run / "records.jsonl")
    chosen = {e.workload_key: e for e in records if e.result.in_place is not None and e.result.in_place.chosen}
    assert {task["key"] for task in summary["tasks"]} == set(chosen)
    deep = origins(ansor_py.load(run / "deep.ansor"))
    assert deep[CONV] == ("default" if chosen[CONV].is_default else f"trial {chosen[CONV].trial}")


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(small_model(), "model.onnx")
    page = (Path(__file__).parent.parent / "docs" / "run_directory.md").read_text(encoding="utf-8")
    assert run_examples(page.replace("trials=400", "trials=4"), "docs/run_directory.md")
    check(ansor_py.load("model.ansor"))


INTERRUPTED = """
import sys, time
from ansor_py.graph import in_place
from ansor_py.search.__main__ import main

def wait(models):
    print("timing", flush=True)
    time.sleep(600)

default, in_place.time_variants = in_place.time_variants, wait
in_place.default_seconds = lambda model, untuned: {}
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_while_programs_are_timed_in_place_loses_nothing(tmp_path: Path) -> None:
    script, run = tmp_path / "program.py", tmp_path / "run"
    script.write_text(INTERRUPTED)
    words = [saved(tmp_path), "--trials", "16", "--runner", "process", "--out", str(run), *CHEAP]
    process = subprocess.Popen([sys.executable, str(script), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    guard = threading.Timer(180, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        assert any(line == "timing\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate()
    finally:
        guard.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "interrupted; the programs that were best alone are taken" in out
    assert "Traceback" not in errors
    summary = summary_of(run)
    assert summary["interrupted"]
    assert summary["trials"] == 16 == len(read_records(run / "records.jsonl")[0])
    assert summary["tuned_latency_ms"] <= summary["untuned_latency_ms"]
    best = {task["key"]: f"trial {task['best_trial']}" for task in summary["tasks"]}
    model = ansor_py.load(run / "model.ansor")
    assert origins(model) in (best, dict.fromkeys(best, "default"))
    check(model)
