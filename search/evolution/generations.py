"""Evolutionary search: generations of programs of all sketches together, as matrices (paper, section 5.1).

A generation is scored in one call. Parents are drawn by the rank of their scores, over all sketches; children come from
mutations, crossover or copies, are repaired, checked and, where that fails, made again. The best programs of all
generations, without those that were measured before, are the result. No State is built and nothing loops over programs.

    best = evolve(spaces, generation, score, rng, options, measured)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.lower.bounds import BoundedPopulation
from ansor_py.schedule.hole import Mask
from ansor_py.schedule.sketch import Genes
from ansor_py.search.evolution.crossover import crossover, guided_shares, node_scores
from ansor_py.search.evolution.evolution_options import EvolutionOptions
from ansor_py.search.evolution.mutation import mutate, mutation_weights
from ansor_py.search.evolution.scores import ScoreFunction, StatementScoreFunction, StatementScores, ranks
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.candidates import Candidate, Keys, row_keys
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import plausible, repair, within_bounds

Scores = NDArray[np.float64]
NO_PARENT = -1


@dataclass(frozen=True, eq=False)
class Individuals:
    """Programs of one sketch: genes int32[n, holes], the measured trial each descends from (or -1), what made it."""

    genes: Genes
    origins: NDArray[np.int64]
    operators: NDArray[np.str_]

    @staticmethod
    def made(genes: Genes, operator: str = "random", origins: NDArray[np.int64] | int = NO_PARENT) -> Individuals:
        """Rows that one operator made, with one origin (or one a row)."""
        return Individuals(genes, np.broadcast_to(np.int64(origins), len(genes)), np.full(len(genes), operator, dtype="U32"))

    @staticmethod
    def concatenate(parts: Sequence[Individuals]) -> Individuals:
        """Several groups of one sketch, one after the other."""
        names = ("genes", "origins", "operators")
        return Individuals(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.genes)

    def take(self, rows: NDArray[np.integer]) -> Individuals:
        """Some of the rows."""
        return Individuals(self.genes[rows], self.origins[rows], self.operators[rows])


@dataclass(frozen=True, eq=False)
class Parents:
    """A scored generation of one sketch: scores float64[programs], and those of the statements if the model knows them.

    The score of a program that is not valid is -inf.
    """

    rows: Individuals
    scores: Scores
    statements: StatementScores | None

    def by_node(self, space: Space, chosen: NDArray[np.integer]) -> Scores:
        """Scores of every node of some of the programs, float64[chosen, nodes]; [chosen, 1] where only programs have scores."""
        if self.statements is None:
            return self.scores[chosen, None]
        statements = StatementScores(self.statements.scores, self.statements.offsets[chosen])
        return node_scores(space, self.rows.genes[chosen], statements)


def evolve(
    spaces: Sequence[Space],
    generation: Sequence[Individuals],
    score: ScoreFunction,
    rng: np.random.Generator,
    options: SearchOptions,
    measured: Keys | None = None,
    structures: Sequence[Mask] | None = None,
) -> list[Candidate]:
    """The best programs over all generations, best first, at most `options.best_kept`, none whose key is in `measured`.

    `generation` holds the first generation, by space. Raises nothing for empty ones; the result may be empty.
    Children keep to `structures` (one mask over structure keys a space; all legal ones by default).
    """
    allowed = [space.legal_structures for space in spaces] if structures is None else structures
    seen = np.zeros(0, dtype=np.uint64) if measured is None else measured
    parents = scored(spaces, generation, score)
    best = _keep_best([], parents, seen, options.best_kept)
    for _ in range(options.iterations):
        if not any(np.isfinite(mine.scores).any() for mine in parents):
            break
        parents = scored(spaces, next_generation(spaces, parents, rng, options, allowed), score)
        best = _keep_best(best, parents, seen, options.best_kept)
    return best


def scored(spaces: Sequence[Space], generation: Sequence[Individuals], score: ScoreFunction) -> list[Parents]:
    """The programs of a generation with their scores. Checks and features read the same bounds, which are inferred once.

    So few of the plausible children are invalid that leaving them out beforehand would cost more than scoring them.
    """
    populations = [BoundedPopulation(space.sketch, rows.genes) for space, rows in zip(spaces, generation, strict=True)]
    if isinstance(score, StatementScoreFunction):
        scores, statements = score.with_statements(populations)
    else:
        scores, statements = score(populations), None
    found = []
    for number, (space, rows, population) in enumerate(zip(spaces, generation, populations, strict=True)):
        valid = within_bounds(space, population) & np.isfinite(scores[number])
        values = np.where(valid, scores[number].astype(np.float64), -np.inf)
        found.append(Parents(rows, values, None if statements is None else statements[number]))
    return found


def _keep_best(best: list[Candidate], generation: Sequence[Parents], seen: Keys, count: int) -> list[Candidate]:
    """The `count` best of the kept ones and a generation, every program once. Only candidates that enter become objects."""
    known = np.concatenate([row_keys(c.sketch, c.genes[None, :]) for c in best]) if best else np.zeros(0, dtype=np.uint64)
    found: list[Candidate] = list(best)
    for number, parents in enumerate(generation):
        rows, values = parents.rows, parents.scores
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


def next_generation(
    spaces: Sequence[Space],
    generation: Sequence[Parents],
    rng: np.random.Generator,
    options: SearchOptions,
    structures: Sequence[Mask],
) -> list[Individuals]:
    """`options.population` children of parents drawn by the ranks of their scores over all sketches; one must be finite."""
    weights = selection_weights(
        np.concatenate([parents.scores for parents in generation]), options.of(EvolutionOptions).selection_pressure
    )
    drawn = rng.choice(len(weights), options.population, p=weights)
    children: list[Individuals] = []
    start = 0
    for space, parents, allowed in zip(spaces, generation, structures, strict=True):
        count = len(parents.rows)
        mine = drawn[(drawn >= start) & (drawn < start + count)] - start
        children.append(_children(space, parents, mine, rng, allowed) if len(mine) else parents.rows.take(mine))
        start += count
    return children


def selection_weights(scores: Scores, pressure: float) -> Scores:
    """The probability with which each program is drawn as a parent: a power of its score's rank, 0 where that is not finite."""
    weights = np.zeros(len(scores))
    finite = np.isfinite(scores)
    weights[finite] = ranks(scores[finite]) ** pressure
    return np.asarray(weights / weights.sum())


def _children(space: Space, parents: Parents, drawn: NDArray[np.int64], rng: np.random.Generator, allowed: Mask) -> Individuals:
    """One plausible child for every drawn parent; a copy of the parent where some attempts gave none."""
    parts: list[Individuals] = []
    for _ in range(space.options.attempts + 1):
        made = _attempt(space, parents, drawn, rng, allowed)
        good = plausible(space, made.genes, allowed)
        parts.append(made.take(np.flatnonzero(good)))
        drawn = drawn[~good]
        if not len(drawn):
            break
    copies = parents.rows.take(drawn)
    return Individuals.concatenate([*parts, Individuals.made(copies.genes, "copy", copies.origins)])


def _attempt(space: Space, parents: Parents, drawn: NDArray[np.int64], rng: np.random.Generator, allowed: Mask) -> Individuals:
    """A child for every drawn parent, in this order, repaired but not checked."""
    options = space.options.of(EvolutionOptions)
    chosen = parents.rows.take(drawn)
    genes = chosen.genes.copy()
    operators = np.full(len(drawn), "copy", dtype="U32")
    named = {name: weight for name, weight in mutation_weights(space.options).items() if weight > 0}
    names, weights = list(named), np.array(list(named.values()))
    dice = rng.random(len(drawn))
    mutated = dice < options.mutation_probability
    crossed = ~mutated & (
        dice < options.mutation_probability + (1 - options.mutation_probability) * options.crossover_probability
    )
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
    return Individuals(repair(space, genes, rng), chosen.origins, operators)
