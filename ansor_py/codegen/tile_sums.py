"""Several sums side by side: what a register tile with few accumulators does so that none waits for itself.

A multiply-add takes some cycles until the next one may add to its result. A whole tile has accumulators enough to fill that
time, but what is left of one at an edge may have two or four. It has each of them several times then, steps that are emitted in
a row add to them in turns, and their sum is the result:

    a0 += x[k] * y[k];  a1 += x[k + 1] * y[k + 1];  ...  a = a0 + a1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from ansor_py.codegen.transposition import Point
from ansor_py.lower.ir import Tile
from ansor_py.target import Target

SHORTEST_SPLIT = 32  # steps of a reduction that pay for adding up several sums at its end


@dataclass(frozen=True)
class Sums:
    """The accumulators of a tile, `types` of them: one for each point, or as many times more, to which steps add in turns."""

    points: list[Point]
    types: list[str]
    turns: Iterator[int]


def sums_side_by_side(tile: Tile, accumulators: int, target: Target) -> int:
    """How many accumulators a point of the tile has, so that none waits for itself: steps that are emitted in a row take turns.

    More than one where there are few points, as at edges, registers for more, and a reduction that is long enough.
    """
    in_a_row, steps = 1, prod(loop.trips for loop in tile.reduction)
    for loop in reversed(tile.reduction):
        in_a_row *= loop.unroll
        if loop.unroll < loop.trips:
            break
    if steps < SHORTEST_SPLIT or tile.reduces_lanes:
        return 1
    vectors = -(-tile.loops[-1].extent // tile.lanes) if tile.vector is not None else 1
    operands = tile.kernel.registers(accumulators // vectors, vectors, 0, target) - accumulators
    room = (target.vector_registers - operands) // accumulators
    return max(min(ceil(target.core.latency * target.core.vector_units / accumulators), room, in_a_row), 1)
