"""Pass: indices become sums over loop variables, loops of one iteration disappear.

What is attached to a loop that disappears is computed in the loop outside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansor_py.lower.ir import Chain, Node, Program, nested, rewritten
from ansor_py.te.expr import Expr


def remove_unit_loops(program: Program) -> Program:
    """The simplified program."""
    simplifier = program.simplifier

    def rewrite(chain: Chain) -> Sequence[Node]:
        statement = chain.statement
        simplify = simplifier.simplify
        inner: tuple[Node, ...] = (
            replace(
                statement,
                indices=tuple(simplify(index) for index in statement.indices),
                value=simplify(statement.value),
                guards=tuple((simplify(value), limit) for value, limit in statement.guards if may_fail(value, limit)),
            ),
        )
        for loop in reversed(chain.loops):
            inner = nested([loop], inner) if loop.trips > 1 else (*loop.attached, *inner)
        return inner

    def may_fail(value: Expr, limit: int) -> bool:
        return simplifier.interval(value)[1] >= limit

    return rewritten(program, rewrite)
