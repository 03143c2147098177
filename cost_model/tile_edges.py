"""Accumulators of register tiles, whole ones and those at the edges of axes: how long they wait, and how much is executed.

Where a tile does not divide an axis, the last one is emitted with as many rows and vectors as are left, and a tile with few
accumulators has several sums side by side (`codegen/tile_sums.py`). Loops have their full extents in all features: of 7 rows in
tiles of 4 they count 8.

    waits = waiting(statement, target, steps)
    waits.operations(vectors)          # float64[n]: that a step takes as long as
    executed_share(statement, vectors, waits)      # float64[n], 1 where tiles divide
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ansor_py.codegen.tile_sums import SHORTEST_SPLIT
from ansor_py.cost_model.native_loops import Floats
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.target import Target

OPERANDS = 3.0  # registers for what is at hand of the operands
SLACK = 1.2  # eight accumulators of eight in flight were 19 % slower than twelve, ten 7 % (AVX2 code on znver5)


@dataclass(frozen=True, eq=False)
class Waiting:
    """What steps of a reduction wait for: `busy` accumulators keep all units busy, `steps` [n] are emitted in a row.

    A load takes as long as `load` operations.
    """

    busy: float
    load: float
    registers: float
    steps: Floats

    def operations(self, vectors: Floats) -> Floats:
        """Vector operations [n] that a step of so many accumulators takes as long as."""
        room = np.minimum(np.floor((self.registers - OPERANDS) / np.maximum(vectors, 1.0)), self.steps)
        sums = np.maximum(np.minimum(np.ceil(self.busy / np.maximum(vectors, 1.0)), room), 1.0)
        return np.maximum(vectors, self.busy / sums)


def waiting(statement: StatementArrays, target: Target, steps: Floats) -> Waiting:
    """Of a statement of whose reduction so many steps are emitted in a row; nothing waits where nothing is reduced.

    Lanes of a reduction have one sum each.
    """
    if statement.reduction_depth is None:
        return Waiting(0.0, 0.0, target.vector_registers, steps)
    around = np.prod(statement.extents[statement.reduction_loops], axis=0)
    if statement.reduces[statement.vectorised].any():
        around = np.zeros(statement.programs)
    core = target.core
    busy, load = SLACK * core.latency * core.vector_units, core.vector_units / core.loads
    return Waiting(busy, load, target.vector_registers, np.where(around < SHORTEST_SPLIT, 1.0, steps))


def executed_share(statement: StatementArrays, vectors: Floats, waits: Waiting) -> Floats:
    """The time of the tiles that there are in units of that of whole ones [n], which have so many `vectors` [n]."""
    share, whole = np.ones(statement.programs), waits.operations(vectors)
    positions = {loop.variable: position for position, loop in enumerate(statement.loops)}
    own = {loop.variable for loop in statement.bounds.loops if loop.name in statement.tile.loops}
    for axis in statement.bounds.stage.op.axes:
        terms = statement.bounds.values[axis.name].terms
        factors = {term: statement.number(factor) for term, factor in terms if isinstance(term, str)}
        inside = own & set(factors)
        if len(inside) != 1:
            continue
        [name] = inside
        tile = statement.extents[positions[name]]
        covered, span = np.ones(statement.programs), np.ones(statement.programs)
        exact = factors[name] == 1.0
        for term, _ in terms:  # where a region begins: at a place that is no multiple of tiles, unless it is the whole axis
            if not isinstance(term, str):
                exact = exact & (term.kind == "clamp" and statement.number(term.divisor) == 0.0)
        for term, factor in factors.items():
            extent = statement.extents[positions[term]]
            covered, span = covered * extent, span + factor * (extent - 1)
            exact = exact & ((term == name) | (extent == 1.0) | (factor % tile == 0.0))
        exact = exact & (span == covered) & (covered > axis.extent)  # of a halo more is computed than there is
        lanes = statement.tile.lanes if statement.loops[positions[name]].name == statement.tile.vector else 1
        most, left = np.ceil(tile / lanes), np.ceil(axis.extent % tile / lanes)
        # A small tile shares little of what it loads: a row, a column, and what is fetched ahead.
        operations = np.maximum(waits.operations(vectors * left / most), (left + vectors / most + 1.0) * waits.load)
        last = np.where(left > 0, np.minimum(operations / whole, 1.0), 0.0)
        share *= np.where(exact, (axis.extent // tile + last) * tile / covered, 1.0)
    return share
