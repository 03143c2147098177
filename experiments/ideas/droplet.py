"""Coordinate descent from the best programs (Droplet, Canesche et al., arXiv 2406.20037), after an evolution has found them.

    python -m ansor_py.search --import experiments/ideas/droplet.py --policy droplet --search droplet.after=96 --op softmax:8,64

The neighbours of a program differ in one hole, by one step. Those of the best measured program come first, then those of the
next best; as soon as one is better, it is the program whose neighbours come first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ansor_py.search import (
    Candidate,
    EvolutionPolicy,
    Genes,
    RoundState,
    StrategyOptions,
    accepts,
    option,
    policy,
    repair,
)


@dataclass(frozen=True)
class DropletOptions(StrategyOptions, name="droplet"):
    """Constants of the descent."""

    after: int = option(100, "trials of the task before the descent begins", least=0)
    reach: int = option(2, "neighbours along each coordinate", least=1)


@policy("droplet", options=DropletOptions)
class Droplet(EvolutionPolicy):
    """Evolution, then coordinate descent by measured costs."""

    _trials = 0

    def begin_round(self, state: RoundState) -> None:
        """Note how many programs were measured."""
        self._trials = state.trials

    def propose(self, count: int) -> list[Candidate]:
        """Programs of an evolution, later the neighbours of the best ones."""
        if self._trials < self.options.of(DropletOptions).after:
            return list(super().propose(count))
        chosen: list[Candidate] = []
        for _, trial, sketch, genes in self.measured:
            for row in self._neighbours(sketch, genes):
                candidate = Candidate(sketch, row, parent=trial, operator="descent")
                if len(chosen) < count and self.mark(candidate):
                    chosen.append(candidate)
            if len(chosen) == count:
                break
        return chosen + self.draw_random(count - len(chosen))

    def _neighbours(self, number: int, genes: Genes) -> Genes:
        """The valid programs that differ in one hole, the holes in random order; int32[n, holes]."""
        space = self.spaces[number]
        reach = self.options.of(DropletOptions).reach
        rows = []
        for column in self.rng.permutation(len(space.sketch.holes)):
            near = space.sketch.holes[column].neighbours(reach)[genes[column]]
            moved = np.repeat(genes[None, :], len(near), axis=0)
            moved[:, column] = near
            rows.append(moved)
        if not rows:
            return genes[None, :]
        moved = repair(space, np.concatenate(rows), self.rng)
        return moved[accepts(space, moved)]
