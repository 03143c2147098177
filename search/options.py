"""What all strategies of a search share: rules, their constants, how programs are sampled and checked, how many are scored.

The constants of a single policy, cost model or task scheduler stand beside it, in options of its own
(`ansor_py.strategy_options`), and travel in the same object.

    options = SearchOptions(population=512, space=SpaceOptions(unroll_limits=(0, 64)))
    options = options.with_own(ModelOptions(trees=200), EvolutionOptions(selection_pressure=1.0))
    options.of(ModelOptions).trees
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ansor_py.errors import OptionError
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.strategy_options import OptionSet

if TYPE_CHECKING:
    from ansor_py.sketch_rules.rule import Rule


@dataclass(frozen=True)
class SearchOptions(OptionSet):
    """How a search round samples, checks and scores programs. The defaults are Ansor's unless it says why not.

    Attributes:
        own: options of single strategies (`with_own`, `of`).
        rules: name of the preset of sketch rules, or rules (names or objects) in the order in which they are tried.
        space: constants of these rules.
        population: programs in a generation, at most.
        iterations: generations made after the sampled one. A policy that searches under the cost model scores at most
            `population * (iterations + 1)` programs a round.
        best_kept: programs kept over all generations; at least twice the measured batch.
        eps_greedy: share of random programs in a measured batch.
        attempts: how often an invalid child is made again before a copy of a parent takes its place.
        max_structures: bound on the loop structures (a sketch with its locations and factors) of one evolution; each costs
            some milliseconds a generation however few its programs. Others get their turn in later rounds.
        max_instructions: bound on the estimated vector instructions of a program's module.
        max_padding: bound on iterations of the tiled loops, the wasted ones included, over useful ones.
        max_local_bytes: bound on the bytes of one buffer that is computed inside a loop; 0 stands for the L2 cache's size.
    """

    rules: str | tuple[str | Rule, ...] = "default"
    space: SpaceOptions = DEFAULT_SPACE
    population: int = 2048
    iterations: int = 4
    best_kept: int = 128
    eps_greedy: float = 0.05
    attempts: int = 3
    max_structures: int = 24
    max_instructions: int = 2048
    max_padding: float = 1.5
    max_local_bytes: int = 0

    @property
    def rule_options(self) -> SpaceOptions:
        """The constants of the rules, with the options that may be a rule's own."""
        return replace(self.space, own=self.own)

    def __post_init__(self) -> None:
        for name in ("population", "best_kept", "max_structures", "max_instructions"):
            if getattr(self, name) < 1:
                raise OptionError(f"search option '{name}' must be at least 1, not {getattr(self, name)}")
        for name in ("iterations", "attempts", "max_local_bytes"):
            if getattr(self, name) < 0:
                raise OptionError(f"search option '{name}' must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.eps_greedy <= 1:
            raise OptionError(f"search option 'eps_greedy' is a share from 0 to 1, not {self.eps_greedy}")
        if self.max_padding < 1:
            raise OptionError(f"search option 'max_padding' must be at least 1, not {self.max_padding}")
