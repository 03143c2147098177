"""Element-wise operators and Gemm, where versions broadcast differently or ONNX's evaluator loses digits."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, evaluator

_NUMPY_BROADCAST_VERSION = 7  # before it, a slope had one number or one a channel


@evaluator("PRelu")
def prelu(call: EvaluatorCall) -> tuple[Any, ...]:
    """x, or the slope times x below zero."""
    x, slope = call.x, call.array(1)
    if call.version < _NUMPY_BROADCAST_VERSION and slope.size > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return (np.where(x < 0, x * slope, x).astype(x.dtype),)


@evaluator("Erf")
def erf(call: EvaluatorCall) -> tuple[Any, ...]:
    """The error function, in double precision."""
    return (np.vectorize(math.erf, otypes=[np.float64])(call.x).astype(call.x.dtype),)


@evaluator("Selu")
def selu(call: EvaluatorCall) -> tuple[Any, ...]:
    """gamma * (x, or alpha * (exp(x) - 1) below zero); the defaults of version 1 are its own."""
    x = call.x
    low = call.get("alpha") * np.expm1(np.minimum(x, 0))
    return ((call.get("gamma") * np.where(x > 0, x, low)).astype(x.dtype),)


@evaluator("Mean")
def mean(call: EvaluatorCall) -> tuple[Any, ...]:
    """The mean of all inputs, broadcast."""
    return ((reduce(np.add, call.inputs) / len(call.inputs)).astype(call.x.dtype),)


@evaluator("Gemm")
def gemm(call: EvaluatorCall) -> tuple[Any, ...]:
    """alpha * A @ B + beta * C, A and B transposed where asked for."""
    a = call.x.T if call.get("transA", 0) else call.x
    b = call.array(1).T if call.get("transB", 0) else call.array(1)
    alpha, beta, product = call.get("alpha"), call.get("beta"), a @ b
    result = product if alpha == 1 else product * alpha
    if call.optional(2) is not None and beta != 0:
        c = call.array(2)
        if call.version < _NUMPY_BROADCAST_VERSION and not call.get("broadcast", 0) and c.shape != result.shape:
            raise ValueError(f"C of shape {list(c.shape)} is not to be broadcast to {list(result.shape)}")
        result = result + (c if beta == 1 else c * beta)
    return (result.astype(a.dtype),)
