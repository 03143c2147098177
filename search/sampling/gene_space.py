"""The programs of a task as named integers: what searchers of other kinds are given, and the way back.

A program is a sketch and a whole number for every hole of it. Names are those of the holes; lengths are ordinal (their choices
ascend), what changes the structure is categorical. Any integers can be projected to the nearest valid program.

    space = GeneSpace([Space(sketch, target, options) for sketch in sketches])
    space.parameters(0)                         # name, choices, ordinal or categorical
    named = space.encode(0, genes)              # {"sketch": "tile(C)", "tile C.i": 3, ...}
    sketch, genes = space.decode(named)
    space.project(0, rows), space.valid(0, rows), space.neighbours(0, genes)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError
from ansor_py.schedule.hole import Hole, Mask
from ansor_py.schedule.sketch import Genes, Sketch
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.projection import Projection
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts, repair

SKETCH = "sketch"  # the name under which the sketch stands


@dataclass(frozen=True)
class Parameter:
    """One named integer from 0 to `size - 1`: `choices` are what it stands for, which ascend if it is `ordinal`."""

    name: str
    choices: tuple[str, ...]
    ordinal: bool

    @property
    def size(self) -> int:
        """The number of choices."""
        return len(self.choices)

    @staticmethod
    def of_hole(hole: Hole) -> Parameter:
        """The decision of a hole."""
        return Parameter(hole.name, tuple(map(str, hole.choices)), _ascends(hole.choices))


def _ascends(choices: Sequence[Any]) -> bool:
    """Whether the choices are single numbers in ascending order."""
    numbers = [choice[0] if isinstance(choice, tuple) and len(choice) == 1 else choice for choice in choices]
    return all(isinstance(number, int | float) for number in numbers) and numbers == sorted(set(numbers))


class GeneSpace:
    """The programs of some sketches of one task, as integers with names. Raises OptionError for integers that make no sense."""

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.spaces = tuple(spaces)
        self.sketches: tuple[Sketch, ...] = tuple(space.sketch for space in self.spaces)
        self._projections = tuple(map(Projection, self.spaces))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the sketches, with a number behind where several have the same."""
        return _distinct([sketch.name for sketch in self.sketches])

    def parameters(self, sketch: int) -> tuple[Parameter, ...]:
        """The integers of a sketch, in the order of its genes."""
        return self._parameters[sketch]

    @cached_property
    def _parameters(self) -> tuple[tuple[Parameter, ...], ...]:
        found = []
        for sketch in self.sketches:
            plain = [Parameter.of_hole(hole) for hole in sketch.holes]
            names = _distinct([item.name for item in plain])
            found.append(tuple(Parameter(name, p.choices, p.ordinal) for name, p in zip(names, plain, strict=True)))
        return tuple(found)

    def encode(self, sketch: int, genes: Sequence[int] | Genes) -> dict[str, str | int]:
        """A program as names and integers; the sketch by its name."""
        values = zip(self.parameters(sketch), np.asarray(genes).tolist(), strict=True)
        return {SKETCH: self.names[sketch], **{parameter.name: value for parameter, value in values}}

    def decode(self, named: Mapping[str, Any]) -> Candidate:
        """The program of names and integers, valid or not. Raises OptionError that names what is unknown or missing."""
        given = dict(named)
        title = given.pop(SKETCH, None)
        if title not in self.names:
            raise OptionError(f"sketch {title!r:.60}: there is none of that name; known are {', '.join(self.names)}")
        number = self.names.index(str(title))
        parameters = self.parameters(number)
        if unknown := sorted(set(given) - {parameter.name for parameter in parameters}):
            raise OptionError(f"sketch '{title}' has no '{unknown[0]}'; it has {', '.join(p.name for p in parameters)}")
        genes = []
        for parameter in parameters:
            value = given.get(parameter.name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < parameter.size:
                what = "is missing" if parameter.name not in given else f"is {value!r:.40}"
                raise OptionError(f"'{parameter.name}' {what}; give a whole number from 0 to {parameter.size - 1}")
            genes.append(int(value))
        return Candidate(number, np.array(genes, dtype=np.int32))

    def valid(self, sketch: int, rows: Genes) -> Mask:
        """Which rows are programs worth measuring, bool[n]; genes out of range are none."""
        inside = np.all((rows >= 0) & (rows < self.sketches[sketch].sizes), axis=1)
        fits = np.zeros(len(rows), dtype=np.bool_)
        fits[inside] = accepts(self.spaces[sketch], rows[inside])
        return fits

    def project(self, sketch: int, rows: Genes) -> Genes:
        """The nearest valid rows, int32[n, holes]. Raises NoSpaceError for a sketch without valid programs."""
        return self._projections[sketch](rows)

    def distances(self, sketch: int, rows: Genes, others: Genes) -> NDArray[np.float64]:
        """How far rows are from others of the same number, float64[n]: of every hole 0 to 1, summed."""
        return self._projections[sketch].distances(rows, others)

    def neighbours(self, sketch: int, genes: Genes, reach: int = 2) -> Genes:
        """The valid rows that differ from one in one decision (and in what has to agree with it), int32[n, holes].

        `reach` is how many of the nearest choices of each hole are tried.
        """
        space = self.spaces[sketch]
        rows = []
        for column, hole in enumerate(space.sketch.holes):
            near = hole.neighbours(reach)[genes[column]]
            moved = np.repeat(genes[None, :], len(near), axis=0)
            moved[:, column] = near
            rows.append(moved)
        moved = np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.int32)
        moved = repair(space, moved, np.random.default_rng(0)) if len(moved) else moved
        different = moved[np.any(moved != genes, axis=1)] if len(moved) else moved
        return np.asarray(np.unique(different[accepts(space, different)], axis=0) if len(different) else different)

    def sample(self, count: int, rng: np.random.Generator) -> list[Candidate]:
        """Random valid programs, an equal share of every sketch and each once; fewer than `count` if there are few."""
        share = -(-count // len(self.sketches))
        found: list[Candidate] = []
        for number, space in enumerate(self.spaces):
            rows = np.unique(sample(space, share, rng), axis=0)
            found += [Candidate(number, row) for row in rows]
        return [found[place] for place in rng.permutation(len(found))[:count]]

    @property
    def dimensions(self) -> int:
        """The length of a point: the sketch, and one number for each hole of the largest one."""
        return 1 + max((len(sketch.holes) for sketch in self.sketches), default=0)

    def point(self, sketch: int, genes: Sequence[int] | Genes) -> NDArray[np.float64]:
        """A program as a point of the unit cube, for searchers that know nothing else: the middle of what `at_point` takes for
        it; 1/2 for holes that the sketch does not have."""
        place = np.full(self.dimensions, 0.5)
        place[0] = (sketch + 0.5) / len(self.sketches)
        sizes = self.sketches[sketch].sizes
        place[1 : 1 + len(sizes)] = (np.asarray(genes) + 0.5) / sizes
        return place

    def at_point(self, place: NDArray[np.float64]) -> Candidate:
        """The nearest valid program to the one at a point of the unit cube. Raises NoSpaceError as `project` does."""
        inside = np.clip(place, 0.0, 1.0 - 1e-9)
        sketch = int(inside[0] * len(self.sketches))
        sizes = self.sketches[sketch].sizes
        genes = (inside[1 : 1 + len(sizes)] * sizes).astype(np.int32)
        return Candidate(sketch, self.project(sketch, genes[None, :])[0])

    def description(self) -> list[dict[str, Any]]:
        """What a program of another language has to know, as JSON has it: for each sketch its name and parameters."""
        return [
            {
                SKETCH: name,
                "parameters": [
                    {"name": p.name, "size": p.size, "choices": list(p.choices), "ordinal": p.ordinal}
                    for p in self.parameters(number)
                ],
            }
            for number, name in enumerate(self.names)
        ]


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number behind those that were there before."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return tuple(found)
