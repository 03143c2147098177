"""ONNX pooling: windows and global."""

from __future__ import annotations

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, onnx_op
from ansor_py.graph.onnx_ops.spatial import window_of
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


@onnx_op("MaxPool", pattern=Pattern.COMPLEX)
def max_pool(call: OperatorCall) -> Tensor:
    """Maximum of each window; the second output says where the maxima lie."""
    window = window_of(call, call.integers("kernel_shape"))
    ceil_mode = bool(call.integer("ceil_mode", 0))
    geometry = (window.kernel, window.strides, window.padding, window.dilations, ceil_mode)
    if call.node.output_index:
        return ops.max_pool_indices(call.x, *geometry, column_major=bool(call.integer("storage_order", 0)))
    return ops.max_pool(call.x, *geometry, name=f"max_pool{len(window.kernel)}d")


@onnx_op("AveragePool", pattern=Pattern.COMPLEX)
def average_pool(call: OperatorCall) -> Tensor:
    """Mean of each window, over its elements inside the input unless `count_include_pad`."""
    window = window_of(call, call.integers("kernel_shape"))
    ceil_mode, include = bool(call.integer("ceil_mode", 0)), bool(call.integer("count_include_pad", 0))
    geometry = (window.kernel, window.strides, window.padding, window.dilations, ceil_mode, include)
    return ops.average_pool(call.x, *geometry, name=f"average_pool{len(window.kernel)}d")


@onnx_op("LpPool", pattern=Pattern.COMPLEX)
def lp_pool(call: OperatorCall) -> Tensor:
    """The p-norm of each window."""
    window = window_of(call, call.integers("kernel_shape"))
    ceil_mode = bool(call.integer("ceil_mode", 0))
    return ops.lp_pool(call.x, window.kernel, window.strides, window.padding, window.dilations, ceil_mode, call.number("p", 2))


@onnx_op("GlobalAveragePool", pattern=Pattern.REDUCTION)
def global_average_pool(call: OperatorCall) -> Tensor:
    """Mean of each channel."""
    return ops.global_average_pool(call.x)


@onnx_op("GlobalMaxPool", pattern=Pattern.REDUCTION)
def global_max_pool(call: OperatorCall) -> Tensor:
    """Maximum of each channel."""
    return ops.global_max_pool(call.x)


@onnx_op("GlobalLpPool", pattern=Pattern.REDUCTION)
def global_lp_pool(call: OperatorCall) -> Tensor:
    """The p-norm of each channel."""
    return ops.reduce_norm(call.x, call.number("p", 2), range(2, len(call.x.shape)), keepdims=True, name="global_lp_pool")
