"""What a cost model may know of the programs of a batch beside their features: task, sketch, genes and transform steps.

A model that says `needs = ("features", "programs")` finds them in `batch.programs`, a sequence. What is kept is the
populations and two arrays, so that choosing and joining batches is work on arrays; steps are made of a sketch and a row of
genes when they are asked for, which costs some 0.2 ms a program.

    batch.programs[3].steps                    # the concrete transform steps of the fourth program
    batch.programs[3].task.target.vector_bytes
    for places, task, population in batch.programs.groups():
        scores[places] = my_score(task, population.sketch, population.genes)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.hole import Genes
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.steps import Step
from ansor_py.schedule.task import Task


@dataclass(frozen=True, eq=False)
class BatchProgram:
    """One program: `sketch` with `genes` int32[holes], for a task. A program that no sketch gives is a sketch without holes."""

    task: Task
    sketch: Sketch
    genes: Genes

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The concrete transform steps; they apply to `task.dag`."""
        return self.sketch.concretise(self.genes)

    @cached_property
    def steps_json(self) -> list[list[Any]]:
        """The steps as records hold them: lists of names and numbers."""
        return [step.to_json() for step in self.steps]


class Programs(Sequence[BatchProgram]):
    """Programs in order: program p is row `rows[p]` of the population of `parts[part_of[p]]`."""

    def __init__(self, parts: Sequence[tuple[Task, Population]], part_of: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self._parts = tuple(parts)
        self._part_of = part_of
        self._rows = rows

    @staticmethod
    def of_population(task: Task, population: Population) -> Programs:
        """All programs of a population."""
        count = len(population)
        return Programs([(task, population)], np.zeros(count, dtype=np.int64), np.arange(count))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> BatchProgram: ...
    @overload
    def __getitem__(self, place: slice) -> Programs: ...
    def __getitem__(self, place: int | slice) -> BatchProgram | Programs:
        if isinstance(place, slice):
            return Programs(self._parts, self._part_of[place], self._rows[place])
        task, population = self._parts[self._part_of[place]]
        return BatchProgram(task, population.sketch, population.genes[self._rows[place]])

    def groups(self) -> Iterator[tuple[NDArray[np.int64], Task, Population]]:
        """The programs of one task and sketch each as a population, with their places int64[programs] in the batch."""
        for number, (task, population) in enumerate(self._parts):
            places = np.flatnonzero(self._part_of == number)
            if len(places):
                yield places, task, Population(population.sketch, population.genes[self._rows[places]])

    def select(self, places: NDArray[np.int64]) -> Programs:
        """Some of the programs, in the given order."""
        return Programs(self._parts, self._part_of[places], self._rows[places])

    @staticmethod
    def concatenate(batches: Sequence[Programs]) -> Programs:
        """All programs, in order."""
        firsts = np.cumsum([0, *(len(batch._parts) for batch in batches)])
        return Programs(
            [part for batch in batches for part in batch._parts],
            np.concatenate([batch._part_of + first for batch, first in zip(batches, firsts, strict=False)]),
            np.concatenate([batch._rows for batch in batches]),
        )
