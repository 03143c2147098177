"""Grid search: all programs of a space in order, the first knob changing fastest.

Sketches take turns. Invalid combinations are passed over; what was measured before is not proposed again, so a resumed search
goes on where it stopped.

    search = GridSearch(sketches, target, score, rng, options)
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from ansor_py.schedule.sketch import Genes, Sketch
from ansor_py.search.policies.sampler import ProgramSampler
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.validity import accepts, repair

# Combinations that are looked at together.
CHUNK = 4096


class GridSearch(ProgramSampler):
    """Programs in the order of their genes."""

    @cached_property
    def _next(self) -> list[int]:
        """The combination of each sketch to go on with."""
        return [0] * len(self.sketches)

    def propose(self, count: int) -> list[Candidate]:
        """The next `count` programs; fewer when there are no more."""
        chosen: list[Candidate] = []
        open_ = list(range(len(self.sketches)))
        while open_ and len(chosen) < count:
            number = open_.pop(0)
            share = math.ceil((count - len(chosen)) / (len(open_) + 1))
            found = self._advance(number, share)
            chosen += found
            if len(found) == share:
                open_.append(number)
        return chosen

    def _advance(self, number: int, count: int) -> list[Candidate]:
        """The next programs of one sketch; fewer than `count` only when it has no more."""
        space = self.spaces[number]
        total = math.prod(map(int, space.sketch.sizes))
        found: list[Candidate] = []
        while len(found) < count and self._next[number] < total:
            first = self._next[number]
            genes = combinations(space.sketch, first, min(first + CHUNK, total))
            valid = np.flatnonzero(accepts(space, genes) & (repair(space, genes, self.rng) == genes).all(axis=1))
            self._next[number] = first + len(genes)
            for row in valid:
                candidate = Candidate(number, genes[row], operator="grid")
                if self.mark(candidate):
                    found.append(candidate)
                if len(found) == count:
                    self._next[number] = first + int(row) + 1
                    break
        return found


def combinations(sketch: Sketch, first: int, last: int) -> Genes:
    """The genes of combinations `first` to `last - 1`, the first hole changing fastest; int32[n, holes]."""
    place = np.arange(last - first, dtype=np.int64)
    genes = np.zeros((last - first, len(sketch.holes)), dtype=np.int32)
    for column, size in enumerate(map(int, sketch.sizes)):
        first, carried = divmod(first, size)
        place += carried
        genes[:, column] = place % size
        place //= size
    return genes
