"""Feature groups that relate a statement to the machine: arithmetic intensity (Ansor's group 3), cores, caches."""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays, parallel_chunks
from ansor_py.target import Target

CURVE_SAMPLES = 10


@feature_group("intensity", [f"intensity_{sample}" for sample in range(1, CURVE_SAMPLES + 1)])
def intensity(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Float operations per touched byte, sampled where tenths of all operations are done, from the innermost loop outwards."""
    flops = statement.operations.float_flops
    depths = len(statement.inner) - 1
    if not flops or not depths:
        out[:] = flops / statement_bytes(statement)[0] if flops else 0.0
        return
    done = flops * statement.inner[:depths][::-1]
    curve = done / statement_bytes(statement)[:depths][::-1]
    targets = done[-1] * np.arange(1.0, CURVE_SAMPLES + 1)[:, None] / CURVE_SAMPLES
    above = (done[:-1, None] < targets).sum(axis=0)
    below = np.maximum(above - 1, 0)
    programs = statement.everyone
    low, high, start, end = done[below, programs], done[above, programs], curve[below, programs], curve[above, programs]
    weight = np.where(high > low, (targets - low) / np.maximum(high - low, 1.0), 0.0)
    out[:] = np.where(above == 0, curve[0], start + (end - start) * weight)


def statement_bytes(statement: StatementArrays) -> Floats:
    """Bytes [D, n] that the statement alone touches inside each depth."""
    if "bytes" not in statement.kept:
        total = statement.footprint[0] * statement.buffers[0].element_bytes
        for footprint, use in zip(statement.footprint[1:], statement.buffers[1:], strict=True):
            total += footprint * use.element_bytes
        statement.kept["bytes"] = total
    return statement.kept["bytes"]


@feature_group(
    "machine",
    ["redundancy", "parallel_chunks_per_core", "parallel_imbalance", "l1_traffic", "l2_traffic", "l3_traffic", "prepacked"],
)
def machine(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Wasted iterations, balance over the cores, bytes that move into the levels of cache, whether it runs only once."""
    out[0] = statement.inner[0] / statement.work
    chunks = parallel_chunks(statement)
    out[1] = chunks / target.cores
    out[2] = np.ceil(chunks / target.cores) * target.cores / chunks
    out[3:6] = cache_traffic(statement, target)
    out[6] = statement.prepacked


def cache_traffic(statement: StatementArrays, target: Target) -> Floats:
    """Bytes [3, n] that move into the L1, L2 and L3 cache if a body stays in the cache that it fits as a whole."""
    if "cache_traffic" in statement.kept:
        return statement.kept["cache_traffic"]
    capacities = np.array([target.l1, target.l2, max(target.l3, target.l2)])
    fits = statement.body_bytes <= capacities[:, None, None]
    fits[:, -1] = True  # a single iteration moves what it touches
    outermost, programs = fits.argmax(axis=1), statement.everyone
    footprint = statement_bytes(statement)[outermost, programs]
    into: Floats = statement.inner[0] / statement.inner[outermost, programs] * footprint
    statement.kept["cache_traffic"] = into
    return into
