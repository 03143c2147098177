"""Sketches: transform steps with holes, and populations: a sketch with an integer matrix (design, Idea 1).

A hole is a decision with a finite, ordered, stored table of choices; a gene is an index into it. A program is a
sketch and one gene for every hole. Sampling, mutation and crossover therefore work on the matrix of a population;
`Sketch.concretise` makes concrete steps of the few programs that are measured.

Two kinds of holes are told apart. Where a choice changes the structure of the loops (where a stage is computed, how a
reduction is factored), the sketch has `Alternatives`; each combination of structural choices has a template `State`,
made once. All other choices are numbers (tile lengths, how many loops run in parallel, the unroll limit), which a
batched analysis takes as arrays.

    sketch.holes[0]                 # Hole(name='tile C.i', kind='tile', stage='C', choices=((1, 1), (1, 2), ...))
    steps = sketch.concretise([3, 0, 7])
    template = sketch.structure([3, 0, 7])   # cached by the structural genes alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ScheduleError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import Gene, Length, Product, State
from ansor_py.schedule.steps import Split, Step

HoleKind = Literal["tile", "register_tile", "location", "rfactor", "parallel", "unroll", "vectorize"]
# Choices that are masks or values over the loops of a template, not a different template.
VALUE_KINDS: tuple[HoleKind, ...] = ("parallel", "unroll")

Genes = NDArray[np.int32]


@dataclass(frozen=True)
class Hole:
    """One decision.

    The meaning of `choices` goes with the kind: `tile` and `register_tile` a tuple of lengths each (read by part number
    through `Gene`); `parallel` the number of outermost loops that run in parallel (0: none); `unroll` the limit in
    emitted instructions; `location` a pair (stage, iterator) or None for root; `rfactor` the factor (0: none). Raises
    ScheduleError for an unknown kind and where there is nothing to choose.
    """

    name: str
    kind: HoleKind
    stage: str
    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(HoleKind):
            raise ScheduleError(f"hole '{self.name}' is of kind {self.kind!r:.40}; known are {', '.join(get_args(HoleKind))}")
        if not isinstance(self.choices, tuple) or not self.choices:
            raise ScheduleError(f"hole '{self.name}' has the choices {self.choices!r:.40}; it needs a tuple of at least one")

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """The choices as numbers, [choices, parts]; only for holes whose choices are numbers or tuples of numbers."""
        return np.array([choice if isinstance(choice, tuple) else (choice,) for choice in self.choices], dtype=np.int64)


@dataclass(frozen=True)
class Alternatives:
    """Steps that depend on a hole: `steps_of_choice[gene]` are inserted here."""

    hole: int
    steps_of_choice: tuple[tuple[Step, ...], ...]


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
            if isinstance(item, Alternatives) and len(item.steps_of_choice) != len(self.holes[item.hole].choices):
                raise ScheduleError(
                    f"sketch '{self.name}': hole '{self.holes[item.hole].name}' has {len(self.holes[item.hole].choices)} "
                    f"choices but {len(item.steps_of_choice)} alternatives"
                )

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of choices of every hole."""
        return np.array([len(hole.choices) for hole in self.holes], dtype=np.int64)

    @cached_property
    def structural(self) -> NDArray[np.int64]:
        """Columns of the holes that have alternatives and are not mere values: they choose the template."""
        columns = {item.hole for item in self.steps if isinstance(item, Alternatives)}
        return np.array(sorted(c for c in columns if self.holes[c].kind not in VALUE_KINDS), dtype=np.int64)

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
            elif values or self.holes[item.hole].kind not in VALUE_KINDS:
                chosen.extend(item.steps_of_choice[int(row[item.hole])])
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
