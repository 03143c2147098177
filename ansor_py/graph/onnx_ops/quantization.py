"""ONNX operators on quantised integers: conversions, products and convolutions."""

from __future__ import annotations

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_nodes import dtype_name
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.graph.onnx_ops.spatial import window_of
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


def _axis(call: OperatorCall) -> int:
    """The axis along which a scale runs; a scalar input has none."""
    return call.axis(1) if len(call.x.shape) > 1 else 0


@onnx_op("QuantizeLinear", pattern=Pattern.BROADCAST)
def quantize(call: OperatorCall) -> Tensor:
    """round(x / scale) + zero point, limited to 8 bits."""
    dtype, precision = _dtype(call, "output_dtype") or "uint8", _dtype(call, "precision")
    return ops.quantize(call.x, call.tensor(1), call.optional(2), _axis(call), call.integer("block_size", 0), dtype, precision)


@onnx_op("DequantizeLinear", pattern=Pattern.BROADCAST)
def dequantize(call: OperatorCall) -> Tensor:
    """(x - zero point) * scale."""
    dtype = _dtype(call, "output_dtype")
    return ops.dequantize(call.x, call.tensor(1), call.optional(2), _axis(call), call.integer("block_size", 0), dtype)


def _dtype(call: OperatorCall, name: str) -> str | None:
    """The dtype that an attribute asks for, if it does."""
    code = call.integer(name, 0)
    return dtype_name(code, f"attribute '{name}' of {describe(call.node)}") if code else None


@onnx_op("MatMulInteger", pattern=Pattern.COMPLEX)
def integer_product(call: OperatorCall) -> Tensor:
    """The product of 8-bit integers less their zero points (one a row of A, one a column of B), in 32 bits."""
    return _product(call.x, call.optional(2), call.tensor(1), call.optional(3))


@onnx_op("QLinearMatMul", pattern=Pattern.COMPLEX)
def quantised_product(call: OperatorCall) -> Tensor:
    """A product of quantised matrices, quantised again."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (call.tensor(index) for index in range(8))
    product = ops.cast(_product(a, a_zero, b, b_zero), a_scale.dtype, "real")
    rank = len(product.shape)
    scaled = ops.multiply(product, _aligned(a_scale, rank, rank - 2), "times_scale_a")
    scaled = ops.multiply(scaled, _aligned(b_scale, rank, rank - 1), "times_scale_b")
    return ops.quantize(scaled, y_scale, y_zero, axis=rank - 2)


def _product(a: Tensor, a_zero: Tensor | None, b: Tensor, b_zero: Tensor | None) -> Tensor:
    left = ops.centred(a, a_zero, max(len(a.shape) - 2, 0), "left")
    return ops.matmul(left, ops.centred(b, b_zero, len(b.shape) - 1, "right"), name="matmul")


def _aligned(vector: Tensor, rank: int, axis: int) -> Tensor:
    """A vector along `axis` of `rank` dimensions, for broadcasting."""
    return ops.reshape(vector, [vector.size if position == axis else 1 for position in range(rank)], f"{vector.name}_row")


@onnx_op("ConvInteger", pattern=Pattern.COMPLEX)
def integer_convolution(call: OperatorCall) -> Tensor:
    """The convolution of 8-bit integers less their zero points, in 32 bits."""
    return _convolution(call, call.x, call.optional(2), call.tensor(1), call.optional(3), None)


@onnx_op("QLinearConv", pattern=Pattern.COMPLEX)
def quantised_convolution(call: OperatorCall) -> Tensor:
    """A convolution of quantised tensors, quantised again; the weight's scale may be one a filter."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (call.tensor(index) for index in range(8))
    result = ops.cast(_convolution(call, x, x_zero, w, w_zero, call.optional(8)), x_scale.dtype, "real")
    rank = len(result.shape)
    scaled = ops.multiply(result, _aligned(x_scale, rank, 1), "times_scale_x")
    return ops.quantize(ops.multiply(scaled, _aligned(w_scale, rank, 1), "times_scale_w"), y_scale, y_zero)


def _convolution(
    call: OperatorCall, x: Tensor, x_zero: Tensor | None, w: Tensor, w_zero: Tensor | None, bias: Tensor | None
) -> Tensor:
    window = window_of(call, call.integers("kernel_shape", w.shape[2:]))
    return ops.convolution(
        ops.centred(x, x_zero, 1, "data"),
        ops.centred(w, w_zero, 0, "weight"),
        bias,
        stride=window.strides,
        padding=window.padding,
        dilation=window.dilations,
        groups=call.integer("group", 1),
        name=f"conv{len(x.shape) - 2}d",
    )
