"""Feature groups that relate a statement to the machine: arithmetic intensity (Ansor's group 3), cores, caches."""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.statement_arrays import Floats, StatementArrays, parallel_chunks
from ansor_py.target import Target

CURVE_SAMPLES = 10
# No prefetcher foresees a line of a run shorter than this: beyond the second cache it takes as long as so many others.
STREAMED_BYTES, LONE_LINES = 256, 3.0
CACHE_SHARE = 0.75  # of a cache is kept; what streams through takes the rest


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
    """Bytes [3, n] of the lines that move into the L1, L2 and L3 cache if a body's part of a buffer stays where all of it fits.

    Lone lines that come into the L2 and L3 cache count `LONE_LINES` times. Runs whose distance is a power of two fall into
    few sets of a cache, and take the room of more than they hold.
    """
    if "cache_traffic" in statement.kept:
        return statement.kept["cache_traffic"]
    sizes = np.array([[[float(use.element_bytes)]] for use in statement.buffers])
    runs, pitches, used = statement.runs * sizes, statement.pitches * sizes, statement.footprint * sizes
    runs = np.maximum(runs, sizes)  # of a buffer without elements
    line = target.cache_line_bytes
    lines = np.where(runs % line == 0, runs, runs + line - sizes)  # the mean over where a run begins
    lines = np.where(pitches[0] > 0, np.minimum(lines, np.maximum(pitches[0], runs)), lines)
    moved = used / runs * lines
    far = moved * np.where((lines < STREAMED_BYTES) & (pitches[0] > STREAMED_BYTES), LONE_LINES, 1.0)
    vectorised = statement.annotated["vectorize"]
    least = vectorised[-1] if vectorised else len(statement.loops)  # a vector moves what it touches
    repeats = statement.inner[0] / statement.inner
    into = np.empty((3, statement.programs))
    capacities = (target.l1, target.l2, max(target.l3, target.l2))
    for level, (capacity, ways) in enumerate(
        zip(capacities, (target.core.first_ways, target.core.second_ways, 0), strict=True)
    ):
        occupied = np.broadcast_to(statement.body_bytes, moved.shape)
        if ways:
            period = 1 << (capacity // ways).bit_length() - 1  # addresses so many bytes apart share a set
            places = period / np.gcd(pitches.astype(np.int64), period)
            others = used / runs / statement.neighbours
            sets = lines * np.minimum(statement.neighbours, places[0]) * np.minimum(others, places[1])
            crowding = np.where(moved > sets, period / np.clip(sets, 1.0, period), 1.0)
            occupied = occupied + moved * crowding - used
        fits = occupied <= CACHE_SHARE * capacity
        fits[:, least:] = True
        # What a body touches is still there when its loop comes round, so that the loop moves only what is new to it.
        outermost = np.maximum(fits.argmax(axis=1)[:, None] - 1, 0)
        traffic = np.take_along_axis(repeats * (moved if level == 0 else far), outermost, axis=1)[:, 0]
        into[level] = np.where(fits[:, 0], 0.0, traffic).sum(axis=0)  # what fits as a whole is there from the last call
    statement.kept["cache_traffic"] = into
    return into
