"""The search of one task: its policy, what was measured, and when to give up.

[search] = open_searches([task], options, model, timer, pool)
programs = search.propose(16, state)   # concrete programs to measure; the tuning loop measures them
search.close_round(records)            # what came out, in the order of their trial numbers
search.learn(records)                  # for cost model and policy
search.progress()                      # what the task scheduler wants to know
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py import __version__
from ansor_py.cost_model.interface import CostModel
from ansor_py.errors import AnsorError, NoSpaceError
from ansor_py.measure.build import error_text
from ansor_py.measure.database import KEPT, Database, Stored
from ansor_py.measure.records import DEFAULT_OPERATOR, Origin, Record
from ansor_py.measure.result import MeasureResult
from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.steps import Step
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import RoundAccuracy, round_accuracy
from ansor_py.search.loop.confirmation import Confirmation
from ansor_py.search.loop.inheriting_policy import Finding, InheritingPolicy, relate
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.pooled_policy import PooledPolicy
from ansor_py.search.loop.program_store import findings_of, stored_program
from ansor_py.search.loop.recorded_programs import contains, trainable
from ansor_py.search.loop.results import TaskResult
from ansor_py.search.loop.retiming import contenders_of, in_place_contenders
from ansor_py.search.loop.scoring import Scorer
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.policies.checked_policy import checked_policy
from ansor_py.search.policies.policy import Policy, RoundState, inform, sketches_for
from ansor_py.search.sampling.candidates import Candidate, Candidates, Observation
from ansor_py.search.sampling.default_schedule import default_schedule
from ansor_py.search.sampling.space import Space
from ansor_py.search.scheduler.strategies import SchedulerOptions, TaskProgress, expression_family, similarity_group

FAILING_ROUNDS = 3
FAILING_TRIALS = 16
CUT_FACTOR = 3.0
FIRST_CUT_FACTOR = 30.0  # of the default schedule's latency, in the first round, of whose programs none was measured
FIRST_CUT_SECONDS = 1.0


@dataclass(frozen=True)
class Program:
    """A candidate: where it comes from, and its concrete steps or the result that says why there are none."""

    origin: Origin
    steps: tuple[Step, ...] = ()
    failure: MeasureResult | None = None

    @staticmethod
    def made(origin: Origin, steps: Callable[[], Iterable[Step]]) -> Program:
        """The program whose steps a function makes."""
        try:
            return Program(origin, tuple(steps()))
        except AnsorError as error:
            return Program(origin, failure=failed_build(error))

    @staticmethod
    def of_candidate(candidate: Candidate, sketch: Sketch) -> Program:
        """The program of a policy's candidate."""
        number, row, predicted, parent, operator = candidate
        genes = tuple(map(int, row))
        score = None if predicted is None else float(predicted)
        return Program.made(Origin(number, sketch.name, genes, parent, operator, score), lambda: sketch.concretise(genes))


def failed_build(error: AnsorError) -> MeasureResult:
    """The result of a program that has no steps."""
    return MeasureResult(error="build", error_text=error_text(error), error_stage="concretise")


class TaskSearch:
    """State of the search of one task; everything in it follows from the policy and the records."""

    def __init__(
        self, task: Task, policy: Policy, scorer: Scorer, early_stopping: int = 0, ended: str = "", math_mode: str = "exact"
    ) -> None:
        """`ended` says why there will be no trials but the default schedule, if so; `math_mode` is `SpaceOptions.math`."""
        self.task = task
        self.policy = policy
        self.scorer = scorer
        self.records: list[Record] = []
        self.best: Record | None = None
        self.default_seconds: float | None = None
        self.ended = ended
        self._math_mode = math_mode
        self._history: list[float] = []
        self._early_stopping = early_stopping
        self._trials_since_best = 0
        self._retimed: Sequence[Record] = ()
        self._confirmed: Confirmation | None = None
        self._found = math.inf  # the least latency without the default schedule
        self._failed_rounds = 0
        self._failed_trials = 0
        self._group = similarity_group(task.dag)

    @cached_property
    def default_program(self) -> Program:
        """Candidate 0: the default schedule, as a program of the policy's sketch of which it is one, if any."""
        try:
            chosen = default_schedule(self.task.dag, self.task.target, self.task.target.cores, self._math_mode)
        except AnsorError as error:
            return Program(Origin(operator=DEFAULT_OPERATOR), failure=failed_build(error))
        steps = [step.to_json() for step in chosen.steps]
        known = (n for n, sketch in enumerate(self.policy.sketches) if contains(sketch, chosen.genes, steps))
        origin = Origin(next(known, None), chosen.sketch.name, chosen.genes, operator=DEFAULT_OPERATOR)
        return Program(origin, chosen.steps)

    def propose(self, count: int, state: RoundState) -> list[Program]:
        """At most `count` programs of the policy; none when it has no more, which ends the task."""
        inform(self.policy, state)
        candidates = self.policy.propose(count)
        if not len(candidates):
            self.ended = "all candidates measured"
        return [Program.of_candidate(candidate, self.policy.sketches[candidate.sketch]) for candidate in candidates]

    def cut_seconds(self) -> float | None:
        """Above how many seconds a call is cut short: three times the best, generously more in the first round."""
        if self.best is None:
            return None
        cut = CUT_FACTOR * self.best.cost
        return cut if len(self._history) > 1 else max(cut, min(FIRST_CUT_FACTOR * self.best.cost, FIRST_CUT_SECONDS))

    def restore(self, records: Sequence[Record]) -> None:
        """Take up an earlier search: its records count as measured, in the rounds in which they were."""
        for number in sorted({record.round for record in records}):
            self.close_round([record for record in records if record.round == number])
        self._teach(records)

    def close_round(self, records: Sequence[Record]) -> None:
        """A round is over, or as much of it as there will be. The first one is the default schedule alone."""
        self._observe(records)
        if not self._history or any(not record.is_default for record in records):
            self._history.append(self.best.cost if self.best is not None else math.inf)
        self._count_failures(records)
        if self._early_stopping and self.best is not None and self._trials_since_best >= self._early_stopping:
            self.ended = self.ended or f"no better program in {self._trials_since_best} trials"

    def learn(self, records: Sequence[Record]) -> RoundAccuracy:
        """Show a round's programs to cost model and policy; returns how well the model knew them. Raises PlugInError."""
        scores, seconds = self._teach(records)
        best = self.best.cost if self.best is not None else math.inf
        return round_accuracy(records[0].round if records else 0, self.task.name, scores, seconds, best)

    def _teach(self, records: Sequence[Record]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Show programs to the cost model, and to the policy as far as today's sketches contain them."""
        known = [record for record in records if trainable(record, self.policy.sketches)]
        learned = self.scorer.train(self.policy.sketches, records)
        if known:
            self.policy.observe(known)
        return learned

    def _observe(self, records: Sequence[Record]) -> None:
        self.records.extend(records)
        for record in records:
            if record.is_default and record.valid:
                self.default_seconds = record.cost
            elif record.valid:
                self._found = min(self._found, record.cost)
            if record.valid and (self.best is None or record.cost < self.best.cost):
                self.best = record
                self._trials_since_best = 0
            else:
                self._trials_since_best += 1

    def progress(self) -> TaskProgress:
        """What the task scheduler wants to know."""
        return TaskProgress(self.task.flops, tuple(self._history), self._group, self._found, dead=bool(self.ended))

    def contenders(self) -> list[Record]:
        """The programs to measure again at the end: the best few and the default schedule."""
        chosen = contenders_of(self.records)
        default = [record for record in self.records if record.is_default and record.valid]
        return chosen + [record for record in default if record not in chosen]

    def in_place_contenders(self) -> tuple[Record, ...]:
        """The programs to time inside the network after that, the best first."""
        return () if self.best is None else in_place_contenders(self.best, self.records, self._retimed)

    def take_retimed(self, retimed: Sequence[Record]) -> None:
        """The final word on the contenders: the best is chosen by their new costs, as far as they ran again."""
        self._retimed = retimed
        self.best = min(retimed, key=lambda record: record.cost, default=self.best)
        for record in retimed:
            if record.is_default:
                self.default_seconds = record.cost

    def finalists(self) -> list[Record]:
        """The best program and the default schedule, where it is another one and works."""
        if self.best is None:
            return []
        return [self.best, *(r for r in self.records if r.is_default and r.valid and r.trial != self.best.trial)]

    def take_confirmed(self, seconds: Sequence[Sequence[float]], processes: int) -> None:
        """The figures of the finalists, one a process: the faster one is the best. What failed anywhere stays as it was."""
        finalists = self.finalists()
        if not processes or any(len(costs) < processes for costs in seconds) or not finalists:
            return
        timed = [(record, tuple(costs)) for record, costs in zip(finalists, seconds, strict=True)]
        default = next((costs for record, costs in timed if record.is_default), ())
        best, costs = min(timed, key=lambda item: statistics.median(item[1]))
        self.best = best.with_costs(costs)
        self.default_seconds = statistics.median(default) if default else self.default_seconds
        self._confirmed = Confirmation(costs, default)

    def to_store(self) -> list[Stored]:
        """The best programs by their last figures, for the store of a user; none where nothing is valid."""
        if self.best is None or self.default_seconds is None:
            return []
        known = {record.trial: record for record in (*self._retimed, self.best)}
        chosen = sorted(known.values(), key=lambda record: record.cost)[:KEPT]
        return [stored_program(record, self.policy.sketches, self.task, self.default_seconds) for record in chosen]

    def result(self) -> TaskResult:
        """The state as a result."""
        return TaskResult(self.task, self.best, self.default_seconds, len(self.records), self.ended, confirmed=self._confirmed)

    def _count_failures(self, records: Sequence[Record]) -> None:
        tried = [record for record in records if not record.is_default]
        if not tried:
            return
        if any(record.valid or record.result.error == "cut" for record in tried):
            self._failed_rounds = self._failed_trials = 0
            return
        self._failed_rounds += 1
        self._failed_trials += len(tried)
        if self._failed_rounds >= FAILING_ROUNDS and self._failed_trials >= FAILING_TRIALS:
            last = tried[-1].result
            self.ended = (
                f"every candidate of the last {self._failed_rounds} rounds failed; the last one by '{last.error}': "
                f"{last.error_text.splitlines()[0] if last.error_text else 'no message'}"
            )


def trial_record(task: Task, program: Program, result: MeasureResult) -> Record:
    """What is known of a measured program by itself; the tuning loop adds when it was measured."""
    return Record(
        engine=__version__,
        workload_key=task.workload_key,
        target=str(task.target),
        threads=task.target.cores,
        task=task.name,
        trial=-1,
        steps=tuple(step.to_json() for step in program.steps),
        origin=program.origin,
        result=result,
    )


class NothingToTry:
    """What stands for the policy of a task for which the chosen one has no programs."""

    sketches: Sequence[Sketch] = ()

    def propose(self, count: int) -> Candidates:
        """Nothing."""
        return []

    def observe(self, observations: Sequence[Observation]) -> None:
        """There is nothing to learn."""


def open_searches(
    tasks: Sequence[Task],
    options: TuningOptions,
    model: CostModel,
    timer: PhaseTimer,
    pool: Callable[[str], Sequence[Record] | None],
    database: Database | None = None,
    first_number: int = 0,
) -> list[TaskSearch]:
    """A search for each task. `pool` gives the programs to which that of a workload key is restricted, None for any, and
    `database` what earlier searches have found. The model knows the tasks by numbers from `first_number` on.

    A task for which the policy has no programs keeps its default schedule. Raises NoSpaceError if it has none for any task.
    """
    searches: list[TaskSearch] = []
    refusals: list[NoSpaceError] = []
    families: defaultdict[str, list[InheritingPolicy]] = defaultdict(list)
    for number, task in enumerate(tasks):
        scorer = Scorer(model, task, first_number + number, timer)
        with timer.phase("sketch"):
            try:
                family = families[expression_family(task.dag)]
                stored = [] if database is None else findings_of(database, task)
                policy = _policy_of(number, task, options, scorer, pool(task.workload_key), family, stored)
            except NoSpaceError as error:
                refusals.append(error)
                searches.append(TaskSearch(task, NothingToTry(), scorer, ended=str(error), math_mode=options.search.space.math))
            else:
                searches.append(
                    TaskSearch(
                        task,
                        policy,
                        scorer,
                        options.search.of(SchedulerOptions).early_stopping,
                        math_mode=options.search.space.math,
                    )
                )
    if refusals and len(refusals) == len(tasks):
        raise refusals[0]
    for family in families.values():
        relate(family)
    return searches


def _policy_of(
    number: int,
    task: Task,
    options: TuningOptions,
    scorer: Scorer,
    pool: Sequence[Record] | None,
    family: list[InheritingPolicy],
    stored: Sequence[Finding],
) -> Policy:
    """The policy of a task, which joins those of the tasks that compute the same on other sizes."""
    rng, own = (np.random.default_rng([options.seed, number, part]) for part in (1, 2))
    sketches = sketches_for(options.policy, task.dag, task.target, options.search)
    policy = checked_policy(options.policy, sketches, task.target, scorer, rng, options.search)
    family.append(InheritingPolicy(policy, lambda sketch: Space(sketch, task.target, options.search), own, stored))
    return family[-1] if pool is None else PooledPolicy(family[-1], scorer, pool)
