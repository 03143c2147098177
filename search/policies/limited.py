"""Policy `limited`: evolution in a space about as large as that of manual templates (paper, section 7.2, "limited space").

The paper limits "tiling level, innermost tile sizes, and computation location". Here the rules that compute a stage inside
another one, keep a tile in a local buffer or factor a reduction are not tried; what is not inlined has its own loop nest; tiles
have one level below the parallel loops instead of two; and the unroll limit is fixed. Register tiles and packing are as
everywhere, so that what differs is the search space and not the code generator's building blocks.

    sketches = limited_sketches(dag, target, options)
    policy = LimitedPolicy(sketches, target, score, rng, options)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.evolution import EvolutionPolicy
from ansor_py.search.policies.policy import policy
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.strategy_options import StrategyOptions, option
from ansor_py.target import Target

LIMITED_RULES = ("always_inline", "add_packing", "multi_level_tiling", "skip")


@dataclass(frozen=True)
class LimitedOptions(StrategyOptions, name="limited"):
    """Constants of the limited space."""

    unroll: int = option(64, "the one unroll limit of the space, vector instructions", least=0)


def limited_sketches(dag: ComputeDAG, target: Target, options: SearchOptions) -> list[Sketch]:
    """The sketches of the limited rules (not those of the options), under the limits: every stage at root, one tile level."""
    unroll = options.of(LimitedOptions).unroll
    limits = replace(options.rule_options, unroll_limits=(unroll,), location_structures=1, cache_levels=1)
    return generate_sketches(dag, target, LIMITED_RULES, limits)


@policy("limited", sketches=limited_sketches, options=LimitedOptions)
class LimitedPolicy(EvolutionPolicy):
    """The default policy; only its space is limited."""
