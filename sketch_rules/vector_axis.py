"""Which axis of an operation is computed in vector lanes, and which in rows beside it where lanes are not neighbours in memory.

Stores and loads of neighbouring elements want the last axis of the output. A reduction that runs along memory while the
output axis jumps (softmax's sums, a product with a transposed matrix) wants its reduction axis: one partial result per lane.

    vector_axis(stage_of_matmul, body, lanes)      # Axis j
    vector_axis(stage_of_row_sum, body, lanes)     # Axis k
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.codegen.transposition import FEWEST_ROWS
from ansor_py.schedule.access import element_stride, joined_stride
from ansor_py.schedule.state import Stage
from ansor_py.te.expr import Axis, Expr, Read, reads_of

# A load whose lanes are at most so many elements apart is a few loads and shuffles, not a gather.
NEAR_STRIDE = 4
# A reduction shorter than this does not pay for combining the lanes at its end.
SHORTEST_VECTOR_REDUCTION = 4


def vector_axis(stage: Stage, body: Expr, lanes: int) -> Axis | None:
    """The axis to vectorise, given the stage's body with inlined producers in place; None if all axes have extent 1."""
    reads = reads_of(body)
    spatial = _spatial_axis(stage, reads, lanes)
    contiguous = [
        axis
        for axis in reversed(stage.op.reduce_axes)
        if axis.extent > 1 and any(abs(element_stride(read, axis.name) or 0) == 1 for read in reads)
    ]
    reduction = contiguous[0] if contiguous else None
    if spatial is None:
        longer = [axis for axis in (*contiguous, *reversed(stage.op.reduce_axes)) if axis.extent > 1]
        return longer[0] if longer else None
    if reduction is None or reduction.extent < SHORTEST_VECTOR_REDUCTION:
        return spatial
    # A read that does not move with the reduction is one load before it.
    strides = [element_stride(read, spatial.name) for read in reads if element_stride(read, reduction.name) != 0]
    near = any(stride is not None and 0 < abs(stride) <= NEAR_STRIDE for stride in strides)
    return spatial if near else reduction


def _spatial_axis(stage: Stage, reads: Sequence[Read], lanes: int) -> Axis | None:
    """The last axis; if it fills less than half of the lanes the longest one along which all reads are of neighbours or stay.

    The phases of a strided transposed convolution are short last axes.
    """
    long = [axis for axis in reversed(stage.op.axes) if axis.extent > 1]
    if not long or 2 * long[0].extent > lanes:
        return long[0] if long else None
    wider = [axis for axis in long if {element_stride(read, axis.name) for read in reads} in ({1}, {0, 1})]
    return max([long[0], *wider], key=lambda axis: min(axis.extent, lanes))


def transposed_row(reads: Sequence[Read], stage: Stage) -> Axis | None:
    """The axis along which an operation without reduction reads neighbours, where along its last axis it does not.

    Such reads are transposed in registers if both axes are in the tile (`ansor_py.codegen.transposition`).
    """
    last = next((axis for axis in reversed(stage.op.axes) if axis.extent > 1), None)
    if last is None or stage.op.reduce_axes:
        return None
    apart = [read for read in reads if joined_stride(read, last.name) not in (None, 0, 1)]
    votes = {
        axis: sum(joined_stride(read, axis.name) == 1 for read in apart)
        for axis in stage.op.axes
        if axis is not last and axis.extent >= FEWEST_ROWS
    }
    best = max(votes, key=lambda axis: votes[axis], default=None)
    return best if best is not None and votes[best] else None
