"""What a statement's indices touch: its accesses as tables of numbers, and the native loops that work on them.

An index is an affine value of loop variables and of atoms (`//`, `%`, clamp) of other values. The tables say for all values
of a statement what they are made of, and hold the numbers of each program; then one program after the other is a few plain
loops over values, buffers, dimensions and depths. docs/features.md has the definitions ("width of an index", "footprint",
"stride").

    numbers = ProgramNumbers()
    table = IndexTable(uses, loops, numbers)
    touched = table.touched(numbers.array(slice(0, 100)), footprint, touched_bytes)
    touched.strides[b, l], footprint[b, d]       # of each program
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ansor_py.cost_model.native_loops import Floats, Integers, native
from ansor_py.lower.affine import Affine, Atom, Number
from ansor_py.lower.bounds import LoopBounds

AccessKind = Literal["read", "write", "read-write"]


@dataclass(frozen=True, eq=False)
class BufferUse:
    """A buffer that a statement reads or stores. `fixed` are the loops around its allocation: they never move the access."""

    name: str
    element_bytes: int
    kind: AccessKind
    accesses: tuple[tuple[Affine | None, ...], ...]
    shape: tuple[Number, ...]
    fixed: frozenset[str]


class Touched(NamedTuple):
    """What programs touch, beside footprint and bytes: the arrays of these names in `StatementArrays`."""

    extents: Floats
    inner: Floats
    strides: Floats
    runs: Floats
    neighbours: Floats
    pitches: Floats
    stored: Floats  # [n] elements of the stored buffer


# What a value's terms are, in the second column of the table of terms.
LOOP, QUOTIENT, REMAINDER, CLAMP = range(4)
_ATOMS = {"floordiv": QUOTIENT, "mod": REMAINDER, "clamp": CLAMP}
CONSTANT, NOT_AFFINE = 0, -1  # the value of an index without terms; what stands for an index that is no such value


class ProgramNumbers:
    """Numbers of programs as rows of one array; row 0 holds ones, and a number that is used several times is one row."""

    def __init__(self) -> None:
        self._values: list[Number] = [1]
        self._rows: dict[tuple[str, int], int] = {("int", 1): 0}

    def row(self, value: Number) -> int:
        """The row of a number; an int is that of all programs."""
        key = ("int", value) if isinstance(value, int) else ("array", id(value))
        if key not in self._rows:
            self._rows[key] = len(self._values)
            self._values.append(value)
        return self._rows[key]

    def array(self, chunk: slice) -> Floats:
        """float64[rows, n] of a slice of the programs."""
        found = np.empty((len(self._values), chunk.stop - chunk.start))
        for row, value in enumerate(self._values):
            found[row] = value if isinstance(value, int) else value[chunk]
        return found


class IndexTable:
    """The accesses of a statement in numbers. Values are numbered from 1, those inside the atoms of another one before it."""

    def __init__(self, uses: Sequence[BufferUse], loops: Sequence[LoopBounds], numbers: ProgramNumbers) -> None:
        self._numbers = numbers
        self._positions = {loop.variable: position for position, loop in enumerate(loops)}
        self._known: dict[tuple[int, frozenset[str]], int] = {}
        self._values = 0
        self._terms: list[tuple[int, int, int, int, int]] = []  # value, kind, loop or value inside, coefficient, divisor
        self._rank = max(1, *(len(use.shape) for use in uses))
        indices: list[list[int]] = []  # of each access and dimension the value
        constants: list[list[int]] = []  # and its constant, where several accesses are apart
        starts = [0]
        for use in uses:
            for access in use.accesses:
                indices.append(self._padded([self._value(index, use.fixed) for index in access], CONSTANT))
                apart = [0 if index is None or len(use.accesses) == 1 else numbers.row(index.constant) for index in access]
                constants.append(self._padded(apart, 0))
            starts.append(len(indices))
        # Buffers of fewer dimensions have leading ones of size 1.
        sizes = [self._padded([numbers.row(size) for size in use.shape], 0) for use in uses]
        self._extents = np.array([numbers.row(loop.extent) for loop in loops], dtype=np.int64)
        self._term_table = np.array(self._terms, dtype=np.int64).reshape(-1, 5)
        self._starts, self._indices = np.array(starts), np.array(indices)
        self._constants, self._sizes = np.array(constants), np.array(sizes)
        self._element_bytes = np.array([float(use.element_bytes) for use in uses])

    def touched(self, numbers: Floats, footprint: Floats, touched_bytes: Floats) -> Touched:
        """Fill `footprint` [B, D, n] and `touched_bytes` [D, n] and give the rest; `numbers` is the array of those."""
        buffers, depths, programs = footprint.shape
        found = Touched(
            extents=np.empty((depths - 1, programs)),
            inner=np.empty((depths, programs)),
            strides=np.empty((buffers, depths - 1, programs)),
            runs=np.empty(footprint.shape),
            neighbours=np.empty(footprint.shape),
            pitches=np.empty((2, *footprint.shape)),
            stored=np.empty(programs),
        )
        tables = self._extents, self._term_table, self._starts, self._indices, self._constants, self._sizes, self._element_bytes
        _touch(numbers, self._values, *tables, footprint, touched_bytes, *found)
        return found

    def _padded(self, row: list[int], filling: int) -> list[int]:
        return [filling] * (self._rank - len(row)) + row

    def _value(self, index: Affine | None, fixed: frozenset[str]) -> int:
        """The number of a value in which some loops stand still."""
        if index is None:
            return NOT_AFFINE
        if not index.terms:
            return CONSTANT
        key = (id(index), fixed)
        if key not in self._known:
            terms: list[tuple[int, int, int, int]] = []
            for term, coefficient in index.terms:
                if isinstance(term, Atom):
                    inside, divisor = self._value(term.value, fixed), self._numbers.row(term.divisor)
                    terms.append((_ATOMS[term.kind], inside, self._numbers.row(coefficient), divisor))
                elif term in self._positions and term not in fixed:
                    terms.append((LOOP, self._positions[term], self._numbers.row(coefficient), 0))
            self._known[key] = self._values = self._values + 1
            self._terms.extend((self._values, *term) for term in terms)
        return self._known[key]


@native
def _touch(
    numbers: Floats,
    values: int,
    extent_rows: Integers,
    terms: Integers,
    starts: Integers,
    indices: Integers,
    constants: Integers,
    sizes: Integers,
    element_bytes: Floats,
    footprint: Floats,
    touched_bytes: Floats,
    extents: Floats,
    inner: Floats,
    strides: Floats,
    runs: Floats,
    neighbours: Floats,
    pitches: Floats,
    stored: Floats,
) -> None:
    levels, programs = extents.shape
    buffers, rank = sizes.shape
    growth = np.zeros((values + 1, levels))  # of a value, a step of each loop
    widths = np.ones((values + 1, levels + 1))  # how many consecutive numbers a value takes inside each depth
    steps, size = np.ones(rank), np.ones(rank)
    least, stride, width = np.empty(levels), np.empty(levels), np.empty(levels + 1)
    # Of a buffer inside each depth: elements, consecutive ones, their neighbours, the pitches, whether dimensions are whole.
    elements, run, neighbour = np.empty(levels + 1), np.empty(levels + 1), np.empty(levels + 1)
    near, far, whole = np.empty(levels + 1), np.empty(levels + 1), np.empty(levels + 1, dtype=np.bool_)
    for program in range(programs):
        inner[levels, program] = 1.0
        for level in range(levels - 1, -1, -1):
            extents[level, program] = numbers[extent_rows[level], program]
            inner[level, program] = inner[level + 1, program] * extents[level, program]
        first = 0
        for value in range(1, values + 1):
            for level in range(levels):
                growth[value, level] = 0.0
            end = first
            while end < len(terms) and terms[end, 0] == value:
                if terms[end, 1] == LOOP:
                    growth[value, terms[end, 2]] = numbers[terms[end, 3], program]
                end += 1
            widths[value, levels] = 1.0
            for level in range(levels - 1, -1, -1):
                reach = abs(growth[value, level]) * (extents[level, program] - 1.0)
                widths[value, level] = widths[value, level + 1] + reach
            for term in range(first, end):
                kind, inside, coefficient = terms[term, 1], terms[term, 2], numbers[terms[term, 3], program]
                if kind == LOOP:
                    continue
                divisor = numbers[terms[term, 4], program]
                for depth in range(levels + 1):
                    reach = widths[inside, depth]
                    if kind == QUOTIENT:
                        # Whole numbers: a remainder by way of `floor` is exact, and far cheaper than `%` of floats.
                        straddles = (
                            np.floor(reach / divisor) * divisor != reach and np.floor(divisor / reach) * reach != divisor
                        )
                        reach = np.ceil(reach / divisor) + (1.0 if straddles else 0.0)
                    else:
                        reach = min(reach, divisor if kind == REMAINDER else divisor + 1.0)
                    widths[value, depth] += (reach - 1.0) * abs(coefficient)
                for level in range(levels):
                    grown = growth[inside, level]
                    growth[value, level] += coefficient * (np.floor(grown / divisor) if kind == QUOTIENT else grown)
            first = end
        for depth in range(levels + 1):
            touched_bytes[depth, program] = 0.0
        for buffer in range(buffers):
            begin, stop = starts[buffer], starts[buffer + 1]
            for dimension in range(rank - 1, -1, -1):
                size[dimension] = numbers[sizes[buffer, dimension], program]
                steps[dimension] = steps[dimension + 1] * size[dimension + 1] if dimension + 1 < rank else 1.0
            if buffer == 0:
                stored[program] = steps[0] * size[0]
            for level in range(levels):
                least[level] = np.inf
            for access in range(begin, stop):
                for level in range(levels):
                    stride[level] = 0.0
                for dimension in range(rank):
                    index, step = indices[access, dimension], steps[dimension]
                    if index > CONSTANT:
                        for level in range(levels):
                            stride[level] += growth[index, level] * step
                for level in range(levels):
                    least[level] = min(least[level], abs(stride[level]))
            for level in range(levels):
                strides[buffer, level, program] = least[level]
            for depth in range(levels + 1):
                elements[depth], run[depth], neighbour[depth] = 1.0, 1.0, 1.0
                near[depth], far[depth], whole[depth] = 0.0, 0.0, True
            for dimension in range(rank - 1, -1, -1):
                low, high = np.inf, -np.inf
                for depth in range(levels + 1):
                    width[depth] = 1.0
                for access in range(begin, stop):
                    index = indices[access, dimension]
                    if index == NOT_AFFINE:  # the whole dimension wherever a loop runs
                        for depth in range(levels):
                            width[depth] = max(width[depth], size[dimension])
                        continue
                    for depth in range(levels + 1):
                        width[depth] = max(width[depth], widths[index, depth])
                    if stop - begin > 1:
                        constant = numbers[constants[access, dimension], program]
                        low, high = min(low, constant), max(high, constant)
                apart = max(high - low, 0.0)
                for depth in range(levels + 1):
                    count = min(width[depth] + apart, size[dimension])
                    elements[depth] *= count
                    # A dimension prolongs the run if all dimensions to its right are touched as a whole.
                    if whole[depth]:
                        run[depth] *= count
                    elif count > 1.0 and near[depth] == 0.0:
                        neighbour[depth], near[depth] = count, steps[dimension]
                    elif count > 1.0 and far[depth] == 0.0:
                        far[depth] = steps[dimension]
                    whole[depth] = whole[depth] and count == size[dimension]
            for depth in range(levels + 1):
                footprint[buffer, depth, program] = elements[depth]
                runs[buffer, depth, program] = run[depth]
                neighbours[buffer, depth, program] = neighbour[depth]
                pitches[0, buffer, depth, program] = near[depth]
                pitches[1, buffer, depth, program] = far[depth]
                touched_bytes[depth, program] += elements[depth] * element_bytes[buffer]
