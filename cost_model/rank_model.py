"""Boosted trees that learn the order of programs and not their throughput: a ranking loss on pairs of one task.

What differs from `lightgbm_model.py` is the objective. The sums over statements have no unit; a score is their logistic
function, in (0, 1), so that scores stay weights by which parents are drawn.

    create_cost_model("lightgbm-rank", seed=0)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import cost_model
from ansor_py.cost_model.lightgbm_model import LightGBMModel
from ansor_py.cost_model.model_options import ModelOptions
from ansor_py.cost_model.objectives import ProgramObjective, pairwise_ranking
from ansor_py.cost_model.training_set import TrainingSet

# Beyond this sum a float32 no longer tells scores apart.
LARGEST_SUM = 15.0


@cost_model("lightgbm-rank", options=ModelOptions)
class LightGBMRankModel(LightGBMModel):
    """See the module."""

    kind = "lightgbm-rank"

    def objective(self, known: TrainingSet, seed: int) -> ProgramObjective:
        """Pairwise ranking within each task; failures rank last."""
        return pairwise_ranking(known.labels(), known.tasks, seed)

    def score(self, sums: NDArray[np.float64]) -> NDArray[np.float32]:
        """The logistic function of the sums."""
        return (1 / (1 + np.exp(-np.clip(sums, -LARGEST_SUM, LARGEST_SUM)))).astype(np.float32)
