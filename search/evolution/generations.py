"""Evolutionary search: generations of programs of all sketches together, as matrices (paper, section 5.1).

A generation is scored in one call. Parents are drawn in proportion to their scores, over all sketches; children come from
mutations, crossover or copies, are repaired, checked and, where that fails, made again. The best programs of all
generations, without those that were measured before, are the result. No State is built and nothing loops over programs.

    best = evolve(spaces, generation, score, rng, options, measured)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.hole import Mask
from ansor_py.schedule.sketch import Genes, Population
from ansor_py.search.evolution.crossover import crossover, guided_shares, node_scores
from ansor_py.search.evolution.mutation import MUTATIONS, mutate
from ansor_py.search.evolution.scores import ScoreFunction, StatementScoreFunction, StatementScores
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.candidates import Candidate, Keys, row_keys
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import plausible, repair, within_bounds

Scores = NDArray[np.float64]
NO_PARENT = -1


@dataclass(frozen=True, eq=False)
class Breed:
    """Programs of one sketch: genes int32[n, holes], the measured trial each descends from (or -1), what made it."""

    genes: Genes
    origins: NDArray[np.int64]
    operators: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.genes)

    def take(self, rows: NDArray[np.integer]) -> Breed:
        """Some of the rows."""
        return Breed(self.genes[rows], self.origins[rows], self.operators[rows])


def breed(genes: Genes, origins: NDArray[np.int64] | int = NO_PARENT, operator: str = "random") -> Breed:
    """Rows with one origin (or one a row) and one operator."""
    return Breed(genes, np.broadcast_to(np.int64(origins), len(genes)), np.full(len(genes), operator, dtype="U32"))


def join(parts: Sequence[Breed]) -> Breed:
    """Several breeds of one sketch, one after the other."""
    return Breed(
        np.concatenate([part.genes for part in parts]),
        np.concatenate([part.origins for part in parts]),
        np.concatenate([part.operators for part in parts]),
    )


def evolve(
    spaces: Sequence[Space],
    generation: Sequence[Breed],
    score: ScoreFunction,
    rng: np.random.Generator,
    options: SearchOptions,
    measured: Keys | None = None,
    structures: Sequence[Mask] | None = None,
) -> list[Candidate]:
    """The best programs over all generations, best first, at most `options.best_kept`, none whose key is in `measured`.

    `generation` holds the first generation, one breed a space. Raises nothing for empty ones; the result may be empty.
    Children keep to `structures` (one mask over structure keys a space; all legal ones by default).
    """
    allowed = [space.legal_structures for space in spaces] if structures is None else structures
    seen = np.zeros(0, dtype=np.uint64) if measured is None else measured
    best: list[Candidate] = []
    for iteration in range(options.iterations + 1):
        populations = [Population(space.sketch, rows.genes) for space, rows in zip(spaces, generation, strict=True)]
        scored, statements = _score(score, populations)
        scores = [np.nan_to_num(values.astype(np.float64), nan=-np.inf) for values in scored]
        best = _keep_best(best, generation, scores, seen, options.best_kept)
        if iteration < options.iterations and any(len(rows) for rows in generation):
            parents = [
                Parents(rows, values, statements[number] if statements is not None else None)
                for number, (rows, values) in enumerate(zip(generation, scores, strict=True))
            ]
            generation = next_generation(spaces, parents, rng, options, allowed)
    return best


def _score(
    score: ScoreFunction, populations: Sequence[Population]
) -> tuple[list[NDArray[np.float32]], list[StatementScores] | None]:
    """Scores of the programs and, where there are any, of their statements."""
    if isinstance(score, StatementScoreFunction):
        return score.with_statements(populations)
    return score(populations), None


def _keep_best(
    best: list[Candidate], generation: Sequence[Breed], scores: Sequence[Scores], seen: Keys, count: int
) -> list[Candidate]:
    """The `count` best of the kept ones and a generation, every program once. Only candidates that enter become objects."""
    known = np.concatenate([row_keys(c.sketch, c.genes[None, :]) for c in best]) if best else np.zeros(0, dtype=np.uint64)
    found: list[Candidate] = list(best)
    for number, (rows, values) in enumerate(zip(generation, scores, strict=True)):
        keys = row_keys(number, rows.genes)
        _, first = np.unique(keys, return_index=True)
        fresh = first[~np.isin(keys[first], seen) & ~np.isin(keys[first], known) & np.isfinite(values[first])]
        fresh = fresh[np.lexsort((fresh, -values[fresh]))][:count]
        found.extend(
            Candidate(
                number,
                rows.genes[row],
                float(values[row]),
                None if rows.origins[row] == NO_PARENT else int(rows.origins[row]),
                str(rows.operators[row]),
            )
            for row in fresh
        )
    return sorted(found, key=lambda candidate: -(candidate.predicted or 0.0))[:count]


@dataclass(frozen=True, eq=False)
class Parents:
    """A scored generation of one sketch: scores float64[programs], and those of the statements if the model knows them."""

    rows: Breed
    scores: Scores
    statements: StatementScores | None

    def by_node(self, space: Space, chosen: NDArray[np.integer]) -> Scores:
        """Scores of every node of some of the programs, float64[chosen, nodes]; [chosen, 1] where only programs have scores."""
        if self.statements is None:
            return self.scores[chosen, None]
        statements = StatementScores(self.statements.scores, self.statements.offsets[chosen])
        return node_scores(space, self.rows.genes[chosen], statements)


def next_generation(
    spaces: Sequence[Space],
    generation: Sequence[Parents],
    rng: np.random.Generator,
    options: SearchOptions,
    structures: Sequence[Mask],
) -> list[Breed]:
    """`options.population` children of parents drawn in proportion to their (positive) scores over all sketches."""
    scores = [parents.scores for parents in generation]
    weights = np.concatenate([np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0) for values in scores])
    total = weights.sum()
    probabilities = weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
    drawn = rng.choice(len(weights), options.population, p=probabilities)
    children: list[Breed] = []
    start = 0
    for space, parents, allowed in zip(spaces, generation, structures, strict=True):
        count = len(parents.rows)
        mine = drawn[(drawn >= start) & (drawn < start + count)] - start
        children.append(_children(space, parents, mine, rng, allowed) if len(mine) else parents.rows.take(mine))
        start += count
    return children


def _children(space: Space, parents: Parents, drawn: NDArray[np.int64], rng: np.random.Generator, allowed: Mask) -> Breed:
    """One valid child for every drawn parent. What stays invalid after some attempts is replaced by a copy of its parent."""
    parts: list[Breed] = []
    pending = drawn
    for _ in range(space.options.attempts + 1):
        made = _attempt(space, parents, pending, rng, allowed)
        good = plausible(space, made.genes, allowed)
        parts.append(made.take(np.flatnonzero(good)))
        pending = pending[~good]
        if not len(pending):
            break
    children = join(parts)
    children = children.take(np.flatnonzero(within_bounds(space, children.genes)))
    copies = parents.rows.take(drawn[: len(drawn) - len(children)])
    return join([children, replace(copies, operators=np.full(len(copies), "copy", dtype="U32"))])


def _attempt(space: Space, parents: Parents, drawn: NDArray[np.int64], rng: np.random.Generator, allowed: Mask) -> Breed:
    """A child for every drawn parent, in this order, repaired but not checked."""
    options = space.options
    chosen = parents.rows.take(drawn)
    genes = chosen.genes.copy()
    operators = np.full(len(drawn), "copy", dtype="U32")
    names = [name for name in MUTATIONS if options.mutation_weights.get(name, 0) > 0]
    dice = rng.random(len(drawn))
    mutated = dice < options.mutation_probability
    crossed = ~mutated & (
        dice < options.mutation_probability + (1 - options.mutation_probability) * options.crossover_probability
    )
    weights = np.array([options.mutation_weights[name] for name in names])
    which = rng.choice(len(names), len(drawn), p=weights / weights.sum()) if names else np.zeros(len(drawn), dtype=np.int64)
    for number, name in enumerate(names):
        mine = np.flatnonzero(mutated & (which == number))
        changed = mutate(space, name, chosen.genes[mine], rng) if len(mine) else None
        if changed is not None:
            genes[mine], operators[mine] = changed, name
    mine = np.flatnonzero(crossed)
    if len(mine) and len(space.nodes) > 1:
        other = drawn[rng.integers(0, len(drawn), len(mine))]
        shares = guided_shares(parents.by_node(space, drawn[mine]), parents.by_node(space, other))
        genes[mine] = crossover(space, chosen.genes[mine], parents.rows.genes[other], shares, rng, allowed)
        operators[mine] = "crossover"
    return Breed(repair(space, genes, rng), chosen.origins, operators)
