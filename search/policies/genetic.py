"""Genetic search on measured costs alone, as AutoTVM's: no cost model.

The best measured programs are the parents, drawn in proportion to their speed. A child takes the knobs before a random point
from one parent and the rest from another of the same sketch; then every knob is changed with a small probability.

    search = GeneticSearch(sketches, target, score, rng, options)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ansor_py.schedule.sketch import Genes
from ansor_py.search.policies.sampler import ProgramSampler
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.validity import accepts, repair
from ansor_py.strategy_options import StrategyOptions, option

# Children made for every program that is wanted, as some are invalid and some known.
SPARE = 8


@dataclass(frozen=True)
class GeneticOptions(StrategyOptions, name="genetic"):
    """Constants of genetic search."""

    population: int = option(64, "measured programs that are parents", least=1)
    mutation: float = option(0.1, "probability with which a child's knob is changed", least=0, most=1)


class GeneticSearch(ProgramSampler):
    """Random programs until there are parents enough, then their children."""

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before."""
        if len(self.measured) < self.options.of(GeneticOptions).population:
            return self.draw_random(count)
        children = self._children(SPARE * count)
        order = self.rng.permutation(len(children))
        chosen: list[Candidate] = []
        for index in order:
            if len(chosen) < count and self.mark(children[int(index)]):
                chosen.append(children[int(index)])
        return chosen + self.draw_random(count - len(chosen))

    def _children(self, count: int) -> list[Candidate]:
        """Valid children, in the order of their sketches."""
        parents = self.measured[: self.options.of(GeneticOptions).population]
        speeds = 1.0 / np.array([cost for cost, _, _, _ in parents])
        owners = np.array([sketch for _, _, sketch, _ in parents])
        drawn = self.rng.choice(len(parents), count, p=speeds / speeds.sum())
        found: list[Candidate] = []
        for number, space in enumerate(self.spaces):
            mine = np.flatnonzero(owners == number)
            first = drawn[owners[drawn] == number]
            if not len(first):
                continue
            second = self.rng.choice(mine, len(first), p=speeds[mine] / speeds[mine].sum())
            table = np.stack([parents[row][3] for row in mine])
            genes = self._cross(number, table[np.searchsorted(mine, first)], table[np.searchsorted(mine, second)])
            genes = repair(space, genes, self.rng)
            for row in np.flatnonzero(accepts(space, genes)):
                found.append(Candidate(number, genes[row], parent=parents[int(first[row])][1], operator="genetic"))
        return found

    def _cross(self, number: int, first: Genes, second: Genes) -> Genes:
        """Children by one-point crossover and mutation, unchecked."""
        sizes = self.sketches[number].sizes
        point = self.rng.integers(0, len(sizes) + 1, len(first))
        genes = np.where(np.arange(len(sizes)) < point[:, None], first, second)
        changed = self.rng.random(genes.shape) < self.options.of(GeneticOptions).mutation
        return np.where(changed, self.rng.integers(0, sizes, genes.shape), genes).astype(np.int32)
