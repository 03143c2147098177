"""Pass: how many iterations of loops are emitted in a row.

Reduction loops around a tile are unrolled, innermost first, while the emitted instructions stay within the stage's limit
(`Pragma`). Other loops that the schedule wants unrolled are, unless they are long or their extent is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansor_py.lower.ir import For, If, Node, Program, ReductionLoop, Tile
from ansor_py.lower.nest import Statement
from ansor_py.te.expr import Const

# Loops marked for unrolling are emitted as loops beyond this many iterations.
MAX_UNROLLED = 16
# A reduction loop whose end is known at run time only is unrolled so far at most: the iterations left over are emitted again.
MAX_UNROLLED_TAIL = 8


def unroll_loops(program: Program) -> Program:
    """The program with the unrolling of every loop decided."""
    return replace(program, regions=tuple(replace(region, body=_nodes(region.body)) for region in program.regions))


def _nodes(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(_node(node) for node in nodes)


def _node(node: Node) -> Node:
    match node:
        case For():
            unrolled = node.annotation == "unroll" and isinstance(node.extent, Const) and node.trips <= MAX_UNROLLED
            return replace(node, body=_nodes(node.body), annotation="unroll" if unrolled else "none")
        case If():
            return replace(node, body=_nodes(node.body))
        case Tile():
            return replace(node, reduction=_reduction(node))
        case Statement():
            return node


def _reduction(tile: Tile) -> tuple[ReductionLoop, ...]:
    instructions = 1
    for side in tile.loops:
        instructions *= -(-side.extent // (tile.lanes if side.variable == tile.vector else 1))
    found: list[ReductionLoop] = []
    may_unroll = True
    for loop in reversed(tile.reduction):
        unroll = 1
        if may_unroll and not loop.prologue:
            unroll = _iterations(loop, max(1, tile.unroll_limit // instructions))
        may_unroll = may_unroll and isinstance(loop.extent, Const) and unroll == loop.extent.value
        instructions *= unroll
        found.append(replace(loop, unroll=unroll, prologue=_nodes(loop.prologue)))
    return tuple(reversed(found))


def _iterations(loop: ReductionLoop, room: int) -> int:
    """How many iterations are emitted in a row where there is room for so many."""
    if not isinstance(loop.extent, Const):
        return min(room, loop.trips, MAX_UNROLLED_TAIL)
    count = int(loop.extent.value)
    most = min(room, count)
    unroll = max(d for d in range(1, most + 1) if count % d == 0)
    return most if unroll * 2 <= most else unroll  # no good divisor: a remainder loop costs less
