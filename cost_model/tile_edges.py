"""Accumulators of register tiles, whole ones and those at the edges of axes: how long they wait, and how much is executed.

Where a tile does not divide an axis, the last one is emitted with as many rows and vectors as are left, and a tile with few
accumulators has several sums side by side (`codegen/tile_sums.py`). Loops have their full extents in all features: of 7 rows in
tiles of 4 they count 8.

    waited, executed = tile_times(statement, target, vectors, emitted)  # float64[n] each; 1 if nothing waits and tiles divide
"""

from __future__ import annotations

import numpy as np

from ansor_py.codegen.parallel_runtime import CHUNKS_PER_THREAD
from ansor_py.codegen.tile_sums import SHORTEST_SPLIT
from ansor_py.cost_model.native_loops import Flags, Floats, Integers, native
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.target import Target

OPERANDS = 3.0  # registers for what is at hand of the operands
SLACK = 1.2  # eight accumulators of eight in flight were 19 % slower than twelve, ten 7 % (AVX2 code on znver5)


def tile_times(statement: StatementArrays, target: Target, vectors: Floats, emitted: Floats) -> tuple[Floats, Floats]:
    """What a step of whole tiles takes in units of its operations, and all tiles that there are in units of whole ones [n].

    Tiles have so many `vectors` [n], and `emitted` [n] are those of all steps of the reduction that are emitted in a row.
    """
    core, busy, around = target.core, 0.0, np.ones(statement.programs)
    if statement.reduction_depth is not None:  # nothing waits where nothing is reduced
        busy = SLACK * core.latency * core.vector_units
        around = np.prod(statement.extents[statement.reduction_loops], axis=0)
        if statement.reduces[statement.vectorised].any():  # lanes of a reduction have one sum each
            around = np.zeros(statement.programs)
    load = core.vector_units / core.loads if busy else 0.0  # a load takes as long as so many operations
    constants = np.array([busy, load, target.vector_registers - OPERANDS, SHORTEST_SPLIT], dtype=np.float64)
    waited, executed = np.empty(statement.programs), np.ones(statement.programs)
    arrays = statement.extents, statement.parallel, vectors, emitted, around, constants, *_tiled_axes(statement)
    _tile_times(*arrays, target.cores, CHUNKS_PER_THREAD, waited, executed)
    return waited, executed


def _tiled_axes(statement: StatementArrays) -> tuple[Integers, Floats, Flags]:
    """Of the A axes over which the tile has one loop each: [A, 3] position of the loop, lanes and extent; factors [A, L, n].

    The last ones say whether a region begins where tiles may begin [A, n]: it does where it is the whole axis.
    """
    positions = {loop.variable: position for position, loop in enumerate(statement.loops)}
    own = {loop.variable for loop in statement.bounds.loops if loop.name in statement.tile.loops}
    tiled = []
    for axis in statement.bounds.stage.op.axes:
        terms = statement.bounds.values[axis.name].terms
        inside = [term for term, _ in terms if isinstance(term, str) and term in own]
        if len(set(inside)) == 1:
            tiled.append((axis, positions[inside[0]], terms))
    integers, factors = np.empty((len(tiled), 3), dtype=np.int64), np.zeros((len(tiled), *statement.extents.shape))
    begins = np.ones((len(tiled), statement.programs), dtype=np.bool_)
    for row, (axis, position, terms) in enumerate(tiled):
        loop = statement.loops[position]
        integers[row] = position, statement.tile.lanes if loop.name == statement.tile.vector else 1, axis.extent
        for term, factor in terms:
            if isinstance(term, str):
                factors[row, positions[term]] = statement.number(factor)
            elif term.kind == "clamp":
                begins[row] &= statement.number(term.divisor) == 0.0
            else:
                begins[row] = False
    return integers, factors, begins


@native
def _tile_times(
    extents: Floats,
    parallel: Flags,
    vectors: Floats,
    emitted: Floats,
    around: Floats,
    constants: Floats,
    axes: Integers,
    factors: Floats,
    begins: Flags,
    cores: int,
    most_chunks: int,
    waited: Floats,
    executed: Floats,
) -> None:
    """`constants` are accumulators that keep all units busy, operations of a load, registers, the shortest split reduction."""
    busy, load, registers, shortest_split = constants

    def operations(accumulators: float, steps: float) -> float:
        """Vector operations that a step of so many accumulators takes as long as."""
        accumulators = max(accumulators, 1.0)
        sums = max(min(np.ceil(busy / accumulators), np.floor(registers / accumulators), steps), 1.0)
        longest: float = max(accumulators, busy / sums)
        return longest

    for program in range(extents.shape[1]):
        whole_vectors = vectors[program]
        steps = 1.0 if around[program] < shortest_split else emitted[program] / whole_vectors
        whole = operations(whole_vectors, steps)
        waited[program] = whole / whole_vectors
        iterations, outermost = 1.0, -1  # of the parallel loops
        for level in range(len(extents)):
            if parallel[level, program] and extents[level, program] > 1.0:
                iterations *= extents[level, program]
                outermost = level if outermost < 0 else outermost
        idle = 0.5 / min(np.ceil(iterations / cores), most_chunks) if cores > 1 and iterations > 1.0 else 0.0
        for axis in range(len(axes)):
            own, lanes, extent = axes[axis]
            tile = extents[own, program]
            covered = span = 1.0
            exact = begins[axis, program] and factors[axis, own, program] == 1.0
            for level in range(len(extents)):
                factor = factors[axis, level, program]
                if factor != 0.0:
                    covered *= extents[level, program]
                    span += factor * (extents[level, program] - 1.0)
                    exact = exact and (level == own or extents[level, program] == 1.0 or factor % tile == 0.0)
            if exact and span == covered and covered > extent:  # of a halo more is computed than there is
                most, left = np.ceil(tile / lanes), np.ceil(extent % tile / lanes)
                last = 0.0
                if left > 0.0:  # A small tile shares little of what it loads: a row, a column, and what is fetched ahead.
                    busy_with = operations(whole_vectors * left / most, steps)
                    last = min(max(busy_with, (left + whole_vectors / most + 1.0) * load) / whole, 1.0)
                done = (extent // tile + last) * tile / covered
                if outermost >= 0 and factors[axis, outermost, program] != 0.0:
                    done = min(done + idle, 1.0)  # one thread's iterations are less work: half a chunk it finds no other
                executed[program] *= done
