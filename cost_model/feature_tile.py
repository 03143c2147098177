"""Feature group about the register tile: how well lanes and registers are used inside the innermost reduction loop."""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.native_loops import Flags, Floats, Integers, native
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.target import Target

TILE_FIELDS = ["lane_utilisation", "tile_vectors", "tile_register_pressure", "tile_loads", "tile_work", "accumulation_run"]


@feature_group("register_tile", TILE_FIELDS)
def register_tile(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Lanes in use; of a reduction also accumulators, loads and work of one reduction step, and steps between spills."""
    arrays = statement.extents, statement.strides, statement.footprint, accumulation_run(statement)
    depth = -1 if statement.reduction_depth is None else statement.reduction_depth
    _register_tile(*arrays, statement.vectorised, statement.tile.lanes, target.vector_registers, depth, out)


@native
def _register_tile(
    extents: Floats,
    strides: Floats,
    footprint: Floats,
    run: Floats,
    vectorised: Integers,
    lanes: int,
    registers: int,
    depth: int,
    out: Columns,
) -> None:
    levels, programs = extents.shape
    for program in range(programs):
        for field in range(len(out)):
            out[field, program] = 0.0
        if len(vectorised):
            extent = extents[vectorised[-1], program]
            out[0, program] = extent / (np.ceil(extent / lanes) * lanes)
        if depth < 0:
            continue
        tile = 1.0
        for level in range(depth, levels):
            is_vectorised = False
            for position in vectorised:
                is_vectorised = is_vectorised or position == level
            extent = extents[level, program]
            tile *= np.ceil(extent / lanes) if is_vectorised else extent
        # Read buffers come in vectors where a vectorised loop moves them, else element by element.
        loads = 0.0
        for buffer in range(1, len(footprint)):
            moved = False
            for position in vectorised:
                moved = moved or strides[buffer, position, program] != 0.0
            elements = footprint[buffer, depth, program]
            loads += np.ceil(elements / lanes) if moved else elements
        out[1, program] = tile
        out[2, program] = tile / registers
        out[3, program] = loads
        out[4, program] = tile / max(loads, 1.0)
        out[5, program] = run[program]


def accumulation_run(statement: StatementArrays) -> Floats:
    """Reduction steps [n] before a spatial loop outside (of extent above 1) moves on to other accumulators; else 1."""
    if "accumulation run" not in statement.kept:
        out = statement.kept["accumulation run"] = np.ones(statement.programs)
        if statement.reduction_depth is not None:
            _accumulation_run(statement.extents, statement.reduces, statement.reduction_depth, statement.company, out)
    return statement.kept["accumulation run"]


@native
def _accumulation_run(extents: Floats, reduces: Flags, depth: int, company: int, out: Floats) -> None:
    """The loops inside `depth` are the tile's, those outside `company` run around other statements, too."""
    for program in range(extents.shape[1]):
        for level in range(depth - 1, company - 1, -1):
            if reduces[level]:
                out[program] *= extents[level, program]
            elif extents[level, program] > 1.0:
                break
