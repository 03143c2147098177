"""Reductions: those whose results of ONNX's classes have another dtype or are not numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator


def axes_of(call: EvaluatorCall) -> tuple[int, ...]:
    """The axes, from the attribute or the input; without any all of them, or none with `noop_with_empty_axes`."""
    given = call.get("axes") if call.optional(1) is None else call.array(1).reshape(-1).tolist()
    if not given:
        return () if call.get("noop_with_empty_axes", 0) else tuple(range(call.x.ndim))
    return tuple(int(axis) % call.x.ndim for axis in given)


def _kept(call: EvaluatorCall, result: Numbers, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """The result in the dtype of the data, with or without the axes."""
    return (np.asarray(result if call.get("keepdims", 1) else result.squeeze(axes)).astype(call.x.dtype),)


@evaluator("ReduceSumSquare")
def reduce_sum_square(call: EvaluatorCall) -> tuple[Any, ...]:
    """The sum of squares."""
    axes = axes_of(call)
    return _kept(call, np.square(call.x).sum(axes, keepdims=True), axes)


@evaluator("ReduceLogSumExp")
def reduce_log_sum_exp(call: EvaluatorCall) -> tuple[Any, ...]:
    """The logarithm of the sum of exponentials, without overflow; of nothing it is minus infinity."""
    axes, x = axes_of(call), call.x
    largest = x.max(axes, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0).astype(x.dtype)
    return _kept(call, np.log(np.exp(x - shift).sum(axes, keepdims=True)) + shift, axes)
