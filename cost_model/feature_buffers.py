"""Feature group about the buffers that a statement accesses (Ansor's group 2): traffic, footprint, reuse, stride."""

from __future__ import annotations

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.native_loops import Floats, Integers, native
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.target import Target

MAX_BUFFERS = 5
BUFFER_FIELDS = (
    *("read", "write", "read_write", "bytes", "unique_bytes", "lines", "unique_lines"),
    *("loop_reuse", "serial_reuse", "no_reuse", "reuse_distance_iterations", "reuse_distance_bytes", "reuse_count"),
    *("bytes_per_reuse", "unique_bytes_per_reuse", "lines_per_reuse", "unique_lines_per_reuse", "stride"),
)
FIELDS = len(BUFFER_FIELDS)
_KINDS = ("read", "write", "read-write")


@feature_group("buffers", [f"buffer{number}.{name}" for number in range(MAX_BUFFERS) for name in BUFFER_FIELDS])
def buffers(statement: StatementArrays, target: Target, out: Columns) -> None:
    """The fields of the buffers with the most lines, then the most bytes; zeros where there are fewer than five."""
    kinds = np.array([_KINDS.index(use.kind) for use in statement.buffers])
    arrays = statement.extents, statement.inner, statement.strides, statement.footprint, statement.runs
    linked = statement.body_bytes, statement.shared_footprint, statement.sharers[:, :, 0]
    _buffers(*arrays, *linked, kinds, statement.element_bytes, target.cache_line_bytes, out)


@native
def _buffers(
    extents: Floats,
    inner: Floats,
    strides: Floats,
    footprint: Floats,
    runs: Floats,
    body_bytes: Floats,
    shared_footprint: Floats,
    sharers: Integers,
    kinds: Integers,
    element_bytes: Floats,
    line: int,
    out: Columns,
) -> None:
    levels, programs = extents.shape
    count = len(footprint)
    table = np.zeros((count, FIELDS))
    for program in range(programs):
        for buffer in range(count):
            size, row = element_bytes[buffer], table[buffer]
            for field in range(FIELDS):
                row[field] = 0.0
            row[kinds[buffer]] = 1.0
            row[3] = inner[0, program] * size
            row[4] = footprint[buffer, 0, program] * size
            # Transfers if only the last line is kept: inner loops that stay in place are free.
            row[5] = 1.0
            for level in range(levels - 1, -1, -1):
                stride = strides[buffer, level, program]
                if stride != 0.0 and extents[level, program] > 1.0:
                    outside = inner[0, program] / inner[level + 1, program]
                    row[5] = max(outside * min(1.0, stride * (size / line)), 1.0)
                    break
            row[6] = max(row[4] / min(runs[buffer, 0, program] * size, float(line)), 1.0)
            # The nearest body that a loop repeats without moving the buffer, or where a statement shares it, which is nearer.
            times = 0.0
            for depth in range(levels, -1, -1):
                if sharers[buffer, depth] > 1:
                    times = sharers[buffer, depth] - 1.0
                    row[8] = 1.0
                    row[10] = shared_footprint[buffer, depth, program]
                elif depth > 0 and extents[depth - 1, program] > 1.0 and strides[buffer, depth - 1, program] == 0.0:
                    times = extents[depth - 1, program]
                    row[7] = 1.0
                    row[10] = inner[depth, program]
                if times > 0.0:
                    row[11] = body_bytes[depth, program]
                    break
            row[9] = 1.0 if times == 0.0 else 0.0
            row[12] = times
            share = 1.0 / times if times > 0.0 else 2.0
            for field in range(4):
                row[13 + field] = row[3 + field] * share
            row[17] = strides[buffer, levels - 1, program] if levels else 0.0
        # The most lines first, then the most bytes, then as they are given; what was chosen is marked.
        for number in range(MAX_BUFFERS):
            chosen = -1
            for buffer in range(count):
                lines, size = table[buffer, 5], table[buffer, 3]
                if lines < 0.0:
                    continue
                best = table[chosen]
                if chosen < 0 or lines > best[5] or (lines == best[5] and size > best[3]):
                    chosen = buffer
            for field in range(FIELDS):
                out[number * FIELDS + field, program] = table[chosen, field] if chosen >= 0 else 0.0
            if chosen >= 0:
                table[chosen, 5] = -1.0
