"""The nearest valid row to any row of genes, for searchers that know numbers and not programs.

Of uniformly drawn genes of a tiled convolution one row in ten to thirty is valid, of other sketches none at all, and repairing
what contradicts itself helps little. A projection begins at the nearest of some valid rows and goes on, one gene after the
other, towards the row that was wanted, as long as it stays valid. Rows that are valid stay as they are; the same row always
comes to the same place.

    nearest = Projection(space)
    nearest(rng.integers(0, space.sketch.sizes, (64, holes)))      # int32[64, holes], all valid
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import NoSpaceError
from ansor_py.schedule.sketch import Genes
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts, repair

STARTS = 512  # valid rows from which projections may begin
NEAREST = 4  # choices for a gene that are tried: the wanted one and those next to it
_SEED = 0  # of the starts, which are the same in every process

Distances = NDArray[np.float64]


class Projection:
    """Projects rows of one sketch; int32[n, holes] to int32[n, holes]."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._tables: list[Distances] = []  # of every hole the distances of its choices, 0 to 1
        for hole in space.sketch.holes:
            table = np.asarray(hole.distances(), dtype=np.float64)
            self._tables.append(table / max(table.max(initial=0.0), 1e-9))

    @cached_property
    def starts(self) -> Genes:
        """Some valid rows, each once. Raises NoSpaceError if the sketch has none."""
        rng = np.random.default_rng(_SEED)
        found = sample(self._space, STARTS, rng)
        if not len(found):
            raise NoSpaceError(f"sketch '{self._space.sketch.name}' has no valid program to be found; leave it out")
        return np.asarray(np.unique(found, axis=0))

    def distances(self, rows: Genes, others: Genes) -> Distances:
        """How far rows are from other rows of the same number: of each hole 0 to 1, summed; float64[n]."""
        total = np.zeros(len(rows))
        for column, table in enumerate(self._tables):
            total += table[rows[:, column], others[:, column]]
        return total

    def __call__(self, rows: Genes) -> Genes:
        """The nearest valid rows that are found; genes out of range count as the nearest choice of the table."""
        wanted = np.clip(rows, 0, self._space.sketch.sizes - 1).astype(np.int32)
        wrong = np.flatnonzero(~accepts(self._space, wanted))
        found = wanted.copy()
        if len(wrong):
            found[wrong] = self._nearest(wanted[wrong])
        return found

    def _nearest(self, wanted: Genes) -> Genes:
        """The same for rows that are not valid."""
        starts = self.starts
        apart = np.stack([self.distances(wanted, np.broadcast_to(start, wanted.shape)) for start in starts], axis=1)
        found = starts[apart.argmin(axis=1)]
        repaired = repair(self._space, wanted, np.random.default_rng(_SEED))
        good = accepts(self._space, repaired) & (self.distances(wanted, repaired) < apart.min(axis=1))
        found = np.where(good[:, None], repaired, found)
        moving = np.arange(len(wanted))
        while len(moving):
            closer, better = self._closer(found[moving], wanted[moving])
            found[moving[better]] = closer[better]
            moving = moving[better]
        return np.asarray(found)

    def _closer(self, rows: Genes, wanted: Genes) -> tuple[Genes, NDArray[np.bool_]]:
        """Of every row the valid row with one gene nearer to the wanted one that is nearest to it; and whether there is one."""
        moves = np.concatenate([self._moved(rows, wanted, column) for column in range(rows.shape[1])])
        owners = np.tile(np.arange(len(rows)), len(moves) // len(rows))
        before = self.distances(rows, wanted)
        fixed = repair(self._space, moves, np.random.default_rng(_SEED))
        after = self.distances(fixed, wanted[owners])
        useful = np.flatnonzero(after < before[owners] - 1e-12)
        useful = useful[accepts(self._space, fixed[useful])]
        best = np.full(len(rows), -1)
        for place in useful[np.argsort(-after[useful], kind="stable")]:  # the nearest is written last
            best[owners[place]] = place
        return fixed[np.maximum(best, 0)], best >= 0

    def _moved(self, rows: Genes, wanted: Genes, column: int) -> Genes:
        """Copies of the rows with the wanted gene of a column, then with each of those next to it; int32[tries * n, holes]."""
        order = np.argsort(self._tables[column], axis=1, kind="stable")[:, :NEAREST]
        tries = order[wanted[:, column]]  # [n, tries], the wanted one first
        moved = np.repeat(rows[None, :, :], tries.shape[1], axis=0)
        moved[:, :, column] = tries.T
        return moved.reshape(-1, rows.shape[1])
