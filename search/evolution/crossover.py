"""Node-based crossover: a child takes all genes of a DAG node from one of two parents of the same sketch (paper, section 5.1).

The choice is guided by the nodes' scores, where the cost model scores single statements, else by the programs': the parent
with the higher score gives the node more often. Locations of one parent may contradict those of the other; such a child
takes all locations from its first parent. What does not fit the tiles is repaired or rejected by the caller, like any child.

    shares = guided_shares(node_scores(space, first, statements), node_scores(space, second, others))
    children = crossover(space, first, second, shares, rng, space.legal_structures)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.hole import Mask
from ansor_py.schedule.sketch import Genes, Population
from ansor_py.schedule.state import Inlined
from ansor_py.search.evolution.scores import StatementScores, ranks
from ansor_py.search.sampling.space import Space, node_of

Shares = NDArray[np.float64]


def crossover(space: Space, first: Genes, second: Genes, shares: Shares, rng: np.random.Generator, allowed: Mask) -> Genes:
    """Children of `first[i]` and `second[i]`: node n comes from the first with probability `shares[i, n]`. int32[rows, holes].

    `shares` is float64[rows, nodes], in the order of `space.nodes`, or [rows, 1] for all nodes alike. Children whose structure
    is not `allowed` (a mask over structure keys) get that of their first parent.
    """
    from_first = rng.random((len(first), len(space.nodes))) < shares
    children = second.copy()
    for number, columns in enumerate(space.nodes.values()):
        rows = np.flatnonzero(from_first[:, number])
        children[np.ix_(rows, columns)] = first[np.ix_(rows, columns)]
    torn = np.flatnonzero(~allowed[space.sketch.structure_keys(children)])
    columns = space.sketch.structural
    children[np.ix_(torn, columns)] = first[np.ix_(torn, columns)]
    return children


def guided_shares(first: NDArray[np.floating], second: NDArray[np.floating]) -> Shares:
    """The probability with which a node comes from the first parent, by scores [rows, nodes]: logistic in their difference.

    A node's scores count by their ranks among the parents, and the unit is the deviation of these.
    """
    places = np.apply_along_axis(ranks, 0, np.concatenate([first, second]))
    spread = places.std(axis=0)
    difference = places[: len(first)] - places[len(first) :]
    units = np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0)
    return np.asarray(1 / (1 + np.exp(-units)))


def node_scores(space: Space, genes: Genes, statements: StatementScores) -> NDArray[np.float64]:
    """The sums of the scores of every node's statements, float64[programs, nodes], in the order of `space.nodes`."""
    numbers = {name: number for number, name in enumerate(space.nodes)}
    total = np.zeros((len(genes), len(numbers)))
    for template, members in Population(space.sketch, genes).groups():
        computed = [stage.name for stage in template.stages if not isinstance(stage.location, Inlined)]
        for place, name in enumerate(computed):
            if node_of(name) in numbers:
                total[members, numbers[node_of(name)]] += statements.scores[statements.offsets[members] + place]
    return total
