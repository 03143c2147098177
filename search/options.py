"""All constants of the search in one frozen dataclass, each with its meaning; the defaults are Ansor's unless it says why not.

options = SearchOptions(population=512, space=SpaceOptions(unroll_limits=(0, 64)))
options.mutation_weights["nearest_choice"]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ansor_py.cost_model.model_options import DEFAULT_MODEL, ModelOptions
from ansor_py.errors import OptionError
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions

if TYPE_CHECKING:
    from ansor_py.sketch_rules.rule import Rule

# Shares of the children that each operator makes (reference page, section 5.4). Ansor's single tile mutation (0.90) is
# three here: a step to a neighbouring size, a fresh size, and another register tile under the same cache tiles.
MUTATION_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "nearest_choice": 0.40,
        "other_choice": 0.25,
        "register_tile": 0.15,
        "parallel": 0.05,
        "location": 0.06,
        "unroll": 0.05,
        "vectorize": 0.04,
    }
)

TEMPLATE_SEARCHES = ("annealing", "genetic", "grid", "random")


@dataclass(frozen=True)
class SearchOptions:
    """How a search round samples, evolves and chooses programs.

    Attributes:
        rules: name of the preset of sketch rules, or rules (names or objects) in the order in which they are tried.
        space: constants of these rules.
        model: constants of the cost models.
        population: programs in a generation, at most.
        population_per_candidate: programs in a generation for every candidate of the round; 0: always `population`. In a round
            of fewer candidates than `population` over this, `max_structures` shrinks in proportion as well: a small round is
            over sooner and the model learns sooner, so a full evolution would cost more time than it saves trials
            (docs/search.md).
        smallest_round: the share of population and structures that is used however few candidates a round has.
        iterations: generations made by mutation and crossover after the sampled one.
        selection_pressure: power of a program's rank, by its score among all of its generation, in proportion to which it is
            drawn as a parent; 0: all alike.
        mutation_probability: share of children that are mutated; of the rest, `crossover_probability` are crossed and
            what remains is copied.
        crossover_probability: share of the children that are not mutated which are made from two parents.
        mutation_weights: weight of every mutation operator; a registered operator that is missing has weight 0.
        nearest_lengths: neighbours of a choice among which mutation `nearest_choice` draws.
        measured_share: largest share of the first generation that are the best measured programs.
        best_kept: programs kept over all generations; at least twice the measured batch.
        eps_greedy: share of random programs in a measured batch.
        attempts: how often an invalid child is made again before a copy of a parent takes its place.
        max_structures: bound on the loop structures (a sketch with its locations and factors) of one evolution; each costs
            some milliseconds a generation however few its programs. Others get their turn in later rounds.
        max_instructions: bound on the estimated vector instructions of a program's module.
        max_padding: bound on iterations of the tiled loops, the wasted ones included, over useful ones.
        max_local_bytes: bound on the bytes of one buffer that is computed inside a loop; 0 stands for the L2 cache's size.
        limited_unroll: policy `limited`: the one unroll limit of its space.
        beam_width: policy `beam`: incomplete programs kept after every decision (at least as many as are measured).
        template_search: policy `template`: how its knobs are searched, `annealing`, `genetic`, `grid` or `random`.
        annealing_steps: steps of every chain in a round.
        annealing_temperature: of the first step, as a difference of ranks (0 to 1) among the chains; it falls to 0.
        genetic_population: measured programs that are parents.
        genetic_mutation: probability with which a child's knob is changed.
    """

    rules: str | tuple[str | Rule, ...] = "default"
    space: SpaceOptions = DEFAULT_SPACE
    model: ModelOptions = DEFAULT_MODEL
    population: int = 2048
    population_per_candidate: int = 64
    smallest_round: float = 1 / 8
    iterations: int = 4
    selection_pressure: float = 2.0
    mutation_probability: float = 0.80
    crossover_probability: float = 0.75
    mutation_weights: Mapping[str, float] = field(default_factory=lambda: MUTATION_WEIGHTS)
    nearest_lengths: int = 10
    measured_share: float = 0.2
    best_kept: int = 128
    eps_greedy: float = 0.05
    attempts: int = 3
    max_structures: int = 24
    max_instructions: int = 2048
    max_padding: float = 1.5
    max_local_bytes: int = 0
    limited_unroll: int = 64
    beam_width: int = 64
    template_search: str = "annealing"
    annealing_steps: int = 40
    annealing_temperature: float = 0.1
    genetic_population: int = 64
    genetic_mutation: float = 0.1

    def for_round(self, candidates: int) -> SearchOptions:
        """The options for a round of so many candidates: population and structures in proportion, if it is a small round."""
        wanted = self.population_per_candidate * candidates / self.population if self.population_per_candidate else 1.0
        share = min(1.0, max(wanted, self.smallest_round))
        return replace(
            self, population=math.ceil(share * self.population), max_structures=math.ceil(share * self.max_structures)
        )

    def __post_init__(self) -> None:
        positive = ("population", "best_kept", "max_structures", "max_instructions")
        for name in (*positive, "nearest_lengths", "beam_width", "annealing_steps", "genetic_population"):
            if getattr(self, name) < 1:
                raise OptionError(f"search option '{name}' must be at least 1, not {getattr(self, name)}")
        for name in (
            "iterations",
            "attempts",
            "max_local_bytes",
            "population_per_candidate",
            "limited_unroll",
            "selection_pressure",
        ):
            if getattr(self, name) < 0:
                raise OptionError(f"search option '{name}' must be 0 or more, not {getattr(self, name)}")
        shares = ("mutation_probability", "crossover_probability", "measured_share", "eps_greedy", "genetic_mutation")
        for name in (*shares, "smallest_round"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"search option '{name}' is a share from 0 to 1, not {getattr(self, name)}")
        if self.annealing_temperature <= 0:
            raise OptionError(f"search option 'annealing_temperature' must be above 0, not {self.annealing_temperature}")
        if self.template_search not in TEMPLATE_SEARCHES:
            known = ", ".join(TEMPLATE_SEARCHES)
            raise OptionError(f"search option 'template_search' is one of {known}, not '{self.template_search}'")
        if self.max_padding < 1:
            raise OptionError(f"search option 'max_padding' must be at least 1, not {self.max_padding}")
        for name, weight in self.mutation_weights.items():
            if not 0 <= weight < math.inf:
                raise OptionError(f"search option 'mutation_weights.{name}' is {weight}; a weight is finite and not negative")
