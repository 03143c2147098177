"""Normalisations: those of ONNX's evaluator that miss a version, a mode or a dtype, or lose numbers.

Softmax before version 13 takes all axes from `axis` on as one; LogSoftmax there and later is written so that nothing
underflows; LayerNormalization and RMSNormalization compute in the dtype of `stash_type`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import helper

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator

_ONE_AXIS_VERSION = 13  # from it on, Softmax and its kin work on one axis


@evaluator("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: EvaluatorCall) -> tuple[Any, ...]:
    """Exponentials divided by their sum; the logarithm of that; or 1 at the first maximum and 0 elsewhere."""
    axis, x = int(call.get("axis")), call.x
    if call.version < _ONE_AXIS_VERSION:
        rows = x.reshape(math.prod(x.shape[: axis % max(x.ndim, 1)]), -1)
        return (_softmax(call.op_type, rows, 1).reshape(x.shape),)
    return (_softmax(call.op_type, x, axis),)


def _softmax(kind: str, x: Numbers, axis: int) -> Numbers:
    if x.size == 0:
        return x
    if kind == "Hardmax":
        result = np.zeros_like(x)
        np.put_along_axis(result, np.expand_dims(x.argmax(axis), axis), 1, axis)
        return result
    shifted = x - x.max(axis, keepdims=True)
    exponential = np.exp(shifted)
    total = exponential.sum(axis, keepdims=True)
    result = shifted - np.log(total) if kind == "LogSoftmax" else exponential / total
    return np.asarray(result, x.dtype)


@evaluator("LRN")
def lrn(call: EvaluatorCall) -> tuple[Any, ...]:
    """Local response normalisation over neighbouring channels."""
    x, size = call.x, int(call.get("size"))
    before, after = (size - 1) // 2, size // 2
    padded = np.pad(x.astype(np.float64) ** 2, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
    squares = sum(padded[:, shift : shift + x.shape[1]] for shift in range(size))
    return ((x / (call.get("bias") + call.get("alpha") / size * squares) ** call.get("beta")).astype(x.dtype),)


@evaluator("BatchNormalization")
def batch_normalisation(call: EvaluatorCall) -> tuple[Any, ...]:
    """By the given statistics; in training mode (from version 14 on) by those of the batch, and the given ones moved on.

    Without `spatial` (before version 9) every element of an image has statistics of its own.
    """
    x, scale, bias, mean, variance = (call.array(index) for index in range(5))
    training = call.version >= 14 and bool(call.get("training_mode", 0))
    results: tuple[Any, ...] = ()
    if training:
        axes, momentum = (0, *range(2, x.ndim)), call.get("momentum")
        wide = x.astype(np.result_type(x.dtype, np.float32))
        current = (wide.mean(axes), wide.var(axes))
        results = tuple(
            (given * momentum + new * (1 - momentum)).astype(given.dtype)
            for given, new in zip((mean, variance), current, strict=True)
        )
        mean, variance = current
    shape = (-1, *[1] * (x.ndim - 2)) if call.get("spatial", 1) else (1, *x.shape[1:])
    factor = scale / np.sqrt(variance + np.asarray(call.get("epsilon"), variance.dtype))
    y = factor.reshape(shape) * (x - mean.reshape(shape)) + bias.reshape(shape)
    return (y.astype(x.dtype), *results)


@evaluator("LayerNormalization")
def layer_normalisation(call: EvaluatorCall) -> tuple[Any, ...]:
    """Y, and mean and reciprocal deviation in the dtype of `stash_type`."""
    x, bias = call.x, call.optional(2)
    wide, axes = _stashed(call)
    mean = wide.mean(axes, keepdims=True)
    reciprocal = 1 / np.sqrt(np.square(wide - mean).mean(axes, keepdims=True) + np.asarray(call.get("epsilon"), wide.dtype))
    y = ((wide - mean) * reciprocal).astype(x.dtype) * call.array(1)
    return ((y if bias is None else y + bias).astype(x.dtype), mean, reciprocal)


@evaluator("RMSNormalization")
def rms_normalisation(call: EvaluatorCall) -> tuple[Any, ...]:
    """Divided by the root of the mean square."""
    wide, axes = _stashed(call)
    root = np.sqrt(np.square(wide).mean(axes, keepdims=True) + np.asarray(call.get("epsilon"), wide.dtype))
    return (((wide / root).astype(call.x.dtype) * call.array(1)).astype(call.array(1).dtype),)


def _stashed(call: EvaluatorCall) -> tuple[Numbers, tuple[int, ...]]:
    """The input in the dtype of `stash_type`, and the axes from `axis` on."""
    axis = int(call.get("axis")) % call.x.ndim
    return call.x.astype(helper.tensor_dtype_to_np_dtype(call.get("stash_type"))), tuple(range(axis, call.x.ndim))


@evaluator("LpNormalization")
def lp_normalisation(call: EvaluatorCall) -> tuple[Any, ...]:
    """Divided by the sum of magnitudes (p = 1) or the root of the sum of squares (p = 2); zero stays zero."""
    x, axis, order = call.x, int(call.get("axis")), int(call.get("p"))
    magnitude = np.abs(x).sum(axis, keepdims=True) if order == 1 else np.sqrt(np.square(x).sum(axis, keepdims=True))
    return (np.divide(x, magnitude, out=np.zeros_like(x), where=magnitude != 0),)


@evaluator("Dropout")
def dropout(call: EvaluatorCall) -> tuple[Any, ...]:
    """The input and a mask of ones at inference; in training mode (from version 12 on) random zeros, the rest scaled up."""
    x, ratio = call.x, call.number(1)
    ratio = 0.5 if ratio is None else float(ratio)
    mask_dtype = bool if call.version >= 10 else x.dtype
    if call.version < 12 or not call.number(2) or ratio == 0:
        return (x, np.ones(x.shape, mask_dtype))
    seed = call.get("seed")
    kept = np.random.RandomState(seed).uniform(0, 1, x.shape) >= ratio
    return ((kept * x / (1 - ratio)).astype(x.dtype), kept)
