"""Feature group about registers and memory: how vectors get in and out, and how often the loops outside a tile go round.

A tile is what runs inside the innermost reduction loop of a statement or, without one, its vectorised loops.
"""

from __future__ import annotations

import numpy as np

from ansor_py.codegen.strided_loads import MOST_VECTORS
from ansor_py.codegen.tile_sums import SHORTEST_SPLIT
from ansor_py.codegen.transposition import FEWEST_ROWS
from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.feature_tile import accumulation_run
from ansor_py.cost_model.native_loops import Floats, Integers, native
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.target import Target
from ansor_py.te.expr import Reduce

ACCESS_FIELDS = (
    *("broadcast_loads", "contiguous_loads", "gathered_loads", "stores", "scattered_stores"),
    *("store_run", "inner_trips", "loop_trips"),
)
# Rows of `tile_accesses`: those fields, and four that the roofline reads.
BROADCASTS, VECTORS, GATHERED, STORES, SCATTERED, STORE_RUN, INNER_TRIPS, LOOP_TRIPS, SHARE, PANELS, COVERING, REUSED = range(
    12
)


@feature_group("accesses", ACCESS_FIELDS)
def accesses(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Loads by the stride of the lanes, stores of finished or spilled results, and loop iterations outside the tile."""
    out[:] = tile_accesses(statement, target)[: len(ACCESS_FIELDS)]


def tile_accesses(statement: StatementArrays, target: Target) -> Floats:
    """Rows of [12, n]: the fields of the group and four more.

    `SHARE` is vectors for each iteration: vectorised loops over their extents. `PANELS` are those of the contiguous loads that
    the reduction loops around make from panels: one after the other, a whole number of vectors from each other. `COVERING` is
    what others take beyond one vector: lanes with elements between them more vectors, lanes under a vector of masks as many.
    `REUSED` are those of both that steps of a short reduction that are emitted in a row have from each other: rows of a window,
    where accumulators leave registers for them (`TileEmitter._between_steps`).
    """
    if "tile accesses" not in statement.kept:
        out = statement.kept["tile accesses"] = np.empty((12, statement.programs))
        arrays = statement.extents, statement.inner, statement.strides, statement.footprint, statement.runs
        transposed = (
            np.inf if isinstance(statement.bounds.body, Reduce) else float(FEWEST_ROWS)
        )  # a reduction's lanes never are
        depths = statement.tile_depth, statement.tile_depth - len(statement.reduction_loops)
        masked = 0.0 if target.masks_freely else 1.0
        run, vectorised = accumulation_run(statement), statement.vectorised
        limits = statement.unroll_limit, float(target.vector_registers), SHORTEST_SPLIT
        _tile_accesses(*arrays, run, vectorised, *limits, *depths, statement.tile.lanes, MOST_VECTORS, transposed, masked, out)
    return statement.kept["tile accesses"]


@native
def _tile_accesses(
    extents: Floats,
    inner: Floats,
    strides: Floats,
    footprint: Floats,
    runs: Floats,
    run: Floats,
    vectorised: Integers,
    limit: Floats,
    registers: float,
    shortest_split: int,
    tile: int,
    outside: int,
    lanes: int,
    most_vectors: int,
    fewest_rows: float,
    masked: float,
    out: Floats,
) -> None:
    for program in range(extents.shape[1]):
        share = 1.0
        for position in vectorised:
            share *= np.ceil(extents[position, program] / lanes) / extents[position, program]
        broadcasts = vectors = gathered = panels = covering = reused = 0.0
        for buffer in range(1, len(footprint)):
            elements = footprint[buffer, tile, program]
            stride = strides[buffer, vectorised[-1], program] if len(vectorised) else 0.0
            if stride == 0.0:
                broadcasts += elements
            elif stride == 1.0 or stride <= most_vectors:
                vectors += np.ceil(elements / lanes)
                apart = 0.0  # of the places of vectors, in lanes
                for level in range(extents.shape[0]):
                    if level != vectorised[-1] and extents[level, program] > 1.0:
                        apart += strides[buffer, level, program] % lanes
                partial = masked if stride == 1.0 and extents[vectorised[-1], program] % lanes > 0.0 else 0.0
                covering += (stride - 1.0 + partial) * np.ceil(elements / lanes)
                emitted = inner[tile, program] * share
                fresh = 1.0  # of the loads of all steps those that no step before has made
                if 2.0 * emitted <= registers and inner[outside, program] < shortest_split * inner[tile, program]:
                    for level in range(tile - 1, outside - 1, -1):
                        emitted *= extents[level, program]
                        if emitted > limit[program]:
                            break
                        if extents[level, program] > 1.0 and abs(strides[buffer, level, program]) >= lanes:
                            grown = footprint[buffer, level, program] / footprint[buffer, level + 1, program]
                            fresh *= min(grown / extents[level, program], 1.0)
                if stride == 1.0 and apart == 0.0 and runs[buffer, outside, program] > runs[buffer, tile, program]:
                    panels += np.ceil(elements / lanes)
                else:
                    reused += (1.0 - fresh) * (stride + partial) * np.ceil(elements / lanes)
            elif runs[buffer, tile, program] >= fewest_rows:  # vectors along the rows, and more shuffles to transpose them
                vectors += 2.0 * np.ceil(elements / lanes)
            else:
                gathered += elements
        tiles = inner[0, program] / inner[tile, program]
        stored = inner[0, program] * share / run[program]
        is_scattered = len(vectorised) > 0 and strides[0, vectorised[-1], program] > 1.0
        inner_trips = 1.0
        loop_trips = 0.0
        for level in range(tile):
            if extents[level, program] > 1.0:
                inner_trips = extents[level, program]
            loop_trips += inner[0, program] / inner[level + 1, program]
        out[BROADCASTS, program] = broadcasts * tiles
        out[VECTORS, program] = vectors * tiles
        out[GATHERED, program] = gathered * tiles
        out[STORES, program] = stored
        out[SCATTERED, program] = stored * lanes if is_scattered else 0.0
        out[STORE_RUN, program] = runs[0, tile, program]
        out[INNER_TRIPS, program] = inner_trips
        out[LOOP_TRIPS, program] = loop_trips
        out[SHARE, program] = share
        out[PANELS, program] = panels * tiles
        out[COVERING, program] = covering * tiles
        out[REUSED, program] = reused * tiles
