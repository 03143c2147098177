"""ONNX pooling: windows and global."""

from __future__ import annotations

from ansor_py.errors import ModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.graph.onnx_ops.spatial import window_of
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


@onnx_op("MaxPool", pattern=Pattern.COMPLEX)
def max_pool(call: OperatorCall) -> Tensor:
    """Maximum of each window; the second output (positions of the maxima) is not supported."""
    if call.node.output_index:
        raise ModelError(f"{describe(call.node)}: its output 'Indices' is not supported")
    window = window_of(call, call.integers("kernel_shape"))
    ceil_mode = bool(call.integer("ceil_mode", 0))
    return ops.max_pool2d(call.x, window.kernel, window.strides, window.padding, window.dilations, ceil_mode)


@onnx_op("AveragePool", pattern=Pattern.COMPLEX)
def average_pool(call: OperatorCall) -> Tensor:
    """Mean of each window, over its elements inside the input unless `count_include_pad`."""
    window = window_of(call, call.integers("kernel_shape"))
    ceil_mode, include = bool(call.integer("ceil_mode", 0)), bool(call.integer("count_include_pad", 0))
    return ops.average_pool2d(call.x, window.kernel, window.strides, window.padding, window.dilations, ceil_mode, include)


@onnx_op("GlobalAveragePool", pattern=Pattern.REDUCTION)
def global_average_pool(call: OperatorCall) -> Tensor:
    """Mean of each channel."""
    return ops.global_average_pool(call.x)


@onnx_op("GlobalMaxPool", pattern=Pattern.REDUCTION)
def global_max_pool(call: OperatorCall) -> Tensor:
    """Maximum of each channel."""
    return ops.global_max_pool(call.x)
