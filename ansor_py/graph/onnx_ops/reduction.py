"""ONNX reductions and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, onnx_op
from ansor_py.te import ops
from ansor_py.te.expr import Expr
from ansor_py.te.tensor import Tensor


def _reduction(op_type: str, function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> None:
    @onnx_op(op_type, pattern=Pattern.REDUCTION, static={1: "axes"})
    def reduce(call: OperatorCall) -> Tensor:
        """Over `axes` (none given: all, or nothing with `noop_with_empty_axes`)."""
        axes = call.axes(default=())
        if not axes:
            if call.integer("noop_with_empty_axes", 0):
                return ops.map_elements(call.x, lambda v: v, "identity")
            axes = tuple(range(len(call.x.shape)))
        return function(call.x, axes, bool(call.integer("keepdims", 1)))


def _of(prepare: Callable[[Expr], Expr]) -> Callable[[Tensor, tuple[int, ...], bool], Tensor]:
    """The sum of a function of the elements."""
    return lambda x, axes, keep: ops.reduce_sum(ops.map_elements(x, prepare, "prepared"), axes, keep)


_reduction("ReduceSum", ops.reduce_sum)
_reduction("ReduceMean", ops.reduce_mean)
_reduction("ReduceMax", ops.reduce_max)
_reduction("ReduceMin", ops.reduce_min)
_reduction("ReduceProd", ops.reduce_prod)
_reduction("ReduceSumSquare", _of(lambda v: v * v))
_reduction("ReduceL1", _of(ops.abs))
_reduction("ReduceL2", lambda x, axes, keep: ops.sqrt(_of(lambda v: v * v)(x, axes, keep)))


@onnx_op("Softmax", "LogSoftmax", pattern=Pattern.OPAQUE)
def softmax(call: OperatorCall) -> Tensor:
    """Softmax (or its logarithm) along one axis; before opset 13 along all axes from `axis` on, taken as one."""
    function = ops.softmax if call.node.op_type == "Softmax" else ops.log_softmax
    if call.opset >= 13:
        return function(call.x, call.axis(-1))
    axis, shape = call.axis(1), call.x.shape
    joined = [extent for extent in shape[axis:] if extent != 1]
    if len(joined) <= 1:  # one real axis: no reshape needed
        real = [position for position in range(axis, len(shape)) if shape[position] != 1]
        return function(call.x, real[0] if real else axis)
    rows = ops.reshape(call.x, (math.prod(shape[:axis]), math.prod(shape[axis:])))
    return ops.reshape(function(rows, 1), shape)
