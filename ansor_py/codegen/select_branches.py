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

from ansor_py.te.expr import Expr, Read, Select, logical_and, reads_of
from ansor_py.te.simplify import Simplifier


@dataclass(frozen=True)
class Placement:
    """Of one expression: the nodes (by identity) that are computed where the whole expression is, whatever uses them, and
    conditions for those of the reads in them whose element may not exist, each to be looked at where those before it hold."""

    outside: frozenset[int] = frozenset()
    exists: dict[int, tuple[Expr, ...]] = field(default_factory=dict)


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
    return Placement(outside, {key: needed for key, needed in conditions.items() if needed})


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


def _existence(read: Read, simplifier: Simplifier) -> tuple[Expr, ...]:
    """What must hold for an element to exist: indices that are read exist themselves, and no index leaves the tensor."""
    inner = [item for index in read.indices if index.has_reads for item in reads_of(index)]
    needed = [condition for item in inner for condition in _existence(item, simplifier)]
    bounds: list[Expr] = []
    for index, extent in zip(read.indices, read.tensor.shape, strict=True):
        low, high = simplifier.interval(index)
        bounds += [index >= 0] if low < 0 else []
        bounds += [index < extent] if high >= extent else []
    return (*needed, logical_and(*bounds)) if bounds else tuple(needed)
