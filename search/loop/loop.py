"""The search between its first and its last trial: rounds of proposing, measuring and learning, and events that tell of them.

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
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np

from ansor_py.cost_model.checked_model import CheckedModel, checked_model
from ansor_py.cost_model.interface import create_cost_model
from ansor_py.cost_model.model_file import KnownTask, ModelHeader
from ansor_py.errors import AnsorError, AnsorWarning, MeasureError, OptionError, PlugInError
from ansor_py.measure import MeasureInput, Measurer, MeasureResult, Record
from ansor_py.schedule.steps import Step
from ansor_py.schedule.task import Task
from ansor_py.search.loop.batches import BatchRunner, uninterrupted
from ansor_py.search.loop.confirmation import START_SECONDS, in_fresh_processes, processes_for
from ansor_py.search.loop.events import Begun, DriftMeasured, Event, Progress, Restored, Stopped, Subscriber, TrialsMeasured
from ansor_py.search.loop.goal import Goal
from ansor_py.search.loop.history import History
from ansor_py.search.loop.machine_watch import BEFORE, MachineWatch, ProcessorAccounts
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.program_store import open_store
from ansor_py.search.loop.restored import usable_records
from ansor_py.search.loop.results import CurveBuilder, TaskResult, TuningResult, count_errors
from ansor_py.search.loop.retiming import PASSES, retime, timed_to_the_end
from ansor_py.search.loop.round_times import DEFAULTS, RETIMING, RoundTimer
from ansor_py.search.loop.stopping import ALL_ENDED
from ansor_py.search.loop.task_search import Program, TaskSearch, open_searches, trial_record
from ansor_py.search.loop.transfer import begin_with
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.policies.policy import RoundState
from ansor_py.search.scheduler.networks import Network


@dataclass(frozen=True)
class Ending:
    """Why a search ended, in words (empty while it goes on), and whether that was before its time, by an error perhaps."""

    reason: str = ""
    interrupted: bool = False
    failure: AnsorError | None = None


class Search:
    """One search of several tasks of one target. What happens is told to subscribers (`events.py`)."""

    def __init__(
        self,
        tasks: Sequence[Task],
        options: TuningOptions,
        subscribers: Sequence[Subscriber] = (),
        clock: Callable[[], float] | None = None,
        networks: Sequence[Network] = (),
        measurer: Measurer | None = None,
    ) -> None:
        """`measurer`, if it is known beforehand, says how time passes and which programs there are; otherwise programs run on
        this machine, or on a Ray cluster."""
        virtual_clock = measurer.virtual_clock if measurer is not None else None
        self._options = options
        self._history = History()
        self._subscribers = (self._history.take, *subscribers)
        self._timer = PhaseTimer(clock or virtual_clock or time.perf_counter)
        self._host = platform.node() if virtual_clock is None else None
        self._measures_here = measurer is None and options.measure.ray_address is None
        self._watch = MachineWatch(ProcessorAccounts() if self._measures_here else None)
        self._goal = Goal(tasks, networks, options)
        self._model, self._header = _learned_model(tasks, options)
        pool = measurer.known_programs if measurer is not None else _unlimited
        self._database = open_store(options, virtual_clock is not None)
        first = self._header.free_number - len(tasks)
        self._searches = open_searches(tasks, options, self._model, self._timer, pool, self._database, first)
        self._rng = np.random.default_rng([options.seed, len(tasks)])
        self._curve = CurveBuilder(tasks, self._goal.networks)
        self._round_timer = RoundTimer(self._timer)
        self._round = 0
        self._current: int | None = None
        self._reference: MeasureInput | None = None
        self._unwritten: dict[int, Record] = {}
        self._unlearned: list[Record] = []  # of a round that did not end
        self._ending = Ending()
        self._notes: list[str] = []

    @property
    def trials(self) -> int:
        """Trials measured so far, restored ones included."""
        return len(self._history.records)

    @property
    def failure(self) -> AnsorError | None:
        """The error that ended the search."""
        return self._ending.failure

    def restore(self, records: Sequence[Record]) -> None:
        """Continue an earlier search: its usable records of these tasks, this target and this number of threads."""
        tasks = [search.task for search in self._searches]
        known, doubts = usable_records(records, tasks, tasks[0].target)
        if doubts:
            self._notes.append(f"{len(doubts)} records of the earlier search are left out; the first is {doubts[0]}")
        for search, mine in self._by_search(known):
            search.restore(mine)
        if known:
            self._round = max(record.round for record in known) + 1
            self._rng = np.random.default_rng([self._options.seed, len(tasks), len(known)])
            self._publish(Restored(tuple(known), tuple(self._curve.add_all(known))))

    def run(
        self,
        open_measurer: Callable[[], AbstractContextManager[Measurer]],
        open_fresh: Callable[[], AbstractContextManager[Measurer]] | None = None,
    ) -> None:
        """Measure until a condition to stop holds or every task has ended. KeyboardInterrupt and a `failure` end it early.

        `open_fresh` starts new processes on this machine, in which the winners are timed at the end (`confirmation.py`). When
        a condition holds from the start there are no trials; the best programs of an earlier search are measured again.
        """
        self._ending = Ending(self._reason_to_stop())
        if self._ending.reason and not self.trials:
            return
        self._publish(Begun(tuple(search.task for search in self._searches)))
        try:
            unlearned, self._unlearned = self._unlearned, []
            for search, records in self._by_search(unlearned):
                search.learn(records)
            with open_measurer() as measurer:
                runner = BatchRunner(measurer, self._timer)
                if not self._ending.reason:
                    self._measure_defaults(runner)
                    self._close_round(DEFAULTS, 0)
                    self._ending = Ending(self._reason_to_stop())
                self._watch.begin()
                while not self._ending.reason:
                    self._end_superfluous()
                    chosen = self._goal.next_task(self._searches, self._rng)
                    if chosen is not None:
                        self._run_round(chosen, runner)
                    self._ending = Ending(self._reason_to_stop() if chosen is not None else ALL_ENDED)
                self._retime(runner)
            if open_fresh is not None:
                self._confirm(open_fresh)
            self._close_round(RETIMING, self._round)
        except KeyboardInterrupt:
            self._ending = Ending("interrupted", interrupted=True)
        except (PlugInError, MeasureError) as error:
            self._ending = Ending(f"error: {error}", True, error)
        finally:
            first = sys.exception()  # which no failure to save the model may hide
            with uninterrupted():
                self._unlearned = self._write()
                for search, records in self._by_search(self._unlearned):
                    search.close_round(records)
                if self._ending.interrupted:
                    current = self._searches[self._current].task.name if self._current is not None else DEFAULTS
                    self._close_round(current, self._round)
                try:
                    self._publish(Stopped(self._ending.reason, self._model, self._header))
                except PlugInError as error:  # the model cannot be saved
                    self._ending = replace(self._ending, failure=self.failure or error)
                except OptionError:  # nor written
                    if first is None:
                        raise

    def store(self) -> None:
        """Add the best programs to the user's store, if there is one. What cannot be written there is a warning."""
        if self._database is None:
            return
        try:
            self._database.add(item for search in self._searches for item in search.to_store())
        except OptionError as error:
            self._notes.append(str(error))
            warnings.warn(str(error), AnsorWarning, stacklevel=2)

    def recover(self, runner: str) -> None:
        """After a failure of measuring, make ready to `run` with the measurer of another runner."""
        text = f"{self.failure}; the search goes on with --runner {runner}"
        self._notes.append(text)
        warnings.warn(text, AnsorWarning, stacklevel=2)
        self._round += 1

    def result(self) -> TuningResult:
        """What is known now."""
        history, phases = self._history, self._timer.summary()
        if history.earlier_seconds:
            phases["earlier"] = history.earlier_seconds
        return TuningResult(
            tasks=self._task_results(),
            records=tuple(history.records),
            curve=tuple(history.curve),
            search_seconds=sum(phases.values()),
            phases=phases,
            programs_scored=sum(search.scorer.scored for search in self._searches),
            drift=tuple(history.drift),
            interrupted=self._ending.interrupted,
            stopped=self._ending.reason,
            rounds=tuple(history.rounds),
            accuracy=tuple(history.accuracy),
            machine=self._watch.state,
            contenders={} if self._ending.interrupted else self._contenders(),
            networks=self._goal.networks,
            notes=tuple(self._notes) + tuple(f"{s.task.name}: no more trials, {s.ended}" for s in self._searches if s.ended),
        )

    def _contenders(self) -> dict[str, tuple[Record, ...]]:
        """The programs of every task that are worth timing inside a network."""
        return {search.task.workload_key: search.in_place_contenders() for search in self._searches}

    def _publish(self, event: Event) -> None:
        for tell in self._subscribers:
            tell(event)

    def _reason_to_stop(self) -> str:
        """Why no further round should begin; empty when it should."""
        return self._goal.reason_to_stop(self._searches, self.trials, self._timer.elapsed(), self._seconds_needed())

    def _seconds_needed(self) -> float:
        """What another round and the re-timing after it will take, as far as the last round tells."""
        rounds = self._history.rounds
        if self._options.time_budget is None or len(rounds) < 2 or not rounds[-1].trials:
            return 0.0
        programs = PASSES * sum(len(search.contenders()) for search in self._searches)
        finalists = 2 * len(self._searches)
        processes = processes_for(self.trials, finalists) if self._measures_here else 0
        programs += processes * finalists
        starting = processes * START_SECONDS
        return rounds[-1].seconds + starting + programs * rounds[-1].measuring_seconds / rounds[-1].trials

    def _close_round(self, task: str, round: int) -> None:
        """Tell where the seconds since the end of the round before went."""
        scored = sum(search.scorer.scored for search in self._searches)
        self._publish(self._round_timer.close(round, task, self._history.trials_of_open_round, scored))

    def _measure_defaults(self, runner: BatchRunner) -> None:
        """Candidate 0 of every task in one batch. Those beyond the number of trials are measured too, but not counted."""
        missing = [search for search in self._searches if search.default_seconds is None]
        room = self._trials_left()
        counted, beyond = missing[:room], missing[room:]
        if not missing:
            self._choose_reference(runner)
            return
        self._report("measuring the default schedules")
        extra = [self._input(search, search.default_program.steps) for search in beyond]
        results = self._measure(runner, [(search, search.default_program) for search in counted], extra)
        for search, result in zip(beyond, results, strict=True):
            if result is not None and result.valid:
                search.default_seconds = self._curve.defaults[search.task.workload_key] = result.cost
        with uninterrupted():
            records = self._write()
            for search, mine in self._by_search(records):
                search.close_round(mine)
        for search, mine in self._by_search(records):
            search.learn(mine)
        self._choose_reference(runner)
        self._report("default schedules measured", round_done=True)
        self._round = max(self._round, 1)

    def _run_round(self, chosen: int, runner: BatchRunner) -> None:
        search = self._searches[chosen]
        self._current = chosen
        count = min(self._options.batch_size(len(self._searches)), self._trials_left())
        self._report("searching")
        with self._timer.phase("evolve"):
            programs = search.propose(count, self._round_state(search))
        if not programs:
            return  # the task has ended
        extra = [self._reference] if self._reference is not None else []
        for result in self._measure(runner, [(search, program) for program in programs], extra):
            self._take_drift(result)
        self._report("learning")
        with uninterrupted():
            records = self._write()
            search.close_round(records)
        self._publish(search.learn(records))  # may be interrupted, as the model may be a user's own
        if self._watch.round_ended():
            taken = self._watch.state.most_cores_taken
            text = f"other processes take {taken:.1f} of this machine's cores; what is measured beside them is worth little"
            self._notes.append(text)
            warnings.warn(text, AnsorWarning, stacklevel=2)
        self._report("round done", round_done=True)
        self._close_round(search.task.name, self._round)
        self._round += 1

    def _end_superfluous(self) -> None:
        """No more trials for tasks that no network will run."""
        for search in self._goal.superfluous(self._searches):
            search.ended = "what can take its place is faster"

    def _round_state(self, search: TaskSearch) -> RoundState:
        """What a policy is told before a round."""
        budget = self._options.time_budget
        return RoundState(
            round=self._round,
            trials=len(search.records),
            trials_left=None if self._options.trials is None else self._trials_left(),
            seconds_left=None if budget is None else max(budget - self._timer.elapsed(), 0.0),
            default_seconds=search.default_seconds,
            best_seconds=None if search.best is None else search.best.cost,
        )

    def _trials_left(self) -> int:
        return self._options.trials - self.trials if self._options.trials is not None else sys.maxsize

    def _retime(self, runner: BatchRunner) -> None:
        """Measure the best few programs of every task again; they are not trials."""
        searches = [search for search in self._searches if search.best is not None]
        self._report("measuring the best programs again")
        groups = [search.contenders() for search in searches]
        for search, again in zip(searches, retime(groups, partial(self._measure_again, runner)), strict=True):
            search.take_retimed(again)

    def _confirm(self, open_fresh: Callable[[], AbstractContextManager[Measurer]]) -> None:
        """Time the best program of every task and its default schedule in fresh processes, in turns; they are not trials."""
        groups = [search.finalists() for search in self._searches]
        processes = processes_for(self.trials, sum(map(len, groups)))

        def measure(number: int, programs: Sequence[Record]) -> list[MeasureResult | None]:
            self._report(f"timing the best programs in fresh processes, {number} of {processes}")
            with open_fresh() as measurer:
                return self._measure_again(BatchRunner(measurer, self._timer), programs)

        for search, seconds in zip(self._searches, in_fresh_processes(groups, processes, measure), strict=True):
            search.take_confirmed(seconds, processes)

    def _measure_again(self, runner: BatchRunner, records: Sequence[Record]) -> list[MeasureResult | None]:
        """Measure programs that were measured before, in this order; they are not trials."""
        by_key = {search.task.workload_key: search for search in self._searches}
        searches = [by_key[record.workload_key] for record in records]
        steps = [record.concrete_steps(search.task.dag) for search, record in zip(searches, records, strict=True)]
        inputs = list(map(self._input, searches, steps))
        return self._measure(runner, [], list(map(timed_to_the_end, inputs)))

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
            if program.failure is not None:
                self._unwritten[place] = self._record(search, program, program.failure)
            else:
                places.append(place)
                inputs.append(self._input(search, program.steps))
        runner.run([*inputs, *extra], finished)
        return others

    def _input(self, search: TaskSearch, steps: tuple[Step, ...]) -> MeasureInput:
        task = search.task
        best = search.best.cost if search.best is not None else None
        return MeasureInput(task.workload_key, task.dag, steps, task.target, task.target.cores, search.cut_seconds(), best)

    def _record(self, search: TaskSearch, program: Program, result: MeasureResult) -> Record:
        """What is known of a trial; `_write` numbers it."""
        record = trial_record(search.task, program, result)
        when = {"round": self._round, "seed": self._options.seed, "elapsed": self._elapsed(), "host": self._host}
        return msgspec.structs.replace(record, **when)

    def _write(self) -> list[Record]:
        """Number the finished trials in the order in which they were proposed, and tell of them."""
        first = self._history.records[-1].trial + 1 if self.trials else 0
        finished = [self._unwritten[place] for place in sorted(self._unwritten)]
        records = [msgspec.structs.replace(record, trial=first + number) for number, record in enumerate(finished)]
        self._unwritten = {}
        if records:
            self._publish(TrialsMeasured(tuple(records), tuple(self._curve.add_all(records))))
        return records

    def _choose_reference(self, runner: BatchRunner) -> None:
        """One cheap program that is measured now and again in every round: what changes is the machine."""
        known = [(search.default_seconds, n) for n, search in enumerate(self._searches) if search.default_seconds is not None]
        if known:
            search = self._searches[min(known)[1]]
            self._reference = timed_to_the_end(self._input(search, search.default_program.steps))
            for result in self._measure(runner, [], [self._reference] * BEFORE) if self._measures_here else ():
                self._take_drift(result)

    def _take_drift(self, result: MeasureResult | None) -> None:
        """The fixed program was measured."""
        if result is not None and result.valid:
            self._watch.add(result.cost)
            self._publish(DriftMeasured(result.cost))

    def _by_search(self, records: Sequence[Record]) -> list[tuple[TaskSearch, list[Record]]]:
        """The records of every task that has some."""
        mine: dict[str, list[Record]] = {}
        for record in records:
            mine.setdefault(record.workload_key, []).append(record)
        return [(search, mine[key]) for search in self._searches if (key := search.task.workload_key) in mine]

    def _elapsed(self) -> float:
        return self._history.earlier_seconds + self._timer.elapsed()

    def _task_results(self) -> tuple[TaskResult, ...]:
        return tuple(search.result() for search in self._searches)

    def _report(self, activity: str, round_done: bool = False) -> None:
        trials, seconds = self.trials + len(self._unwritten), self._timer.elapsed()
        tasks = self._task_results()
        self._publish(
            Progress(
                round=self._round,
                round_done=round_done,
                activity=activity,
                tasks=tasks,
                total=self._goal.total_seconds([item.latency for item in tasks]),
                current=self._current,
                trials=trials,
                budget=self._options.trials,
                time_left=None if self._options.time_budget is None else self._options.time_budget - seconds,
                elapsed=self._elapsed(),
                trials_per_second=(trials - self._history.earlier) / seconds if seconds > 0 else 0.0,
                errors=self._history.errors + Counter(count_errors(self._unwritten.values())),
                machine=self._watch.state,
            )
        )


def _learned_model(tasks: Sequence[Task], options: TuningOptions) -> tuple[CheckedModel, ModelHeader]:
    """The cost model, with what it knows beforehand, and the header of its file: the last numbers are those of the tasks."""
    target = tasks[0].target
    model = checked_model(options.cost_model, create_cost_model(options.cost_model, options.seed, options.search))
    known: tuple[KnownTask, ...] = ()
    if options.cost_model_from is not None:
        known = begin_with(options.cost_model_from, model, target, tasks, options.search)
    earlier = ModelHeader.of(options.cost_model, model, [target], known)
    mine = [KnownTask(earlier.free_number + n, task.workload_key, task.name) for n, task in enumerate(tasks)]
    return model, ModelHeader.of(options.cost_model, model, [target], [*known, *mine])


def _unlimited(workload_key: str) -> None:
    """The pool of a measurer that can measure any program."""
