"""The search between its first and its last trial: rounds of proposing, measuring, recording and learning.

`tune_tasks` in `tuning.py` is the way in; this is the state that lives from round to round.
"""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.checked_model import checked_model
from ansor_py.cost_model.interface import create_cost_model
from ansor_py.errors import AnsorError, AnsorWarning, MeasureError, PlugInError
from ansor_py.measure import MeasureInput, Measurer, MeasureResult, Record
from ansor_py.schedule.steps import Step
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import RoundAccuracy
from ansor_py.search.loop.batches import BatchRunner, uninterrupted
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.progress import Progress
from ansor_py.search.loop.restored import usable_records
from ansor_py.search.loop.results import CurveBuilder, CurvePoint, TaskResult, TuningResult, count_errors
from ansor_py.search.loop.retiming import PASSES, retime
from ansor_py.search.loop.round_times import DEFAULTS, RETIMING, RoundTimer, RoundTimes
from ansor_py.search.loop.stopping import ALL_ENDED, StopConditions
from ansor_py.search.loop.task_search import DEFAULT_OPERATOR, Program, TaskSearch, open_searches, trial_record
from ansor_py.search.loop.transfer import transferred_programs
from ansor_py.search.loop.trial_sink import TrialSink
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.scheduler.objectives import Network, check_objective, describe_networks, evaluate
from ansor_py.search.scheduler.strategies import choose_task


class Search:
    """One search of several tasks of one target."""

    def __init__(
        self,
        tasks: Sequence[Task],
        options: TuningOptions,
        observer: Callable[[Progress], None],
        sink: TrialSink | None,
        clock: Callable[[], float] | None = None,
        networks: Sequence[Network] = (),
        measurer: Measurer | None = None,
    ) -> None:
        """`measurer`, if it is known beforehand, says how time passes and which programs there are."""
        self._options = options
        virtual_clock = measurer.virtual_clock if measurer is not None else None
        self._timer = PhaseTimer(clock or virtual_clock or time.perf_counter)
        self._host = platform.node() if virtual_clock is None else None
        self._observer = observer
        self._sink = sink
        self._networks = describe_networks(tasks, networks, options.target_latencies, options.reference_latencies)
        self._objective = check_objective(options.objective, self._networks)
        self._conditions = StopConditions(options.trials, options.time_budget, self._networks.targets)
        self._rng = np.random.default_rng([options.seed, len(tasks)])
        model = create_cost_model(options.cost_model, options.seed, options.search.model)
        self._model = checked_model(options.cost_model, model)
        if options.cost_model_from is not None:
            known = transferred_programs(options.cost_model_from, tasks[0].target, tasks, options.search)
            self._model.update(known.batch, known.costs, known.tasks)
        pool = measurer.known_programs if measurer is not None else _unlimited
        self._searches = open_searches(tasks, options, self._model, self._timer, pool)
        self._by_key = {search.task.workload_key: search for search in self._searches}
        self._batch = options.batch_size(len(tasks))
        self._records: list[Record] = []
        self._curve: list[CurvePoint] = []
        self._builder = CurveBuilder(tasks)
        self._trials_before, self._seconds_before = 0, 0.0  # of the search that is continued
        self._round = 0
        self._current: int | None = None
        self._unwritten: dict[int, Record] = {}
        self._reference: MeasureInput | None = None
        self._drift: list[float] = []
        self._errors: Counter[str] = Counter()
        self._round_timer = RoundTimer(self._timer)
        self._rounds: list[RoundTimes] = []
        self._accuracy: list[RoundAccuracy] = []
        self._stopped = ""
        self._interrupted = False
        self._unlearned: list[Record] = []  # of a round that did not end
        self.failure: AnsorError | None = None  # which ended the search
        self._notes: list[str] = []

    @property
    def trials(self) -> int:
        """Trials measured so far, restored ones included."""
        return len(self._records)

    def restore(self, records: Sequence[Record]) -> None:
        """Continue an earlier search: its usable records of these tasks, this target and this number of threads."""
        tasks = [search.task for search in self._searches]
        self._records, doubts = usable_records(records, tasks, tasks[0].target)
        if doubts:
            self._notes.append(f"{len(doubts)} records of the earlier search are left out; the first is {doubts[0]}")
        for search in self._searches:
            search.restore([record for record in self._records if record.workload_key == search.task.workload_key])
        if not self._records:
            return
        self._trials_before = len(self._records)
        self._seconds_before = max(record.elapsed for record in self._records)
        self._round = max(record.round for record in self._records) + 1
        self._rng = np.random.default_rng([self._options.seed, len(self._searches), self._trials_before])
        self._note_defaults()
        self._errors.update(count_errors(self._records))
        self._curve = [self._builder.add(record) for record in self._records]
        if self._sink is not None:
            self._sink.add_points(self._curve)

    def run(self, open_measurer: Callable[[], AbstractContextManager[Measurer]]) -> None:
        """Measure until a condition to stop holds or every task has ended. KeyboardInterrupt and a `failure` end it early.

        When one holds from the start there are no trials; the best programs of an earlier search are measured again.
        """
        self._stopped = self._reason_to_stop()
        if self._stopped and not self._records:
            return
        try:
            unlearned, self._unlearned = self._unlearned, []
            for search, records in self._by_search(unlearned):
                search.learn(records)
            with open_measurer() as measurer:
                runner = BatchRunner(measurer, self._timer)
                if not self._stopped:
                    self._measure_defaults(runner)
                    self._close_round(DEFAULTS, 0)
                    self._stopped = self._reason_to_stop()
                while not self._stopped:
                    chosen = self._choose()
                    if chosen is not None:
                        self._run_round(chosen, runner)
                    self._stopped = self._reason_to_stop() if chosen is not None else ALL_ENDED
                self._retime(runner)
            self._close_round(RETIMING, self._round)
        except KeyboardInterrupt:
            self._interrupted = True
            self._stopped = "interrupted"
        except (PlugInError, MeasureError) as error:
            self._interrupted = True
            self._stopped, self.failure = f"error: {error}", error
        finally:
            with uninterrupted():
                self._unlearned = self._write()
                for search, records in self._by_search(self._unlearned):
                    search.close_round(records)
                if self._interrupted:
                    current = self._searches[self._current].task.name if self._current is not None else DEFAULTS
                    self._close_round(current, self._round)
                self._save_cost_model()

    def recover(self, runner: str) -> None:
        """After a failure of measuring, make ready to `run` with the measurer of another runner."""
        text = f"{self.failure}; the search goes on with --runner {runner}"
        self._notes.append(text)
        warnings.warn(text, AnsorWarning, stacklevel=2)
        self._interrupted, self.failure = False, None
        self._round += 1

    def _save_cost_model(self) -> None:
        if self._sink is None:
            return
        try:
            self._sink.save_cost_model(self._model)
        except PlugInError as error:
            self.failure = self.failure or error

    def result(self) -> TuningResult:
        """What is known now."""
        phases = self._timer.summary()
        if self._seconds_before:
            phases["earlier"] = self._seconds_before
        return TuningResult(
            tasks=self._task_results(),
            records=tuple(self._records),
            curve=tuple(self._curve),
            search_seconds=sum(phases.values()),
            phases=phases,
            programs_scored=sum(search.scorer.scored for search in self._searches),
            drift=tuple(self._drift),
            interrupted=self._interrupted,
            stopped=self._stopped,
            rounds=tuple(self._rounds),
            accuracy=tuple(self._accuracy),
            notes=tuple(self._notes) + tuple(f"{s.task.name}: no more trials, {s.ended}" for s in self._searches if s.ended),
        )

    def _choose(self) -> int | None:
        progress = [search.progress() for search in self._searches]
        networks = replace(
            self._networks.compared_with([search.default_seconds for search in self._searches]),
            histories=tuple(task.history for task in progress),
        )

        def value(latencies: NDArray[np.float64]) -> float:
            return evaluate(self._objective, latencies, networks)

        return choose_task(self._options.strategy, progress, value, self._rng, self._options.scheduler)

    def _reason_to_stop(self) -> str:
        """Why no further round should begin; empty when it should."""
        latencies = self._networks.known_seconds([search.result().latency for search in self._searches])
        return self._conditions.reason(self.trials, self._timer.elapsed(), self._seconds_needed(), latencies)

    def _seconds_needed(self) -> float:
        """What another round and the re-timing after it will take, as far as the last round tells."""
        if self._options.time_budget is None or len(self._rounds) < 2 or not self._rounds[-1].trials:
            return 0.0
        last = self._rounds[-1]
        programs = PASSES * sum(len(search.contenders()) for search in self._searches)
        return last.seconds + programs * last.measuring_seconds / last.trials

    def _close_round(self, task: str, round: int) -> None:
        """Note where the seconds since the end of the round before went."""
        trials = self.trials - self._trials_before - sum(earlier.trials for earlier in self._rounds)
        scored = sum(search.scorer.scored for search in self._searches)
        self._rounds.append(self._round_timer.close(round, task, trials, scored))
        if self._sink is not None:
            self._sink.add_round(self._rounds[-1])

    def _measure_defaults(self, runner: BatchRunner) -> None:
        """Candidate 0 of every task in one batch. Those beyond the number of trials are measured too, but not counted."""
        missing = [search for search in self._searches if search.default_seconds is None]
        room = self._trials_left()
        counted, beyond = missing[:room], missing[room:]
        if not missing:
            self._choose_reference()
            return
        self._report("measuring the default schedules")
        extra = [self._input(search, search.default_program().steps) for search in beyond]
        results = self._measure(runner, [(search, search.default_program()) for search in counted], extra)
        for search, result in zip(beyond, results, strict=True):
            if result is not None and result.valid:
                search.default_seconds = result.cost
        with uninterrupted():
            records = self._write()
            for record in records:
                self._search_of(record).close_round([record])
        for record in records:
            self._search_of(record).learn([record])
        self._choose_reference()
        self._report("default schedules measured", round_done=True)
        self._round = max(self._round, 1)

    def _run_round(self, chosen: int, runner: BatchRunner) -> None:
        search = self._searches[chosen]
        self._current = chosen
        count = min(self._batch, self._trials_left())
        self._report("searching")
        with self._timer.phase("evolve"):
            programs = search.propose(count)
        if not programs:
            return  # the task has ended
        extra = [self._reference] if self._reference is not None else []
        results = self._measure(runner, [(search, program) for program in programs], extra)
        self._drift += [result.cost for result in results if result is not None and result.valid]
        self._report("learning")
        with uninterrupted():
            records = self._write()
            search.close_round(records)
        self._note_accuracy(search.learn(records))  # may be interrupted, as the model may be a user's own
        self._report("round done", round_done=True)
        self._close_round(search.task.name, self._round)
        self._round += 1

    def _note_accuracy(self, accuracy: RoundAccuracy) -> None:
        self._accuracy.append(accuracy)
        if self._sink is not None:
            self._sink.add_accuracy(accuracy)

    def _trials_left(self) -> int:
        return self._options.trials - self.trials if self._options.trials is not None else sys.maxsize

    def _retime(self, runner: BatchRunner) -> None:
        """Measure the best few programs of every task again; they are not trials."""
        searches = [search for search in self._searches if search.best is not None]
        self._report("measuring the best programs again")

        def measure(records: Sequence[Record]) -> list[MeasureResult | None]:
            inputs = [self._input(self._search_of(record), record.concrete_steps()) for record in records]
            return self._measure(runner, [], [replace(program, cut_seconds=None) for program in inputs])

        for search, again in zip(searches, retime([search.contenders() for search in searches], measure), strict=True):
            search.settle(again)

    def _measure(
        self, runner: BatchRunner, programs: Sequence[tuple[TaskSearch, Program]], extra: Sequence[MeasureInput]
    ) -> list[MeasureResult | None]:
        """Measure trials, which wait in `_unwritten` for `_write`, and other programs, whose results are returned."""
        others: list[MeasureResult | None] = [None] * len(extra)
        places: list[int] = []
        inputs: list[MeasureInput] = []

        def finished(position: int, result: MeasureResult) -> None:
            if position >= len(places):
                others[position - len(places)] = result
                return
            place = places[position]
            self._unwritten[place] = self._record(*programs[place], result)
            self._report(f"measured {len(self._unwritten)} of {len(programs)}")

        for place, (search, program) in enumerate(programs):
            if program.error:
                failure = MeasureResult(-1, error="build", error_text=program.error, error_stage="concretise")
                self._unwritten[place] = self._record(search, program, failure)
            else:
                places.append(place)
                inputs.append(self._input(search, program.steps))
        runner.run([*inputs, *extra], finished)
        return others

    def _input(self, search: TaskSearch, steps: tuple[Step, ...]) -> MeasureInput:
        task = search.task
        return MeasureInput(task.workload_key, task.dag, steps, task.target, task.target.cores, search.cut_seconds())

    def _record(self, search: TaskSearch, program: Program, result: MeasureResult) -> Record:
        """What is known of a trial; `_write` numbers it."""
        record = trial_record(search.task, program, result)
        return replace(record, round=self._round, seed=self._options.seed, elapsed=self._elapsed(), host=self._host)

    def _write(self) -> list[Record]:
        """Number the finished trials in the order in which they were proposed, and hand them and their curve to the sink."""
        first = self._records[-1].trial + 1 if self._records else 0
        finished = [self._unwritten[place] for place in sorted(self._unwritten)]
        records = [replace(record, trial=first + number) for number, record in enumerate(finished)]
        self._unwritten = {}
        self._note_defaults(records)
        points = [self._builder.add(record) for record in records]
        self._records += records
        self._errors.update(count_errors(records))
        self._curve += points
        if self._sink is not None and records:
            self._sink.add(records, points)
        return records

    def _note_defaults(self, records: Sequence[Record] = ()) -> None:
        """Tell the curve what the default schedules cost, those of records that no task has observed yet included."""
        for search in self._searches:
            if search.default_seconds is not None:
                self._builder.defaults[search.task.workload_key] = search.default_seconds
        for record in records:
            if record.operator == DEFAULT_OPERATOR and record.valid:
                self._builder.defaults[record.workload_key] = record.cost

    def _choose_reference(self) -> None:
        """One cheap program that is measured again in every round: what changes is the machine."""
        known = [(search.default_seconds, n) for n, search in enumerate(self._searches) if search.default_seconds is not None]
        if known:
            search = self._searches[min(known)[1]]
            self._reference = replace(self._input(search, search.default_program().steps), cut_seconds=None)

    def _by_search(self, records: Sequence[Record]) -> list[tuple[TaskSearch, list[Record]]]:
        """The records of every task that has some."""
        groups = [(search, [record for record in records if self._search_of(record) is search]) for search in self._searches]
        return [(search, group) for search, group in groups if group]

    def _search_of(self, record: Record) -> TaskSearch:
        return self._by_key[record.workload_key]

    def _elapsed(self) -> float:
        return self._seconds_before + self._timer.elapsed()

    def _task_results(self) -> tuple[TaskResult, ...]:
        return tuple(search.result() for search in self._searches)

    def _report(self, activity: str, round_done: bool = False) -> None:
        trials, seconds = self.trials + len(self._unwritten), self._timer.elapsed()
        self._observer(
            Progress(
                round=self._round,
                round_done=round_done,
                activity=activity,
                tasks=self._task_results(),
                current=self._current,
                trials=trials,
                budget=self._options.trials,
                time_left=None if self._options.time_budget is None else self._options.time_budget - seconds,
                elapsed=self._elapsed(),
                trials_per_second=(trials - self._trials_before) / seconds if seconds > 0 else 0.0,
                errors=self._errors + Counter(count_errors(self._unwritten.values())),
            )
        )


def _unlimited(workload_key: str) -> None:
    """The pool of a measurer that can measure any program."""
