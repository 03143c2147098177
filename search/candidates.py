"""What a policy proposes and what it is told afterwards.

A candidate is a row of genes of one sketch; sketches of one task have holes of their own, so rows differ in length. The
tuning loop makes steps of it (`sketches[c.sketch].concretise(c.genes)`), measures it and hands back an `Observation`.

    candidates = policy.propose(64)
    policy.observe([Observation(c.sketch, c.genes, cost, trial) for c, cost, trial in ...])
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.sketch import Genes, Sketch


@dataclass(frozen=True, eq=False)
class Candidate:
    """One program: `sketches[sketch]` with `genes` int32[holes].

    `predicted` is the cost model's score (None for a random choice), `parent` the trial of the measured program from which
    it descends (None if there is none), `operator` what made it last: `random`, `copy`, `crossover` or a mutation.
    """

    sketch: int
    genes: Genes
    predicted: float | None = None
    parent: int | None = None
    operator: str = "random"


@dataclass(frozen=True, eq=False)
class Observation:
    """A measured candidate: its cost in seconds per call (infinite if it failed) and the number of the trial."""

    sketch: int
    genes: Genes
    cost: float
    trial: int


Candidates = Sequence[Candidate]
Keys = NDArray[np.uint64]


def row_keys(sketch: int, genes: Genes) -> Keys:
    """A 64-bit key of every row, uint64[n], equal for equal rows of one sketch and the same in every process."""
    mixed = np.full(len(genes), (sketch + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for column in genes.T:
        mixed = (mixed ^ (column.astype(np.uint64) + np.uint64(0x7F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def sketch_fingerprint(sketch: Sketch) -> str:
    """16 hex digits that change when the holes of a sketch or their choices do: genes are valid for one fingerprint only."""
    text = repr([(hole.name, hole.kind, hole.stage, hole.choices) for hole in sketch.holes])
    return hashlib.sha256(f"{sketch.name}{text}".encode()).hexdigest()[:16]
