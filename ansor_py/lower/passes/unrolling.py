"""Pass: how many iterations of loops are emitted in a row.

Reduction loops around a tile are unrolled, innermost first, while the emitted instructions stay within the stage's limit
(`Pragma`). Other loops that the schedule wants unrolled are, unless they are long or their extent is not known. Where a formula
selects by the variable of such a loop, the loop becomes its iterations here, each with the formula that is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansor_py.lower.ir import For, If, Node, Program, ReductionLoop, Tile, tiles_of
from ansor_py.lower.nest import Statement
from ansor_py.schedule.access import row_of_table
from ansor_py.te.expr import INDEX, Const, Expr, Select, select, substitute, variables_of, walk
from ansor_py.te.simplify import Simplifier

# Loops marked for unrolling are emitted as loops beyond this many iterations.
MAX_UNROLLED = 16
# A reduction loop whose end is known at run time only is unrolled so far at most: the iterations left over are emitted again.
MAX_UNROLLED_TAIL = 8


def unroll_loops(program: Program) -> Program:
    """The program with the unrolling of every loop decided."""
    simplifier = program.simplifier
    regions = tuple(replace(region, body=_nodes(region.body, simplifier)) for region in program.regions)
    return replace(program, regions=regions)


def _nodes(nodes: Sequence[Node], simplifier: Simplifier) -> tuple[Node, ...]:
    return tuple(new for node in nodes for new in _node(node, simplifier))


def _node(node: Node, simplifier: Simplifier) -> tuple[Node, ...]:
    match node:
        case For():
            unrolled = node.annotation == "unroll" and isinstance(node.extent, Const) and node.trips <= MAX_UNROLLED
            if unrolled and any(_selects_by(tile.value, node.variable) for tile in tiles_of(node.body)):
                return tuple(
                    new
                    for step in range(node.trips)
                    for item in node.body
                    for new in _node(_at(item, node.variable, step, simplifier), simplifier)
                )
            return (replace(node, body=_nodes(node.body, simplifier), annotation="unroll" if unrolled else "none"),)
        case If():
            return (replace(node, body=_nodes(node.body, simplifier)),)
        case Tile():
            return (replace(node, reduction=_reduction(node, simplifier)),)
        case Statement():
            return (node,)


def _selects_by(value: Expr, variable: str) -> bool:
    return any(isinstance(node, Select) and variable in variables_of(node.condition) for node in walk(value))


def _row(value: Expr, variable: str, row: int) -> Expr:
    """A formula where the table by a variable, if it is or chooses one, is the formula of a row: others are not looked at."""
    value = row_of_table(value, variable, row)
    return select(value.condition, _row(value.then, variable, row), value.otherwise) if isinstance(value, Select) else value


def _at(node: Node, variable: str, step: int, simplifier: Simplifier) -> Node:
    """The node in one iteration of a loop: with a number in the place of its variable."""
    values = {variable: Const(step, INDEX)}

    def placed(expr: Expr) -> Expr:
        return simplifier.simplify(substitute(expr, values)) if variable in variables_of(expr) else expr

    def nodes(items: Sequence[Node]) -> tuple[Node, ...]:
        return tuple(_at(item, variable, step, simplifier) for item in items)

    match node:
        case For():
            return replace(node, extent=placed(node.extent), body=nodes(node.body))
        case If():
            return replace(node, condition=placed(node.condition), body=nodes(node.body))
        case Tile():
            return replace(
                node,
                indices=tuple(map(placed, node.indices)),
                value=placed(_row(node.value, variable, step)),
                loops=tuple(replace(loop, limit=None if loop.limit is None else placed(loop.limit)) for loop in node.loops),
                reduction=tuple(
                    replace(loop, extent=placed(loop.extent), prologue=nodes(loop.prologue)) for loop in node.reduction
                ),
                first=None if node.first is None else placed(node.first),
                predicates=tuple(map(placed, node.predicates)),
            )
        case Statement():
            raise AssertionError("statements have become tiles before loops are unrolled")


def _reduction(tile: Tile, simplifier: Simplifier) -> tuple[ReductionLoop, ...]:
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
        found.append(replace(loop, unroll=unroll, prologue=_nodes(loop.prologue, simplifier)))
    return tuple(reversed(found))


def _iterations(loop: ReductionLoop, room: int) -> int:
    """How many iterations are emitted in a row where there is room for so many."""
    if not isinstance(loop.extent, Const):
        return min(room, loop.trips, MAX_UNROLLED_TAIL)
    count = int(loop.extent.value)
    most = min(room, count)
    unroll = max(d for d in range(1, most + 1) if count % d == 0)
    return most if unroll * 2 <= most else unroll  # no good divisor: a remainder loop costs less
