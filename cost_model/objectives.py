"""What boosted trees minimise: gradients of a loss on the sum of the trees' outputs over a program's statements.

An objective is made for one training set and maps the programs' sums to first and second derivatives by program. Every row
of a program moves the sum, so `by_rows` multiplies a row's second derivative by the program's rows, which keeps the steps
stable for programs of many statements.

    objective = by_rows(squared_error(labels, weights), batch.offsets)
    lightgbm.train({"objective": objective, ...}, ...)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Derivatives = tuple[Floats, Floats]
ProgramObjective = Callable[[Floats], Derivatives]
RowObjective = Callable[[Floats, Any], Derivatives]

PARTNERS = 32  # programs that each program is compared with in one iteration
LEAST_CURVATURE = 1e-3


def by_rows(objective: ProgramObjective, offsets: NDArray[np.int64]) -> RowObjective:
    """The objective on rows as LightGBM calls it; program p has the rows `offsets[p]:offsets[p + 1]`."""
    starts, counts = offsets[:-1], np.diff(offsets)

    def of_rows(predicted: Floats, dataset: Any) -> Derivatives:
        gradient, hessian = objective(np.add.reduceat(predicted, starts))
        return np.repeat(gradient, counts), np.repeat(hessian * counts, counts)

    return of_rows


def squared_error(labels: Floats, weights: Floats) -> ProgramObjective:
    """Sum of weight / 2 * (sum - label)**2 (paper, section 5.2: the weight is the label)."""
    weights = weights / weights.mean()

    def derivatives(sums: Floats) -> Derivatives:
        return (sums - labels) * weights, weights

    return derivatives


def pairwise_ranking(labels: Floats, tasks: NDArray[np.int64], seed: int) -> ProgramObjective:
    """Logistic loss of pairs of one task, log(1 + exp(worse - better)), weighted by how far apart their labels are.

    Wrong pairs matter as much as their latencies differ and as one of them is fast (as in LambdaRank; Burges 2010), so noise
    among equals and order among slow programs teach little. Each iteration draws `PARTNERS` partners for every program.
    """
    order = np.argsort(tasks, kind="stable")
    _, firsts, sizes = np.unique(tasks[order], return_index=True, return_counts=True)
    start, size = np.repeat(firsts, sizes), np.repeat(sizes, sizes)
    rng = np.random.default_rng(seed)

    def derivatives(sums: Floats) -> Derivatives:
        shuffled = order[np.lexsort((rng.random(len(order)), start))]  # within each task
        steps = rng.permutation(int(size.max()) - 1)[:PARTNERS, None] + 1 if size.max() > 1 else np.zeros((1, 1), np.int64)
        partner = shuffled[start + (np.arange(len(order)) - start + steps) % size]
        difference = labels[shuffled] - labels[partner]
        weight = np.abs(difference) * np.maximum(labels[shuffled], labels[partner])
        wrong = 1 / (1 + np.exp(np.clip(np.sign(difference) * (sums[shuffled] - sums[partner]), -50, 50)))
        pull, curve = weight * np.sign(difference) * wrong, weight * wrong * (1 - wrong)
        gradient, hessian = np.zeros(len(sums)), np.zeros(len(sums))
        for place in range(len(steps)):
            gradient[shuffled] -= pull[place]
            gradient[partner[place]] += pull[place]
            hessian[shuffled] += curve[place]
            hessian[partner[place]] += curve[place]
        scale = max(float(weight.sum() * 2 / len(sums)), 1e-12)
        return gradient / scale, np.maximum(hessian / scale, LEAST_CURVATURE)

    return derivatives
