"""Feature group about the register tile: how well lanes and registers are used inside the innermost reduction loop."""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays, innermost
from ansor_py.target import Target

TILE_FIELDS = ["lane_utilisation", "tile_vectors", "tile_register_pressure", "tile_loads", "tile_work", "accumulation_run"]


@feature_group("register_tile", TILE_FIELDS)
def register_tile(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Lanes in use; of a reduction also accumulators, loads and work of one reduction step, and steps between spills."""
    lanes = statement.tile.lanes
    vectors = statement.extents.copy()
    vectorised = statement.annotated["vectorize"]
    vectors[vectorised] = np.ceil(vectors[vectorised] / lanes)
    out[:] = 0
    if len(vectorised):
        last = vectorised[-1]
        out[0] = statement.extents[last] / (vectors[last] * lanes)
    depth = statement.reduction_depth
    if depth is None:
        return
    tile = vectors[depth:].prod(axis=0)
    loads = loads_of_step(statement, depth, target)
    out[1] = tile
    out[2] = tile / target.vector_registers
    out[3] = loads
    out[4] = tile / np.maximum(loads, 1)
    out[5] = accumulation_run(statement, depth)


def loads_of_step(statement: StatementArrays, depth: int, target: Target) -> Floats:
    """Loads [n] inside a depth: read buffers in vectors where a vectorised loop moves them, else element by element."""
    lanes = statement.tile.lanes
    vectorised = statement.annotated["vectorize"]
    total = np.zeros(statement.programs)
    for footprint, strides in zip(statement.footprint[1:, depth], statement.strides[1:], strict=True):
        moved = (strides[vectorised] != 0).any(axis=0) if len(vectorised) else np.zeros(statement.programs, dtype=np.bool_)
        total += np.where(moved, np.ceil(footprint / lanes), footprint)
    return total


def accumulation_run(statement: StatementArrays, depth: int) -> Floats:
    """Reduction steps [n] before a spatial loop outside (of extent above 1) moves on to other accumulators."""
    if "accumulation_run" not in statement.kept:
        extents = statement.extents[:depth]
        reduces = np.array([loop.kind == "reduction" for loop in statement.loops[:depth]])[:, None]
        moves_on = innermost(~reduces & (extents > 1))
        inside = np.arange(depth)[:, None] > np.maximum(moves_on, statement.company - 1)
        statement.kept["accumulation_run"] = np.where(reduces & inside, extents, 1.0).prod(axis=0)
    return statement.kept["accumulation_run"]
