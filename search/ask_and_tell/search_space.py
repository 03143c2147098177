"""A task's programs for a loop of one's own: ask for programs, measure them however you like, tell what they cost.

    space = SearchSpace(task)
    for _ in range(8):
        candidates = space.ask(16)
        records = space.measure(candidates, runner="process")
        space.tell(candidates, [record.cost for record in records])
    space.best

Whoever decides, a policy of this package or another searcher, the same space gives names and integers for programs, projects
any integers to valid ones (`GeneSpace`), and says what is known without measuring: features, the roofline's estimate, loops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.checked_model import checked_model
from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.interface import FeatureBatch, create_cost_model
from ansor_py.cost_model.roofline_model import estimated_cycles
from ansor_py.errors import OptionError
from ansor_py.measure import MeasureInput, MeasureOptions, MeasureResult, Record, create_measurer
from ansor_py.schedule.sketch import Genes, Population
from ansor_py.schedule.state import State
from ansor_py.schedule.task import Task
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.scoring import Scorer
from ansor_py.search.loop.task_search import Program, TaskSearch, trial_record
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.checked_policy import checked_policy
from ansor_py.search.policies.policy import RoundState, sketches_for
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.gene_space import GeneSpace
from ansor_py.search.sampling.space import Space


class SearchSpace(GeneSpace):
    """The space of a task, and a session of asking and telling with a policy and a cost model by name.

    The same seed and the same costs give the same programs. Raises OptionError for unknown names, NoSpaceError for a policy
    that has no programs for the task.
    """

    def __init__(
        self,
        task: Task,
        options: SearchOptions | None = None,
        policy: str = "evolution",
        cost_model: str = "lightgbm-roofline",
        seed: int = 0,
    ) -> None:
        chosen = options or SearchOptions()
        sketches = sketches_for(policy, task.dag, task.target, chosen)
        super().__init__([Space(sketch, task.target, chosen) for sketch in sketches])
        self.task = task
        rng = np.random.default_rng([seed, 0, 1])
        scorer = Scorer(checked_model(cost_model, create_cost_model(cost_model, seed, chosen)), task, 0, PhaseTimer())
        asked = checked_policy(policy, sketches, task.target, scorer, rng, chosen)
        self._search = TaskSearch(task, asked, scorer, math_mode=chosen.space.math)
        self._rounds = 0
        self._seed = seed

    @property
    def records(self) -> tuple[Record, ...]:
        """What was told, in order."""
        return tuple(self._search.records)

    @property
    def best(self) -> Record | None:
        """The fastest program that was told; None before there is one."""
        return self._search.best

    def ask(self, count: int) -> list[Candidate]:
        """At most `count` programs that the policy wants to be measured, fewer or none where it has no more."""
        if count < 1:
            raise OptionError(f"ask for {count} programs: give at least 1")
        best = self.best.cost if self.best is not None else None
        state = RoundState(self._rounds, len(self.records), None, None, self._search.default_seconds, best)
        return [_candidate_of(program) for program in self._search.propose(count, state)]

    def tell(self, candidates: Sequence[Candidate], costs_seconds: Sequence[float]) -> None:
        """What programs cost, whoever proposed them; infinite for one that failed. Policy and cost model learn from it."""
        if len(candidates) != len(costs_seconds):
            raise OptionError(f"tell: {len(costs_seconds)} costs are given for {len(candidates)} programs")
        results = []
        for cost in map(float, costs_seconds):
            if not cost > 0:
                raise OptionError(f"tell: a cost is {cost}; give seconds above 0, or infinity for a program that failed")
            results.append(MeasureResult((cost,)) if math.isfinite(cost) else MeasureResult(error="run", error_text="told so"))
        first = len(self.records)
        records = [
            self._record(candidate, result, first + place)
            for place, (candidate, result) in enumerate(zip(candidates, results, strict=True))
        ]
        self._search.close_round(records)
        self._search.learn(records)
        self._rounds += 1

    def measure(
        self, candidates: Sequence[Candidate], runner: str = "process", options: MeasureOptions | None = None
    ) -> list[Record]:
        """Measure programs, in this order: a record for each, as a search writes them."""
        programs = [self._program(candidate) for candidate in candidates]
        task = self.task
        inputs = [
            MeasureInput(task.workload_key, task.dag, program.steps, task.target, task.target.cores)
            for program in programs
            if program.failure is None
        ]
        with create_measurer(runner, target=task.target, threads=task.target.cores, options=options) as measurer:
            measured = iter(measurer.measure(inputs))
        results = [program.failure or next(measured) for program in programs]
        first = len(self.records)
        return [self._record(c, r, first + place) for place, (c, r) in enumerate(zip(candidates, results, strict=True))]

    def features(self, sketch: int, rows: Genes) -> FeatureBatch:
        """The features that cost models see of some programs."""
        return extract_features(Population(self.sketches[sketch], rows), self.task.target)

    def roofline_cycles(self, sketch: int, rows: Genes) -> NDArray[np.float64]:
        """The analytical estimate of programs, float64[n], in cycles of one core: the fewer the better."""
        return estimated_cycles(Population(self.sketches[sketch], rows), self.task.target)

    def loops(self, candidate: Candidate) -> str:
        """The loop nest of a program, as text."""
        return str(State.initial(self.task.dag).replay(self.sketches[candidate.sketch].concretise(candidate.genes)))

    def _program(self, candidate: Candidate) -> Program:
        number, genes = candidate.sketch, np.asarray(candidate.genes)
        if not 0 <= number < len(self.sketches):
            raise OptionError(f"a candidate is of sketch {number}; there are {len(self.sketches)}")
        sizes = self.sketches[number].sizes
        if genes.shape != sizes.shape or np.any((genes < 0) | (genes >= sizes)):
            raise OptionError(
                f"a candidate has genes {genes.tolist()!s:.80}; sketch {number} wants 0 to {(sizes - 1).tolist()}"
            )
        return Program.of_candidate(candidate, self.sketches[number])

    def _record(self, candidate: Candidate, result: MeasureResult, trial: int) -> Record:
        record = trial_record(self.task, self._program(candidate), result)
        return msgspec.structs.replace(record, trial=trial, round=self._rounds, seed=self._seed)


def _candidate_of(program: Program) -> Candidate:
    """A policy's candidate again, from the program that was made of it."""
    origin = program.origin
    assert origin.sketch_id is not None
    genes = np.array(origin.genes, dtype=np.int32)
    return Candidate(origin.sketch_id, genes, origin.predicted, origin.parent, origin.operator or "")
