"""Model-guided simulated annealing, as AutoTVM's: chains walk through the space on the cost model's scores.

In every step each chain changes one knob. A better program is always taken, a worse one with probability
`exp(difference / temperature)`. The difference is that of the scores' ranks among all chains before and after the step, from 0
to 1, so that any scores will do in which higher is better; the temperature falls to zero. The best
programs that any chain has met are measured. Chains go on in the next round where they stopped. There are as many as make
a round score as many programs as an evolution does.

    search = AnnealingSearch(sketches, target, score, rng, options)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.sketch import Genes
from ansor_py.search.evolution.mutation import changed_in_one
from ansor_py.search.evolution.scores import ranks
from ansor_py.search.policies.sampler import ProgramSampler, Scores
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.validity import accepts, repair
from ansor_py.strategy_options import StrategyOptions, option


@dataclass(frozen=True)
class AnnealingOptions(StrategyOptions, name="annealing"):
    """Constants of simulated annealing."""

    steps: int = option(40, "steps of every chain in a round", least=1)
    temperature: float = option(
        0.1, "of the first step, as a difference of ranks (0 to 1) among the chains; it falls to 0", above=0
    )


class AnnealingSearch(ProgramSampler):
    """Chains of single changes, and a share of random programs in every batch."""

    @cached_property
    def _chains(self) -> list[Genes]:
        """Where the chains stand, by sketch; at first on random programs."""
        chains = max(
            1, self.options.population * (self.options.iterations + 1) // (self.options.of(AnnealingOptions).steps + 1)
        )
        legal = [space.legal_structures for space in self.spaces]
        return [rows.genes for rows in self.random_generation(chains, legal)]

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before: the best that the chains meet, and random ones."""
        return self.batch_of(self._anneal(), count)

    def _anneal(self) -> list[Candidate]:
        """The best programs that were not proposed before, best first; the chains are moved on."""
        own = self.options.of(AnnealingOptions)
        steps = own.steps
        rows, scores = self._chains, self.score_rows(self._chains)
        met, values = [rows], [scores]
        for step in range(steps):
            temperature = own.temperature * (1 - step / steps)
            moved = [self._neighbours(number, genes) for number, genes in enumerate(rows)]
            found = self.score_rows(moved)
            met.append(moved)
            values.append(found)
            taken = self._taken(scores, found, temperature)
            rows = [np.where(t[:, None], new, old) for t, new, old in zip(taken, moved, rows, strict=True)]
            scores = [np.where(t, new, old) for t, new, old in zip(taken, found, scores, strict=True)]
        self._chains = rows
        every = [np.concatenate(parts) for parts in zip(*met, strict=True)]
        return self.best_unseen(
            every, [np.concatenate(v) for v in zip(*values, strict=True)], self.options.best_kept, "annealing"
        )

    def _neighbours(self, number: int, rows: Genes) -> Genes:
        """Each row with one knob changed; as it was where that is invalid."""
        space = self.spaces[number]
        columns = np.flatnonzero(space.sketch.sizes > 1)
        if not len(columns) or not len(rows):
            return rows
        moved = repair(space, changed_in_one(space, rows, columns, self.rng), self.rng)
        return np.where(accepts(space, moved)[:, None], moved, rows)

    def _taken(self, old: Sequence[Scores], new: Sequence[Scores], temperature: float) -> list[NDArray[np.bool_]]:
        """Which chains take their step, by sketch."""
        before, after = np.split(ranks(np.concatenate([*old, *new])) / sum(map(len, [*old, *new])), 2)
        taken = self.rng.random(len(before)) < np.exp(np.minimum(after - before, 0.0) / temperature)
        return np.split(taken, np.cumsum([len(scores) for scores in old])[:-1])
