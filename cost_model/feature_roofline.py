"""Feature group with a roofline of each statement: cycles by arithmetic, by loads, by stores and by every level of memory.

What the core does in a cycle, and what caches deliver, is the target's (`ansor_py/target/cores.py`). Absolute cycles are rough;
what counts is how the programs of a task compare, and the weights here are those that ordered measured random programs of
many operators best (docs/search.md). `roofline_model.py` adds up
`roofline_cycles`, and learned models use all of it.
"""

from __future__ import annotations

import numpy as np

from ansor_py.codegen.transposition import FEWEST_ROWS
from ansor_py.cost_model.feature_accesses import loads_by_kind, stores, vector_share
from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.feature_machine import cache_traffic
from ansor_py.cost_model.operation_counts import OperationCounts
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays, parallel_chunks
from ansor_py.lower.register_tile import steps_in_a_row
from ansor_py.target import Core, Target

INTEGER_DIVISION, FUNCTION = 8, 20  # operations that one division and one call of a function stand for, whichever it is
# Loads that one counts as: one element for all lanes, a vector (which may lie across two cache lines), one element of many.
LOADS = (1.0, 3.0, 3.0)
# Stores that one counts as: of a vector of accumulators, with its load when the next run begins, and of an element by itself.
STORES = 2
# Scattered lanes are transposed in registers where a tile stores so many neighbours: as dear as storing the vectors so often.
TRANSPOSED = 4
SPILL_LOADS = 3  # loads that an accumulator without a register counts as, a step: it is stored and loaded again
# A loop of more multiply-adds than the first number, emitted in a row, takes so many times as long as a shorter one.
LONG_BODY, LONG_BODY_COST = 256, 1.1
START_CYCLES, ITERATION_CYCLES = 1.0, 0.4  # of a loop: its set-up and its branches
REGION_CYCLES, CHUNK_CYCLES = 5000, 10
EXPOSED = 0.25  # of the core's cycles and the memory's, that share of the fewer is not hidden behind the others

ROOFLINE_FIELDS = ("compute_cycles", "load_cycles", "store_cycles", "memory_cycles", "roofline_cycles")


@feature_group("roofline", ROOFLINE_FIELDS)
def roofline(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Cycles of all iterations on one core by resource, and of the statement on the cores in use."""
    core, share = target.core, vector_share(statement, target)
    depth = statement.reduction_depth
    waiting, spilled = np.ones(statement.programs), np.zeros(statement.programs)
    loads = loads_by_kind(statement, target)
    if depth is not None:
        accumulators = statement.inner[depth] * share
        waiting = np.maximum(core.latency * core.vector_units / accumulators, 1.0)
        missing = np.maximum(statement.tile_registers(target) - target.vector_registers, 0.0)
        spilled = statement.inner[0] / statement.inner[depth] * missing
    cycles = np.empty((4, statement.programs))
    cycles[0] = statement.inner[0] * share * operation_weight(statement.operations, core) / core.vector_units * waiting
    cycles[1] = ((loads * np.array(LOADS)[:, None]).sum(axis=0) + SPILL_LOADS * spilled) / core.loads
    vectors, elements = stores(statement, target)
    transposed = (elements > 0) & (statement.runs[0, statement.tile_depth] >= FEWEST_ROWS)
    apart = np.where(transposed, np.minimum(TRANSPOSED * vectors, elements), elements)
    cycles[2] = STORES / core.stores * (vectors + apart)
    rates = np.array([[core.second_bytes], [core.third_bytes], [core.memory_bytes]])
    cycles[3] = (cache_traffic(statement, target) / rates).sum(axis=0)
    iterations, body = unrolled(statement, share)
    busy = np.maximum(cycles[0], cycles[1]) * np.where(body > LONG_BODY, LONG_BODY_COST, 1.0) + loop_cycles(
        statement, iterations
    )
    busiest = np.maximum(busy, cycles[3]) + EXPOSED * np.minimum(busy, cycles[3])
    chunks = parallel_chunks(statement)
    waves = np.ceil(chunks / target.cores)
    out[0:4] = cycles
    out[4] = 0.0 if statement.prepacked else (busiest + cycles[2]) * waves / chunks + parallel_cycles(statement, waves)


def unrolled(statement: StatementArrays, share: Floats) -> tuple[Floats, Floats]:
    """Of the loops around the tile the iterations [tile depth, n] that are left, and the vectors [n] emitted in a row."""
    depth = statement.tile_depth
    iterations, body = statement.extents[:depth].copy(), np.maximum(statement.inner[depth] * share, 1.0)
    if statement.reduction_depth is not None:
        around = statement.reduction_loops
        extents = [statement.extents[position] for position in around]
        limit = statement.unroll_limit.astype(np.int64)
        for position, steps in zip(around, steps_in_a_row(extents, body, limit), strict=True):
            iterations[position] = np.ceil(iterations[position] / steps)
            body = body * steps
    return iterations, body


def loop_cycles(statement: StatementArrays, iterations: Floats) -> Floats:
    """Cycles [n] of the starts and iterations of the loops around the tile."""
    starts = statement.inner[0] / statement.inner[: len(iterations)]
    return np.asarray(np.where(iterations > 1, starts * (START_CYCLES + ITERATION_CYCLES * iterations), 0.0).sum(axis=0))


def parallel_cycles(statement: StatementArrays, waves: Floats) -> Floats:
    """Cycles [n] to start and end a parallel region of the statement's own, and to hand out its chunks."""
    own = statement.parallel[statement.allocation_depth :].any(axis=0)
    return np.where(own, REGION_CYCLES + CHUNK_CYCLES * waves, 0.0)


def operation_weight(counts: OperationCounts, core: Core) -> float:
    """One iteration in operations of the simplest kind."""
    simple = counts.float_mad + counts.float_addsub + counts.float_mul + counts.float_cmp + counts.float_other
    integers = counts.int_mad + counts.int_addsub + counts.int_mul + counts.int_cmp + counts.bool_op + counts.select
    divisions = core.division * core.vector_units * counts.float_divmod + INTEGER_DIVISION * counts.int_divmod
    return simple + integers + divisions + FUNCTION * counts.float_math
