"""What evolution asks of a cost model: scores of programs and, where it knows them, of their statements.

scores = score([Population(sketch, genes)])     # [float32[programs]], higher is better
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.sketch import Population

# Scores of the programs of several populations, float[len(population)] each; higher is better.
ScoreFunction = Callable[[Sequence[Population]], list[NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class StatementScores:
    """Scores float32[statements] of the single statements of programs; those of program p begin at `offsets[p]`.

    A program's statements are its stages that are not inlined, producers first.
    """

    scores: NDArray[np.float32]
    offsets: NDArray[np.int64]


@runtime_checkable
class StatementScoreFunction(Protocol):
    """A score function that can also tell the parts that statements have in the scores of their programs."""

    def __call__(self, populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        """As any score function."""
        ...

    def with_statements(
        self, populations: Sequence[Population]
    ) -> tuple[list[NDArray[np.float32]], list[StatementScores] | None]:
        """The scores of the programs, and of their statements if the cost model knows those."""
        ...


def ranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The place of each score among all, float64[n]: 1 for the lowest; equal ones share the mean of their places."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[which])
