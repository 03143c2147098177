"""The constants of the learned cost models: options like those of any strategy, shared by all models that are boosted trees.

create_cost_model("lightgbm-roofline", seed=0, options=OptionSet().with_own(ModelOptions(trees=200)))
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.strategy_options import StrategyOptions, option

MAX_LEAVES = 32  # of a tree that `tree_code.py` can walk


@dataclass(frozen=True)
class ModelOptions(StrategyOptions, name="model"):
    """Constants of learning. Why extremely randomised trees and how far the roofline is trusted: docs/search.md."""

    trees: int = option(100, "boosted trees of a model", least=1)
    leaves: int = option(16, "leaves of a tree", least=2, most=MAX_LEAVES)
    learning_rate: float = option(0.2, "of boosting", above=0, most=1)
    feature_fraction: float = option(1.0, "share of the features that each tree is given", above=0, most=1)
    random_thresholds: bool = option(
        True, "splits compare one random threshold of each feature, not all (extremely randomised trees)"
    )
    bins: int = option(63, "bins of a feature's histogram", least=2)
    least_rows_in_leaf: int = option(5, "statements in a leaf, at least", least=1)
    least_weight: float = option(0.05, "weight of failures in the loss, and the least of any program", least=0)
    warm_up_programs: int = option(
        32, "with fewer known programs nothing is learned: scores are random, or the roofline's", least=1
    )
    retrain_growth: float = option(0.03, "trained again when the programs have grown by this share", least=0)
    threads: int = option(1, "threads of the training", least=1)
    roofline_power: float = option(
        1.0, "model lightgbm-roofline: the power of the roofline's throughput by which the trees' is multiplied", least=0
    )
