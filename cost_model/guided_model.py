"""Boosted trees guided by the roofline: what was learned times what is known of every machine; the default model.

Trees know little of programs unlike those they have learned from, and nothing before the first round; a roofline is roughly
right everywhere, and never precise. The two err independently, so a score is the product of the trees' throughput and the
roofline's (or a power of it, `ModelOptions.roofline_power`). Before there is enough data it is the roofline's alone, so that a
search does not begin blindly. The trees are those of `lightgbm_model.py`, trained on the paper's loss.

    create_cost_model("lightgbm-roofline", seed=0)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import FeatureBatch, cost_model
from ansor_py.cost_model.lightgbm_model import LightGBMModel
from ansor_py.cost_model.model_options import ModelOptions
from ansor_py.cost_model.roofline_model import roofline_cycles, roofline_throughput

# The trees' sums are no throughputs where they are lower than this, as for failures.
LEAST_SUM = 0.01


@cost_model("lightgbm-roofline", options=ModelOptions)
class GuidedModel(LightGBMModel):
    """See the module."""

    kind = "lightgbm-roofline"

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs], positive. Raises OptionError for rows that are not those of `extract_features`."""
        known = roofline_throughput(batch)
        if not self.is_trained:
            return known.astype(np.float32)
        learned = np.maximum(super().predict(batch), LEAST_SUM)
        return np.asarray(learned * known**self.options.roofline_power, dtype=np.float32)

    def predict_statements(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Outputs float32[rows] of the single statements: the trees', and minus the roofline's cycles before training."""
        return super().predict_statements(batch) if self.is_trained else (-roofline_cycles(batch)).astype(np.float32)
