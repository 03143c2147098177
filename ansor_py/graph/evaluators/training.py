"""The optimiser of ONNX's preview domain whose evaluator loses a dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, evaluator


@evaluator("Adam", domain="ai.onnx.preview.training")
def adam(call: EvaluatorCall) -> tuple[Any, ...]:
    """New values, gradients' means and squares of any number of tensors, for a rate and a step number."""
    rate, step, tensors = float(call.number(0)), int(call.number(1)), call.inputs[2:]
    alpha, beta, count = call.get("alpha"), call.get("beta"), len(tensors) // 4
    if step > 0:
        rate *= np.sqrt(1 - beta**step) / (1 - alpha**step)
    values, means, squares = [], [], []
    for index in range(count):
        x, gradient, mean, square = (np.asarray(tensors[index + part * count]) for part in range(4))
        gradient = call.get("norm_coefficient") * x + gradient
        means.append((alpha * mean + (1 - alpha) * gradient).astype(mean.dtype))
        squares.append((beta * square + (1 - beta) * gradient**2).astype(square.dtype))
        moved = x - rate * means[-1] / (np.sqrt(squares[-1]) + call.get("epsilon"))
        values.append(((1 - call.get("norm_coefficient_post")) * moved).astype(x.dtype))
    return (*values, *means, *squares)
