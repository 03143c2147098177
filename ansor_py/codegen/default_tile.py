"""The register tile of a default schedule: which axis runs in lanes, which in rows, how long both are.

Three kinds of tiles compete for a reduction with data reuse: lanes along the output's last axis, whose results are contiguous;
lanes along the panels of a constant operand, which may be any axis; and lanes along the reduction, one partial result each.
The score is the share of filled lanes and rows times how often a loaded vector is used.

    choose_tile(state, stage, target)     # TileChoice(lengths={'f': 32, 'x': 14}, vector='f', panels=Panels(...), ...)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from ansor_py.codegen.transposition import FEWEST_ROWS
from ansor_py.schedule.access import element_stride
from ansor_py.schedule.panels import SMALLEST_OPERAND, Panels, is_worth_copying, possible_panels, reuses
from ansor_py.schedule.state import Stage, State
from ansor_py.target import Target
from ansor_py.te.expr import DTYPE_BYTES, Axis, Read, reads_of, variables_of

ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14)
VECTOR_COUNTS = (1, 2, 3, 4)
# Where there are no rows (a vector times a matrix): longer runs of each row of the operand.
SINGLE_ROW_VECTORS = (8, 16)
# Results side by side when the lanes are taken by the reduction.
LANE_REDUCTION_ROWS = 4
# A load of a vector, streamed from a farther cache, weighs as much as so many broadcasts of an element that stays near.
STREAMED_LOAD = 3.0
# What a tile is worth of which some operand's lanes have to be gathered one by one.
GATHERED = 0.1
# What a tile is worth whose vectors come from rows far apart in a large operand, not from a packed panel.
UNPACKED = 0.7
# Copying an operand in every run costs about as much as so many rows of products with it.
COPY_ROWS = 24
# Storing a result that is not contiguous costs about as much as this many steps of the reduction.
TRANSPOSED_STORE_STEPS = 24


@dataclass(frozen=True)
class TileChoice:
    """Innermost lengths by axis, the axis in lanes (perhaps a reduction axis), and the operand that is packed for it."""

    lengths: dict[str, int]
    vector: str
    panels: Panels | None
    score: float


def choose_tile(state: State, stage: Stage, target: Target) -> TileChoice:
    """The tile with the highest score for a stage with data reuse."""
    lanes = target.lanes(stage.tensor.dtype)
    options = list(_options(state, stage, target, lanes))
    return max(options, key=lambda option: option.score)


def _options(state: State, stage: Stage, target: Target, lanes: int) -> Iterator[TileChoice]:
    last = stage.op.axes[-1]
    reads = reads_of(state.body(stage.name))
    reduction = lane_reduction(reads, stage, lanes)
    if reduction is None:
        is_single = prod(axis.extent for axis in stage.op.axes) == last.extent
        counts = (*VECTOR_COUNTS, *SINGLE_ROW_VECTORS) if is_single else VECTOR_COUNTS
        for width in dict.fromkeys(min(count * lanes, last.extent) for count in counts):
            yield from _with_rows(reads, stage, target, lanes, last, width, None)
    else:
        lengths = {axis.name: min(LANE_REDUCTION_ROWS, axis.extent) for axis in stage.op.axes[-2:]}
        filled = reduction.extent / (ceil(reduction.extent / lanes) * lanes)
        rows = prod(lengths.values())
        yield TileChoice({**lengths, reduction.name: lanes}, reduction.name, None, filled * rows / (rows + 3.0))
    extents = {axis.name: axis for axis in stage.op.axes}
    for count in VECTOR_COUNTS:
        for panels in possible_panels(stage, count * lanes):
            usable = panels.is_constant or is_worth_copying(state, stage, panels)
            if usable and extents[panels.axis].extent >= lanes:
                yield from _with_rows(reads, stage, target, lanes, extents[panels.axis], panels.width, panels)


def _with_rows(
    reads: list[Read], stage: Stage, target: Target, lanes: int, vector: Axis, width: int, panels: Panels | None
) -> Iterator[TileChoice]:
    """Tiles of one width with every number of rows that leaves registers for the operands."""
    packed = panels.read.tensor if panels is not None else None
    strides = {read: element_stride(read, vector.name, width) for read in reads}
    row, reused = _row_axis([read for read in reads if strides[read] != 0], stage, vector.name)
    extent = row.extent if row is not None else 1
    vectors = ceil(width / lanes)
    filled = vector.extent / (ceil(vector.extent / width) * vectors * lanes)
    steps = prod(axis.extent for axis in stage.op.reduce_axes)
    worth = filled if vector is stage.op.axes[-1] else filled * steps / (steps + TRANSPOSED_STORE_STEPS)
    unpacked = [(read, stride) for read, stride in strides.items() if read.tensor is not packed and stride != 0]
    if any(stride != 1 for _, stride in unpacked):
        worth *= GATHERED
    if any(_bytes_a_row(read, stage, vector) > SMALLEST_OPERAND for read, _ in unpacked):
        worth *= UNPACKED
    if panels is not None and not panels.is_constant:
        worth *= reuses(stage, panels.read) / (reuses(stage, panels.read) + COPY_ROWS)
    for rows in ROW_COUNTS:
        if rows > extent or (rows > 1 and rows * vectors + vectors + 1 > target.vector_registers):
            continue
        filled_rows = extent / (ceil(extent / rows) * rows)
        loads = STREAMED_LOAD * vectors * (1 if reused else rows) + rows + 2.0
        lengths = {vector.name: width} if row is None else {row.name: rows, vector.name: width}
        yield TileChoice(lengths, vector.name, panels, worth * filled_rows * rows * vectors / loads)


def _bytes_a_row(read: Read, stage: Stage, vector: Axis) -> int:
    """Bytes of an operand that one row of results needs."""
    used = set().union(*(variables_of(index) for index in read.indices))
    extents = [axis.extent for axis in (vector, *stage.op.reduce_axes) if axis.name in used]
    return prod(extents) * DTYPE_BYTES[read.dtype]


def _row_axis(in_lanes: list[Read], stage: Stage, vector: str) -> tuple[Axis | None, bool]:
    """An axis that the reads in lanes do not depend on, so that a loaded vector serves several rows; else the longest.

    The second result says which of the two it is.
    """
    others = [axis for axis in stage.op.axes if axis.name != vector and axis.extent > 1]
    shared = [axis for axis in others if all(element_stride(read, axis.name) == 0 for read in in_lanes)]
    # Of several, the last: results of neighbouring rows are neighbours in memory if the lanes' are not.
    candidates = shared or others
    if vector != stage.op.axes[-1].name and stage.op.axes[-1] in candidates:
        return stage.op.axes[-1], bool(shared)
    return (max(candidates, key=lambda axis: axis.extent) if candidates else None), bool(shared)


def lane_reduction(reads: list[Read], stage: Stage, lanes: int) -> Axis | None:
    """The reduction axis to run in lanes: contiguous in every read that has it, where the last output axis is not."""
    if not stage.op.reduce_axes or stage.op.reduce_axes[-1].extent < lanes:
        return None
    axis = stage.op.reduce_axes[-1]
    strides = [(element_stride(read, axis.name), read) for read in reads]
    reduced = [read for stride, read in strides if stride == 1]
    if not reduced or any(stride not in (0, 1) for stride, _ in strides):
        return None
    last = next((item for item in reversed(stage.op.axes) if item.extent > 1), None)
    return axis if last is None or all(element_stride(read, last.name) != 1 for read in reduced) else None


def transposed_row(reads: list[Read], stage: Stage) -> Axis | None:
    """The axis along which an operation without reduction reads neighbours, where along its last axis it does not.

    Such reads are transposed in registers if both axes are in the tile (`ansor_py.codegen.transposition`).
    """
    last = next((axis for axis in reversed(stage.op.axes) if axis.extent > 1), None)
    if last is None or stage.op.reduce_axes:
        return None
    apart = [read for read in reads if element_stride(read, last.name) not in (None, 0, 1)]
    votes = {
        axis: sum(element_stride(read, axis.name) == 1 for read in apart)
        for axis in stage.op.axes
        if axis is not last and axis.extent >= FEWEST_ROWS
    }
    best = max(votes, key=lambda axis: votes[axis], default=None)
    return best if best is not None and votes[best] else None
