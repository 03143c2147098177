"""ONNX convolution."""

from __future__ import annotations

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, onnx_op
from ansor_py.graph.onnx_ops.spatial import window_of
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


@onnx_op("Conv", pattern=Pattern.COMPLEX)
def convolution(call: OperatorCall) -> Tensor:
    """Two-dimensional convolution with groups, dilation, asymmetric padding and an optional bias."""
    weight = call.tensor(1)
    window = window_of(call, call.integers("kernel_shape", weight.shape[2:]))
    return ops.conv2d(
        call.x,
        weight,
        call.optional(2),
        stride=window.strides,
        padding=window.padding,
        dilation=window.dilations,
        groups=call.integer("group", 1),
    )
