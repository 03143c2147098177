"""ONNX convolutions and transposed convolutions."""

from __future__ import annotations

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, onnx_op
from ansor_py.graph.onnx_ops.spatial import Window, shared_out, window_of
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


@onnx_op("Conv", pattern=Pattern.COMPLEX)
def convolution(call: OperatorCall) -> Tensor:
    """Convolution over any number of dimensions, with groups, dilation, asymmetric padding and an optional bias."""
    weight = call.tensor(1)
    window = window_of(call, call.integers("kernel_shape", weight.shape[2:]))
    return ops.convolution(
        call.x,
        weight,
        call.optional(2),
        stride=window.strides,
        padding=window.padding,
        dilation=window.dilations,
        groups=call.integer("group", 1),
        name=f"conv{len(call.x.shape) - 2}d",
    )


@onnx_op("ConvTranspose", pattern=Pattern.COMPLEX)
def transposed_convolution(call: OperatorCall) -> Tensor:
    """Transposed convolution; `output_shape` or `auto_pad` decide the padding where they are given."""
    weight = call.tensor(1)
    rank = len(call.x.shape) - 2
    window = window_of(call, call.integers("kernel_shape", weight.shape[2:]))
    extra = call.integers("output_padding", [0] * rank)
    padding, extra = _transposed_padding(call, window, extra)
    return ops.conv_transpose(
        call.x,
        weight,
        call.optional(2),
        stride=window.strides,
        padding=padding,
        output_padding=extra,
        dilation=window.dilations,
        groups=call.integer("group", 1),
        name=f"conv{rank}d_transpose",
    )


def _transposed_padding(call: OperatorCall, window: Window, extra: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding and output padding. Where a wanted result is larger than the natural one, the rest is output padding."""
    mode = call.text("auto_pad", "NOTSET")
    spatial = call.x.shape[2:]
    if call.has("output_shape"):
        wanted = call.integers("output_shape")[-len(spatial) :]
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(extent * stride for extent, stride in zip(spatial, window.strides, strict=True))
    else:
        return window.padding, extra
    natural = [
        (extent - 1) * stride + (size - 1) * dilation + 1 + more
        for extent, stride, size, dilation, more in zip(
            spatial, window.strides, window.kernel, window.dilations, extra, strict=True
        )
    ]
    missing = [extent - size for extent, size in zip(wanted, natural, strict=True)]
    padding = shared_out([max(-rest, 0) for rest in missing], upper=mode == "SAME_UPPER")
    return padding, tuple(more + max(rest, 0) for more, rest in zip(extra, missing, strict=True))
