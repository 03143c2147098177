"""Which axis of an operation is computed in vector lanes.

Stores and loads of neighbouring elements want the last axis of the output. A reduction that runs along memory while the
output axis jumps (softmax's sums, a product with a transposed matrix) wants its reduction axis: one partial result per lane.

    vector_axis(stage_of_matmul, body)      # Axis j
    vector_axis(stage_of_row_sum, body)     # Axis k
"""

from __future__ import annotations

from ansor_py.lower.affine import coefficient_of, from_expr, variable
from ansor_py.schedule.state import Stage
from ansor_py.te.expr import Axis, Expr, Read, reads_of

# A load whose lanes are at most so many elements apart is a few loads and shuffles, not a gather.
NEAR_STRIDE = 4
# A reduction shorter than this does not pay for combining the lanes at its end.
SHORTEST_VECTOR_REDUCTION = 4


def vector_axis(stage: Stage, body: Expr) -> Axis | None:
    """The axis to vectorise, given the stage's body with inlined producers in place; None if all axes have extent 1."""
    spatial = next((axis for axis in reversed(stage.op.axes) if axis.extent > 1), None)
    reads = reads_of(body)
    contiguous = [
        axis
        for axis in reversed(stage.op.reduce_axes)
        if axis.extent > 1 and any(abs(read_stride(read, stage, axis) or 0) == 1 for read in reads)
    ]
    reduction = contiguous[0] if contiguous else None
    if spatial is None:
        longer = [axis for axis in (*contiguous, *reversed(stage.op.reduce_axes)) if axis.extent > 1]
        return longer[0] if longer else None
    if reduction is None or reduction.extent < SHORTEST_VECTOR_REDUCTION:
        return spatial
    strides = [read_stride(read, stage, spatial) for read in reads]
    near = any(stride is not None and 0 < abs(stride) <= NEAR_STRIDE for stride in strides)
    return spatial if near else reduction


def read_stride(read: Read, stage: Stage, axis: Axis) -> int | None:
    """Elements between the places that are read at neighbouring values of an axis; None if that is not a constant."""
    values = {item.name: variable(item.name) for item in (*stage.op.axes, *stage.op.reduce_axes)}
    total, step = 0, 1
    for index, extent in zip(reversed(read.indices), reversed(read.tensor.shape), strict=True):
        value = from_expr(index, values)
        if value is None:
            return None
        if any(not isinstance(term, str) and axis.name in term.value.variables for term, _ in value.terms):
            return None
        total += int(coefficient_of(value, axis.name)) * step
        step *= extent
    return total
