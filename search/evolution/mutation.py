"""Mutation operators: each takes rows of one sketch and returns changed copies, all rows at once (paper, section 5.1).

    @mutation("my_operator", weight=0.1)
    def my_operator(space: Space, genes: Genes, rng: np.random.Generator) -> Genes | None:
        ...

An operator returns None for a sketch in which it has nothing to change. Results are repaired and checked by the caller. Which
operators change a hole, its kind says (`Hole.moves`). A weight is the share of the mutated children that an operator makes,
beside the weights of the others; `EvolutionOptions.mutation_weights` may say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError, PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.schedule.sketch import Genes
from ansor_py.schedule.state import Gene
from ansor_py.search.evolution.evolution_options import EvolutionOptions
from ansor_py.search.sampling.space import Space
from ansor_py.strategy_options import OptionSet

Mutation = Callable[[Space, Genes, np.random.Generator], "Genes | None"]
MutationType = TypeVar("MutationType", bound=Mutation)


@dataclass(frozen=True)
class WeightedMutation:
    """An operator, and what it weighs unless the options say otherwise."""

    operator: Mutation
    weight: float


MUTATIONS: Registry[WeightedMutation] = Registry("mutation")


def mutation(name: str, weight: float = 0.1) -> Callable[[MutationType], MutationType]:
    """Register an operator; those of the package weigh 1 together.

    Raises OptionError for a name that is taken and for a weight that is negative or infinite.
    """

    def register(function: MutationType) -> MutationType:
        if not 0 <= weight < math.inf:
            raise OptionError(f"mutation '{name}': its weight is {weight}; it is finite and not negative")
        MUTATIONS.add(name, WeightedMutation(function, weight), definition=function)
        return function

    return register


def mutation_weights(options: OptionSet) -> dict[str, float]:
    """What every operator weighs, by name, in the order in which they were registered.

    Raises OptionError for a weight of an operator that is not registered.
    """
    given = options.of(EvolutionOptions).mutation_weights
    for name in given:
        MUTATIONS.find(name)
    return {name: given.get(name, item.weight) for name, item in MUTATIONS.items()}


def mutate(space: Space, name: str, genes: Genes, rng: np.random.Generator) -> Genes | None:
    """Children of the rows by one operator, int32[n, holes], legal or not; None if the sketch has nothing of the kind.

    Raises PlugInError for an operator that fails or gives something else.
    """
    with plug_in(f"mutation '{name}'"):
        children = MUTATIONS.find(name).operator(space, genes, rng)
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


# The weights: reference page, section 5.4. Ansor's single tile mutation (0.90) is three here: a step to a neighbouring size, a
# fresh size, and another register tile under the same cache tiles.
@mutation("nearest_choice", weight=0.40)
def nearest_choice(space: Space, genes: Genes, rng: np.random.Generator) -> Genes | None:
    """One hole takes one of the choices nearest to its own: a size next to it, or a factor moved between levels."""
    columns = space.columns("nearest_choice")
    if not len(columns):
        return None
    children = genes.copy()
    nearest = space.options.of(EvolutionOptions).nearest_lengths
    chosen = columns[rng.integers(0, len(columns), len(genes))]
    for column in columns:
        rows = np.flatnonzero(chosen == column)
        near = space.sketch.holes[column].neighbours(nearest)
        children[rows, column] = near[genes[rows, column], rng.integers(0, near.shape[1], len(rows))]
    return children


@mutation("other_choice", weight=0.25)
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


@mutation("register_tile", weight=0.15)
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
for _move, _weight in (("parallel", 0.05), ("location", 0.06), ("unroll", 0.05), ("vectorize", 0.04)):
    mutation(_move, _weight)(partial(other_choice, move=_move))


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
