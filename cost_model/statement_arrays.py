"""One statement over a population: loop extents, index coefficients and footprints as dense arrays.

This is where the loop nest of a template becomes numbers (design, Idea 2). Axis names below: L loops that enclose the
statement, outermost first; D = L + 1 depths, where depth d means that the d outermost loops stand still and the others
run; B buffers (the stored one first); n programs. All arrays are float64, exact for integers up to 2**53.

    bounds = infer_bounds(template, sketch.holes, genes)
    arrays = [statement_arrays(...) for each stage]          # see features.py, which also links them
    arrays[0].footprint[b, d]                                # elements of buffer b touched inside depth d
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.operation_counts import OperationCounts, count_operations
from ansor_py.lower.affine import Affine, Atom, Number, from_expr
from ansor_py.lower.bounds import Bounds, LoopBounds, StageBounds
from ansor_py.lower.register_tile import StageTile
from ansor_py.schedule.state import Annotation, State
from ansor_py.target import Target
from ansor_py.te.expr import DTYPE_BYTES, Reduce
from ansor_py.te.tensor import Tensor

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
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


# Fields with one entry a program, along their last axis.
PROGRAM_ARRAYS = (
    *("extents", "inner", "strides", "footprint", "runs", "neighbours", "pitches", "parallel", "unroll_limit", "allocated"),
    *("body_bytes", "sharers", "shared_footprint"),
)


@dataclass(eq=False)
class StatementArrays:
    """What the feature groups read. The last fields depend on the other statements; `features.link` fills them.

    Programs may be of several structures, where the statement has the same `form`; then `bounds` and the extents in `loops` and
    `buffers` are those of the first, so that numbers are to be taken from the arrays.
    """

    bounds: StageBounds
    tile: StageTile
    loops: tuple[LoopBounds, ...]
    programs: int
    extents: Floats  # [L, n]
    inner: Floats  # [D, n] iterations of the loops that run at a depth
    buffers: tuple[BufferUse, ...]
    strides: Floats  # [B, L, n] elements between consecutive iterations of a loop
    footprint: Floats  # [B, D, n] elements touched inside a depth
    runs: Floats  # [B, D, n] consecutive elements touched inside a depth
    neighbours: Floats  # [B, D, n] such runs along the next dimension
    pitches: Floats  # [2, B, D, n] elements from one of them to the next, and between what they make up; 0 where there is one
    parallel: Flags  # [L, n]
    unroll_limit: Floats  # [n]
    operations: OperationCounts
    allocated: Floats | None  # [n] elements of the stored buffer if it is a temporary
    allocation_depth: int  # number of loops around the allocation, those of other stages
    work: int  # iterations of the definition: all axes at full extent
    prepacked: bool  # computed from constants alone, once and not in every call
    body_bytes: Floats = field(default_factory=lambda: np.empty(0))  # [D, n] touched by all statements inside a depth
    sharers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # [B, D, n] statements using a buffer
    shared_footprint: Floats = field(default_factory=lambda: np.empty(0))  # [B, D, n] least elements that one of them touches
    company: int = 0  # number of outer loops that run around other statements, too
    kept: dict[str, Floats] = field(default_factory=dict)  # what several groups read and is computed once

    @property
    def form(self) -> Hashable:
        """Equal for statements that differ in nothing but numbers, so that they can be worked on together."""
        loops = tuple((loop.variable, loop.kind, loop.annotation) for loop in self.loops)
        buffers = tuple((use.name, use.kind) for use in self.buffers)
        body = (self.operations, isinstance(self.bounds.body, Reduce), self.work, self.prepacked, self.company)
        return loops, self.tile, buffers, body, self.allocation_depth, self.allocated is None

    @cached_property
    def everyone(self) -> NDArray[np.int64]:
        """The numbers of the programs, int64[n], as an index."""
        return np.arange(self.programs)

    @cached_property
    def annotated(self) -> dict[Annotation, list[int]]:
        """Positions of the loops by the annotation that they carry in every program."""
        found: dict[Annotation, list[int]] = {"none": [], "vectorize": [], "unroll": [], "parallel": []}
        for position, loop in enumerate(self.loops):
            found[loop.annotation].append(position)
        return found

    @property
    def tile_depth(self) -> int:
        """The depth inside which the register tile runs."""
        return len(self.bounds.enclosing) + self.tile.first

    @cached_property
    def reduction_depth(self) -> int | None:
        """The same; None if the statement does not reduce in a loop of its own."""
        reduces = isinstance(self.bounds.body, Reduce) and any(loop.kind == "reduction" for loop in self.bounds.loops)
        return self.tile_depth if reduces else None

    @property
    def reduction_loops(self) -> list[int]:
        """Positions of the reduction loops right around the tile, innermost first."""
        first = len(self.bounds.enclosing)
        return [first + position for position in self.tile.reduction_loops(self.bounds)]

    def tile_registers(self, target: Target) -> Floats:
        """Vector registers [n] that the tile takes."""
        own = self.extents[len(self.bounds.enclosing) :].astype(np.int64)
        extents = {loop.name: extent for loop, extent in zip(self.bounds.loops, own, strict=True)}
        rows, vectors, is_partial = map(
            np.asarray, (self.tile.rows(extents), self.tile.vectors(extents), self.tile.is_partial(extents))
        )
        return np.asarray(self.tile.kernel.registers(rows, vectors, is_partial, target), dtype=np.float64)


def joined(statements: Sequence[StatementArrays]) -> StatementArrays:
    """Statements of one form, of different programs, as one."""
    first = statements[0]
    if len(statements) == 1:
        return first
    whole = replace(first, programs=sum(item.programs for item in statements), kept={})
    for name in PROGRAM_ARRAYS:
        if getattr(first, name) is not None:
            setattr(whole, name, np.concatenate([getattr(item, name) for item in statements], axis=-1))
    return whole


def innermost(mask: Flags) -> NDArray[np.int64]:
    """The largest index along axis -2 whose flag is set; -1 if none is."""
    levels = np.arange(1, mask.shape[-2] + 1, dtype=np.int8)[:, None]
    return np.asarray((mask * levels).max(axis=-2, initial=0), dtype=np.int64) - 1


def parallel_chunks(statement: StatementArrays) -> Floats:
    """Iterations [n] of the parallel loops together."""
    if "chunks" not in statement.kept:
        statement.kept["chunks"] = np.where(statement.parallel, statement.extents, 1.0).prod(axis=0)
    return statement.kept["chunks"]


def buffer_shapes(state: State, bounds: Bounds) -> dict[str, tuple[Number, ...]]:
    """Sizes of all stored buffers: the region of their stage, rows padded where the schedule asks for it."""
    shapes: dict[str, tuple[Number, ...]] = {}
    for name, b in bounds.items():
        shape = b.region
        if b.stage.storage_align and shape and not state.is_output(name):
            factor, offset = b.stage.storage_align
            shape = (*shape[:-1], shape[-1] + (offset - shape[-1]) % factor)
        shapes[name] = shape
    return shapes


def buffer_uses(bounds: Bounds, shapes: Mapping[str, tuple[Number, ...]], b: StageBounds) -> tuple[BufferUse, ...]:
    """The buffers of a statement: the stored one, then those read in order of first read."""
    reduces = isinstance(b.body, Reduce)
    store = tuple(b.values[axis.name] for axis in b.stage.op.axes)
    accesses: dict[str, list[tuple[Affine | None, ...]]] = {b.stage.name: [store]}
    tensors: dict[str, Tensor] = {b.stage.name: b.stage.tensor}
    for read in b.reads:
        name = read.tensor.name
        accesses.setdefault(name, []).append(tuple(from_expr(index, b.values) for index in read.indices))
        tensors.setdefault(name, read.tensor)
    uses: list[BufferUse] = []
    for name, indices in accesses.items():
        kind: AccessKind = "read" if name != b.stage.name else "read-write" if reduces else "write"
        around = bounds[name].enclosing if name in bounds else ()
        shape = shapes.get(name, tensors[name].shape)
        fixed = frozenset(loop.variable for loop in around)
        uses.append(BufferUse(name, DTYPE_BYTES[tensors[name].dtype], kind, tuple(indices), shape, fixed))
    return tuple(uses)


def stage_of(loop: LoopBounds) -> str:
    """The stage whose loop it is."""
    return loop.variable[: -len(loop.name) - 1]


def statement_arrays(
    state: State,
    b: StageBounds,
    tile: StageTile,
    uses: tuple[BufferUse, ...],
    parallel: Flags,
    unroll_limit: Number,
    chunk: slice,
    programs: int,
) -> StatementArrays:
    """The arrays of one statement for a slice of the population. `parallel` is bool[L, programs of the slice]."""
    loops = (*b.enclosing, *b.loops)
    extents = np.empty((len(loops), programs))
    for position, loop in enumerate(loops):
        extents[position] = part(loop.extent, chunk)
    inner = np.ones((len(loops) + 1, programs))
    for position in reversed(range(len(loops))):
        np.multiply(inner[position + 1], extents[position], out=inner[position])
    strides, footprint, runs, neighbours, pitches = _access_arrays(uses, loops, extents, chunk)
    allocated = None
    if not state.is_output(b.stage.name):
        allocated = np.ones(programs)
        for size in uses[0].shape:
            allocated *= part(size, chunk)
    limit = np.empty(programs)
    limit[:] = part(unroll_limit, chunk)
    work = math.prod(axis.extent for axis in (*b.stage.op.axes, *b.stage.op.reduce_axes))
    return StatementArrays(
        bounds=b,
        tile=tile,
        loops=loops,
        programs=programs,
        extents=extents,
        inner=inner,
        buffers=uses,
        strides=strides,
        footprint=footprint,
        runs=runs,
        neighbours=neighbours,
        pitches=pitches,
        parallel=parallel,
        unroll_limit=limit,
        operations=count_operations(b.body),
        allocated=allocated,
        allocation_depth=len(b.enclosing),
        work=work,
        prepacked=b.stage.name in state.prepacked,
    )


def part(value: Number, chunk: slice) -> int | NDArray[np.int64]:
    """The numbers of the programs of a chunk; an int is that of all programs."""
    return value if isinstance(value, int) else value[chunk]


def _access_arrays(
    uses: Sequence[BufferUse], loops: Sequence[LoopBounds], extents: Floats, chunk: slice
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Strides [B, L, n], footprint, runs, neighbours [B, D, n] and pitches [2, B, D, n] of all buffers of a statement."""
    table = IndexTable(loops, extents, chunk)
    rank, programs = max(1, *(len(use.shape) for use in uses)), extents.shape[1]
    # Buffers of fewer dimensions have leading ones of size 1, so that all buffers are worked on at once.
    rows = np.zeros((len(uses), rank), dtype=np.int64)
    sizes = np.ones((len(uses), rank, 1, programs))
    others: list[tuple[int, int, list[list[int]]]] = []  # buffers that are accessed in several ways: number, rank, rows
    for number, use in enumerate(uses):
        accesses = [[table.add(index, use.fixed) for index in access] for access in use.accesses]
        start = rank - len(use.shape)
        rows[number, start:] = accesses[0]
        for dimension, size in enumerate(use.shape, start):
            sizes[number, dimension] = part(size, chunk)
        if len(accesses) > 1 or None in use.accesses[0]:
            others.append((number, start, accesses))
    growth, widths = table.solve()
    width = widths[rows]
    for number, start, accesses in others:
        width[number, start:] = _hull(uses[number], accesses, widths, sizes[number, start:], chunk)
    np.minimum(width, sizes, out=width)
    footprint = np.multiply.reduce(width, axis=1)
    runs = width[:, -1]
    whole: Flags = np.asarray(True)
    steps = np.ones_like(sizes)
    neighbours, pitches = np.ones_like(footprint), np.zeros((2, *footprint.shape))
    for dimension in reversed(range(rank - 1)):
        # A dimension prolongs the run if all dimensions to its right are touched as a whole.
        whole = whole & (width[:, dimension + 1] == sizes[:, dimension + 1])
        runs = runs * np.where(whole, width[:, dimension], 1.0)
        np.multiply(steps[:, dimension + 1], sizes[:, dimension + 1], out=steps[:, dimension])
        apart = ~whole & (width[:, dimension] > 1)
        first = apart & (pitches[0] == 0)
        neighbours = np.where(first, width[:, dimension], neighbours)
        pitches[1] = np.where(apart & ~first & (pitches[1] == 0), steps[:, dimension], pitches[1])
        pitches[0] = np.where(first, steps[:, dimension], pitches[0])
    strides = np.abs(np.einsum("bdln,bdin->bln", growth[rows], steps))
    for number, start, accesses in others:
        for access in accesses[1:]:
            others_strides = np.abs(np.einsum("dln,din->ln", growth[access], steps[number, start:]))
            np.minimum(strides[number], others_strides, out=strides[number])
    return strides, footprint, runs, neighbours, pitches


def _hull(use: BufferUse, rows: Sequence[Sequence[int]], widths: Floats, sizes: Floats, chunk: slice) -> Floats:
    """Widths [dimensions, D, n] that the accesses touch together: the widest of each, plus the distance of their constants."""
    width = widths[rows[0]]
    for row in rows[1:]:
        np.maximum(width, widths[row], out=width)
    for dimension, indices in enumerate(zip(*use.accesses, strict=True)):
        if None in indices:  # not affine: the whole dimension wherever a loop runs
            width[dimension, :-1] = np.maximum(width[dimension, :-1], sizes[dimension])
        if len(rows) > 1 and len(indices) - indices.count(None) > 1:
            constants = [np.asarray(part(index.constant, chunk)) for index in indices if index is not None]
            width[dimension] += np.ptp(np.stack(np.broadcast_arrays(*constants)), axis=0)
    return width


class IndexTable:
    """All index values of a statement, one row each, so that most of the work on them is done at once.

    A value is keyed by its identity and the loops that stand still; the values inside its atoms have rows of their own, before
    its own.
    """

    def __init__(self, loops: Sequence[LoopBounds], extents: Floats, chunk: slice) -> None:
        self._positions = {loop.variable: position for position, loop in enumerate(loops)}
        self._extents = extents
        self._chunk = chunk
        self._rows: dict[tuple[int, frozenset[str]], int] = {}
        self._values: list[tuple[Affine, frozenset[str]]] = []

    def add(self, index: Affine | None, fixed: frozenset[str]) -> int:
        """The row of a value; row 0 is that of a constant, and of what is not affine."""
        if index is None or not index.terms:
            return 0
        key = (id(index), fixed)
        if key not in self._rows:
            for term, _ in index.terms:
                if isinstance(term, Atom):
                    self.add(term.value, fixed)
            self._values.append((index, fixed))
            self._rows[key] = len(self._values)
        return self._rows[key]

    def solve(self) -> tuple[Floats, Floats]:
        """Of each row the growth [rows, L, n] a step of each loop, and the width [rows, D, n].

        Growth goes through clamp and `%` as without them and is divided by the divisor in `//`. The width is the number of
        consecutive values that an index takes inside each depth.
        """
        count, (levels, programs) = len(self._values) + 1, self._extents.shape
        growth = np.zeros((count, levels, programs))
        widths = np.ones((count, levels + 1, programs))
        for row, (value, fixed) in enumerate(self._values, start=1):
            for term, coefficient in value.terms:
                if isinstance(term, str) and term in self._positions and term not in fixed:
                    growth[row, self._positions[term]] = part(coefficient, self._chunk)
        # The reach of the loops inside a depth, from the innermost one outwards.
        reach = np.abs(growth)
        reach *= self._extents - 1
        for level in reversed(range(levels)):
            np.add(widths[:, level + 1], reach[:, level], out=widths[:, level])
        for row, (value, fixed) in enumerate(self._values, start=1):
            for term, coefficient in value.terms:
                if isinstance(term, Atom):
                    inner, divisor = self.add(term.value, fixed), part(term.divisor, self._chunk)
                    factor = part(coefficient, self._chunk)
                    widths[row] += (_atom_width(term, widths[inner], divisor) - 1) * np.abs(factor)
                    growth[row] += factor * (growth[inner] // divisor if term.kind == "floordiv" else growth[inner])
        return growth, widths


def _atom_width(atom: Atom, width: Floats, divisor: int | NDArray[np.int64]) -> Floats:
    if atom.kind == "floordiv":
        straddles = (width % divisor != 0) & (divisor % width != 0)
        return np.asarray(np.ceil(width / divisor) + straddles)
    return np.asarray(np.minimum(width, divisor if atom.kind == "mod" else divisor + 1))
