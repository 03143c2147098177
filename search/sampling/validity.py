"""Batched checks: which rows of a genes matrix are programs worth scoring, and the repair of those that nearly are.

`repair` makes genes agree that must, such as parallel loops with locations. `accepts` rejects rows in which they do not, whose
tiles waste too many iterations or repeat another row (a length beyond what is left is clamped), whose local buffers are
too large, or whose module would have too many instructions. All of it is arithmetic on columns.

    genes = repair(space, genes, rng)
    genes = genes[accepts(space, genes)]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import PlugInError, plug_in
from ansor_py.lower.affine import Number, choose
from ansor_py.lower.bounds import Bounds, StageBounds, bounded
from ansor_py.lower.register_tile import StageTile, register_tile, steps_in_a_row
from ansor_py.schedule.access import formula_instructions
from ansor_py.schedule.hole import Mask
from ansor_py.schedule.sketch import Genes, Population
from ansor_py.schedule.state import Gene, SplitRelation
from ansor_py.search.sampling.space import Space
from ansor_py.te.expr import DTYPE_BYTES


def repair(space: Space, genes: Genes, rng: np.random.Generator) -> Genes:
    """The rows with genes that agree with each other, as far as the kinds of their holes can see to that: a copy.

    Raises PlugInError for a kind that fails or makes genes of no choice.
    """
    genes = genes.copy()
    for column, agreement in space.agreements.items():
        hole = space.sketch.holes[column]
        with plug_in(hole.title):
            agreement.repair(genes, rng)
        wrong = (genes[:, column] < 0) | (genes[:, column] >= len(hole.choices))
        if wrong.any():
            raise PlugInError(f"{hole.title}: repair gave gene {genes[wrong, column][0]} of {len(hole.choices)} choices")
    return genes


def accepts(space: Space, genes: Genes, structures: Mask | None = None) -> Mask:
    """Which rows are valid, bool[n]. Bounds are inferred only for rows that pass the cheap checks."""
    valid = plausible(space, genes, structures)
    rows = np.flatnonzero(valid)
    valid[rows] = within_bounds(space, Population(space.sketch, genes[rows]))
    return valid


def plausible(space: Space, genes: Genes, structures: Mask | None = None) -> Mask:
    """The cheap checks, which look at single columns: structure, what kinds of holes ask for, tiles waste little. bool[n].

    `structures` says which structures may occur (by structure key); all legal ones by default.
    """
    allowed = space.legal_structures if structures is None else structures
    fits = allowed[space.sketch.structure_keys(genes)] & _tiles_fit(space, genes)
    for column, agreement in space.agreements.items():
        with plug_in(space.sketch.holes[column].title):
            fits &= agreement.fits(genes)
    return np.asarray(fits)


def within_bounds(space: Space, population: Population) -> Mask:
    """The checks that need bound inference, for rows that are plausible: buffers, instructions, vector lengths. bool[n]."""
    valid = np.zeros(len(population), dtype=np.bool_)
    for _, group, bounds in bounded(population).bounds:
        chosen = population.genes[group]
        fits = _buffers_fit(space, bounds, len(group)) & _instructions_fit(space, bounds, chosen)
        fits &= _lengths_fit(space, bounds, chosen)
        valid[group] = fits
    return valid


def _tiles_fit(space: Space, genes: Genes) -> Mask:
    """Tiles waste at most a share of their iterations, and no length could be replaced by the next smaller one unnoticed."""
    fits = np.ones(len(genes), dtype=np.bool_)
    iterations = np.ones(len(genes))
    for axis in space.tiled_axes:
        rest = np.full(len(genes), axis.extent, dtype=np.int64)
        covered = np.ones(len(genes), dtype=np.int64)
        for gene in axis.lengths:
            length = space.values(gene, genes)
            fits &= space.smaller(gene, genes) < rest
            covered *= np.minimum(length, rest)
            rest = -(-rest // length)
        iterations *= covered * rest / axis.extent
    return fits & (iterations <= space.options.max_padding)


def _lengths_fit(space: Space, bounds: Bounds, genes: Genes) -> Mask:
    """No length beyond the loop's extent where a smaller choice covers the loop as well.

    Lengths that split whole axes were checked before; these are vector loops and the tiles of stages inside a loop.
    """
    fits = np.ones(len(genes), dtype=np.bool_)
    for b in bounds.values():
        for relation in b.stage.relations:
            if not isinstance(relation, SplitRelation):
                continue
            rest = np.asarray(b.extents[relation.parent])
            for gene in relation.lengths:
                if not isinstance(gene, Gene):
                    break
                if b.enclosing or gene not in space.tile_genes:
                    fits &= space.smaller(gene, genes) < rest
                rest = -(-rest // space.values(gene, genes))
    return fits


def _buffers_fit(space: Space, bounds: Bounds, count: int) -> Mask:
    limit = space.options.max_local_bytes or space.target.l2
    fits = np.ones(count, dtype=np.bool_)
    for b in bounds.values():
        if b.enclosing:
            size: Number = DTYPE_BYTES[b.stage.tensor.dtype]
            for extent in b.region:
                size = size * extent
            fits &= np.asarray(size) <= limit
    return fits


def _instructions_fit(space: Space, bounds: Bounds, genes: Genes) -> Mask:
    """The estimated vector instructions of a module are bounded (design, Idea 3)."""
    return np.asarray(module_instructions(space, bounds, genes) <= space.options.max_instructions)


def module_instructions(space: Space, bounds: Bounds, genes: Genes) -> NDArray[np.int64]:
    """Estimated vector instructions that are emitted for every program, int64[n]."""
    limits = space.sketch.stage_values("unroll_limit", genes)
    total = np.zeros(len(genes), dtype=np.int64)
    for name, b in bounds.items():
        limit = limits.get(name, b.stage.unroll_limit)
        total += np.asarray(stage_instructions(b, register_tile(b, space.target), limit))
    return total


def stage_instructions(b: StageBounds, tile: StageTile, limit: Number) -> Number:
    """Vector instructions of a stage: the register tile times the formula, unrolled up to the limit.

    Each length of a register or unrolled loop that does not divide what it splits has a tail, which is a copy of it all.
    """
    emitted = tile.accumulators(b.extents)  # the limit counts these: vectors of the tile, not operations of the formula
    copies: Number = 1
    for name in tile.loops:
        copies = copies * (1 + _has_tail(b, name))
    around = [b.loops[position] for position in tile.reduction_loops(b)]
    for loop, steps in zip(around, steps_in_a_row([loop.extent for loop in around], emitted, limit), strict=True):
        emitted = emitted * steps
        copies = copies * (1 + choose(steps > 1, _has_tail(b, loop.name), 0))
    for loop in b.loops[: tile.first - len(around)]:
        if loop.annotation == "unroll":
            emitted = emitted * loop.extent
            copies = copies * (1 + _has_tail(b, loop.name))
    return emitted * copies * formula_instructions(b.body)


def _has_tail(b: StageBounds, name: str) -> Number:
    """1 where a loop is an inner part of a split whose length does not divide, else 0."""
    for relation in b.stage.relations:
        if isinstance(relation, SplitRelation) and name in relation.parts[1:]:
            covered: Number = 1
            for part in relation.parts[relation.parts.index(name) :]:
                covered = covered * b.extents[part]
            return np.asarray(b.extents[relation.parent] % covered != 0).astype(np.int64)
    return 0
