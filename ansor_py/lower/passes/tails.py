"""Pass: loops whose lengths do not divide run only as far as there is something left, so that no body needs a condition.

A guard `i.0 * 8 + i.1 < 42` gives the inner loop the extent `min(8, 42 - i.0 * 8)`. Guards that loops cannot express stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ansor_py.lower.ir import Chain, Node, Program, nested, rewritten
from ansor_py.te.expr import INDEX, Const, Expr, Var, minimum
from ansor_py.te.simplify import Simplifier


def cut_tails(program: Program) -> Program:
    """The program whose loops end where their guards say."""
    simplifier = program.simplifier

    def rewrite(chain: Chain) -> Sequence[Node]:
        position = {name: number for number, name in enumerate(chain.variables)}
        extents = {loop.variable: loop.extent for loop in chain.loops}
        for value, limit in chain.statement.guards:
            if not is_sum_of_loops(value, position, simplifier):
                continue
            terms = {atom.name: c for atom, c in simplifier.linear(value).terms if isinstance(atom, Var)}
            for name, coefficient in terms.items():
                if name not in extents:
                    continue
                outer: Expr = Const(0, INDEX)
                for other, c in terms.items():
                    if position[other] < position[name]:
                        outer = outer + Var(other) * c
                left = (Const(limit + coefficient - 1, INDEX) - outer) // coefficient
                extents[name] = simplifier.simplify(minimum(extents[name], left))
        return nested([replace(loop, extent=extents[loop.variable]) for loop in chain.loops], [chain.statement])

    return rewritten(program, rewrite)


def is_sum_of_loops(value: Expr, names: Collection[str], simplifier: Simplifier) -> bool:
    """Whether a guard is a sum of these loop variables with positive factors, so that the loops' extents can express it."""
    linear = simplifier.linear(value)
    return linear.constant == 0 and all(isinstance(atom, Var) and atom.name in names and c > 0 for atom, c in linear.terms)
