"""How well the cost model knew a round's programs before it was trained on them; the lines of `accuracy.csv`.

    known = round_accuracy(3, "conv2d", scores, costs_seconds, best_seconds)
    known.pairwise          # 0.5 is chance

Most programs of a round were chosen because their scores are high, so they are alike and hard to order: these figures are
lower than those on random programs, which `experiments/model_accuracy.py` measures.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.metrics import pairwise_rank_accuracy, scaled_rmse, top_k_recall

TOP_SHARE = 0.25  # of a round's programs are its top k


@dataclass(frozen=True)
class RoundAccuracy:
    """One round. `programs` counts those with a latency; None is "not known" (too few of them).

    `pairwise` is the share of pairs in the right order, `top_k_recall` the share of the fastest quarter that the model put into
    its first quarter, `rmse` the error of scores, scaled by one factor to fit, as throughput relative to the task's best.
    """

    round: int
    task: str
    programs: int
    pairwise: float | None
    top_k_recall: float | None
    rmse: float | None

    def row(self) -> list[str]:
        """The fields as text, empty where not known."""
        return ["" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in astuple(self)]


ACCURACY_COLUMNS = tuple(field.name for field in fields(RoundAccuracy))


def round_accuracy(
    round: int, task: str, scores: NDArray[np.floating], costs: NDArray[np.float64], best: float
) -> RoundAccuracy:
    """Compare scores (higher is better) with seconds; failures (infinite seconds) do not count. `best` seconds are label 1."""
    measured = np.isfinite(costs)
    predicted, truth = np.asarray(scores, dtype=np.float64)[measured], best / costs[measured]
    k = math.ceil(TOP_SHARE * len(truth))
    figures = (pairwise_rank_accuracy(predicted, truth), top_k_recall(predicted, truth, k), scaled_rmse(predicted, truth))
    return RoundAccuracy(round, task, len(truth), *(None if math.isnan(figure) else figure for figure in figures))
