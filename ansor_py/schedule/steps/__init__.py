"""The transform steps (primitives): one registered frozen dataclass each. See `base` for what a step is."""

from ansor_py.schedule.steps.algorithm import UseAlgorithm, algorithms_of
from ansor_py.schedule.steps.annotations import Parallel, Pragma, StorageAlign, Unroll, Vectorize
from ansor_py.schedule.steps.base import STEPS, Step, step, step_from_json
from ansor_py.schedule.steps.loops import FollowFusedSplit, FollowSplit, Fuse, Reorder, Split
from ansor_py.schedule.steps.placement import ComputeAt, ComputeInline, ComputeRoot
from ansor_py.schedule.steps.register_tile import RegisterTile
from ansor_py.schedule.steps.stages import CacheOperand, CacheRead, CacheWrite, Rfactor, TransformLayout

__all__ = [
    "STEPS",
    "CacheOperand",
    "CacheRead",
    "CacheWrite",
    "ComputeAt",
    "ComputeInline",
    "ComputeRoot",
    "FollowFusedSplit",
    "FollowSplit",
    "Fuse",
    "Parallel",
    "Pragma",
    "RegisterTile",
    "Reorder",
    "Rfactor",
    "Split",
    "Step",
    "StorageAlign",
    "TransformLayout",
    "Unroll",
    "UseAlgorithm",
    "Vectorize",
    "algorithms_of",
    "step",
    "step_from_json",
]
