"""Fakes for tests of the tuning loop: a measurer (costs follow from the program), a policy of random rows, a cost model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import FeatureBatch, cost_model
from ansor_py.measure import MeasureInput, Measurer, MeasureResult, Span
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import POLICIES, policy
from ansor_py.search.sampling.candidates import Candidate, Candidates, Observation
from ansor_py.strategy_options import NO_OPTIONS, OptionSet
from ansor_py.target import Target

Behaviour = Callable[[MeasureInput, int], MeasureResult]


def hashed_cost(program: MeasureInput, number: int) -> MeasureResult:
    """A cost between 1 and 2 ms that only depends on the program."""
    text = json.dumps([step.to_json() for step in program.steps])
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    cost = 1e-3 * (1 + share)
    return MeasureResult((cost, cost * 1.01, cost * 1.02), output_checked=True, build=Span(0.0, 0.0, {"llvm": 0.01}))


class FakeMeasurer(Measurer):
    """Answers at once, a few results a poll; counts what it was asked and can be made to interrupt or break the search."""

    def __init__(
        self,
        behaviour: Behaviour = hashed_cost,
        interrupt_after: int | None = None,
        interruption: BaseException | type[BaseException] = KeyboardInterrupt,
    ) -> None:
        self.behaviour = behaviour
        self.interrupt_after = interrupt_after
        self.interruption = interruption
        self.inputs: list[MeasureInput] = []
        self.closed = False
        self._ready: list[tuple[int, MeasureResult]] = []
        self._returned = 0

    def submit(self, batch: Sequence[MeasureInput]) -> list[int]:
        """Answer the batch."""
        first = len(self.inputs)
        self.inputs += batch
        self._ready += [(number, self.behaviour(program, number)) for number, program in enumerate(batch, first)]
        return list(range(first, first + len(batch)))

    def poll(self, timeout: float | None = None) -> list[tuple[int, MeasureResult]]:
        """Three results, out of order; or the interruption, once."""
        if self.interrupt_after is not None and timeout != 0 and self._returned >= self.interrupt_after:
            self.interrupt_after = None
            raise self.interruption
        taken, self._ready = self._ready[:3][::-1], self._ready[3:]
        self._returned += len(taken)
        return taken

    @property
    def outstanding(self) -> int:
        """Results not returned."""
        return len(self._ready)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class CountingPolicy:
    """Proposes random rows of the sketches in turn, never one twice, and asks for their scores."""

    limit = 10**9

    def __init__(
        self,
        sketches: Sequence[Sketch],
        target: Target,
        score: ScoreFunction,
        rng: np.random.Generator,
        options: SearchOptions,
    ) -> None:
        self.sketches = sketches
        self.observed: list[Observation] = []
        self._rng = rng
        self._seen: set[tuple[int, ...]] = set()

    def propose(self, count: int) -> Candidates:
        """Random rows; fewer than asked for when the limit is reached."""
        chosen: list[Candidate] = []
        while len(chosen) < count and len(self._seen) < self.limit:
            number = len(self._seen) % len(self.sketches)
            genes = self._rng.integers(0, self.sketches[number].sizes).astype(np.int32)
            key = (number, *genes.tolist())
            if key not in self._seen:
                self._seen.add(key)
                chosen.append(Candidate(number, genes, predicted=0.5, parent=None, operator="random"))
        return chosen

    def observe(self, observations: Sequence[Observation]) -> None:
        """Measured rows are not proposed again."""
        self.observed += observations
        self._seen.update((o.sketch_id, *o.genes) for o in observations if o.sketch_id is not None)


class EvenModel:
    """Finds all programs equally good and remembers what it was taught."""

    def __init__(self, rng: np.random.Generator, options: OptionSet = NO_OPTIONS) -> None:
        self.costs: list[float] = []
        self.tasks: list[int] = []

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros(len(batch), dtype=np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """Remember costs and tasks."""
        assert len(batch) == len(costs_seconds) == len(task_ids)
        self.costs += costs_seconds.tolist()
        self.tasks += task_ids.tolist()

    def save(self, path: Path) -> None:
        """There is nothing to save."""

    def load(self, path: Path) -> None:
        """There is nothing to load."""


if "counting" not in POLICIES:
    policy("counting")(CountingPolicy)
    cost_model("even")(EvenModel)
