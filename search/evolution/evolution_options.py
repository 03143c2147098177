"""The constants of evolution, and what each mutation operator weighs.

options = SearchOptions().with_own(EvolutionOptions(mutation_weights={"parallel": 0.5}))
round_options(options, 8).population        # of a small round
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ansor_py.search.options import SearchOptions
from ansor_py.strategy_options import StrategyOptions, option


@dataclass(frozen=True)
class EvolutionOptions(StrategyOptions, name="evolution"):
    """Constants of evolution; the defaults are Ansor's unless docs/search.md says why not."""

    population_per_candidate: int = option(
        64,
        "programs in a generation for every candidate of the round, and structures in proportion, as a small round is over "
        "sooner and the model learns sooner; 0: always all",
        least=0,
    )
    smallest_round: float = option(
        1 / 8, "share of population and structures that is used however few candidates a round has", least=0, most=1
    )
    selection_pressure: float = option(
        2.0, "power of a program's rank by score in proportion to which it is drawn as a parent; 0: all alike", least=0
    )
    mutation_probability: float = option(0.80, "share of children that are mutated", least=0, most=1)
    crossover_probability: float = option(
        0.75, "share of the other children that are made from two parents; the rest are copies", least=0, most=1
    )
    mutation_weights: Mapping[str, float] = option(
        {},
        "weights of mutation operators in place of those with which they are registered",
        least=0,
        most=1e9,
    )
    nearest_lengths: int = option(10, "neighbours of a choice among which mutation nearest_choice draws", least=1)
    measured_share: float = option(
        0.2, "largest share of the first generation that are the best measured programs", least=0, most=1
    )


def round_options(options: SearchOptions, candidates: int) -> SearchOptions:
    """The options for a round of so many candidates: population and structures in proportion, if it is a small round."""
    own = options.of(EvolutionOptions)
    wanted = own.population_per_candidate * candidates / options.population if own.population_per_candidate else 1.0
    share = min(1.0, max(wanted, own.smallest_round))
    return replace(
        options, population=math.ceil(share * options.population), max_structures=math.ceil(share * options.max_structures)
    )
