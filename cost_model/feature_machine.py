"""Feature groups that relate a statement to the machine: arithmetic intensity (Ansor's group 3), cores, caches."""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.native_loops import Flags, Floats, Integers, native
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.target import Target

CURVE_SAMPLES = 10
# No prefetcher foresees a line of a run shorter than this: beyond the second cache it takes as long as so many others.
STREAMED_BYTES, LONE_LINES = 256, 3.0
CACHE_SHARE = 0.75  # of a cache is kept; what streams through takes the rest


@feature_group("intensity", [f"intensity_{sample}" for sample in range(1, CURVE_SAMPLES + 1)])
def intensity(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Float operations per touched byte, sampled where tenths of all operations are done, from the innermost loop outwards."""
    _intensity(statement.inner, statement.touched_bytes, float(statement.operations.float_flops), out)


@native
def _intensity(inner: Floats, touched_bytes: Floats, flops: float, out: Columns) -> None:
    depths, programs = len(inner) - 1, inner.shape[1]
    for program in range(programs):
        if flops == 0.0 or depths == 0:
            for sample in range(CURVE_SAMPLES):
                out[sample, program] = flops / touched_bytes[0, program] if flops > 0.0 else 0.0
            continue
        depth = depths - 1  # the innermost one at which the operations of a sample are done
        for sample in range(CURVE_SAMPLES):
            wanted = flops * inner[0, program] * (sample + 1.0) / CURVE_SAMPLES
            while depth > 0 and flops * inner[depth, program] < wanted:
                depth -= 1
            done = flops * inner[depth, program]
            curve = done / touched_bytes[depth, program]
            if depth < depths - 1:  # linearly from the depth inside
                before = flops * inner[depth + 1, program]
                start = before / touched_bytes[depth + 1, program]
                weight = (wanted - before) / max(done - before, 1.0) if done > before else 0.0
                curve = start + (curve - start) * weight
            out[sample, program] = curve


@feature_group(
    "machine",
    ["redundancy", "parallel_chunks_per_core", "parallel_imbalance", "l1_traffic", "l2_traffic", "l3_traffic", "prepacked"],
)
def machine(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Wasted iterations, balance over the cores, bytes that move into the levels of cache, whether it runs only once."""
    out[0] = statement.inner[0] / statement.work
    _balance(statement.extents, statement.parallel, target.cores, out[1:3])
    out[3:6] = cache_traffic(statement, target)
    out[6] = statement.prepacked


@native
def _balance(extents: Floats, parallel: Flags, cores: int, out: Columns) -> None:
    levels, programs = extents.shape
    for program in range(programs):
        chunks = 1.0
        for level in range(levels):
            chunks *= extents[level, program] if parallel[level, program] else 1.0
        out[0, program] = chunks / cores
        out[1, program] = np.ceil(chunks / cores) * cores / chunks


def cache_traffic(statement: StatementArrays, target: Target) -> Floats:
    """Bytes [3, n] of the lines that move into the L1, L2 and L3 cache if a body's part of a buffer stays where all of it fits.

    Lone lines that come into the L2 and L3 cache count `LONE_LINES` times. Runs whose distance is a power of two fall into
    few sets of a cache, and take the room of more than they hold.
    """
    if "cache traffic" not in statement.kept:
        out = statement.kept["cache traffic"] = np.zeros((3, statement.programs))
        # A vector moves what it touches.
        least = statement.vectorised[-1] if len(statement.vectorised) else len(statement.loops)
        capacities = np.array([target.l1, target.l2, max(target.l3, target.l2)])
        # Addresses so many bytes apart share a set; 0 for a cache whose sets do not matter.
        ways = (target.core.first_ways, target.core.second_ways)
        periods = [1 << (size // way).bit_length() - 1 for size, way in zip(capacities.tolist(), ways, strict=False)]
        arrays = statement.inner, statement.footprint, statement.runs, statement.neighbours, statement.pitches
        caches = capacities, np.array([*periods, 0]), target.cache_line_bytes, int(least)
        _cache_traffic(*arrays, statement.body_bytes, statement.element_bytes, *caches, out)
    return statement.kept["cache traffic"]


@native
def _cache_traffic(
    inner: Floats,
    footprint: Floats,
    runs: Floats,
    neighbours: Floats,
    pitches: Floats,
    body_bytes: Floats,
    element_bytes: Floats,
    capacities: Integers,
    periods: Integers,
    line: int,
    least: int,
    out: Floats,
) -> None:
    buffers, _, programs = footprint.shape
    fits = np.zeros(len(out), dtype=np.bool_)
    for program in range(programs):
        for buffer in range(buffers):
            size = element_bytes[buffer]
            for level in range(len(out)):
                fits[level] = False
            # Of the depth outside, bytes that move into the first cache and into those beyond. What fits as a whole is there
            # from the last call; what a body touches is still there when its loop comes round, which moves what is new to it.
            first = beyond = 0.0
            for depth in range(least + 1):
                used = footprint[buffer, depth, program] * size
                run = max(runs[buffer, depth, program] * size, size)  # of a buffer without elements
                near, far = pitches[0, buffer, depth, program] * size, pitches[1, buffer, depth, program] * size
                lines = run if int(run) % line == 0 else run + line - size  # the mean over where a run begins
                if near > 0.0:
                    lines = min(lines, max(near, run))
                moved = used / run * lines
                waiting = False
                for level in range(len(out)):
                    if fits[level]:
                        continue
                    occupied = body_bytes[depth, program]
                    if periods[level]:
                        period = periods[level]
                        neighbour = neighbours[buffer, depth, program]
                        # Distances that are multiples of a high power of two come back to the same sets soon.
                        places = period // max(min(int(near) & -int(near), period), 1) if near > 0.0 else 1
                        others = period // max(min(int(far) & -int(far), period), 1) if far > 0.0 else 1
                        sets = lines * min(neighbour, float(places)) * min(used / run / neighbour, float(others))
                        crowding = period / min(max(sets, 1.0), float(period)) if moved > sets else 1.0
                        occupied = occupied + moved * crowding - used
                    if depth == least or occupied <= CACHE_SHARE * capacities[level]:
                        fits[level] = True
                        out[level, program] += first if level == 0 else beyond
                    waiting = waiting or not fits[level]
                if not waiting:
                    break
                repeats = inner[0, program] / inner[depth, program]
                first = repeats * moved
                is_lone = lines < STREAMED_BYTES and near > STREAMED_BYTES
                beyond = repeats * (moved * LONE_LINES if is_lone else moved)
