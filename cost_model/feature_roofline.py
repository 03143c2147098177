"""Feature group with a roofline of each statement: cycles by arithmetic, by loads and by every level of memory.

The machine is a generic core scaled by the target: two vector operations and two vector loads a cycle, caches that deliver
some bytes a cycle. Absolute cycles are rough; what counts is how the programs of a task compare. `roofline_model.py`
adds up `roofline_cycles`, and learned models use the parts.
"""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.feature_machine import cache_traffic
from ansor_py.cost_model.feature_statement import annotated
from ansor_py.cost_model.feature_tile import innermost_reduction, loads_of_step
from ansor_py.cost_model.operation_counts import OperationCounts
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays
from ansor_py.target import Target

OPERATIONS_PER_CYCLE = 2  # vector operations of an accumulating core, and vector loads
DIVISION, FUNCTION = 8, 20  # operations that one division and one call of a function stand for
LATENCY_VECTORS = 8  # accumulators that keep two units of four cycles' latency busy
# Vectors that the next level delivers a cycle: into L1, into L2, into L3.
DELIVERED_VECTORS = (0.5, 0.125, 0.0625)


@feature_group("roofline", ["compute_cycles", "load_cycles", "memory_cycles", "roofline_cycles"])
def roofline(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Cycles of all iterations on one core, by resource; the last field is the largest of them on the cores in use."""
    vectors = _vector_share(statement, target)
    steps = statement.inner[0] * vectors
    depth = innermost_reduction(statement)
    tile = np.full(statement.programs, float(LATENCY_VECTORS))
    loads = float(len(statement.buffers) - 1) * steps
    if depth is not None:
        lengths = statement.extents[depth:].prod(axis=0)
        tile = lengths * vectors
        loads = statement.inner[0] / lengths * loads_of_step(statement, depth, target)
    waiting = np.maximum(LATENCY_VECTORS / tile, 1.0)
    out[0] = steps * operation_weight(statement.operations) / OPERATIONS_PER_CYCLE * waiting
    out[1] = loads / OPERATIONS_PER_CYCLE
    rates = np.array(DELIVERED_VECTORS)[:, None] * target.vector_bytes
    out[2] = (cache_traffic(statement, target) / rates).max(axis=0)
    chunks = np.where(statement.parallel, statement.extents, 1.0).prod(axis=0)
    busy = chunks / np.ceil(chunks / target.cores)
    out[3] = 0 if statement.prepared else np.maximum(np.maximum(out[0], out[1]), out[2]) / busy


def operation_weight(counts: OperationCounts) -> int:
    """One iteration in operations of the simplest kind."""
    simple = counts.float_mad + counts.float_addsub + counts.float_mul + counts.float_cmp + counts.float_other
    integers = counts.int_mad + counts.int_addsub + counts.int_mul + counts.int_cmp + counts.bool_op + counts.select
    return simple + integers + DIVISION * (counts.float_divmod + counts.int_divmod) + FUNCTION * counts.float_math


def _vector_share(statement: StatementArrays, target: Target) -> Floats:
    """Vectors for each iteration [n]: those of the vectorised loops over their extents, 1 where nothing is vectorised."""
    lanes = target.lanes(statement.bounds.stage.tensor.dtype)
    extents = statement.extents[annotated(statement, "vectorize")] if statement.loops else statement.extents
    return np.asarray((np.ceil(extents / lanes) / extents).prod(axis=0))
