"""Pass: the outermost loops of a region that are to run in parallel become the region's.

They run in parallel only at the very outside, in one piece: nothing may be computed before or between them. They stay
rectangular, so that they can be collapsed; iterations past an end are skipped by a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansor_py.lower.ir import Chain, For, If, Node, Program, Region, nested, rewritten
from ansor_py.lower.nest import Statement
from ansor_py.te.expr import INDEX, Const, Expr, Var, compare, logical_and
from ansor_py.te.simplify import Simplifier


def outline_parallel_loops(program: Program) -> Program:
    """The program whose regions know their parallel loops, and in which no other loop is marked parallel."""
    outlined = replace(program, regions=tuple(_outlined(region, program.simplifier) for region in program.regions))
    return rewritten(outlined, _serial)


def _outlined(region: Region, simplifier: Simplifier) -> Region:
    if len(region.body) > 1:
        return region
    loops: list[For] = []
    node = region.body[0]
    while isinstance(node, For) and node.annotation == "parallel" and not (loops and loops[-1].attached):
        loops.append(node)
        node = node.body[-1]
    if not loops:
        return region
    body: tuple[Node, ...] = loops[-1].body
    while isinstance(node, For):
        node = node.body[-1]
    assert isinstance(node, Statement)
    condition = _exists({loop.variable for loop in loops}, node, simplifier)
    if condition is not None:
        body = (If(condition, body),)
    return replace(region, parallel=tuple((loop.variable, loop.trips) for loop in loops), body=body)


def _exists(names: set[str], statement: Statement, simplifier: Simplifier) -> Expr | None:
    """The condition that an iteration of the parallel loops does not lie past an end; None if none does."""
    conditions: list[Expr] = []
    for value, limit in statement.guards:
        linear = simplifier.linear(value)
        start: Expr = Const(linear.constant, INDEX)
        for atom, coefficient in linear.terms:
            if isinstance(atom, Var) and atom.name in names:
                start = start + atom * coefficient
        condition = simplifier.simplify(compare("lt", start, limit))
        if not isinstance(condition, Const):
            conditions.append(condition)
    return logical_and(*conditions) if conditions else None


def _serial(chain: Chain) -> Sequence[Node]:
    loops = [replace(loop, annotation="none") if loop.annotation == "parallel" else loop for loop in chain.loops]
    return nested(loops, [chain.statement])
