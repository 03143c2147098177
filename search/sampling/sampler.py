"""Random programs: random genes, mended where genes contradict each other and filtered in batches (paper, section 4.2).

genes = sample(space, 256, rng)     # int32[<= 256, holes]
"""

from __future__ import annotations

import numpy as np

from ansor_py.schedule.hole import Mask
from ansor_py.schedule.sketch import Genes, Population
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import plausible, repair, within_bounds

# Rows drawn at a time for each row that is still wanted, and at least.
OVERSAMPLING = 4
LEAST_DRAWN = 256
# Plausible rows collected for each wanted one before bounds are inferred, which costs the same for few rows and many.
SPARE = 1.5


def sample(space: Space, count: int, rng: np.random.Generator, structures: Mask | None = None) -> Genes:
    """At most `count` valid rows, fewer if the space has few; rows may repeat.

    `structures` says which structures may occur (by structure key); all legal ones by default.
    """
    kept = np.zeros((0, len(space.sketch.holes)), dtype=np.int32)
    for _ in range(space.options.attempts + 1 if count else 0):
        genes = _plausible_rows(space, int(SPARE * (count - len(kept))) + 1, rng, structures)
        kept = np.concatenate([kept, genes[within_bounds(space, Population(space.sketch, genes))]])
        if len(kept) >= count:
            break
    return kept[:count]


def _plausible_rows(space: Space, count: int, rng: np.random.Generator, structures: Mask | None) -> Genes:
    kept = np.zeros((0, len(space.sketch.holes)), dtype=np.int32)
    fruitless = 0
    while len(kept) < count and fruitless <= space.options.attempts:
        genes = repair(space, draw(space, max(LEAST_DRAWN, OVERSAMPLING * (count - len(kept))), rng, structures), rng)
        genes = genes[plausible(space, genes, structures)]
        fruitless = 0 if len(genes) else fruitless + 1
        kept = np.concatenate([kept, genes])
    return kept


def draw(space: Space, count: int, rng: np.random.Generator, structures: Mask | None = None) -> Genes:
    """Random genes, structures uniform over the legal ones; not yet checked otherwise.

    How plain a row is varies: a row's probability of taking the plain choice of a tile, else any of its choices, is itself
    drawn uniformly. So programs with few loops, which uniform genes hardly ever give, stand beside deeply tiled ones.
    """
    sizes = space.sketch.sizes
    genes = rng.integers(0, sizes, (count, len(sizes))).astype(np.int32)
    is_plain = rng.random((count, len(sizes))) < rng.random((count, 1))
    genes = np.where(is_plain & space.often_plain, space.plain, genes).astype(np.int32)
    legal = np.flatnonzero(space.legal_structures if structures is None else structures)
    if len(space.sketch.structural) and len(legal):
        columns = space.sketch.structural
        genes[:, columns] = space.sketch.structure_rows[rng.choice(legal, count)][:, columns]
    return genes
