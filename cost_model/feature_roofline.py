"""Feature group with a roofline of each statement: cycles by arithmetic, by loads, by stores and by every level of memory.

What the core does in a cycle, and what caches deliver, is the target's (`ansor_py/target/cores.py`). Absolute cycles are rough;
what counts is how the programs of a task compare, and the weights here are those that ordered measured random programs of
many operators best (docs/search.md). `roofline_model.py` adds up
`roofline_cycles`, and learned models use all of it.
"""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_accesses import lane_strides, loads_by_kind, stores, vector_share
from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.feature_machine import cache_traffic
from ansor_py.cost_model.operation_counts import OperationCounts
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays, parallel_chunks
from ansor_py.target import Core, Target

INTEGER_DIVISION, FUNCTION = 8, 20  # operations that one division and one call of a function stand for, whichever it is
# Loads that one counts as: one element for all lanes, a vector (which may lie across two cache lines), one element of many.
LOADS = (1.0, 3.0, 3.0)
# Stores that one counts as: of a vector of accumulators, with its load when the next run begins, and of an element by itself.
STORES = 2
# Scattered lanes are transposed in registers where a tile stores so many neighbours: as dear as storing the vectors so often.
TRANSPOSED_RUN, TRANSPOSED = 4, 4
SPILL_LOADS = 3  # loads that an accumulator without a register counts as, a step: it is stored and loaded again
# In a body of more multiply-adds than the first number the compiler loads ahead, a register for each that many more.
SHORT_BODY, BODY_OF_A_REGISTER = 80, 6
START_CYCLES, ITERATION_CYCLES = 1.0, 0.4  # of a loop: its set-up and its branches
REGION_CYCLES, CHUNK_CYCLES = 5000, 10
EXPOSED = 0.25  # of the core's cycles and the memory's, that share of the fewer is not hidden behind the others

ROOFLINE_FIELDS = ("compute_cycles", "load_cycles", "store_cycles", "memory_cycles", "roofline_cycles")


@feature_group("roofline", ROOFLINE_FIELDS)
def roofline(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Cycles of all iterations on one core by resource, and of the statement on the cores in use."""
    core, share = target.core, vector_share(statement, target)
    depth = statement.reduction_depth
    waiting = np.ones(statement.programs)
    loads = loads_by_kind(statement, target)
    factors = unroll_factors(statement, target)
    spilled = np.zeros(statement.programs)
    if depth is not None:
        accumulators = statement.inner[depth] * share
        waiting = np.maximum(core.latency * core.vector_units / accumulators, 1.0)
        steps = statement.inner[0] / statement.inner[depth]
        operands = loads[1] / steps + 1
        longer = np.maximum(accumulators * factors.prod(axis=0) - SHORT_BODY, 0.0)
        ahead = longer / BODY_OF_A_REGISTER + np.where(longer > 0, shared_vectors(statement, factors), 0.0)
        spilled = steps * np.maximum(accumulators + operands + ahead - target.vector_registers, 0.0)
    cycles = np.empty((4, statement.programs))
    cycles[0] = statement.inner[0] * share * operation_weight(statement.operations, core) / core.vector_units * waiting
    cycles[1] = ((loads * np.array(LOADS)[:, None]).sum(axis=0) + SPILL_LOADS * spilled) / core.loads
    vectors, elements = stores(statement, target)
    transposed = (elements > 0) & (statement.runs[0, statement.tile_depth] >= TRANSPOSED_RUN)
    apart = np.where(transposed, np.minimum(TRANSPOSED * vectors, elements), elements)
    cycles[2] = STORES / core.stores * (vectors + apart)
    rates = np.array([[core.second_bytes], [core.third_bytes], [core.memory_bytes]])
    cycles[3] = (cache_traffic(statement, target) / rates).sum(axis=0)
    busy = np.maximum(cycles[0], cycles[1]) + loop_cycles(statement, factors)
    busiest = np.maximum(busy, cycles[3]) + EXPOSED * np.minimum(busy, cycles[3])
    chunks = parallel_chunks(statement)
    waves = np.ceil(chunks / target.cores)
    out[0:4] = cycles
    out[4] = 0.0 if statement.prepacked else (busiest + cycles[2]) * waves / chunks + parallel_cycles(statement, waves)


def unroll_factors(statement: StatementArrays, target: Target) -> Floats:
    """Of the loops around the tile [tile depth, n] how many iterations are emitted in a row within the unroll limit."""
    depth = statement.tile_depth
    factors, emitted = np.ones((depth, statement.programs)), statement.inner[depth] * vector_share(statement, target)
    unrolling = np.full(statement.programs, statement.reduction_depth is not None)
    for position in reversed(range(depth)):
        unrolling = unrolling & (statement.loops[position].kind == "reduction")
        if not unrolling.any():
            break
        room = np.clip(statement.unroll_limit // np.maximum(emitted, 1.0), 1.0, statement.extents[position])
        factors[position] = np.where(unrolling, room, 1.0)
        emitted = emitted * factors[position]
        unrolling &= factors[position] == statement.extents[position]
    return factors


def shared_vectors(statement: StatementArrays, factors: Floats) -> Floats:
    """Vectors [n] that the steps emitted in a row load more than once between them: the compiler keeps them instead."""
    depth = statement.tile_depth
    unrolled = factors > 1
    outermost = (
        np.where(unrolled.any(axis=0), unrolled.argmax(axis=0), depth) if depth else np.zeros(statement.programs, np.int64)
    )
    steps = statement.inner[outermost, statement.everyone] / statement.inner[depth]
    reads = statement.footprint[1:]
    times = reads[:, depth] * steps / np.maximum(reads[:, outermost, statement.everyone], 1.0)
    vectors = np.ceil(reads[:, depth] / statement.tile.lanes) * (lane_strides(statement)[1:] == 1)
    return np.asarray((vectors * (times - 1)).sum(axis=0))


def loop_cycles(statement: StatementArrays, factors: Floats) -> Floats:
    """Cycles [n] of the starts and iterations of the loops around the tile, as far as they are not unrolled."""
    extents, starts = statement.extents[: len(factors)], statement.inner[0] / statement.inner[: len(factors)]
    iterations = np.ceil(extents / factors)
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
