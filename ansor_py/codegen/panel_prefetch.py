"""Prefetches of packed weights: while a tile multiplies by one panel, the part of the next one that this step will want."""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.lower.ir import Tile
from ansor_py.te.expr import DTYPE_BYTES, reads_of

PREFETCHED_SHARE = 0.25  # of the second cache that the next panel may take


def prefetch_panels(at: ExpressionEmitter, tile: Tile, constants: frozenset[str], around: Sequence[str]) -> None:
    """Fetch the next panel's part of this step: in a network a kernel finds its weights in memory, not in a cache.

    Only constants are that cold. What the hardware foresees ends with a page, and a panel is read again and again for
    other rows, which is the time to fetch the next one, if the second cache holds both and more. `around` are the variables of
    the loops around the tile, outermost first.
    """
    for read in reads_of(tile.value):
        if read.tensor.name not in constants or tile.vector is None:
            continue
        flat = at.flat_index(read.tensor, read.indices)
        rows = [flat.stride(loop.variable) for loop in tile.loops[:-1]]
        distance = next((stride for stride in map(flat.stride, reversed(around)) if stride != 0), None)
        if flat.stride(tile.vector) != 1 or any(rows) or None in rows or distance is None:
            continue
        if abs(distance) * DTYPE_BYTES[read.dtype] > PREFETCHED_SHARE * at.target.l2:
            continue
        at.prefetch(read.tensor, flat, distance, tile.loops[-1].extent, at.target.cache_line_bytes)
