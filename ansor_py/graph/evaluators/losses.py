"""The two losses: negative log-likelihood, and cross-entropy, which is the same after LogSoftmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator


@evaluator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(call: EvaluatorCall) -> tuple[Any, ...]:
    """-weight[target] * x[target], for each position, summed, or as weighted mean."""
    return (_loss(call, call.x),)


@evaluator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(call: EvaluatorCall) -> tuple[Any, ...]:
    """The loss, and the logarithms of the probabilities."""
    x = call.x
    shifted = x - x.max(1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return (_loss(call, logarithms), logarithms)


def _loss(call: EvaluatorCall, x: Numbers) -> Numbers:
    """Targets that are `ignore_index` count for nothing, in the mean too."""
    target = call.array(1).astype(np.int64)
    counted = np.ones(target.shape, bool) if call.get("ignore_index") is None else target != call.get("ignore_index")
    safe = np.where(counted, target, 0)
    weights = counted.astype(x.dtype) if call.optional(2) is None else np.where(counted, call.array(2)[safe], 0)
    loss = -np.take_along_axis(x, np.expand_dims(safe, 1), 1).squeeze(1) * weights
    loss = np.where(counted, loss, 0)
    match call.get("reduction", "mean"):
        case "none":
            return loss.astype(x.dtype)
        case "sum":
            return np.asarray(loss.sum(), x.dtype)
    return np.asarray(loss.sum() / weights.sum(), x.dtype)
