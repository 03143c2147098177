"""Feature group about registers and memory: how vectors get in and out, and how often the loops outside a tile go round.

A tile is what runs inside the innermost reduction loop of a statement or, without one, its vectorised loops.
"""

from __future__ import annotations

import numpy as np

from ansor_py.codegen.strided_loads import MOST_VECTORS
from ansor_py.codegen.transposition import FEWEST_ROWS
from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.feature_tile import accumulation_run
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays, innermost
from ansor_py.target import Target

LOAD_KINDS = ("broadcast_loads", "contiguous_loads", "gathered_loads")
ACCESS_FIELDS = (*LOAD_KINDS, "stores", "scattered_stores", "store_run", "inner_trips", "loop_trips")


@feature_group("accesses", ACCESS_FIELDS)
def accesses(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Loads by the stride of the lanes, stores of finished or spilled results, and loop iterations outside the tile."""
    inside = statement.tile_depth
    out[0:3] = loads_by_kind(statement, target)
    out[3:5] = stores(statement, target)
    out[5] = statement.runs[0, inside]
    outside = statement.extents[:inside]
    repeats = innermost(outside > 1)
    out[6] = np.where(repeats >= 0, outside[repeats, statement.everyone], 1) if inside else 1
    out[7] = (statement.inner[0] / statement.inner[1 : inside + 1]).sum(axis=0)


def vector_share(statement: StatementArrays, target: Target) -> Floats:
    """Vectors for each iteration [n]: those of the vectorised loops over their extents, 1 where nothing is vectorised."""
    if "vector_share" not in statement.kept:
        lanes = statement.tile.lanes
        extents = statement.extents[statement.annotated["vectorize"]]
        statement.kept["vector_share"] = (np.ceil(extents / lanes) / extents).prod(axis=0)
    return statement.kept["vector_share"]


def loads_by_kind(statement: StatementArrays, target: Target) -> Floats:
    """Loads [3, n] of all iterations: of one element for all lanes, of whole vectors, of one element a lane."""
    if "loads" in statement.kept:
        return statement.kept["loads"]
    lanes = statement.tile.lanes
    inside, strides = statement.tile_depth, lane_strides(statement)
    footprint, strides = statement.footprint[1:, inside], strides[1:]
    loads = np.empty((3, statement.programs))
    loads[0] = (footprint * (strides == 0)).sum(axis=0)
    # Lanes that are apart are loaded as vectors, and shuffled, where they are close or a tile takes neighbours of them, too.
    shuffled = (strides > 1) & ((strides <= MOST_VECTORS) | (statement.runs[1:, inside] >= FEWEST_ROWS))
    loads[1] = (np.ceil(footprint / lanes) * ((strides == 1) + 2.0 * shuffled)).sum(axis=0)
    loads[2] = (footprint * ((strides > 1) & ~shuffled)).sum(axis=0)
    loads *= statement.inner[0] / statement.inner[inside]
    statement.kept["loads"] = loads
    return loads


def lane_strides(statement: StatementArrays) -> Floats:
    """Elements [B, n] between neighbouring lanes; 0 where nothing is vectorised."""
    vectorised = statement.annotated["vectorize"]
    return statement.strides[:, vectorised[-1]] if vectorised else np.zeros((len(statement.buffers), statement.programs))


def stores(statement: StatementArrays, target: Target) -> Floats:
    """Rows of [2, n]: vectors stored (a reduction's accumulators once a run of its loops), elements stored one by one."""
    if "stores" in statement.kept:
        return statement.kept["stores"]
    vectors = statement.inner[0] * vector_share(statement, target)
    depth = statement.reduction_depth
    if depth is not None:
        vectors = vectors / accumulation_run(statement, depth)
    lanes = statement.tile.lanes
    statement.kept["stores"] = np.stack([vectors, np.where(lane_strides(statement)[0] > 1, vectors * lanes, 0.0)])
    return statement.kept["stores"]
