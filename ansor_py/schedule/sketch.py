"""Sketches: transform steps with holes, and populations: a sketch with an integer matrix (design, Idea 1).

A hole (`ansor_py.schedule.hole`) is a decision with a finite, ordered, stored table of choices; a gene is an index into it.
A program is a sketch and one gene for every hole. Sampling, mutation and crossover therefore work on the matrix of a
population; `Sketch.concretise` makes concrete steps of the few programs that are measured.

Where a choice changes the structure of the loops (where a stage is computed, how a reduction is factored), each combination
of structural choices has a template `State`, made once. All other choices are numbers (tile lengths, how many loops run in
parallel, the unroll limit), which a batched analysis takes as arrays.

    sketch.holes[0]                 # TileHole(name='tile C.i', stage='C', choices=((1, 1), (1, 2), ...))
    steps = sketch.concretise([3, 0, 7])
    template = sketch.structure([3, 0, 7])   # cached by the structural genes alone
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ScheduleError, plug_in
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.hole import Genes as Genes
from ansor_py.schedule.hole import Hole, StageValue
from ansor_py.schedule.state import Gene, Length, Product, State
from ansor_py.schedule.steps import Split, Step


@dataclass(frozen=True)
class Alternatives:
    """The steps that a hole's choice stands for are inserted here."""

    hole: int


@dataclass(frozen=True, eq=False)
class Sketch:
    """Transform steps in which lengths may be genes and some steps are alternatives, and the holes these refer to."""

    name: str
    dag: ComputeDAG
    steps: tuple[Step | Alternatives, ...]
    holes: tuple[Hole, ...]

    def __post_init__(self) -> None:
        for item in self.steps:
            if isinstance(item, Alternatives) and not 0 <= item.hole < len(self.holes):
                raise ScheduleError(f"sketch '{self.name}' has alternatives of hole {item.hole}, and {len(self.holes)} holes")

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of choices of every hole."""
        return np.array([len(hole.choices) for hole in self.holes], dtype=np.int64)

    @cached_property
    def structural(self) -> NDArray[np.int64]:
        """Columns of the holes whose choices are steps and not mere values: they choose the template."""
        columns = {item.hole for item in self.steps if isinstance(item, Alternatives)}
        return np.array(sorted(c for c in columns if self.holes[c].sets is None), dtype=np.int64)

    @cached_property
    def structure_rows(self) -> Genes:
        """A row for every combination of structural choices, in the order of their keys; other genes are 0."""
        combinations = list(itertools.product(*map(range, self.sizes[self.structural])))
        rows = np.zeros((len(combinations), len(self.holes)), dtype=np.int32)
        rows[:, self.structural] = np.array(combinations, dtype=np.int32).reshape(len(rows), -1)
        return rows

    def structure_keys(self, genes: Genes) -> NDArray[np.int64]:
        """The structural genes of every row as one number."""
        key = np.zeros(len(genes), dtype=np.int64)
        for column in self.structural:
            key = key * self.sizes[column] + genes[:, column]
        return key

    @cached_property
    def templates(self) -> tuple[State | None, ...]:
        """The template of every structure key; None where its steps cannot be applied."""
        found: list[State | None] = []
        for row in self.structure_rows:
            try:
                found.append(self.structure(row))
            except ScheduleError:
                found.append(None)
        return tuple(found)

    def stage_values(self, value: StageValue, genes: Genes) -> dict[str, NDArray[np.int64]]:
        """What holes set of their stages: int64[programs] by stage."""
        holes = enumerate(self.holes)
        return {hole.stage: hole.table[genes[:, column], 0] for column, hole in holes if hole.sets == value}

    def concretise(self, row: Sequence[int] | NDArray[Any]) -> tuple[Step, ...]:
        """The concrete steps of one program."""
        if len(row) != len(self.holes):
            raise ScheduleError(f"sketch '{self.name}' has {len(self.holes)} holes but {len(row)} genes were given")
        return tuple(resolve_step(item, self.holes, row) for item in self._chosen(row, values=True))

    def structure(self, row: Sequence[int] | NDArray[Any]) -> State:
        """The template state of the row's structural choices: lengths are genes, parallel and unroll not applied. Cached."""
        key = tuple(int(row[column]) for column in self.structural)
        if key not in self._templates:
            self._templates[key] = State.initial(self.dag).replay(self._chosen(row, values=False))
        return self._templates[key]

    @cached_property
    def _templates(self) -> dict[tuple[int, ...], State]:
        return {}

    def _chosen(self, row: Sequence[int] | NDArray[Any], values: bool) -> list[Step]:
        chosen: list[Step] = []
        for item in self.steps:
            if isinstance(item, Step):
                chosen.append(item)
            elif values or self.holes[item.hole].sets is None:
                hole = self.holes[item.hole]
                with plug_in(hole.title, ScheduleError):
                    chosen.extend(hole.steps(hole.choices[int(row[item.hole])]))
        return chosen


@dataclass(frozen=True, eq=False)
class Population:
    """Programs of one sketch: `genes` is int32[programs, holes]."""

    sketch: Sketch
    genes: Genes

    def __len__(self) -> int:
        return len(self.genes)

    def groups(self) -> list[tuple[State, NDArray[np.int64]]]:
        """The templates that occur and, for each, the rows of its programs."""
        columns = self.sketch.structural
        if not len(self.genes):
            return []
        if not len(columns):
            return [(self.sketch.structure(self.genes[0]), np.arange(len(self.genes)))]
        _, first, group = np.unique(self.genes[:, columns], axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
        return [(self.sketch.structure(self.genes[row]), np.flatnonzero(group == g)) for g, row in enumerate(first)]


def resolve_step(step: Step, holes: Sequence[Hole], row: Sequence[int] | NDArray[Any]) -> Step:
    """The step with every open length replaced by its number."""
    if isinstance(step, Split):
        return replace(step, lengths=tuple(int(length_values(length, holes, np.asarray(row))) for length in step.lengths))
    return step


def length_values(length: Length, holes: Sequence[Hole], genes: NDArray[Any]) -> int | NDArray[np.int64]:
    """A length over a population: int64[programs], or an int where it is the same for all. A row of genes gives one number."""
    if isinstance(length, int):
        return length
    if isinstance(length, Gene):
        return np.asarray(holes[length.hole].table[genes[..., length.hole], length.part])
    assert isinstance(length, Product)
    product: int | NDArray[np.int64] = 1
    for factor in length.factors:
        product = product * length_values(factor, holes, genes)
    return product
