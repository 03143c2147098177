"""Where values are computed that branches of selects have in common.

A read in a branch is performed only where the branch is taken, for elsewhere the element may not exist. A value that is used in
several branches would have to be computed once for each of them, and what it is made of once for each of those, and so on. So
it is computed once, for all lanes; what it reads is certain to exist, or is read only where it does.

    y = x[i - 1] * x[i - 1]                       # used twice below
    select(i > 0, y, 0) + select(i > 3, -y, 1)    # y is computed once; x is read where 0 <= i - 1 < extent
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ansor_py.te.expr import Expr, Read, Select, logical_and
from ansor_py.te.simplify import Simplifier


@dataclass(frozen=True)
class Placement:
    """Of one expression: the nodes (by identity) that are computed where the whole expression is, whatever uses them, and those
    of the reads in them that need a condition of their own: the element exists."""

    outside: frozenset[int] = frozenset()
    exists: dict[int, Expr] = field(default_factory=dict)


def placement(expr: Expr, simplifier: Simplifier) -> Placement:
    """Which values of an expression do not belong to a branch; ranges of variables are the simplifier's."""
    nodes = list(_nodes([expr], into_branches=True))
    if not any(isinstance(node, Select) for node in nodes):
        return Placement()
    certain = {id(node) for node in _nodes([expr], into_branches=False)}
    uses = Counter(id(operand) for node in nodes if not isinstance(node, Read) for operand in node.operands)
    common = [node for node in nodes if uses[id(node)] > 1 and node.has_reads and id(node) not in certain]
    reads = [node for node in _nodes(common, into_branches=True) if isinstance(node, Read) and id(node) not in certain]
    conditions = {id(read): _existence(read, simplifier) for read in reads}
    outside = frozenset(certain.union(map(id, common)))
    return Placement(outside, {key: condition for key, condition in conditions.items() if condition is not None})


def _nodes(roots: list[Expr], into_branches: bool) -> Iterator[Expr]:
    """The nodes that are computed for some roots, without indices; those in branches only if wanted."""
    seen: set[int] = set()
    pending = list(roots)
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, Select) and not into_branches:
            pending.append(node.condition)
        elif not isinstance(node, Read):
            pending.extend(node.operands)


def _existence(read: Read, simplifier: Simplifier) -> Expr | None:
    """The condition that an element exists; None if it always does."""
    conditions: list[Expr] = []
    for index, extent in zip(read.indices, read.tensor.shape, strict=True):
        low, high = simplifier.interval(index)
        conditions += [index >= 0] if low < 0 else []
        conditions += [index < extent] if high >= extent else []
    return logical_and(*conditions) if conditions else None
