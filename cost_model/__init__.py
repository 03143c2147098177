"""Cost models: batched program features, the LightGBM model, a random model and accuracy metrics."""

from ansor_py.cost_model.feature_groups import feature_group, feature_names
from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.interface import CostModel, FeatureBatch, cost_model, create_cost_model
from ansor_py.cost_model.lightgbm_model import LightGBMModel, LightGBMOptions
from ansor_py.cost_model.random_model import RandomModel

__all__ = [
    "CostModel",
    "FeatureBatch",
    "LightGBMModel",
    "LightGBMOptions",
    "RandomModel",
    "cost_model",
    "create_cost_model",
    "extract_features",
    "feature_group",
    "feature_names",
]
