"""Similar tasks hand their programs on: a policy that also tries what became of the default schedule in other tasks.

A network has many tasks that compute the same thing on other sizes. Where one of them found a program that is clearly faster
than its default schedule, the others try it as well: of each hole the choice that is most like the one taken there (tile
lengths by their ratio), repaired and checked like any program. Each program is handed on once, as part of an ordinary batch.
So are programs that a store of earlier searches has of the same task or a similar one (`ansor_py/measure/database.py`).

    family = [InheritingPolicy(policy, space_of, rng) for policy in policies]
    relate(family)
    family[0].propose(16)             # at most a quarter of them are the relatives' programs
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ansor_py.measure.database import Stored
from ansor_py.schedule.hole import Genes, Hole
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.evolution.mutation import mutate
from ansor_py.search.policies.policy import Policy, RoundState, inform
from ansor_py.search.sampling.candidates import Candidate, Candidates, Observation
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts, repair

OPERATOR, STORED = "relative", "stored"
BATCH_SHARE = 4  # one part in so many of a batch
ATTEMPTS = 32  # the adapted program, and so many less one with another length near it, of which the first valid one is taken
WORTH_TELLING = 0.95  # of the default schedule's seconds, or less


@dataclass(frozen=True)
class Finding:
    """A good program of a task: the name of its sketch, the kinds of its holes and what was chosen for each, and its seconds in
    units of the default schedule's. `trial` is None for one of an earlier search."""

    sketch: str
    kinds: tuple[str, ...]
    choices: tuple[Any, ...]
    trial: int | None
    ratio: float

    @staticmethod
    def of_genes(sketch: Sketch, genes: Sequence[int], trial: int | None, ratio: float) -> Finding:
        """The program of these genes."""
        kinds = tuple(hole.kind for hole in sketch.holes)
        choices = tuple(hole.choices[gene] for hole, gene in zip(sketch.holes, genes, strict=True))
        return Finding(sketch.name, kinds, choices, trial, ratio)

    @staticmethod
    def of_stored(stored: Stored) -> Finding:
        """A program of the store."""
        return Finding(stored.record.origin.sketch or "", stored.kinds, stored.choices, None, stored.ratio)


class InheritingPolicy:
    """A policy whose batches contain the adapted findings of its relatives."""

    def __init__(
        self,
        policy: Policy,
        space_of: Callable[[Sketch], Space],
        rng: np.random.Generator,
        stored: Sequence[Finding] = (),
    ) -> None:
        """`stored` are what earlier searches found, the most promising first."""
        self._policy = policy
        self._space_of = space_of
        self._rng = rng
        self._relatives: Sequence[InheritingPolicy] = ()
        self._first: Observation | None = None
        self._best: Observation | None = None
        self._known: set[tuple[int, tuple[int, ...]]] = set()  # own programs that were observed or handed on to this task
        self._heard: set[tuple[int, int | None]] = set()  # relatives and trials whose programs were adapted
        self._stored = list(stored)

    @property
    def sketches(self) -> Sequence[Sketch]:
        """Those of the policy."""
        return self._policy.sketches

    def begin_round(self, state: RoundState) -> None:
        """Tell the policy."""
        inform(self._policy, state)

    def propose(self, count: int) -> Candidates:
        """At most `count` programs: what the store has, what relatives found since the last batch, greatest gain first, then
        the policy's own."""
        room = count // BATCH_SHARE
        inherited = self._from_store(room)
        inherited += self._inherited(room - len(inherited))
        taken = {_key(candidate) for candidate in inherited}
        own = self._policy.propose(count - len(inherited))
        return [*inherited, *(candidate for candidate in own if _key(candidate) not in taken)]

    def observe(self, observations: Sequence[Observation]) -> None:
        """Note the best program, and tell the policy."""
        for item in observations:
            if item.sketch_id is None:
                continue
            self._known.add((item.sketch_id, tuple(item.genes)))
            if self._first is None or item.trial < self._first.trial:
                self._first = item
            if math.isfinite(item.cost) and (self._best is None or item.cost < self._best.cost):
                self._best = item
        self._policy.observe(observations)

    def finding(self) -> Finding | None:
        """What this task has to tell: a program that is clearly faster than its first one, which is the default schedule."""
        first, best = self._first, self._best
        if first is None or best is None or best.sketch_id is None or not best.cost <= WORTH_TELLING * first.cost < math.inf:
            return None
        return Finding.of_genes(self.sketches[best.sketch_id], best.genes, best.trial, best.cost / first.cost)

    def _from_store(self, count: int) -> list[Candidate]:
        """The next programs of the store, at most `count`."""
        found: list[Candidate] = []
        while self._stored and len(found) < count:
            found += self._new(self._stored.pop(0), STORED)
        return found

    def _inherited(self, count: int) -> list[Candidate]:
        """At most `count` findings that are new to this task."""
        told = [(n, finding) for n, relative in enumerate(self._relatives) if (finding := relative.finding()) is not None]
        found: list[Candidate] = []
        for number, finding in sorted(told, key=lambda item: item[1].ratio):
            if len(found) == count:
                break
            if (number, finding.trial) in self._heard:
                continue
            self._heard.add((number, finding.trial))
            found += self._new(finding, OPERATOR)
        return found

    def _new(self, finding: Finding, operator: str) -> list[Candidate]:
        """The adapted program, if there is one that is new to this task."""
        candidate = self._adapted(finding, operator)
        if candidate is None or _key(candidate) in self._known:
            return []
        self._known.add(_key(candidate))
        return [candidate]

    def _adapted(self, finding: Finding, operator: str) -> Candidate | None:
        """The program of this task that is most like a relative's; None where its sketches have none that is valid."""
        for number, sketch in enumerate(self.sketches):
            genes = adapted_genes(finding, sketch)
            if genes is None:
                continue
            space = self._space_of(sketch)
            rows = np.repeat(genes[None, :], ATTEMPTS, axis=0)
            near = mutate(space, "nearest_choice", rows[1:], self._rng)
            rows = repair(space, rows if near is None else np.concatenate([rows[:1], near]), self._rng)
            valid = np.flatnonzero(accepts(space, rows))
            if len(valid):
                return Candidate(number, rows[valid[0]], parent=finding.trial, operator=operator)
        return None


def _key(candidate: Candidate) -> tuple[int, tuple[int, ...]]:
    return candidate.sketch, tuple(map(int, candidate.genes))


def relate(policies: Sequence[InheritingPolicy]) -> None:
    """Make policies of similar tasks each other's relatives."""
    for policy in policies:
        policy._relatives = [other for other in policies if other is not policy]


def adapted_genes(finding: Finding, sketch: Sketch) -> Genes | None:
    """The genes int32[holes] of a sketch that are most like those of the same sketch of another task; None if it is another."""
    if finding.sketch != sketch.name or finding.kinds != tuple(hole.kind for hole in sketch.holes):
        return None
    pairs = zip(finding.choices, sketch.holes, strict=True)
    return np.array([_most_like(choice, hole) for choice, hole in pairs], dtype=np.int32)


def _most_like(choice: Any, hole: Hole) -> int:
    """The gene whose choice is that of the same hole elsewhere, or nearest by the ratios of its numbers; else the plain one."""
    if choice in hole.choices:
        return hole.choices.index(choice)
    numbers = [np.atleast_1d(item) for item in (choice, *hole.choices)]
    if any(part.dtype.kind not in "iu" or part.shape != numbers[0].shape for part in numbers):
        return hole.plain
    logs = np.log2(np.maximum(np.stack(numbers), 1))
    return int(np.abs(logs[1:] - logs[0]).sum(axis=1).argmin())
