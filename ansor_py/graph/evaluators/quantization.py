"""Quantised operators: no version is missing, numbers beyond 32 bits saturate, and parameters of rows are those of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ansor_py.graph.evaluators.pooling import Windows
from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator


def spread(parameter: Numbers, shape: tuple[int, ...], axis: int, block: int) -> Numbers:
    """A scale or zero point so that it broadcasts with data of `shape`: one number, one an index of `axis`, or a block."""
    if parameter.size == 1 and not block:
        return parameter.reshape(())
    if not block:
        return parameter.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])
    return np.repeat(parameter, block, axis)[tuple(slice(0, extent) for extent in shape)]


@evaluator("DequantizeLinear")
def dequantize_linear(call: EvaluatorCall) -> tuple[Any, ...]:
    """(x - zero point) * scale."""
    x, scale, zero = call.x, call.array(1), call.optional(2)
    axis, block = int(call.get("axis", 1)), int(call.get("block_size", 0))
    number = x.astype(np.float64 if x.dtype.itemsize > 2 else np.float32)
    if zero is not None:
        number = number - spread(np.asarray(zero), x.shape, axis, block).astype(number.dtype)
    dtype = helper.tensor_dtype_to_np_dtype(call.get("output_dtype")) if call.get("output_dtype") else scale.dtype
    wide = spread(scale, x.shape, axis, block).astype(np.result_type(scale.dtype, np.float32))
    return ((number.astype(wide.dtype) * wide).astype(dtype),)


@evaluator("QuantizeLinear")
def quantize_linear(call: EvaluatorCall) -> tuple[Any, ...]:
    """x / scale, rounded to even, plus the zero point, saturated."""
    x, scale, zero = call.x, call.array(1), call.optional(2)
    axis, block = int(call.get("axis", 1)), int(call.get("block_size", 0))
    wanted = helper.tensor_dtype_to_np_dtype(call.get("output_dtype") or TensorProto.UINT8)
    dtype = wanted if zero is None else np.asarray(zero).dtype
    precision = call.get("precision") or 0
    divided = helper.tensor_dtype_to_np_dtype(precision) if precision else np.result_type(scale.dtype, np.float32)
    ratio = x.astype(divided) / spread(scale, x.shape, axis, block).astype(divided)
    shift = 0 if zero is None else spread(np.asarray(zero), x.shape, axis, block)
    if dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2"):
        low, high = _range_of(dtype)
        return (np.clip(np.rint(ratio).astype(np.float64) + np.asarray(shift).astype(np.float64), low, high).astype(dtype),)
    if dtype.name.startswith("float8") and call.get("saturate", 1):
        return (numpy_helper.saturate_cast(ratio, dtype),)
    return ((ratio + np.asarray(shift).astype(ratio.dtype)).astype(dtype),)


def _range_of(dtype: Any) -> tuple[int, int]:
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    bits = int(dtype.name.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@evaluator("MatMulInteger")
def matmul_integer(call: EvaluatorCall) -> tuple[Any, ...]:
    """(A - zero points of rows) @ (B - zero points of columns), in int32."""
    left, right = _shifted(call.x, call.optional(2), rows=True), _shifted(call.array(1), call.optional(3), rows=False)
    return (left @ right,)


@evaluator("QLinearMatMul")
def qlinear_matmul(call: EvaluatorCall) -> tuple[Any, ...]:
    """A product of quantised matrices, quantised again."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (call.array(index) for index in range(8))
    product = _shifted(a, a_zero, rows=True) @ _shifted(b, b_zero, rows=False)
    factor = _of_rows(a_scale) * b_scale / _of_rows(y_scale)
    return (_saturated(product * factor, _of_rows(y_zero)),)


def _shifted(matrix: Numbers, zero: Any, rows: bool) -> Numbers:
    if zero is None:
        return matrix.astype(np.int32)
    point = np.asarray(zero).astype(np.int32)
    return matrix.astype(np.int32) - (_of_rows(point) if rows else point)


def _of_rows(parameter: Numbers) -> Numbers:
    """A vector has one entry a row; other shapes broadcast as they are."""
    return parameter[:, None] if parameter.ndim == 1 and parameter.size > 1 else parameter


def _saturated(number: Numbers, zero: Numbers) -> Numbers:
    low, high = _range_of(zero.dtype)
    rounded: Numbers = np.rint(number) + zero.astype(np.int32)
    return np.clip(rounded, low, high).astype(zero.dtype)


def convolved(call: EvaluatorCall, x: Numbers, weights: Numbers) -> Numbers:
    """A convolution of any rank of int32 numbers, by the attributes of the call."""
    groups = int(call.get("group", 1))
    cut = Windows.of(call, x.shape[2:], weights.shape[2:])
    windows = cut.values(x, 0)
    batch, outputs, rank = x.shape[0], tuple(cut.outputs), x.ndim - 2
    rows = np.moveaxis(windows, 1, 1 + rank).reshape(batch, *outputs, groups, -1)
    kernels = weights.reshape(groups, weights.shape[0] // groups, -1)
    result = np.einsum("...gk,gmk->...gm", rows, kernels).reshape(batch, *outputs, weights.shape[0])
    return np.moveaxis(result, -1, 1)


def _of_channels(parameter: Numbers, rank: int, axis: int) -> Numbers:
    """One number, or one for each output channel, so that it broadcasts along `axis` of `rank` dimensions."""
    return parameter.reshape([-1 if index == axis else 1 for index in range(rank)])


@evaluator("ConvInteger")
def conv_integer(call: EvaluatorCall) -> tuple[Any, ...]:
    """A convolution of numbers without their zero points, in int32."""
    x, weights = call.x.astype(np.int32), call.array(1).astype(np.int32)
    x = x if call.optional(2) is None else x - np.int32(call.number(2))
    if call.optional(3) is not None:
        weights = weights - _of_channels(call.array(3).astype(np.int32), weights.ndim, 0)
    return (convolved(call, x, weights),)


@evaluator("QLinearConv")
def qlinear_conv(call: EvaluatorCall) -> tuple[Any, ...]:
    """A convolution of quantised tensors, quantised again; weights may have a scale and zero point a channel."""
    x, x_scale, _, w, w_scale, w_zero, y_scale, y_zero = (call.array(index) for index in range(8))
    weights = w.astype(np.int32) - _of_channels(w_zero.astype(np.int32), w.ndim, 0)
    result = convolved(call, x.astype(np.int32) - np.int32(call.number(2)), weights)
    if call.optional(8) is not None:
        result = result + _of_channels(call.array(8), x.ndim, 1)
    factor = x_scale.reshape(()) * _of_channels(w_scale, x.ndim, 1) / y_scale.reshape(())
    return (_saturated(result * factor, y_zero.reshape(())),)
