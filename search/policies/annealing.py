"""Model-guided simulated annealing, as AutoTVM's: chains walk through the space on the cost model's scores.

In every step each chain changes one knob. A better program is always taken, a worse one with probability
`exp(difference / temperature)`; the temperature, in units of the best score at the round's start, falls to zero. The best
programs that any chain has met are measured. Chains go on in the next round where they stopped. There are as many as make
a round score as many programs as an evolution does.

    search = AnnealingSearch(sketches, target, score, rng, options)
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ansor_py.schedule.sketch import Genes
from ansor_py.search.evolution.mutation import changed_in_one
from ansor_py.search.policies.sampler import ProgramSampler, Scores
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.validity import accepts, repair

# Temperature where no chain stands on a program with a score: every step that is not worse is taken.
COLDEST = 1e-12


class AnnealingSearch(ProgramSampler):
    """Chains of single changes, and a share of random programs in every batch."""

    @cached_property
    def _chains(self) -> list[Genes]:
        """Where the chains stand, by sketch; at first on random programs."""
        chains = max(1, self.options.population * (self.options.iterations + 1) // (self.options.annealing_steps + 1))
        legal = [space.legal_structures for space in self.spaces]
        return [rows.genes for rows in self.random_generation(chains, legal)]

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before: the best that the chains meet, and random ones."""
        return self.batch_of(self._anneal(), count)

    def _anneal(self) -> list[Candidate]:
        """The best programs that were not proposed before, best first; the chains are moved on."""
        steps = self.options.annealing_steps
        rows, scores = self._chains, self.score_rows(self._chains)
        met, values = [rows], [scores]
        highest = max((float(found.max(initial=0.0)) for found in scores), default=0.0)
        for step in range(steps):
            temperature = self.options.annealing_temperature * highest * (1 - step / steps)
            moved = [self._neighbours(number, genes) for number, genes in enumerate(rows)]
            found = self.score_rows(moved)
            met.append(moved)
            values.append(found)
            taken = [self._accepts(old, new, temperature) for old, new in zip(scores, found, strict=True)]
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

    def _accepts(self, old: Scores, new: Scores, temperature: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which chains take their step."""
        with np.errstate(invalid="ignore"):
            difference = np.nan_to_num(np.minimum(new - old, 0.0), nan=0.0)
        return np.asarray(self.rng.random(len(old)) < np.exp(difference / max(temperature, COLDEST)))
