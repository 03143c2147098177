"""How good a cost model is: pairwise rank accuracy, recall of the best programs, root mean square error, and how fast the best
of the programs is that the model likes best (TenSet's peak@k).

All take what the model predicted (higher is better) and what is true, and are plain NumPy.

    pairwise_rank_accuracy(scores, 1 / costs)      # share of pairs in the right order; 0.5 is chance
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pairwise_rank_accuracy(scores: ArrayLike, truth: ArrayLike) -> float:
    """The share of pairs of programs which the scores put in the true order; both are higher-is-better, [programs].

    Pairs that are truly equal do not count; a pair that the model cannot tell apart counts one half. NaN without pairs.
    """
    predicted, true = _pair_of(scores, truth)
    first, second = np.triu_indices(len(true), k=1)
    order = np.sign(true[first] - true[second])
    counted = order != 0
    if not counted.any():
        return float("nan")
    agreement = np.sign(predicted[first] - predicted[second])[counted] * order[counted]
    return float(np.mean((agreement + 1) / 2))


def top_k_recall(scores: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The share of the truly best `k` programs that are among the `k` with the highest scores (all programs if fewer)."""
    predicted, true = _pair_of(scores, truth)
    k = min(k, len(true))
    if k < 1:
        return float("nan")
    best = np.argsort(-true, kind="stable")[:k]
    chosen = np.argsort(-predicted, kind="stable")[:k]
    return len(np.intersect1d(best, chosen)) / k


def rmse(scores: ArrayLike, truth: ArrayLike) -> float:
    """Root mean square of the differences."""
    predicted, true = _pair_of(scores, truth)
    return float(np.sqrt(np.mean((predicted - true) ** 2))) if len(true) else float("nan")


def scaled_rmse(scores: ArrayLike, truth: ArrayLike) -> float:
    """The same after all scores were multiplied by the one factor that fits best: they need not be in the truth's unit."""
    predicted, true = _pair_of(scores, truth)
    square = float(predicted @ predicted)
    return rmse(predicted * (float(predicted @ true) / square if square > 0 else 0.0), true)


def peak_at_k(scores: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The best truth among the `k` programs with the highest scores, as a share of the best of all; NaN for no program."""
    predicted, true = _pair_of(scores, truth)
    if k < 1 or not len(true):
        return float("nan")
    chosen = np.argsort(-predicted, kind="stable")[:k]
    return float(true[chosen].max() / true.max())


def _pair_of(scores: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predicted, true = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(f"scores {predicted.shape} and truth {true.shape} must be vectors of one length")
    return predicted, true
