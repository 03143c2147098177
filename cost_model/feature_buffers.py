"""Feature group about the buffers that a statement accesses (Ansor's group 2): traffic, footprint, reuse, stride."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.statement_arrays import Flags, Floats, StatementArrays, innermost
from ansor_py.target import Target

MAX_BUFFERS = 5
BUFFER_FIELDS = (
    "read",
    "write",
    "read_write",
    "bytes",
    "unique_bytes",
    "lines",
    "unique_lines",
    "loop_reuse",
    "serial_reuse",
    "no_reuse",
    "reuse_distance_iterations",
    "reuse_distance_bytes",
    "reuse_count",
    "bytes_per_reuse",
    "unique_bytes_per_reuse",
    "lines_per_reuse",
    "unique_lines_per_reuse",
    "stride",
)
_KINDS = ("read", "write", "read-write")


@feature_group("buffers", [f"buffer{number}.{name}" for number in range(MAX_BUFFERS) for name in BUFFER_FIELDS])
def buffers(statement: StatementArrays, target: Target, out: Columns) -> None:
    """The fields of the buffers with the most lines, then the most bytes; zeros where there are fewer than five."""
    width = len(BUFFER_FIELDS)
    table = np.empty((width, len(statement.buffers), statement.programs))
    sizes = np.array([[float(use.element_bytes)] for use in statement.buffers])
    line = target.cache_line_bytes
    for column, kind in enumerate(_KINDS):
        table[column] = np.array([[use.kind == kind] for use in statement.buffers])
    table[3] = statement.inner[0] * sizes
    table[4] = statement.footprint[:, 0] * sizes
    moves = (statement.strides != 0) & (statement.extents > 1)
    table[5] = _lines(statement, moves, sizes / line)
    table[6] = np.maximum(table[4] / np.minimum(statement.runs[:, 0] * sizes, line), 1)
    reuse = _reuse(statement, moves)
    table[7] = reuse.kind == 1
    table[8] = reuse.kind == 2
    table[9] = reuse.kind == 0
    table[10:13] = reuse.iterations, reuse.bytes, reuse.times
    table[13:17] = table[3:7] * np.where(reuse.times > 0.5, 1 / np.maximum(reuse.times, 0.5), 2.0)
    table[17] = statement.strides[:, -1] if statement.loops else 0
    kept = min(MAX_BUFFERS, len(statement.buffers))
    order = np.lexsort((-table[3], -table[5]), axis=0)[:kept]
    for number, chosen in enumerate(order):
        out[number * width : (number + 1) * width] = table[:, chosen, statement.everyone]
    out[kept * width :] = 0


def _lines(statement: StatementArrays, moves: Flags, lines_per_element: Floats) -> Floats:
    """Line transfers [B, n] if only the last line is kept: inner loops that stay in place are free."""
    if not statement.loops:
        return np.ones((len(moves), statement.programs))
    loop = innermost(moves)
    stride = _at_loop(statement, statement.strides, loop)
    outside = statement.inner[0] / statement.inner[loop + 1, statement.everyone]
    return np.asarray(np.maximum(outside * np.minimum(1.0, stride * lines_per_element), 1.0))


def _at_loop(statement: StatementArrays, values: Floats, loop: NDArray[np.int64]) -> Floats:
    """values [B, L or D, n] at loop [B, n]; zero where the loop is -1."""
    buffers = np.arange(len(values))[:, None]
    return np.asarray(np.where(loop >= 0, values[buffers, np.maximum(loop, 0), statement.everyone], 0.0))


class _Reuse(NamedTuple):
    """Per buffer and program [B, n]; kind 0 none, 1 across a loop, 2 by another statement."""

    kind: NDArray[np.int64]
    iterations: Floats
    bytes: Floats
    times: Floats


def _reuse(statement: StatementArrays, moves: Flags) -> _Reuse:
    """Search from the innermost depth outwards for a loop that revisits the buffer, or a statement that shares it.

    Depth d is the body of loop d - 1 (depth 0: the whole program, which no loop repeats). A statement that shares the
    buffer within the body is nearer than the next iteration.
    """
    looping = np.zeros(statement.sharers.shape, dtype=np.bool_)
    looping[:, 1:] = ~moves & (statement.extents > 1)
    depth = innermost(looping | (statement.sharers > 1))
    safe = np.maximum(depth, 0)
    others = statement.sharers[np.arange(len(safe))[:, None], safe, statement.everyone] - 1
    by_statement = (depth >= 0) & (others > 0)
    by_loop = (depth >= 0) & ~by_statement
    programs = statement.everyone
    iterations = statement.inner[safe, programs]
    repeats = statement.extents[np.maximum(depth - 1, 0), programs] if statement.loops else iterations
    least = _at_loop(statement, statement.shared_footprint, depth)
    return _Reuse(
        kind=by_loop * 1 + by_statement * 2,
        iterations=np.where(by_loop, iterations, np.where(by_statement, least, 0.0)),
        bytes=np.where(depth >= 0, statement.body_bytes[safe, programs], 0.0),
        times=np.where(by_loop, repeats, np.where(by_statement, others, 0.0)),
    )
