"""Feature group with a roofline of each statement: cycles by arithmetic, by loads, by stores and by every level of memory.

What the core does in a cycle, and what caches deliver, is the target's (`ansor_py/target/cores.py`). Absolute cycles are rough;
what counts is how the programs of a task compare, and the weights here are those that ordered measured random programs of
many operators best (docs/search.md). `roofline_model.py` adds up
`roofline_cycles`, and learned models use all of it.
"""

from __future__ import annotations

import numpy as np

from ansor_py.codegen.transposition import FEWEST_ROWS
from ansor_py.cost_model.feature_accesses import (
    BROADCASTS,
    COVERING,
    GATHERED,
    PANELS,
    REUSED,
    SCATTERED,
    SHARE,
    STORE_RUN,
    STORES,
    VECTORS,
    tile_accesses,
)
from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.feature_machine import cache_traffic
from ansor_py.cost_model.native_loops import Flags, Floats, native
from ansor_py.cost_model.operation_counts import OperationCounts, mask_operations
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.cost_model.tile_edges import tile_times
from ansor_py.lower.register_tile import steps_in_a_row
from ansor_py.target import Core, Target

INTEGER_DIVISION, FUNCTION = 8, 20  # operations that one division and one call of a function stand for, whichever it is
# Loads of one element for all lanes that others count as: a vector which may lie across two cache lines, one element of many;
# a vector of a panel, whose lines are on their way before they are wanted.
VECTOR_LOADS, PANEL_LOADS = 3.0, 2.5
# Stores that one counts as: of a vector of accumulators, with its load when the next run begins, and of an element by itself.
STORE_COST = 2.0
# Scattered lanes are transposed in registers where a tile stores so many neighbours: as dear as storing the vectors so often.
TRANSPOSED = 4
# Loads that an accumulator counts as, a step, where one has no register: then nearly all of them are stored and loaded again.
SPILL_LOADS = 1.0
# A loop of more multiply-adds than the first number, emitted in a row, takes so many times as long as a shorter one.
LONG_BODY, LONG_BODY_COST = 256, 1.1
START_CYCLES, ITERATION_CYCLES = 1.0, 0.4  # of a loop: its set-up and its branches
REGION_CYCLES, CHUNK_CYCLES = 5000, 10
EXPOSED = 0.25  # of the core's cycles and the memory's, that share of the fewer is not hidden behind the others

TILE_ROWS = [SHARE, BROADCASTS, VECTORS, GATHERED, STORES, SCATTERED, STORE_RUN, PANELS, COVERING, REUSED]
ROOFLINE_FIELDS = ("compute_cycles", "load_cycles", "store_cycles", "memory_cycles", "roofline_cycles")


@feature_group("roofline", ROOFLINE_FIELDS)
def roofline(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Cycles of all iterations on one core by resource, and of the statement on the cores in use."""
    core, accesses = target.core, tile_accesses(statement, target)
    depth = -1 if statement.reduction_depth is None else statement.reduction_depth
    vectors = np.maximum(statement.inner[statement.tile_depth] * accesses[SHARE], 1.0)  # of the tile
    iterations, spilled = statement.extents[: statement.tile_depth].copy(), np.zeros(statement.programs)
    emitted = vectors
    if depth >= 0:
        emitted = _emitted(statement, iterations, vectors)
        steps = statement.inner[0] / statement.inner[depth]
        spilled = steps * vectors * (_registers(statement, target, vectors, steps) > target.vector_registers)
    waited, executed = tile_times(statement, target, vectors, emitted)
    rates = core.vector_units, core.loads, core.stores, core.second_bytes, core.third_bytes, core.memory_bytes
    weights = operation_weight(statement.operations, core) - _known_masks(statement)
    per_statement = np.array(rates, dtype=np.float64), statement.allocation_depth, FEWEST_ROWS, target.cores
    arrays = statement.extents, statement.inner, statement.parallel, accesses[TILE_ROWS], cache_traffic(statement, target)
    _roofline(*arrays, iterations, emitted, spilled, executed, waited, weights, *per_statement, out)
    if statement.prepacked:
        out[4] = 0.0


def _registers(statement: StatementArrays, target: Target, vectors: Floats, steps: Floats) -> Floats:
    """Vector registers [n] that the tile takes; more than its kernel says where vectors differ from row to row."""
    registers = statement.tile_registers(target)
    if not statement.tile.kernel.keeps_either:
        return registers
    accesses = tile_accesses(statement, target)
    at_hand: Floats = np.minimum(accesses[VECTORS], accesses[BROADCASTS]) / steps
    more: Floats = np.maximum(registers, vectors + at_hand + 1.0)
    return more


def _emitted(statement: StatementArrays, iterations: Floats, vectors: Floats) -> Floats:
    """Vectors [n] emitted in a row of a reduction; `iterations` become those that are left of the loops around the tile."""
    around = statement.reduction_loops
    extents = [statement.extents[position] for position in around]
    limit = statement.unroll_limit.astype(np.int64)
    for position, steps in zip(around, steps_in_a_row(extents, vectors, limit), strict=True):  # type: ignore[arg-type]  # floats, too
        iterations[position] = np.ceil(iterations[position] / steps)
        vectors = vectors * steps
    return vectors


def _known_masks(statement: StatementArrays) -> Floats:
    """Operations [n] of a reduction's conditions on indices that cost nothing.

    Where a row of vectors is a whole axis, its masks are the same in every row.
    """
    lanes = statement.loops[-1] if statement.loops else None
    masks = mask_operations(statement.bounds.body) if statement.reduction_depth is not None else 0
    if not masks or lanes is None or lanes.annotation != "vectorize":
        return np.zeros(statement.programs)
    values = statement.bounds.values
    axis = next((axis for axis in statement.bounds.stage.op.axes if lanes.variable in values[axis.name].variables), None)
    return np.zeros(statement.programs) if axis is None else masks * (statement.extents[-1] >= axis.extent)


@native
def _roofline(
    extents: Floats,
    inner: Floats,
    parallel: Flags,
    tile: Floats,
    traffic: Floats,
    iterations: Floats,
    emitted: Floats,
    spilled: Floats,
    executed: Floats,
    waited: Floats,
    weights: Floats,
    rates: Floats,
    own: int,
    fewest_rows: int,
    cores: int,
    out: Columns,
) -> None:
    """`tile` are the rows `TILE_ROWS`. The loops from `own` on are the statement's."""
    units, loads, stores, second, third, memory = rates
    for program in range(extents.shape[1]):
        everything = inner[0, program]
        share, broadcasts, contiguous, gathered = tile[0, program], tile[1, program], tile[2, program], tile[3, program]
        vectors, apart, store_run = tile[4, program], tile[5, program], tile[6, program]
        compute_cycles = everything * share * weights[program] / units * waited[program] * executed[program]
        panels, covering, reused = tile[7, program], tile[8, program], tile[9, program]
        loaded = broadcasts + PANEL_LOADS * panels + VECTOR_LOADS * (contiguous - panels + covering - reused + gathered)
        load_cycles = (loaded + SPILL_LOADS * spilled[program]) / loads * executed[program]
        if apart > 0.0 and store_run >= fewest_rows:
            apart = min(TRANSPOSED * vectors, apart)
        store_cycles = STORE_COST / stores * (vectors + apart)
        memory_cycles = traffic[0, program] / second + traffic[1, program] / third + traffic[2, program] / memory
        busy = max(compute_cycles, load_cycles) * (LONG_BODY_COST if emitted[program] > LONG_BODY else 1.0)
        loop_cycles = 0.0
        for level in range(len(iterations)):
            if iterations[level, program] > 1.0:
                starts = everything / inner[level, program]
                loop_cycles += starts * (START_CYCLES + ITERATION_CYCLES * iterations[level, program])
        busy += loop_cycles
        busiest = max(busy, memory_cycles) + EXPOSED * min(busy, memory_cycles)
        chunks, is_region = 1.0, False
        for level in range(len(extents)):
            if parallel[level, program]:
                chunks *= extents[level, program]
                is_region = is_region or level >= own
        waves = np.ceil(chunks / cores)
        out[0, program] = compute_cycles
        out[1, program] = load_cycles
        out[2, program] = store_cycles
        out[3, program] = memory_cycles
        region = REGION_CYCLES + CHUNK_CYCLES * waves if is_region else 0.0
        out[4, program] = (busiest + store_cycles) * waves / chunks + region


def operation_weight(counts: OperationCounts, core: Core) -> float:
    """One iteration in operations of the simplest kind."""
    simple = counts.float_mad + counts.float_addsub + counts.float_mul + counts.float_cmp + counts.float_other
    integers = counts.int_mad + counts.int_addsub + counts.int_mul + counts.int_cmp + counts.bool_op + counts.select
    divisions = core.division * core.vector_units * counts.float_divmod + INTEGER_DIVISION * counts.int_divmod
    return simple + integers + divisions + FUNCTION * counts.float_math
