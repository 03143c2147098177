"""Cost models: batched program features, learned, analytical and random models, accuracy metrics."""

from ansor_py.cost_model.feature_groups import Columns, feature_group, feature_names
from ansor_py.cost_model.features import batch_of, extract_features
from ansor_py.cost_model.guided_model import GuidedModel
from ansor_py.cost_model.interface import CostModel, FeatureBatch, cost_model, create_cost_model
from ansor_py.cost_model.lightgbm_model import LightGBMModel
from ansor_py.cost_model.metrics import pairwise_rank_accuracy, peak_at_k, rmse, top_k_recall
from ansor_py.cost_model.model_file import KnownTask, ModelHeader, load_model, save_model
from ansor_py.cost_model.model_options import ModelOptions
from ansor_py.cost_model.objectives import pairwise_ranking
from ansor_py.cost_model.programs import BatchProgram, Programs
from ansor_py.cost_model.random_model import RandomModel
from ansor_py.cost_model.rank_model import LightGBMRankModel
from ansor_py.cost_model.roofline_model import RooflineModel, estimated_cycles
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.cost_model.training_set import throughput_labels
from ansor_py.strategy_options import OptionSet, StrategyOptions, option

__all__ = [
    "BatchProgram",
    "Columns",
    "CostModel",
    "FeatureBatch",
    "GuidedModel",
    "KnownTask",
    "LightGBMModel",
    "LightGBMRankModel",
    "ModelHeader",
    "ModelOptions",
    "OptionSet",
    "Programs",
    "RandomModel",
    "RooflineModel",
    "StatementArrays",
    "StrategyOptions",
    "batch_of",
    "cost_model",
    "create_cost_model",
    "estimated_cycles",
    "extract_features",
    "feature_group",
    "feature_names",
    "load_model",
    "option",
    "pairwise_rank_accuracy",
    "pairwise_ranking",
    "peak_at_k",
    "rmse",
    "save_model",
    "throughput_labels",
    "top_k_recall",
]
