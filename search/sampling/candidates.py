"""What a policy proposes and what it is told afterwards.

A candidate is a row of genes of one sketch; sketches of one task have holes of their own, so rows differ in length. The
tuning loop makes steps of it (`policy.sketches[c.sketch].concretise(c.genes)`), measures it and hands back its record.

    for sketch, genes, predicted, parent, operator in policy.propose(64):
        ...
    policy.observe(records)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.sketch import Genes


class Candidate(NamedTuple):
    """One program: `sketches[sketch]` with `genes` int32[holes].

    `predicted` is the cost model's score (None for a random choice), `parent` the trial of the measured program from which
    it descends (None if there is none; of another task for `relative`), `operator` what made it last: `random`, `copy`,
    `crossover`, `relative` or a mutation.
    """

    sketch: int
    genes: Genes
    predicted: float | None = None
    parent: int | None = None
    operator: str = "random"


class Observation(Protocol):
    """What a policy needs to know of a measured program; a `Record` has it all."""

    @property
    def sketch_id(self) -> int | None:
        """The sketch, or None for a program that was not made from one (which a policy ignores)."""
        ...

    @property
    def genes(self) -> Sequence[int]:
        """One gene for every hole of the sketch."""
        ...

    @property
    def cost(self) -> float:
        """Seconds per call; infinite if the program failed."""
        ...

    @property
    def trial(self) -> int:
        """The number of the trial, by which descendants name it as their parent."""
        ...


Candidates = Sequence[Candidate]
Keys = NDArray[np.uint64]


def row_keys(sketch: int, genes: Genes) -> Keys:
    """A 64-bit key of every row, uint64[n], equal for equal rows of one sketch and the same in every process."""
    mixed = np.full(len(genes), (sketch + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for column in genes.T:
        mixed = (mixed ^ (column.astype(np.uint64) + np.uint64(0x7F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
    return mixed
