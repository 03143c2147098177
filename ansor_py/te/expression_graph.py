"""Expressions as graphs: going through one visits every node once, however many others use it, and however deep it is.

`x = x - x * x`, a hundred times, has two hundred nodes; written out as a tree it would have more than there are atoms. So
nothing here recurses, and nothing follows an edge to a node that it has seen. This is the part of expressions that needs to
know only `operands`, `label` and `written` of a node; the nodes themselves are in `ansor_py.te.expr`.

    [str(node) for node in postorder(x[i] * x[i])]     # ['i', 'x[i]', '(x[i] * x[i])'] if that is one read, used twice
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansor_py.te.nodes import Expr

# Characters of a text without names for what is inside of it. Only chains of operations and formulas that use large values
# several times are longer than that.
LONGEST_TEXT = 4096


def walk(expr: Expr) -> Iterator[Expr]:
    """All nodes, each once, parents before children in the order in which they are written first."""
    seen: set[int] = set()
    pending = [expr]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            pending.extend(reversed(node.operands))


def postorder(expr: Expr, skipped: Callable[[Expr], bool] | None = None) -> Iterator[Expr]:
    """All nodes, each once, operands before what uses them. Nodes that are `skipped` are not entered."""
    seen: set[int] = set()
    pending: list[Expr | None] = [expr]
    while pending:
        node = pending.pop()
        if node is None:  # everything below the node before it is done
            node = pending.pop()
            assert node is not None
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            below = node.operands if skipped is None else [operand for operand in node.operands if not skipped(operand)]
            if below:
                pending += (node, None, *reversed(below))
            else:
                yield node


def structural_hash(expr: Expr) -> int:
    """A hash of the structure, equal for equal expressions; every node remembers its own."""
    if all("_hash" in operand.__dict__ for operand in expr.operands):
        return _remembered_hash(expr)
    for node in postorder(expr, lambda node: "_hash" in node.__dict__):
        _remembered_hash(node)
    return _remembered_hash(expr)


def _remembered_hash(node: Expr) -> int:
    below = tuple([operand.__dict__["_hash"] for operand in node.operands])
    known: int = node.__dict__.setdefault("_hash", hash((node.__class__.__name__, node.label, below)))
    return known


def same_structure(a: Expr, b: Expr) -> bool:
    """Whether two expressions compute the same in the same way."""
    if hash(a) != hash(b):
        return False
    compared: set[tuple[int, int]] = set()
    pending = [(a, b)]
    while pending:
        left, right = pending.pop()
        pair = (id(left), id(right))
        if left is right or pair in compared:
            continue
        below, others = left.operands, right.operands
        if left.__class__ is not right.__class__ or left.label != right.label or len(below) != len(others):
            return False
        if below:
            compared.add(pair)
            pending.extend(zip(below, others, strict=True))
    return True


def expression_text(expr: Expr) -> str:
    """The expression as text: one formula, or for a large one, `%0 = ...; %1 = ...; ...` with what is used several times first.

    Expressions of the same structure have the same text.
    """
    plain = _formula(expr)
    return plain if plain is not None else _definitions(expr)


def _formula(expr: Expr) -> str | None:
    """The text without names; None if a part of it is too long."""
    texts: dict[int, str] = {}
    for node in postorder(expr):
        text = texts[id(node)] = node.written([texts[id(operand)] for operand in node.operands])
        if len(text) > LONGEST_TEXT and node is not expr:
            return None
    return texts[id(expr)]


def _definitions(expr: Expr) -> str:
    numbers: dict[int, int] = {}
    distinct: dict[tuple[object, ...], int] = {}
    nodes: list[tuple[Expr, tuple[int, ...]]] = []  # by number, each with the numbers of its operands
    for node in postorder(expr):
        below = tuple(numbers[id(operand)] for operand in node.operands)
        number = numbers[id(node)] = distinct.setdefault((node.__class__, node.label, below), len(distinct))
        if number == len(nodes):
            nodes.append((node, below))
    uses = Counter(number for _, below in nodes for number in below)
    texts: list[str] = []
    definitions: list[str] = []
    for number, (node, below) in enumerate(nodes):
        text = node.written([texts[operand] for operand in below])
        if node.operands and (uses[number] > 1 or len(text) > LONGEST_TEXT) and number + 1 < len(nodes):
            definitions.append(f"%{len(definitions)} = {text}")
            text = f"%{len(definitions) - 1}"
        texts.append(text)
    return "; ".join([*definitions, texts[-1]])
