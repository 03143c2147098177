"""Policy `beam`: decisions are made one after another, and only the best incomplete programs are kept (paper, section 7.2).

This is how Halide's auto-scheduler searches, and what Ansor compares itself with under "beam search": an incomplete program
is scored by a model that has learned from complete ones, and a prefix that scores badly is never seen again.

    policy = BeamPolicy(sketches, target, score, rng, options)
    policy.propose(64)

The first decision is the sketch, then every hole in its order. To be scored, an incomplete program leaves open decisions
undone: loops split by one, stages at root, all outer loops parallel, nothing unrolled. What is expanded at a decision is
bounded, so that a search scores as many programs as an evolution does; where there is more, chance decides what is expanded,
which also makes the beams of different rounds differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ansor_py.schedule.sketch import Genes, Sketch
from ansor_py.search.policies.policy import policy
from ansor_py.search.policies.sampler import ProgramSampler, Scores
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.validity import accepts, repair
from ansor_py.strategy_options import StrategyOptions, option


@dataclass(frozen=True)
class BeamOptions(StrategyOptions, name="beam"):
    """Constants of the beam."""

    width: int = option(64, "incomplete programs kept after every decision (at least as many as are measured)", least=1)


@policy("beam", options=BeamOptions)
class BeamPolicy(ProgramSampler):
    """Beam search over the holes, with a share of random programs in every batch as in the default policy."""

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before: the best at the end of a beam, and random ones."""
        return self.batch_of(self._search(count), count)

    def _search(self, count: int) -> list[Candidate]:
        """Complete programs that were not proposed before, best first; `count` or more if there are so many in the beam."""
        width = max(self.options.of(BeamOptions).width, count)
        decisions = max(len(sketch.holes) for sketch in self.sketches)
        budget = self.options.population * (self.options.iterations + 1) // max(decisions, 1)
        rows = [undecided(sketch)[None, :] for sketch in self.sketches]
        scores: list[Scores] = []
        for column in range(decisions):
            kept = rows if not scores else self._best_rows(rows, scores, width)
            share = budget / max(1, sum(map(len, kept)))
            rows = [self._expand(number, genes, column, max(1, round(share * len(genes)))) for number, genes in enumerate(kept)]
            scores = self.score_rows(rows)
        if not scores:  # nothing to decide
            scores = self.score_rows(rows)
        return self.best_unseen(rows, scores, self.options.best_kept, "beam")

    def _best_rows(self, rows: Sequence[Genes], scores: Sequence[Scores], width: int) -> list[Genes]:
        """The `width` rows with the highest scores over all sketches, by sketch."""
        best = self.best_places(scores, width)
        return [genes[sorted(place for owner, place in best if owner == number)] for number, genes in enumerate(rows)]

    def _expand(self, number: int, rows: Genes, column: int, budget: int) -> Genes:
        """The rows with every choice of one hole, invalid ones dropped and no more than `budget` tried; int32[n, holes]."""
        space = self.spaces[number]
        if column >= len(space.sketch.holes) or not len(rows):
            return rows
        size = int(space.sketch.sizes[column])
        children = np.repeat(rows, size, axis=0)
        children[:, column] = np.tile(np.arange(size), len(rows))
        if len(children) > budget:
            children = children[np.sort(self.rng.choice(len(children), budget, replace=False))]
        children = np.unique(repair(space, children, self.rng), axis=0)
        return children[accepts(space, children)]


def undecided(sketch: Sketch) -> Genes:
    """The genes of the program in which nothing is decided: first choices (lengths of 1, root, no unrolling), all parallel."""
    return np.array([hole.undecided for hole in sketch.holes], dtype=np.int32)
