"""Tuning a partition that is open to choices: trials, totals, the decision, the compiled model, and what the report says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from ansor_py.errors import OptionError, ScheduleError
from ansor_py.graph import CompiledModel, build_variants, choose_in_place, extract_tasks, in_place, network_of, partition_model
from ansor_py.graph.in_place import InPlaceChoice, Variants, kernels_of_all
from ansor_py.measure import MeasureInput, MeasureResult, Record, read_records
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.loop.results import TuningResult
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.sampling.default_schedule import DefaultSchedule, default_schedule
from ansor_py.search.scheduler.networks import Alternatives, Network, Networks, describe_networks, hoped_latency
from ansor_py.search.scheduler.strategies import TaskProgress
from ansor_py.target import Target
from graph_interpreter import floats, make_model, reference
from search_fakes import FakeMeasurer, hashed_cost

TARGET = Target.detect().with_cores(1)
OPTIONS = TuningOptions(policy="random", cost_model="random", trials=120, batch=4)
CHEAP = ["--threads", "1", "--cost-model", "random", "--policy", "random", "--batch", "5"]
FEED = {"a": floats(48, 8), "b": floats(8, 40, seed=1)}


def three_softmaxes() -> onnx.ModelProto:
    """Products with a softmax behind: one choice that the model has once and one that it has twice."""
    nodes = [
        onnx.helper.make_node("MatMul", ["a", "b"], ["s"]),
        onnx.helper.make_node("Softmax", ["s"], ["y"], axis=-1),
        *(
            item
            for number in (1, 2)
            for item in (
                onnx.helper.make_node("MatMul", ["a", f"w{number}"], [f"s{number}"]),
                onnx.helper.make_node("Relu", [f"s{number}"], [f"r{number}"]),
                onnx.helper.make_node("Softmax", [f"r{number}"], [f"y{number}"], axis=-1),
            )
        ),
    ]
    return make_model(nodes, FEED, ["y", "y1", "y2"], {"w1": floats(8, 40, seed=2), "w2": floats(8, 40, seed=3)})


def small_model() -> onnx.ModelProto:
    nodes = [onnx.helper.make_node("MatMul", ["a", "b"], ["s"]), onnx.helper.make_node("Softmax", ["s"], ["y"], axis=-1)]
    return make_model(nodes, FEED, ["y"])


PARTS = partition_model(small_model())
PRODUCT, SOFTMAX, WHOLE = (unit.workload_key for unit in PARTS.all_tasks)
NETWORK = network_of(PARTS, "small")


def check(model: CompiledModel, is_wide: bool) -> None:
    assert len(model.plan.calls) == (1 if is_wide else 2)
    np.testing.assert_allclose(np.asarray(model.run(FEED)["y"]), reference(small_model(), FEED)["y"], rtol=1e-4, atol=1e-6)


# Networks with alternatives.

TASKS = [Task.from_compute(te.matmul(n, n, n), TARGET, name=f"matmul{n}") for n in (16, 32, 48)]
A, B, C = (task.workload_key for task in TASKS)


def forked(**given: Any) -> Networks:
    """A network that runs A once, and either A twice and B or C once."""
    choice = Alternatives("choice", ({A: 2, B: 1}, {C: 1}))
    return describe_networks(TASKS, [Network("x", {A: 1}, alternatives=(choice,), **given), Network("y", {A: 5})])


def test_a_network_takes_the_faster_of_its_alternatives() -> None:
    networks = forked()
    np.testing.assert_allclose(networks.seconds(np.array([1.0, 2.0, 10.0])), [5, 5])
    np.testing.assert_allclose(networks.seconds(np.array([1.0, 2.0, 3.0])), [4, 5])
    np.testing.assert_allclose(networks.known_seconds([1.0, None, 3.0]), [4, 5])
    np.testing.assert_allclose(networks.known_seconds([1.0, None, None]), [np.inf, 5])
    np.testing.assert_allclose(networks.known_seconds([None, 2.0, 3.0]), [np.inf, np.inf])
    [share] = networks.shares([1.0, 2.0, 3.0])
    assert networks.folded([share]).weights.tolist() == [[1, 0, 1], [5, 0, 0]]
    [first] = networks.shares([None, None, None])
    assert networks.folded([first]).weights.tolist() == [[3, 1, 0], [5, 0, 0]]
    assert not networks.folded([first]).forks
    in_place = forked(default_seconds={A: 2.0, C: 0.5}).in_place([1.0, 1.0, 1.0])
    np.testing.assert_allclose(in_place.known_seconds([1.0, 1.0, 20.0]), [2 + 4 + 1, 5])
    np.testing.assert_allclose(in_place.known_seconds([1.0, 1.0, 1.0]), [2.5, 5])
    with pytest.raises(OptionError, match="network 'x' has tasks that are not tuned: unknown"):
        describe_networks(TASKS, [Network("x", {A: 1}, alternatives=(Alternatives("z", ({B: 1}, {"unknown": 1})),))])
    assert Network("x", {A: 1}, alternatives=(Alternatives("z", ({A: 2}, {B: 1})),)).most_calls(A) == 3


@given(st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=3), st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_only_what_may_still_win_is_tried(latencies: list[float], rounds: list[int]) -> None:
    tasks = [TaskProgress(10**6, (value,) * (count + 1)) for value, count in zip(latencies, rounds, strict=True)]
    hopes = [hoped_latency(task) for task in tasks]
    assert all(0 < hope < value for hope, value in zip(hopes, latencies, strict=True))
    [share] = forked().open_shares(tasks)
    sums, best = [2 * latencies[0] + latencies[1], latencies[2]], [2 * hopes[0] + hopes[1], hopes[2]]
    leader = int(sums[1] < sums[0])
    other = 1 - leader
    assert share[leader] > 0
    assert (share[other] > 0) == (best[other] < sums[leader])
    assert share.sum() == 1
    # Where nothing more is tried, what is known decides.
    ended = [TaskProgress(10**6, (value,), dead=True) for value in latencies]
    np.testing.assert_array_equal(forked().open_shares(ended)[0], forked().shares(latencies)[0])


def test_a_task_that_never_ran_has_hope_for_a_few_rounds() -> None:
    assert hoped_latency(TaskProgress(1, (np.inf, np.inf))) == 0
    assert hoped_latency(TaskProgress(1, (np.inf,) * 4)) == np.inf
    assert hoped_latency(TaskProgress(1, (np.inf,), dead=True)) == np.inf


def test_a_model_says_which_tasks_may_take_the_place_of_others() -> None:
    assert (NETWORK.name, NETWORK.weights) == ("small", {})
    [choice] = NETWORK.alternatives
    assert choice.weights == ({PRODUCT: 1, SOFTMAX: 1}, {WHOLE: 1})
    parts = partition_model(three_softmaxes())
    network = network_of(parts)
    for wide in ((), [choice.key for choice in parts.choices]):
        wanted = {unit.workload_key: unit.weight for unit in parts.decided(wide).tasks}
        side = 1 if wide else 0
        found = dict(network.weights)
        for choice in network.alternatives:
            for key, weight in choice.weights[side].items():
                found[key] = found.get(key, 0) + weight
        assert found == wanted
    assert {task.workload_key: task.weight for task in extract_tasks(parts, TARGET)} == {
        unit.workload_key: unit.weight for unit in parts.all_tasks
    }


# The search.


def tuned(factors: dict[str, float], trials: int = 120) -> TuningResult:
    """A search in which programs take so many times 1 to 2 ms."""

    def cost(program: MeasureInput, number: int) -> MeasureResult:
        result = hashed_cost(program, number)
        return msgspec.structs.replace(result, costs=tuple(factors[program.workload_key] * value for value in result.costs))

    options = replace(OPTIONS, trials=trials)
    return tune_tasks(extract_tasks(PARTS, TARGET), options, measurer=FakeMeasurer(cost), networks=[NETWORK])


@pytest.mark.parametrize("is_wide", [False, True])
def test_the_alternative_with_the_lesser_measured_sum_is_taken(is_wide: bool) -> None:
    result = tuned({PRODUCT: 1.0, SOFTMAX: 1.0, WHOLE: 1.2 if is_wide else 3.5})
    items = {item.task.workload_key: item for item in result.tasks}
    seconds = {key: item.latency or 0.0 for key, item in items.items()}
    wide, narrow = seconds[WHOLE], seconds[PRODUCT] + seconds[SOFTMAX]
    assert (wide < narrow) == is_wide
    assert result.estimated_seconds == pytest.approx(min(wide, narrow))
    assert result.curve[-1].estimated_total_ms is not None
    losers = {PRODUCT, SOFTMAX} if is_wide else {WHOLE}
    assert {key for key, item in items.items() if item.ended == "what can take its place is faster"} == losers
    compiled = ansor_py.compile(small_model(), records=result.records, threads=1, workers=0)
    check(compiled, is_wide)
    [choice] = compiled.choices
    costs = {key: min(r.cost for r in result.records if r.workload_key == key) for key in items}
    assert (choice.wide, choice.by) == (is_wide, "records")
    assert choice.wide_seconds == pytest.approx(costs[WHOLE])
    assert choice.narrow_seconds == pytest.approx(costs[PRODUCT] + costs[SOFTMAX])


def test_what_is_far_behind_costs_no_trials() -> None:
    result = tuned({PRODUCT: 1.0, SOFTMAX: 1.0, WHOLE: 50.0})
    trials = {item.task.workload_key: item.trials for item in result.tasks}
    assert trials[WHOLE] == 1  # its default schedule
    assert sum(trials.values()) == 120
    close = tuned({PRODUCT: 1.0, SOFTMAX: 1.0, WHOLE: 2.0})
    assert next(item.trials for item in close.tasks if item.task.workload_key == WHOLE) > 10


def test_records_of_one_alternative_decide_for_it() -> None:
    result = tuned({PRODUCT: 1.0, SOFTMAX: 1.0, WHOLE: 0.5}, trials=40)
    for keys, is_wide in (({PRODUCT, SOFTMAX}, False), ({WHOLE}, True)):
        mine = [record for record in result.records if record.workload_key in keys]
        model = ansor_py.compile(small_model(), records=mine, threads=1, workers=0)
        check(model, is_wide)
        assert all(origin.startswith("trial") for origin in model.plan.schedules.values())
    narrow = ansor_py.compile(small_model(), records=result.records, threads=1, workers=0, fusion="narrow")
    check(narrow, False)
    assert not narrow.choices


def test_a_kernel_that_cannot_be_built_is_no_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dag: ComputeDAG, *given: Any) -> DefaultSchedule:
        if dag.workload_key == WHOLE:
            raise ScheduleError("there is none")
        return default_schedule(dag, *given)

    monkeypatch.setattr("ansor_py.search.sampling.default_schedule.default_schedule", refuse)
    compiled = ansor_py.compile(small_model(), threads=1, workers=0)
    check(compiled, False)
    [choice] = compiled.choices
    assert (choice.wide, choice.wide_seconds) == (False, None)
    assert str(choice) == f"{choice.task}: several kernels (roofline)"
    variants = build_variants(PARTS, {}, TARGET, 1, workers=0)
    assert not variants.parts.choices
    for model in variants.models:
        check(model, False)


# In place.


@pytest.fixture(scope="module")
def variants() -> Variants:
    result = tuned({PRODUCT: 1.0, SOFTMAX: 1.0, WHOLE: 1.8})
    return build_variants(PARTS, result.contenders, TARGET, 1, workers=0)


def with_times(
    monkeypatch: pytest.MonkeyPatch, variants: Variants, cost: dict[str, float], network: Callable[[CompiledModel], float]
) -> InPlaceChoice:
    """The choice where kernels take these seconds, but default schedules a tenth more."""

    def kernels(models: Sequence[CompiledModel]) -> list[NDArray[np.float64]]:
        symbols = kernels_of_all(models)
        table = np.full((len(models), len(symbols)), np.nan)
        for row, model in enumerate(models):
            for symbol, origin in model.plan.schedules.items():
                factor = 1.1 if origin == "default" else 1.0
                table[row, symbols.index(symbol)] = factor * cost[symbol.removeprefix("kernel_")]
        return [table] * 4

    monkeypatch.setattr(in_place, "time_variants", kernels)
    monkeypatch.setattr(in_place, "time_in_turns", lambda models: [network(model) for model in models])
    return choose_in_place(variants)


def test_variants_hold_both_alternatives(variants: Variants) -> None:
    for model in variants.models:
        check(model, len(model.plan.calls) == 1)
    for key, programs in variants.programs.items():
        symbol = f"kernel_{key}"
        found = {model.plan.schedules[symbol] for model in variants.models if symbol in model.plan.schedules}
        assert found == {program.origin for program in programs}
    seconds = in_place.program_seconds(variants, in_place.time_variants(variants.models))
    assert all(np.isfinite(times).all() and times.shape[1] == len(variants.programs[key]) for key, times in seconds.items())


@pytest.mark.parametrize("is_wide", [False, True])
def test_the_lesser_sum_inside_the_network_is_taken(is_wide: bool, monkeypatch: pytest.MonkeyPatch, variants: Variants) -> None:
    cost = {PRODUCT: 1e-5, SOFTMAX: 1e-5, WHOLE: 1.9e-5 if is_wide else 2.1e-5}
    choice = with_times(monkeypatch, variants, cost, lambda model: 2.0 if "default" in model.plan.schedules.values() else 1.0)
    [decided] = choice.choices
    assert (decided.wide, decided.by) == (is_wide, "in place")
    assert choice.model.choices == choice.choices
    assert decided.wide_seconds == pytest.approx(cost[WHOLE])
    assert decided.narrow_seconds == pytest.approx(2e-5)
    check(choice.model, is_wide)
    records: list[Record] = [record for told in choice.records.values() for record in told]
    again = ansor_py.compile(small_model(), records=records, threads=1, workers=0)
    check(again, is_wide)
    assert again.choices == choice.choices
    assert again.plan.schedules == choice.model.plan.schedules


def test_a_network_that_is_slower_than_untuned_stays_as_the_roofline_decided(
    monkeypatch: pytest.MonkeyPatch, variants: Variants
) -> None:
    cost = {PRODUCT: 1e-5, SOFTMAX: 1e-5, WHOLE: 1e-6}
    choice = with_times(
        monkeypatch, variants, cost, lambda model: 1.0 if set(model.plan.schedules.values()) == {"default"} else 2.0
    )
    assert choice.seconds == choice.untuned_seconds == 1.0
    [decided] = choice.choices
    assert (decided.wide, decided.by) == (variants.untuned[WHOLE].wide, "in place")
    assert decided.wide_seconds == pytest.approx(1.1e-6)
    assert choice.model.choices == choice.choices
    check(choice.model, decided.wide)


# The command line.


def saved(tmp_path: Path, model: onnx.ModelProto) -> str:
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    return str(path)


def summary_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


@pytest.mark.parametrize("runner", ["simulated", "inline"])
def test_a_run_reports_its_choices(runner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, path = tmp_path / "run", saved(tmp_path, three_softmaxes())
    words = [path, "--runner", runner, "--out", str(run), *CHEAP]
    for trials, more in ((40, []), (50, ["--resume"])):
        assert main([*words, "--trials", str(trials), *more]) == 0
        said, summary = capsys.readouterr().out, summary_of(run)
        model = ansor_py.load(run / "model.ansor")
        told = [(item["task"], item["taken"] == "wide") for item in summary["choices"]]
        assert told == [(choice.task, choice.wide) for choice in model.choices]
        assert [item["occurrences"] for item in summary["choices"]] == [1, 2]
        assert {item["by"] for item in summary["choices"]} == {"in place" if runner == "inline" else "records"}
        for choice in model.choices:
            assert f"  {choice}\n" in said
        for item in summary["choices"]:
            wins = item["wide_ms"] if item["taken"] == "wide" else item["narrow_ms"]
            untuned = runner == "inline" and summary["tuned_latency_ms"] == summary["untuned_latency_ms"]
            assert untuned or wins == min(item["wide_ms"], item["narrow_ms"])
        best = {task["key"]: task["in_place_ms"] or task["best_ms"] for task in summary["tasks"]}
        [network] = summary["networks"]
        total = sum(weight * best[key] for key, weight in network["weights"].items())
        assert summary["estimated_total_ms"] == pytest.approx(total, abs=1e-5)
        assert network["estimated_ms"] == pytest.approx(total, abs=1e-5)
        if runner == "simulated":
            assert summary["tuned_latency_ms"] == pytest.approx(total, abs=1e-5)
        records, _ = read_records(run / "records.jsonl")
        assert len(records) == trials
        again = ansor_py.compile(path, records=records, threads=1, workers=0)
        assert [choice.wide for choice in again.choices] == [choice.wide for choice in model.choices] or runner == "inline"
        got, wanted = model.run(FEED), reference(three_softmaxes(), FEED)
        for name, array in wanted.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-6)


def test_narrow_fusion_offers_nothing(tmp_path: Path) -> None:
    batch, run = tmp_path / "batch.toml", tmp_path / "run"
    batch.write_text(f'models = ["{saved(tmp_path, small_model())}"]\nfusion = "narrow"\nout = "{run}"\n')
    assert main(["--config", str(batch), "--runner", "simulated", "--trials", "12", *CHEAP]) == 0
    summary = summary_of(run)
    assert summary["choices"] == []
    assert {task["key"] for task in summary["tasks"]} == {PRODUCT, SOFTMAX}
    assert json.loads((run / "config.json").read_text())["fusion"] == "narrow"
    assert main(["--config", str(batch), "--fusion", "deep"]) == 2


def test_models_that_are_tuned_together_share_alternatives(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    onnx.save(small_model(), first)
    onnx.save(three_softmaxes(), second)
    run = tmp_path / "run"
    words = [str(first), str(second), "--together", "--runner", "simulated", "--trials", "50", "--out", str(run), *CHEAP]
    assert main(words) == 0
    summary = summary_of(run)
    assert {item["network"] for item in summary["choices"]} == {str(first), str(second)}
    total = sum(network["estimated_ms"] for network in summary["networks"])
    assert summary["estimated_total_ms"] == pytest.approx(total, abs=1e-5)
    assert summary["tuned_latency_ms"] == pytest.approx(total, abs=1e-5)
    for name in ("first", "second"):
        assert ansor_py.load(run / f"{name}.ansor").choices
