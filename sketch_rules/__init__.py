"""Sketch rules: how sketches are derived, one file a rule, registered by decorator.

sketches = generate_sketches(dag, target)                  # the preset "default"
sketches = generate_sketches(dag, target, rules="ansor")   # the paper's rules

What a rule of one's own needs is here too: the transform steps, holes and their kinds, genes, and what a body reads.
"""

from ansor_py.schedule.hole import Hole, hole_kind
from ansor_py.schedule.hole_kinds import (
    LengthHole,
    LocationHole,
    ParallelHole,
    RegisterTileHole,
    TileHole,
    UnrollHole,
    VectorHole,
)
from ansor_py.schedule.state import Gene
from ansor_py.schedule.steps import (
    CacheOperand,
    CacheRead,
    CacheWrite,
    ComputeAt,
    ComputeInline,
    ComputeRoot,
    Fuse,
    Parallel,
    RegisterTile,
    Reorder,
    Rfactor,
    Split,
    Step,
    StorageAlign,
    TransformLayout,
    Unroll,
    Vectorize,
)
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.presets import PRESETS
from ansor_py.sketch_rules.rule import RULES, Derived, Rule, Verdict, rule
from ansor_py.sketch_rules.space_options import SpaceOptions
from ansor_py.strategy_options import OptionSet, StrategyOptions, option
from ansor_py.te.expr import reads_of

__all__ = [
    "PRESETS",
    "RULES",
    "CacheOperand",
    "CacheRead",
    "CacheWrite",
    "ComputeAt",
    "ComputeInline",
    "ComputeRoot",
    "Derived",
    "Fuse",
    "Gene",
    "Hole",
    "LengthHole",
    "LocationHole",
    "OptionSet",
    "Parallel",
    "ParallelHole",
    "PartialSketch",
    "RegisterTile",
    "RegisterTileHole",
    "Reorder",
    "Rfactor",
    "Rule",
    "SpaceOptions",
    "Split",
    "Step",
    "StorageAlign",
    "StrategyOptions",
    "TileHole",
    "TransformLayout",
    "Unroll",
    "UnrollHole",
    "VectorHole",
    "Vectorize",
    "Verdict",
    "generate_sketches",
    "hole_kind",
    "option",
    "reads_of",
    "rule",
]
