"""The tuning loop on fakes: budget, candidate 0, curve, errors, interruption, resuming, determinism, re-timing."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from ansor_py import te
from ansor_py.cost_model.interface import COST_MODELS, CostModel
from ansor_py.errors import AnsorWarning, MeasureError, OptionError
from ansor_py.measure import MEASURERS, MeasureInput, MeasureResult, Origin, Record
from ansor_py.measure.interface import MeasurerKind
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import RoundAccuracy
from ansor_py.search.loop.events import Event, Progress, Restored, Stopped, TrialsMeasured
from ansor_py.search.loop.recorded_programs import trainable
from ansor_py.search.loop.results import CurveBuilder, CurvePoint, TuningResult
from ansor_py.search.loop.retiming import contenders_of
from ansor_py.search.loop.round_times import RoundTimes
from ansor_py.search.loop.tuning import merge_tasks, tune, tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.target import Target
from search_fakes import CountingPolicy, EvenModel, FakeMeasurer, hashed_cost

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
OPTIONS = TuningOptions(policy="counting", cost_model="even", batch=6)


def matmul(size: int = 32, weight: int = 1) -> Task:
    return replace(Task.from_compute(te.matmul(size, size, size), TARGET, name=f"matmul{size}"), weight=weight)


def search(
    tasks: Sequence[Task], trials: int, measurer: FakeMeasurer | None = None, seed: int = 0, **more: object
) -> TuningResult:
    ticks = itertools.count()
    options = replace(OPTIONS, trials=trials, seed=seed)
    clock = lambda: next(ticks) * 1e-3  # noqa: E731
    return tune_tasks(tasks, options, measurer=measurer or FakeMeasurer(), clock=clock, **more)  # type: ignore[arg-type]


class Sink:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.points: list[CurvePoint] = []
        self.rounds: list[RoundTimes] = []
        self.accuracy: list[RoundAccuracy] = []
        self.models: list[CostModel] = []

    def take(self, event: Event) -> None:
        match event:
            case Restored(points=points):
                self.points += points
            case TrialsMeasured(records, points):
                self.records += records
                self.points += points
            case RoundTimes():
                self.rounds.append(event)
            case RoundAccuracy():
                self.accuracy.append(event)
            case Stopped(model=model):
                self.models.append(model)


def is_default(program: MeasureInput) -> bool:
    return program.steps == tuple(default_steps(program.dag, program.target, program.threads))


def test_candidate_zero_is_the_default_schedule_and_the_budget_counts_every_trial() -> None:
    sink = Sink()
    result = search([matmul(32), matmul(48, weight=3)], 40, subscribers=[sink.take])
    assert [record.trial for record in result.records] == list(range(40))
    assert [record.origin.operator for record in result.records[:2]] == ["default", "default"]
    assert {record.origin.operator for record in result.records[2:]} <= {"random", "relative"}
    assert sum(item.trials for item in result.tasks) == 40
    for item in result.tasks:
        assert item.best is not None
        assert item.default_seconds is not None
        assert item.best.cost <= item.default_seconds
    assert tuple(sink.records) == result.records
    assert tuple(sink.points) == result.curve
    assert {record.round for record in result.records} == set(range(8))  # the defaults, then 38 trials by six


def test_a_record_has_everything() -> None:
    result = search([matmul()], 8)
    record = result.records[3]
    assert record.workload_key == matmul().workload_key
    assert (record.target, record.threads, record.task, record.seed) == (str(TARGET), 2, "matmul32", 0)
    assert record.origin == Origin(record.sketch_id, record.origin.sketch, record.genes, None, "random", 0.5)
    assert record.round == 1
    assert record.origin.sketch
    assert record.genes
    assert record.steps
    assert record.concrete_steps(matmul().dag)
    assert record.result.output_checked
    assert record.result.build is not None
    assert record.elapsed > 0
    assert record.host
    assert record.engine
    assert record.result.build.phases == {"llvm": 0.01}


def test_the_same_seed_and_costs_give_the_same_search() -> None:
    tasks = [matmul(32), matmul(48)]
    first, second, other = search(tasks, 30), search(tasks, 30), search(tasks, 30, seed=1)
    assert first.records == second.records
    assert first.curve == second.curve
    assert [r.genes for r in first.records] != [r.genes for r in other.records]


def test_the_default_search_is_reproducible_too() -> None:
    options = TuningOptions(trials=60, seed=3, batch=10, search=SearchOptions(population=64, iterations=2))
    first, second = (tune_tasks([matmul(64)], options, measurer=FakeMeasurer(), clock=lambda: 0.0) for _ in range(2))
    assert [(r.sketch_id, r.genes, r.origin.predicted, r.origin.operator) for r in first.records] == [
        (r.sketch_id, r.genes, r.origin.predicted, r.origin.operator) for r in second.records
    ]
    assert first.programs_scored == second.programs_scored > 0
    parents = [record.origin.parent for record in first.records if record.origin.parent is not None]
    assert parents
    assert all(parent < record.trial for record in first.records if (parent := record.origin.parent) is not None)


def test_the_cost_model_learns_from_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EvenModel(np.random.default_rng(0))
    monkeypatch.setitem(COST_MODELS, "even", lambda rng, options: model)

    def various(program: MeasureInput, number: int) -> MeasureResult:
        if is_default(program) or number % 3 == 0:
            return hashed_cost(program, number)
        if number % 3 == 1:
            return MeasureResult(error="run", error_text="no", error_stage="time")
        return MeasureResult(costs=(7e-3,), error="cut", error_stage="time")

    result = search([matmul(32), matmul(48)], 26, FakeMeasurer(various))
    assert all(record.origin.sketch_id is not None for record in result.records)  # default schedules are rows of genes, too
    expected = [7e-3 if r.result.error == "cut" else r.cost for r in result.records]
    assert sorted(model.costs) == pytest.approx(sorted(expected))
    assert math.inf in model.costs
    assert model.tasks[:14] == [0, 1] + [0] * 6 + [1] * 6
    model.costs.clear()
    search([matmul(32), matmul(48)], 26, restored=result.records)
    assert len(model.costs) == 26  # a search that is continued begins with what is known


def test_the_curve_counts_the_default_schedule_of_tasks_not_yet_measured() -> None:
    result = search([matmul(32, weight=2), matmul(48)], 20)
    defaults = {item.task.workload_key: item.default_seconds or math.nan for item in result.tasks}
    expected = sum(1e3 * item.task.weight * defaults[item.task.workload_key] for item in result.tasks)
    assert result.curve[0].estimated_total_ms == pytest.approx(expected)
    totals = [point.estimated_total_ms for point in result.curve]
    assert all(later <= earlier for earlier, later in itertools.pairwise(totals))  # type: ignore[operator]
    for task in result.tasks:
        best = [point.best_ms for point in result.curve if point.task == task.task.name]
        assert best == list(itertools.accumulate(best, min))  # type: ignore[arg-type]
    builder = CurveBuilder([item.task for item in result.tasks])
    builder.defaults.update(defaults)
    assert [builder.add(record) for record in result.records] == list(result.curve)


def test_a_curve_over_time_never_steps_back() -> None:
    result = search([matmul(32)], 12)
    times = (3.0, 1.0, 2.0, 5.0, 4.0)
    swapped = [msgspec.structs.replace(record, elapsed=time) for record, time in zip(result.records, times, strict=False)]
    builder = CurveBuilder([item.task for item in result.tasks])
    assert [builder.add(record).elapsed_s for record in swapped] == [3, 3, 3, 5, 5]


def test_fewer_trials_than_tasks_still_give_a_complete_total() -> None:
    measurer = FakeMeasurer()
    result = search([matmul(16), matmul(32), matmul(48)], 2, measurer)
    assert len(result.records) == 2
    assert all(is_default(program) for program in measurer.inputs)
    assert all(item.default_seconds is not None for item in result.tasks)
    assert result.tasks[2].trials == 0
    assert result.tasks[2].best is None
    assert result.curve[-1].estimated_total_ms is not None


def test_without_trials_nothing_is_measured() -> None:
    measurer = FakeMeasurer()
    result = search([matmul()], 0, measurer)
    assert measurer.inputs == []
    assert result.records == ()
    assert result.best is None


def test_failing_candidates_do_not_stop_the_search_and_leave_the_latency_empty() -> None:
    def every_other_fails(program: MeasureInput, number: int) -> MeasureResult:
        if is_default(program) or number % 2:
            return hashed_cost(program, number)
        return MeasureResult(error="build", error_text="no\nluck", error_stage="build")

    result = search([matmul()], 30, FakeMeasurer(every_other_fails))
    assert len(result.records) == 30
    assert result.errors["build"] > 5
    failed = [point for point, record in zip(result.curve, result.records, strict=True) if not record.valid]
    assert failed
    assert all(point.latency_ms is None and point.best_ms is not None for point in failed)


def test_a_task_whose_every_candidate_fails_is_given_up_with_a_message() -> None:
    hopeless = matmul(48)

    def fails(program: MeasureInput, number: int) -> MeasureResult:
        if program.workload_key != hopeless.workload_key:
            return hashed_cost(program, number)
        return MeasureResult(error="run", error_text="SIGSEGV\nmore", error_stage="time")

    result = search([matmul(32), hopeless], 120, FakeMeasurer(fails))
    assert len(result.records) == 120
    assert result.tasks[1].trials == 1 + 3 * 6  # the default schedule and three rounds
    assert result.tasks[1].best is None
    assert result.notes == (
        "matmul48: no more trials, every candidate of the last 3 rounds failed; the last one by 'run': SIGSEGV",
    )
    assert result.estimated_seconds is None


def test_an_exhausted_space_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingPolicy, "limit", 9)
    result = search([matmul()], 50)
    assert len(result.records) == 9  # candidate 0 is one of them
    assert result.tasks[0].ended == "all candidates measured"


def test_slow_candidates_are_cut_at_three_times_the_best() -> None:
    measurer = FakeMeasurer()
    result = search([matmul()], 19, measurer)
    first = result.records[0].cost
    candidates = [program for program in measurer.inputs if not is_default(program)]
    assert measurer.inputs[0].cut_seconds is None
    assert candidates[0].cut_seconds == pytest.approx(30 * first)  # the first round is random and shows how hard the task is
    best = min(record.cost for record in result.records[:7])
    assert candidates[6].cut_seconds == pytest.approx(3 * best)


@pytest.mark.parametrize("after", [0, 4, 20])
def test_an_interrupted_search_keeps_what_was_measured(after: int) -> None:
    sink = Sink()
    result = search([matmul(32), matmul(48)], 60, FakeMeasurer(interrupt_after=after), subscribers=[sink.take])
    assert result.interrupted
    assert after <= len(result.records) < 60
    assert tuple(sink.records) == result.records
    assert [record.trial for record in result.records] == list(range(len(result.records)))
    assert sum(item.trials for item in result.tasks) == len(result.records)


def test_a_subscriber_that_raises_ends_the_search_after_the_others_know_what_was_measured() -> None:
    def fails(event: Event) -> None:
        if isinstance(event, Progress) and event.trials == 10:
            raise ValueError("enough")

    sink = Sink()
    with pytest.raises(ValueError, match=r"^enough$"):
        search([matmul(32)], 60, subscribers=[fails, sink.take])
    assert [record.trial for record in sink.records] == list(range(10))
    assert len(sink.models) == 1


@pytest.mark.parametrize("after", [0, 4, 20, 75])
def test_a_search_whose_measuring_breaks_down_keeps_what_was_measured(after: int) -> None:
    """After 75 results, those of one fixed program in every round among them, it is the last re-timing that breaks down."""
    sink = Sink()
    broken = FakeMeasurer(interrupt_after=after, interruption=MeasureError("no more"))
    with pytest.raises(MeasureError, match=r"^no more$") as caught:
        search([matmul(32), matmul(48)], 60, broken, subscribers=[sink.take])
    result = caught.value.result
    assert (result.stopped, result.interrupted) == ("error: no more", True)
    assert result.records
    assert (len(result.records) == 60) == (after == 75)
    assert tuple(sink.records) == result.records
    assert tuple(sink.rounds) == result.rounds
    assert sum(times.trials for times in result.rounds) == len(result.records)
    assert sum(item.trials for item in result.tasks) == len(result.records)
    assert len(sink.models) == 1


@pytest.mark.parametrize("after", [0, 1, 4, 20, 75])
def test_a_search_whose_measuring_breaks_down_goes_on_with_another_runner(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, second = Sink(), FakeMeasurer()
    monkeypatch.setitem(MEASURERS, "second", MeasurerKind(lambda target, threads, options: second))
    broken = FakeMeasurer(interrupt_after=after, interruption=MeasureError("no more"))
    with pytest.warns(AnsorWarning, match="^no more; the search goes on with --runner second$"):
        result = search([matmul(32), matmul(48)], 60, broken, subscribers=[sink.take], fallback_runner="second")
    assert result.stopped == "60 trials"
    assert "no more; the search goes on with --runner second" in result.notes
    assert tuple(sink.records) == result.records
    assert [record.trial for record in result.records] == list(range(60))
    programs = [(record.workload_key, record.sketch_id, record.genes) for record in result.records]
    assert len(set(programs)) == len(programs)
    assert second.closed
    assert second.inputs


def test_the_other_runner_may_break_down_too(monkeypatch: pytest.MonkeyPatch) -> None:
    second = FakeMeasurer(interrupt_after=20, interruption=MeasureError("nor this"))
    monkeypatch.setitem(MEASURERS, "second", MeasurerKind(lambda target, threads, options: second))
    broken = FakeMeasurer(interrupt_after=10, interruption=MeasureError("no more"))
    with pytest.warns(AnsorWarning), pytest.raises(MeasureError, match=r"^nor this$") as caught:
        search([matmul(32), matmul(48)], 60, broken, fallback_runner="second")
    assert 30 <= len(caught.value.result.records) < 60


def test_a_resumed_search_continues_where_it_was() -> None:
    tasks = [matmul(32), matmul(48)]
    before = search(tasks, 26)
    sink = Sink()
    after = search(tasks, 50, restored=before.records, subscribers=[sink.take])
    assert after.records[:26] == before.records
    assert [record.trial for record in after.records] == list(range(50))
    assert after.records[26].round == before.records[-1].round + 1
    assert after.records[26].elapsed > before.records[25].elapsed
    assert not any(record.origin.operator == "default" for record in after.records[26:])
    programs = [(record.workload_key, record.sketch_id, record.genes) for record in after.records]
    assert len(set(programs)) == len(programs)
    assert tuple(sink.records) == after.records[26:]
    assert [point.trial for point in sink.points] == list(range(50))
    assert search(tasks, 26, restored=before.records).records == before.records


@pytest.mark.parametrize("trials", [40, 60])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"result": MeasureResult((2e-9,))}, "2e-09 s, where the machine needs at least"),
        ({"steps": (["no-such-step", 1],)}, "unknown transform step 'no-such-step'"),
        ({"steps": ([],)}, "unknown transform step"),
    ],
)
def test_records_that_cannot_be_believed_are_not_taken_up(trials: int, change: dict[str, Any], words: str) -> None:
    """Neither as the best nor as a parent, also where the earlier trials are all that there will be."""
    before = search([matmul(32)], 40)
    false = msgspec.structs.replace(before.records[7], **{"result": MeasureResult((1e-7,)), **change})
    restored = [*before.records[:7], false, *before.records[8:]]
    after = search([matmul(32)], trials, restored=restored)
    assert false not in after.records
    assert len(after.records) == trials if trials > 40 else 40
    [note] = after.notes
    assert note.startswith("1 records of the earlier search are left out; the first is trial 7: ")
    assert words in note
    assert after.best is not None
    assert after.best.trial != 7


def test_the_best_of_an_earlier_search_is_measured_again_before_it_is_called_so() -> None:
    """A false cost that the machine could reach does not win either."""
    before = search([matmul(32)], 40)
    lucky = msgspec.structs.replace(before.records[9], result=MeasureResult((before.best.cost / 5 if before.best else 0.0,)))
    after = search([matmul(32)], 40, restored=[*before.records[:9], lucky, *before.records[10:]])
    assert after.best is not None
    assert after.best.cost > lucky.cost
    assert len(after.records) == 40


def test_records_of_another_target_or_task_are_not_taken_up() -> None:
    before = search([matmul(32)], 10)
    strangers = [msgspec.structs.replace(record, threads=7) for record in before.records]
    assert [r.trial for r in search([matmul(32)], 10, restored=strangers).records] == list(range(10))


def test_genes_that_stand_for_other_steps_today_teach_nothing() -> None:
    task = matmul(32)
    sketches = generate_sketches(task.dag, task.target, OPTIONS.search.rules)
    records = [Record.from_json(json.loads(json.dumps(r.to_json()))) for r in search([task], 10).records if r.genes]
    assert all(trainable(record, sketches) for record in records)
    assert not any(trainable(msgspec.structs.replace(record, steps=record.steps[1:]), sketches) for record in records)


def test_the_best_are_measured_again_and_that_is_what_the_summary_says() -> None:
    calls: dict[str, int] = {}

    def lucky_once(program: MeasureInput, number: int) -> MeasureResult:
        result = hashed_cost(program, number)
        key = str(program.steps)
        calls[key] = calls.get(key, 0) + 1
        return msgspec.structs.replace(result, costs=(1e-3,)) if calls[key] == 1 else result

    result = search([matmul()], 80, FakeMeasurer(lucky_once))
    assert result.best is not None
    chosen = contenders_of(result.records)
    assert len(chosen) == 8
    default = result.records[0]
    assert result.best.cost == pytest.approx(min(hashed_cost_of(record) for record in [*chosen, default]))
    assert result.tasks[0].default_seconds == pytest.approx(hashed_cost_of(default))
    assert len(result.best.result.costs) == 9
    assert len(result.records) == 80


def hashed_cost_of(record: Record) -> float:
    program = MeasureInput(record.workload_key, matmul().dag, record.concrete_steps(matmul().dag), TARGET, 2)
    return hashed_cost(program, 0).cost


def test_contenders_are_distinct_close_to_the_best_and_few() -> None:
    def record(cost: float, step: int, error: str = "none") -> Record:
        result = MeasureResult((cost,), error)  # type: ignore[arg-type]
        return Record(workload_key="key", target="target", threads=1, trial=step, steps=(["unroll", step],), result=result)

    some = [record(1.04, 1), record(1.0, 2), record(1.01, 2), record(1.06, 3), record(0.5, 4, "run")]
    slow = [record(2.0, step) for step in range(5, 40)]
    assert [(item.cost, item.trial) for item in contenders_of(some + slow)] == [(1.0, 2), (1.04, 1)]
    assert len(contenders_of([record(1.0, step) for step in range(200)])) == 8
    assert len(contenders_of([record(1.0, step) for step in range(20)])) == 2  # few trials, few contenders
    assert contenders_of([]) == []


def test_progress_is_reported_and_phases_add_up() -> None:
    seen: list[Event] = []
    result = search([matmul(32), matmul(48)], 20, subscribers=[seen.append])
    progress = [event for event in seen if isinstance(event, Progress)]
    assert [p.trials for p in progress if p.round_done] == [2, 8, 14, 20]
    assert all(p.budget == 20 for p in progress)
    assert sum(result.phases.values()) == pytest.approx(result.search_seconds)
    assert {"sketch", "evolve", "features", "predict", "train", "build", "run", "other"} <= set(result.phases)
    assert len(result.drift) == 3


def test_equal_tasks_are_tuned_once() -> None:
    merged = merge_tasks([matmul(32, weight=2), matmul(48), matmul(32, weight=3)])
    assert [(task.name, task.weight) for task in merged] == [("matmul32", 5), ("matmul48", 1)]


@pytest.mark.parametrize(
    ("trials", "tasks", "batch"), [(1000, 1, 64), (128, 1, 32), (400, 18, 8), (5, 1, 5), (3, 10, 1), (0, 1, 1)]
)
def test_batches_are_sane_for_any_number_of_trials(trials: int, tasks: int, batch: int) -> None:
    assert TuningOptions(trials=trials).batch_size(tasks) == batch


def test_nonsense_is_refused() -> None:
    with pytest.raises(OptionError, match="trials is -1"):
        TuningOptions(trials=-1)
    with pytest.raises(OptionError, match="no objective 'speed'"):
        TuningOptions(objective="speed").check_names()
    with pytest.raises(OptionError, match="there is no policy 'hope'"):
        TuningOptions(policy="hope").check_names()
    with pytest.raises(OptionError, match="no tasks"):
        tune_tasks([])
    with pytest.raises(OptionError, match="different targets"):
        tune_tasks([matmul(), Task.from_compute(te.matmul(8, 8, 8), TARGET.with_cores(1))])
    with pytest.raises(OptionError, match="had 2 tasks"):
        search([matmul(32), matmul(48)], 0).best  # noqa: B018


def test_tune_is_the_short_form() -> None:
    result = tune(matmul(), trials=9, seed=0, options=OPTIONS, measurer=FakeMeasurer())
    assert result.best is not None
    assert len(result.records) == len(result.curve) == 9
