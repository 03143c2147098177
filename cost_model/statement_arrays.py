"""One statement over a population: loop extents, index coefficients and touched regions as dense arrays.

This is where the loop nest of a template becomes numbers (design, Idea 2). Axis names below: L loops that enclose the
statement, outermost first; D = L + 1 depths, where depth d means that the d outermost loops stand still and the others
run; B buffers (the stored one first); n programs. All arrays are float64, exact for integers up to 2**53.

    bounds = infer_bounds(template, sketch.holes, genes)
    arrays = [statement_arrays(...) for each stage]          # see features.py, which also links them
    arrays[0].touched[b, d]                                  # elements of buffer b touched inside depth d
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.operation_counts import OperationCounts, count_operations
from ansor_py.lower.affine import Affine, Atom, Number, from_expr
from ansor_py.lower.bounds import Bounds, LoopBounds, StageBounds, reads_in
from ansor_py.schedule.state import State
from ansor_py.te.expr import DTYPE_BYTES, Reduce
from ansor_py.te.tensor import Placeholder, Tensor

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


@dataclass(eq=False)
class StatementArrays:
    """What the feature groups read. The last fields depend on the other statements; `features.link` fills them."""

    bounds: StageBounds
    loops: tuple[LoopBounds, ...]
    programs: int
    extents: Floats  # [L, n]
    inner: Floats  # [D, n] iterations of the loops that run at a depth
    buffers: tuple[BufferUse, ...]
    strides: Floats  # [B, L, n] elements between consecutive iterations of a loop
    touched: Floats  # [B, D, n] elements
    runs: Floats  # [B, D, n] consecutive elements touched inside a depth
    parallel: Flags  # [L, n]
    unroll_limit: Floats  # [n]
    operations: OperationCounts
    allocated: Floats | None  # [n] elements of the stored buffer if it is a temporary
    allocation_depth: int  # number of loops around the allocation
    work: int  # iterations of the definition: all axes at full extent
    prepared: bool  # computed from constants alone, once and not in every call
    body_bytes: Floats = field(default_factory=lambda: np.empty(0))  # [D, n] touched by all statements inside a depth
    sharers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # [B, D] statements using a buffer
    shared_touched: Floats = field(default_factory=lambda: np.empty(0))  # [B, D, n] least elements that one of them touches
    program: tuple[StatementArrays, ...] = ()  # all statements, this one included
    kept: dict[str, Floats] = field(default_factory=dict)  # what groups compute once and read of other statements


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
    for read in reads_in(b.body):
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


def prepared_stages(state: State, bounds: Bounds) -> frozenset[str]:
    """Stages whose region (a stage at root with all that is attached below it) reads constants alone and stores no output."""
    regions: dict[str, list[StageBounds]] = {}
    for name, b in bounds.items():
        regions.setdefault(stage_of(b.enclosing[0]) if b.enclosing else name, []).append(b)
    prepared: set[str] = set()
    for host in (name for name in bounds if name in regions):
        members = regions[host]
        names = {b.stage.name for b in members}
        read = {
            tensor.name: tensor for b in members for tensor in (r.tensor for r in reads_in(b.body)) if tensor.name not in names
        }
        if all((isinstance(t.op, Placeholder) and t.op.constant) or t.name in prepared for t in read.values()):
            prepared |= set() if any(state.is_output(name) for name in names) else names
    return frozenset(prepared)


def statement_arrays(
    state: State,
    b: StageBounds,
    uses: tuple[BufferUse, ...],
    parallel: Flags,
    unroll_limit: Number,
    prepared: bool,
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
    positions = {loop.variable: position for position, loop in enumerate(loops)}
    strides = np.zeros((len(uses), len(loops), programs))
    touched = np.ones((len(uses), len(loops) + 1, programs))
    runs = np.ones((len(uses), len(loops) + 1, programs))
    for number, use in enumerate(uses):
        _access_arrays(use, positions, extents, chunk, strides[number], touched[number], runs[number])
    allocated = None
    if not state.is_output(b.stage.name):
        allocated = np.ones(programs)
        for size in uses[0].shape:
            allocated *= part(size, chunk)
    limit = np.broadcast_to(np.asarray(part(unroll_limit, chunk), dtype=np.float64), (programs,))
    work = int(np.prod([axis.extent for axis in (*b.stage.op.axes, *b.stage.op.reduce_axes)], dtype=np.int64))
    return StatementArrays(
        bounds=b,
        loops=loops,
        programs=programs,
        extents=extents,
        inner=inner,
        buffers=uses,
        strides=strides,
        touched=touched,
        runs=runs,
        parallel=parallel,
        unroll_limit=limit,
        operations=count_operations(b.body),
        allocated=allocated,
        allocation_depth=len(b.enclosing),
        work=work,
        prepared=prepared,
    )


def part(value: Number, chunk: slice) -> int | NDArray[np.int64]:
    """The numbers of the programs of a chunk; an int is that of all programs."""
    return value if isinstance(value, int) else value[chunk]


def _access_arrays(
    use: BufferUse,
    positions: Mapping[str, int],
    extents: Floats,
    chunk: slice,
    strides: Floats,
    touched: Floats,
    runs: Floats,
) -> None:
    """Fill strides [L, n], touched [D, n] and runs [D, n] (initially zeros, ones, ones) of one buffer."""
    moving = {name: position for name, position in positions.items() if name not in use.fixed}
    sizes = [np.asarray(part(size, chunk), dtype=np.float64) for size in use.shape]
    pitches = [np.asarray(1.0)]
    for size in reversed(sizes[1:]):
        pitches.insert(0, pitches[0] * size)
    whole = np.asarray(True)
    for dimension in reversed(range(len(sizes))):
        indices = [access[dimension] for access in use.accesses]
        width = np.minimum(_hull(indices, sizes[dimension], moving, extents, chunk), sizes[dimension])
        touched *= width
        runs *= np.where(whole, width, 1.0)
        whole = whole & (width == sizes[dimension])
    smallest: Floats | None = None
    for access in use.accesses:
        stride = np.zeros_like(strides)
        for index, pitch in zip(access, pitches if sizes else [], strict=True):
            for position, coefficient in coefficients(index, moving, chunk).items():
                stride[position] += coefficient * pitch
        np.abs(stride, out=stride)
        smallest = stride if smallest is None else np.minimum(smallest, stride)
    if smallest is not None:
        strides[:] = smallest


def _hull(indices: Sequence[Affine | None], size: Floats, moving: Mapping[str, int], extents: Floats, chunk: slice) -> Floats:
    """Width [D, n] that several accesses of a dimension touch together: the widest, plus the distance of their constants."""
    width = _width(indices[0], size, moving, extents, chunk)
    if len(indices) == 1:
        return width
    for index in indices[1:]:
        width = np.maximum(width, _width(index, size, moving, extents, chunk))
    constants = [np.asarray(part(index.constant, chunk)) for index in indices if index is not None]
    if len(constants) > 1:
        lowest, highest = constants[0], constants[0]
        for constant in constants[1:]:
            lowest, highest = np.minimum(lowest, constant), np.maximum(highest, constant)
        width = width + (highest - lowest)
    return width


def _width(index: Affine | None, size: Floats, moving: Mapping[str, int], extents: Floats, chunk: slice) -> Floats:
    """How many consecutive values [D, n] an index takes inside each depth; the whole dimension where it is not affine."""
    depths, programs = len(extents) + 1, extents.shape[1]
    width = np.ones((depths, programs))
    if index is None:
        width[:-1] = size
        return width
    steps: dict[int, NDArray[np.float64]] = {}
    for term, coefficient in index.terms:
        if isinstance(term, str):
            if term in moving:
                position = moving[term]
                step = np.abs(part(coefficient, chunk)) * (extents[position] - 1)
                steps[position] = steps[position] + step if position in steps else step
        else:
            width += (_atom_width(term, size, moving, extents, chunk) - 1) * np.abs(part(coefficient, chunk))
    if steps:
        reach = np.zeros(programs)
        for depth in reversed(range(depths - 1)):
            if depth in steps:
                reach = reach + steps[depth]
            width[depth] += reach
    return width


def _atom_width(atom: Atom, size: Floats, moving: Mapping[str, int], extents: Floats, chunk: slice) -> Floats:
    width = _width(atom.value, size, moving, extents, chunk)
    divisor = part(atom.divisor, chunk)
    if atom.kind == "floordiv":
        return np.ceil(width / divisor)
    return np.minimum(width, divisor if atom.kind == "mod" else divisor + 1)


def coefficients(index: Affine | None, moving: Mapping[str, int], chunk: slice) -> dict[int, int | NDArray[np.int64]]:
    """By how much an index grows a step of each loop: through clamp and `%` as without them, divided by the divisor in `//`."""
    found: dict[int, int | NDArray[np.int64]] = {}
    for term, coefficient in index.terms if index is not None else ():
        factor = part(coefficient, chunk)
        if isinstance(term, str):
            below: dict[int, int | NDArray[np.int64]] = {moving[term]: 1} if term in moving else {}
        else:
            below = coefficients(term.value, moving, chunk)
            if term.kind == "floordiv":
                below = {position: value // part(term.divisor, chunk) for position, value in below.items()}
        for position, value in below.items():
            found[position] = found.get(position, 0) + factor * value
    return found
