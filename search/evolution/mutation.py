"""Mutation operators: each takes rows of one sketch and returns changed copies, all rows at once (paper, section 5.1).

    @mutation("my_operator")
    def my_operator(space: Space, genes: Genes, rng: np.random.Generator) -> Genes | None:
        ...

An operator returns None for a sketch in which it has nothing to change. Results are repaired and checked by the caller. Which
operators change a hole, its kind says (`Hole.moves`).
Weights are in `SearchOptions.mutation_weights`, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import PlugInError, plug_in
from ansor_py.schedule.sketch import Genes
from ansor_py.schedule.state import Gene
from ansor_py.search.sampling.space import Space

Mutation = Callable[[Space, Genes, np.random.Generator], "Genes | None"]
MUTATIONS: dict[str, Mutation] = {}
MutationType = TypeVar("MutationType", bound=Mutation)


def mutation(name: str) -> Callable[[MutationType], MutationType]:
    """Register an operator."""

    def register(function: MutationType) -> MutationType:
        MUTATIONS[name] = function
        return function

    return register


def mutate(space: Space, name: str, genes: Genes, rng: np.random.Generator) -> Genes | None:
    """Children of the rows by one operator, int32[n, holes], legal or not; None if the sketch has nothing of the kind.

    Raises PlugInError for an operator that fails or gives something else.
    """
    with plug_in(f"mutation '{name}'"):
        children = MUTATIONS[name](space, genes, rng)
        if children is None:
            return None
        changed = np.asarray(children)
        if changed.shape != genes.shape or not np.issubdtype(changed.dtype, np.integer):
            raise PlugInError(
                f"mutation '{name}' gave {changed.dtype}{list(changed.shape)} for rows {list(genes.shape)}; "
                "it must give as many rows of whole numbers, or None"
            )
        if np.any((changed < 0) | (changed >= space.sketch.sizes)):
            row, column = np.argwhere((changed < 0) | (changed >= space.sketch.sizes))[0]
            hole = space.sketch.holes[column]
            raise PlugInError(
                f"mutation '{name}' gave gene {changed[row, column]} for hole '{hole.name}', which has "
                f"{len(hole.choices)} choices"
            )
        return changed.astype(np.int32, copy=False)


@mutation("nearest_choice")
def nearest_choice(space: Space, genes: Genes, rng: np.random.Generator) -> Genes | None:
    """One hole takes one of the choices nearest to its own: a size next to it, or a factor moved between levels."""
    columns = space.columns("nearest_choice")
    if not len(columns):
        return None
    children = genes.copy()
    chosen = columns[rng.integers(0, len(columns), len(genes))]
    for column in columns:
        rows = np.flatnonzero(chosen == column)
        near = space.sketch.holes[column].neighbours(space.options.nearest_lengths)
        children[rows, column] = near[genes[rows, column], rng.integers(0, near.shape[1], len(rows))]
    return children


@mutation("other_choice")
def other_choice(space: Space, genes: Genes, rng: np.random.Generator, move: str = "other_choice") -> Genes | None:
    """One hole takes any other choice: one of those that name the move."""
    columns = space.columns(move)
    return changed_in_one(space, genes, columns, rng) if len(columns) else None


def changed_in_one(space: Space, genes: Genes, columns: NDArray[np.int64], rng: np.random.Generator) -> Genes:
    """Copies of the rows, in each of which one of the columns has a choice other than its own, all uniformly."""
    children = genes.copy()
    rows = np.arange(len(genes))
    chosen = columns[rng.integers(0, len(columns), len(genes))]
    sizes = space.sketch.sizes[chosen]
    children[rows, chosen] = (genes[rows, chosen] + rng.integers(1, sizes)) % sizes
    return children


@mutation("register_tile")
def register_tile(space: Space, genes: Genes, rng: np.random.Generator) -> Genes | None:
    """Another register tile; the level above is scaled so that the cache tiles stay about as large as they were."""
    children = other_choice(space, genes, rng, "register_tile")
    if children is None:
        return None
    columns = space.columns("register_tile")
    for axis in space.tiled_axes:
        if len(axis.lengths) > 1 and axis.lengths[0].hole in columns and axis.lengths[1].hole not in columns:
            register, inner = axis.lengths[0], axis.lengths[1]
            wanted = space.values(inner, genes) * space.values(register, genes) / space.values(register, children)
            children[:, inner.hole] = _nearest_choice(space, inner, genes, wanted)
    return children


# Decisions of other kinds are changed in the same way; a name of their own gives each a weight of its own.
for _move in ("parallel", "location", "unroll", "vectorize"):
    mutation(_move)(partial(other_choice, move=_move))


def _nearest_choice(space: Space, gene: Gene, genes: Genes, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """The choices whose part is nearest to the wanted length (in ratio), the other parts being nearest to what they are."""
    logs = np.log2(space.sketch.holes[gene.hole].table)
    goal = logs[genes[:, gene.hole]]
    goal[:, gene.part] = np.log2(wanted)
    best = np.full(len(genes), np.inf)
    nearest = np.zeros(len(genes), dtype=np.int64)
    for choice, lengths in enumerate(logs):
        distance = np.abs(goal - lengths).sum(axis=1)
        nearest = np.where(distance < best, choice, nearest)
        best = np.minimum(distance, best)
    return nearest
