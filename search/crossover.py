"""Node-based crossover: a child takes all genes of a DAG node from one of two parents of the same sketch (paper, section 5.1).

The choice is guided: the parent with the higher score gives a node with a probability in proportion to the scores. Locations
of one parent may not fit the tiles of the other; such children are repaired or rejected by the caller like any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.sketch import Genes
from ansor_py.search.space import Space


def crossover(space: Space, first: Genes, second: Genes, share: NDArray[np.float64], rng: np.random.Generator) -> Genes:
    """Children of `first[i]` and `second[i]`; each node comes from the first with probability `share[i]`. int32[n, holes]."""
    children = second.copy()
    for columns in space.nodes:
        from_first = rng.random(len(first)) < share
        children[np.ix_(from_first, columns)] = first[np.ix_(from_first, columns)]
    return children


def guided_share(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """The probability with which nodes come from the first parent, by the parents' scores; 1/2 where neither is above 0."""
    a, b = np.maximum(first, 0.0), np.maximum(second, 0.0)
    total = a + b
    share = np.full(len(a), 0.5)
    np.divide(a, total, out=share, where=total > 0)
    return share
