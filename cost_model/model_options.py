"""The constants of the cost models in one frozen dataclass; every model is made with them and reads those that concern it.

create_cost_model("lightgbm-roofline", seed=0, options=ModelOptions(trees=200))
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.errors import OptionError

MAX_LEAVES = 32  # of a tree that `tree_code.py` can walk


@dataclass(frozen=True)
class ModelOptions:
    """Constants of learning.

    Attributes:
        trees: boosted trees of a model.
        leaves: of a tree, 2 to 32.
        learning_rate: of boosting.
        feature_fraction: share of the features that each tree is given.
        random_thresholds: splits compare one random threshold of each feature, not all (extremely randomised trees): of the
            programs of a first round, all of which are good, the best thresholds tell little (docs/search.md).
        bins: of a feature's histogram.
        least_rows_in_leaf: statements.
        least_weight: weight of failures in the loss, and the least of any program.
        warm_up_programs: with fewer known programs nothing is learned: scores are random, or the roofline's.
        retrain_growth: trained again when the programs have grown by this share.
        threads: of the training.
        roofline_power: model `lightgbm-roofline`: the power of the roofline's throughput with which the trees' is multiplied;
            1 trusts it as much as the trees, 0 not at all (docs/search.md).
    """

    trees: int = 100
    leaves: int = 16
    learning_rate: float = 0.2
    feature_fraction: float = 1.0
    random_thresholds: bool = True
    bins: int = 63
    least_rows_in_leaf: int = 5
    least_weight: float = 0.05
    warm_up_programs: int = 32
    retrain_growth: float = 0.03
    threads: int = 1
    roofline_power: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.leaves <= MAX_LEAVES:
            raise OptionError(f"search option 'model.leaves' must be 2 to {MAX_LEAVES}, not {self.leaves}")
        for name in ("trees", "threads", "least_rows_in_leaf", "warm_up_programs"):
            if getattr(self, name) < 1:
                raise OptionError(f"search option 'model.{name}' must be at least 1, not {getattr(self, name)}")
        if self.bins < 2:
            raise OptionError(f"search option 'model.bins' must be at least 2, not {self.bins}")
        for name in ("learning_rate", "feature_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise OptionError(f"search option 'model.{name}' must be above 0 and at most 1, not {getattr(self, name)}")
        for name in ("least_weight", "retrain_growth", "roofline_power"):
            if getattr(self, name) < 0:
                raise OptionError(f"search option 'model.{name}' must be 0 or more, not {getattr(self, name)}")


DEFAULT_MODEL = ModelOptions()
