"""When a search ends: trials, time, target latency, stagnation; what it still does then, and what rounds.csv says of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ansor_py import te
from ansor_py.errors import OptionError
from ansor_py.graph.in_place import LIMIT_SECONDS, NETWORK_LIMIT_SECONDS
from ansor_py.measure import MeasureInput, MeasureResult, read_records
from ansor_py.measure.result import Span
from ansor_py.schedule.task import Task
from ansor_py.search.command_line.runs import time_outside
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.results import TuningResult
from ansor_py.search.loop.round_times import DEFAULTS, RETIMING, RoundTimer, RoundTimes, trial_budget
from ansor_py.search.loop.run_directory import RunDirectory, summarise
from ansor_py.search.loop.stopping import StopConditions, parse_seconds
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.scheduler.networks import Network
from ansor_py.search.scheduler.strategies import SchedulerOptions
from ansor_py.target import Target
from search_fakes import FakeMeasurer, hashed_cost

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
TASKS = [Task.from_compute(te.matmul(n, n, n), TARGET, name=f"matmul{n}") for n in (16, 32)]
OPTIONS = TuningOptions(policy="counting", cost_model="even", batch=5, trials=40)


def patience(trials: int) -> SearchOptions:
    return SearchOptions().with_own(SchedulerOptions(early_stopping=trials))


class SlowMeasurer(FakeMeasurer):
    """Every program takes a tenth of a second of a clock of its own."""

    now = 0.0

    def submit(self, batch: Any) -> list[int]:
        """Answer after some time."""
        self.now += 0.1 * len(batch)
        return super().submit(batch)

    def clock(self) -> float:
        """Seconds."""
        return self.now


def search(measurer: FakeMeasurer | None = None, tasks: list[Task] = TASKS, **more: Any) -> TuningResult:
    """With changed options; on the slow measurer's clock if it is one."""
    names = ("networks", "subscribers", "restored")
    extra = {name: more.pop(name) for name in names if name in more}
    measurer = measurer or SlowMeasurer()
    clock = measurer.clock if isinstance(measurer, SlowMeasurer) else lambda: 0.0
    return tune_tasks(tasks, replace(OPTIONS, **more), measurer=measurer, clock=clock, **extra)


def test_times_have_units() -> None:
    texts = ("90s", "10m", "1.5h", "2 min", "3.5ms", "800us", ".5s")
    assert [parse_seconds(text) for text in texts] == pytest.approx([90, 600, 5400, 120, 3.5e-3, 8e-4, 0.5])
    for text in ("", "10", "m", "-3s", "0s", "3 days", "1e3s", "nan s"):
        with pytest.raises(OptionError, match=r"--time-budget is .* such as 10m or 3.5ms"):
            parse_seconds(text, "--time-budget")


def test_the_first_condition_that_holds_is_the_reason() -> None:
    conditions = StopConditions(trials=10, seconds=60.0, targets=np.array([1e-3, 2e-3]))
    slow, fast, unknown = np.array([1e-3, 3e-3]), np.array([1e-3, 2e-3]), np.array([1e-4, np.inf])
    assert conditions.reason(9, 50.0, 9.0, slow) == ""
    assert conditions.reason(9, 50.0, 9.0, unknown) == ""
    assert conditions.reason(10, 50.0, 9.0, slow) == "10 trials"
    assert conditions.reason(9, 50.0, 11.0, slow) == "time budget"
    assert conditions.reason(9, 50.0, 9.0, fast) == "target latency of 1, 2 ms reached"
    assert StopConditions(None, None, np.array([])).reason(10**9, 1e9, 1e9, slow) == ""


def test_trials_end_the_search() -> None:
    result = search()
    assert (len(result.records), result.stopped) == (40, "40 trials")
    again = search(restored=result.records)
    assert (again.records, again.stopped) == (result.records, "40 trials")


@pytest.mark.parametrize("budget", [3.0, 10.0, 37.0])
def test_a_time_budget_is_kept_with_the_final_retiming(budget: float) -> None:
    measurer = SlowMeasurer()
    result = search(measurer, trials=None, time_budget=budget)
    assert result.stopped == "time budget"
    assert 0.5 * budget < result.search_seconds <= 1.1 * budget
    assert {record.round for record in result.records} == set(range(result.records[-1].round + 1))
    assert (len(result.records) - 2) % 5 == 0  # whole rounds
    assert all(item.best is not None and len(item.best.result.costs) == 9 for item in result.tasks)  # measured again


def test_a_spent_time_budget_measures_nothing_and_a_resumed_search_has_one_of_its_own() -> None:
    assert search(trials=None, time_budget=0.0).records == ()
    before = search(trials=None, time_budget=5.0)
    after = search(trials=None, time_budget=5.0, restored=before.records)
    assert after.records[: len(before.records)] == before.records
    assert len(after.records) > len(before.records) + 10
    assert len(search(time_budget=1000.0).records) == 40  # the trials come first


def falling(program: MeasureInput, number: int) -> MeasureResult:
    """Each program is a little faster than the one before."""
    return msgspec.structs.replace(hashed_cost(program, number), costs=(1e-2 * 0.97**number,))


def test_a_target_latency_ends_the_search_after_the_round() -> None:
    result = search(FakeMeasurer(falling), trials=400, target_latencies=(8e-3,))
    assert result.stopped == "target latency of 8 ms reached"
    assert 20 < len(result.records) < 60
    total = [point.estimated_total_ms for point in result.curve]
    assert total[-1] is not None
    assert total[-1] <= 8.0
    assert total[-6] is not None
    assert total[-6] > 8.0  # not a round later than needed


def test_every_network_must_reach_its_own_target() -> None:
    first, second = ([Network(task.name, {task.workload_key: 1.0})] for task in TASKS)
    networks = [*first, *second]
    one = search(FakeMeasurer(falling), trials=400, target_latencies=(20e-3, 5e-3), networks=networks)
    both = search(FakeMeasurer(falling), trials=400, target_latencies=(2e-3, 5e-3), networks=networks)
    assert one.stopped == "target latency of 5, 20 ms reached"
    assert len(one.records) < len(both.records) < 400


def test_a_target_that_the_records_of_a_resumed_search_reach_needs_no_trials() -> None:
    before = search(FakeMeasurer(falling))
    measurer = FakeMeasurer(falling)
    after = search(measurer, trials=400, target_latencies=(1.0,), restored=before.records)
    assert after.stopped == "target latency of 1000 ms reached"
    assert after.records == before.records
    # The best are measured again before they are called so, in three passes.
    again = {json.dumps([step.to_json() for step in program.steps]) for program in measurer.inputs}
    assert len(measurer.inputs) == 3 * len(again)
    assert again <= {json.dumps(record.steps) for record in before.records}
    assert all(item.best is not None and len(item.best.result.costs) == 3 for item in after.tasks)


def test_a_task_that_stagnates_gets_no_more_trials() -> None:
    def level(program: MeasureInput, number: int) -> MeasureResult:
        if program.workload_key != TASKS[0].workload_key:
            return falling(program, number)
        return msgspec.structs.replace(hashed_cost(program, number), costs=(1e-2 if number == 0 else 2e-2,))

    result = search(FakeMeasurer(level), trials=100, search=patience(10))
    assert result.tasks[0].trials == 1 + 10
    assert result.notes == ("matmul16: no more trials, no better program in 10 trials",)
    assert len(result.records) == 100
    resumed = search(
        FakeMeasurer(level),
        trials=110,
        restored=result.records,
        search=patience(10),
    )
    assert resumed.tasks[0].trials == 1 + 10
    resumed = search(FakeMeasurer(level), trials=130, restored=result.records, strategy="round-robin")
    assert resumed.tasks[0].trials > 1 + 10  # the constant belongs to the session


def test_a_search_ends_when_every_task_has() -> None:
    def level(program: MeasureInput, number: int) -> MeasureResult:
        return msgspec.structs.replace(hashed_cost(program, number), costs=(1e-2,))

    result = search(FakeMeasurer(level), trials=400, search=patience(12))
    assert result.stopped == "no task has anything left to try"
    assert len(result.records) == 2 * (1 + 15)
    assert search(FakeMeasurer(interrupt_after=9)).stopped == "interrupted"


def test_a_search_needs_a_limit() -> None:
    with pytest.raises(OptionError, match="neither trials nor a time budget"):
        TuningOptions(trials=None)
    assert TuningOptions(trials=None, time_budget=60.0).batch_size(tasks=10) == 12


def run_into(path: Path, resume: bool = False, **more: Any) -> tuple[TuningResult, list[dict[str, str]]]:
    """A search into a run directory, and its rounds.csv."""
    with RunDirectory.create(path, {}, resume) as run:
        result = search(subscribers=[run.take], restored=run.restored, **more)
        run.write_summary(summarise(result, "model", str(TARGET), 2, None, None))
    with (path / "rounds.csv").open() as file:
        return result, list(csv.DictReader(file))


def test_the_rounds_add_up_to_the_search(tmp_path: Path) -> None:
    result, rows = run_into(tmp_path)
    assert [row["task"] for row in rows[:3]] == [DEFAULTS, "matmul16", "matmul32"]
    assert rows[-1]["task"] == RETIMING
    assert sum(int(row["trials"]) for row in rows) == 40
    assert sum(int(row["scored"]) for row in rows) == result.programs_scored
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(result.search_seconds, abs=1e-3)
    for row in rows:
        phases = [float(row[name]) for name in result.phases]
        assert sum(phases) == pytest.approx(float(row["seconds"]), abs=1e-3)
    assert float(rows[1]["seconds"]) == pytest.approx(0.6)  # five programs and the reference
    assert [row["round"] for row in rows] == [str(number) for number in [*range(len(rows) - 1), len(rows) - 1]]


def test_equal_seeds_and_clocks_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_into(tmp_path / name)
    for file in ("rounds.csv", "curve.csv", "summary.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_resumed_run_keeps_the_rounds_it_had(tmp_path: Path) -> None:
    _, before = run_into(tmp_path)
    _, after = run_into(tmp_path, resume=True, trials=60)
    assert after[: len(before)] == before
    assert sum(int(row["trials"]) for row in after) == 60 == len(read_records(tmp_path / "records.jsonl")[0])
    assert json.loads((tmp_path / "summary.json").read_text())["stopped"] == "60 trials"


def test_an_interrupted_round_is_in_the_file(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        result = search(FakeMeasurer(interrupt_after=15), subscribers=[run.take])
    with (tmp_path / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["trials"]) for row in rows) == len(result.records) > 12


def test_what_a_trial_costs_stands_beside_what_it_may_cost() -> None:
    now = [0.0]
    timer = PhaseTimer(lambda: now[0])
    rounds = RoundTimer(timer)

    def spend(**seconds: float) -> None:
        for name, length in seconds.items():
            with timer.phase(name):
                now[0] += length

    spend(sketch=5.0, run=1.0)
    rows = [rounds.close(0, DEFAULTS, 2, 0)]
    spend(evolve=0.2, features=0.05, train=0.3, build=0.1, run=0.4)
    now[0] += 0.05
    rows.append(rounds.close(1, "a", 10, 100))
    spend(evolve=0.2, train=0.1, run=0.5)
    rows.append(rounds.close(2, "b", 10, 250))
    assert [(row.trials, row.scored, row.seconds) for row in rows] == [
        (2, 0, pytest.approx(6.0)),
        (10, 100, pytest.approx(1.1)),
        (10, 150, pytest.approx(0.8)),
    ]
    record = search().records[0]
    record = msgspec.structs.replace(record, result=MeasureResult((1e-3,), build=Span(10.0, 10.04), run=Span(11.0, 11.03)))
    unbuilt = msgspec.structs.replace(record, result=MeasureResult((1e-3,), run=Span(2.0, 2.05)))
    budget = trial_budget([record, unbuilt], rows)
    assert budget["build"] == {"budget": 60.0, "spent": 40.0, "unit": "ms a trial"}
    assert budget["run"] == {"budget": 60.0, "spent": 40.0, "unit": "ms a trial"}
    assert budget["everything else"]["spent"] == pytest.approx(1e3 * (0.6 + 0.3) / 20)
    assert budget["train"] == {"budget": 0.4, "spent": 0.2, "unit": "s a round"}
    nothing = trial_budget([], [RoundTimes(0, DEFAULTS, 0, 0, {})])
    assert {item["spent"] for item in nothing.values()} == {None}


@pytest.mark.parametrize(("benchmark", "expected"), [(1.0, 6.0), (10.0, 10 + 18), (0.0, 0.0)])
def test_what_comes_after_a_search_takes_no_longer_than_its_limits(benchmark: float, expected: float) -> None:
    now = [0.0]
    timer = PhaseTimer(lambda: now[0])
    for phase, seconds in (("import", 2.0), ("compile", 3.0), ("benchmark", benchmark)):
        with timer.phase(phase):
            now[0] += seconds
    assert (LIMIT_SECONDS, NETWORK_LIMIT_SECONDS) == (10, 8)
    assert time_outside(timer, workloads=1) == pytest.approx(2 + 3 + benchmark + 3 * 3 + expected)
    assert time_outside(timer, workloads=2) <= 2 + 3 + benchmark + 3 * 3 + 6 * benchmark
