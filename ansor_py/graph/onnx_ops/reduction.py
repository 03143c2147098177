"""ONNX reductions, positions of extremes, running sums, and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable

from ansor_py.errors import ModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import expr, ops
from ansor_py.te.expr import FLOAT_DTYPES, Expr
from ansor_py.te.tensor import Tensor

Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _reduction(op_type: str, function: Reduction, prepare: Callable[[Expr], Expr] | None = None) -> None:
    """`function` of the elements, or of a function of them; `prepare` is applied even where nothing is reduced."""

    @onnx_op(op_type, pattern=Pattern.REDUCTION, static={1: "axes"})
    def reduce(call: OperatorCall) -> Tensor:
        """Over `axes` (none given: all, or nothing with `noop_with_empty_axes`)."""
        axes = call.axes(default=())
        x = call.x if prepare is None else ops.map_elements(call.x, prepare, "prepared")
        if not axes and not (call.integer("noop_with_empty_axes", 0) and call.opset >= 13):
            axes = tuple(range(len(x.shape)))
        return function(x, axes, bool(call.integer("keepdims", 1)))


def _then(function: Reduction, finish: Callable[[Tensor], Tensor]) -> Reduction:
    return lambda x, axes, keep: finish(function(x, axes, keep))


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    """The mean; of integers rounded towards zero."""
    if x.dtype in FLOAT_DTYPES:
        return ops.reduce_mean(x, axes, keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return ops.truncated_divide(ops.reduce_sum(x, axes, keep), count, "reduce_mean")


def _in_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Integers are converted to float64 and back."""

    def apply(x: Tensor) -> Tensor:
        if x.dtype in FLOAT_DTYPES:
            return function(x)
        return ops.cast(function(ops.cast(x, "float64")), x.dtype)

    return apply


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.dtype in FLOAT_DTYPES:
        return ops.reduce_log_sum_exp(x, axes, keep)
    return ops.cast(ops.reduce_log_sum_exp(ops.cast(x, "float64"), axes, keep), x.dtype)


_reduction("ReduceSum", ops.reduce_sum)
_reduction("ReduceMean", _mean)
_reduction("ReduceMax", ops.reduce_max)
_reduction("ReduceMin", ops.reduce_min)
_reduction("ReduceProd", ops.reduce_prod)
_reduction("ReduceSumSquare", ops.reduce_sum, lambda v: v * v)
_reduction("ReduceL1", ops.reduce_sum, lambda v: v if v.dtype == "uint8" else expr.call("abs", v))
_reduction("ReduceL2", _then(ops.reduce_sum, _in_floats(ops.sqrt)), lambda v: v * v)
_reduction("ReduceLogSum", _then(ops.reduce_sum, _in_floats(ops.log)))
_reduction("ReduceLogSumExp", _log_sum_exp)


@onnx_op("ArgMax", "ArgMin", pattern=Pattern.OPAQUE)
def position(call: OperatorCall) -> Tensor:
    """Where the largest or smallest element of an axis is; of equal ones the first or the last."""
    function = ops.argmax if call.node.op_type == "ArgMax" else ops.argmin
    keep, last = bool(call.integer("keepdims", 1)), bool(call.integer("select_last_index", 0))
    return function(call.x, call.axis(0), keep, last)


@onnx_op("CumSum", "CumProd", pattern=Pattern.REDUCTION, static={1: "axis"})
def running(call: OperatorCall) -> Tensor:
    """Running sums or products along an axis."""
    function = ops.cumulative_sum if call.node.op_type == "CumSum" else ops.cumulative_product
    return function(call.x, call.axis(0), bool(call.integer("exclusive", 0)), bool(call.integer("reverse", 0)))


@onnx_op("Softmax", "LogSoftmax", "Hardmax", pattern=Pattern.OPAQUE)
def softmax(call: OperatorCall) -> Tensor:
    """Softmax (or its logarithm, or its limit) along one axis; before opset 13 along all axes from `axis` on, as one."""
    function = {"Softmax": ops.softmax, "LogSoftmax": ops.log_softmax, "Hardmax": ops.hardmax}[call.node.op_type]
    if call.opset >= 13:
        return function(call.x, call.axis(-1))
    if not call.x.shape:
        raise ModelError(f"{describe(call.node)}: its input is a scalar")
    axis, shape = call.axis(1), call.x.shape
    joined = [extent for extent in shape[axis:] if extent != 1]
    if len(joined) <= 1:  # one real axis: no reshape needed
        real = [position for position in range(axis, len(shape)) if shape[position] != 1]
        return function(call.x, real[0] if real else axis)
    rows = ops.reshape(call.x, (math.prod(shape[:axis]), math.prod(shape[axis:])))
    return ops.reshape(function(rows, 1), shape)
