"""Scalar expressions: the language in which the value of one tensor element is written.

An expression is an immutable graph of frozen dataclasses: a value that is used twice is one node, wherever it is used.
Arithmetic operators build it and fold constants on the way, so `axis * 1 + 0` is `axis`. `==` compares structure; use
`equal(a, b)` for a comparison that is evaluated when the program runs. Index expressions have dtype `int64`.

    i = Axis("i", 8)
    value = (i * 2 + 1) % 3            # Binary('mod', ...)
    substitute(value, {"i": Const(4, INDEX)})   # folds to Const(0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ansor_py.errors import ExpressionError
from ansor_py.te.expression_graph import postorder, walk
from ansor_py.te.nodes import (
    BINARY_SYMBOLS,
    COMPARE_SYMBOLS,
    DTYPE_BYTES,
    FLOAT_DTYPES,
    INDEX,
    Axis,
    AxisKind,
    Binary,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Not,
    Operand,
    Read,
    Reduce,
    Select,
    Var,
    as_expr,
    binary,
    compare,
    const,
    converted,
    integer_limits,
    operands_of_one_dtype,
)

__all__ = [
    "BINARY_SYMBOLS",
    "COMBINERS",
    "COMPARE_SYMBOLS",
    "DTYPE_BYTES",
    "FLOAT_DTYPES",
    "FUNCTIONS",
    "INDEX",
    "Axis",
    "AxisKind",
    "Binary",
    "Call",
    "Cast",
    "Compare",
    "Const",
    "Expr",
    "Not",
    "Operand",
    "Read",
    "Reduce",
    "Select",
    "Var",
    "as_expr",
    "binary",
    "call",
    "cast",
    "compare",
    "const",
    "converted",
    "equal",
    "integer_limits",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "postorder",
    "reads_of",
    "reduction_identity",
    "select",
    "shared",
    "substitute",
    "transform",
    "variables_of",
    "walk",
    "with_children",
]

# The binary operator by which a reduction combines two partial results.
COMBINERS = {"sum": "add", "max": "max", "min": "min", "prod": "mul"}
# Functions that code generation knows, of one argument but for `fmod` (x, y).
FUNCTIONS = tuple("exp log sqrt rsqrt tanh erf sigmoid abs floor ceil round sin cos atan fmod".split())


def reduction_identity(combiner: str, dtype: str) -> Const:
    """The value with which a reduction starts: 0, 1, or the lowest or highest value of the dtype."""
    if combiner in ("sum", "prod"):
        value = 0 if combiner == "sum" else 1
        return Const(float(value) if dtype in FLOAT_DTYPES else value, dtype)
    if dtype in FLOAT_DTYPES:
        return Const(-math.inf if combiner == "max" else math.inf, dtype)
    if dtype == "bool":
        return Const(combiner == "min", dtype)
    low, high = integer_limits(dtype)
    return Const(low if combiner == "max" else high, dtype)


def equal(left: Operand, right: Operand) -> Expr:
    """`left == right`, evaluated when the program runs."""
    return compare("eq", left, right)


def logical_and(*conditions: Expr) -> Expr:
    """True where all conditions hold; true for none."""
    result: Expr = Const(True, "bool")
    for condition in conditions:
        result = binary("and", result, condition)
    return result


def logical_or(left: Expr, right: Expr) -> Expr:
    """True where one of the conditions holds."""
    return binary("or", left, right)


def logical_not(value: Expr) -> Expr:
    """True where the condition does not hold."""
    return Const(not value.value, "bool") if isinstance(value, Const) else Not(value)


def minimum(left: Operand, right: Operand) -> Expr:
    """The smaller of two values."""
    return binary("min", left, right)


def maximum(left: Operand, right: Operand) -> Expr:
    """The larger of two values."""
    return binary("max", left, right)


def select(condition: Expr, then: Operand, otherwise: Operand) -> Expr:
    """`then` where the condition holds, else `otherwise`; reads of the branch not taken are not performed."""
    a, b = operands_of_one_dtype(then, otherwise)
    if isinstance(condition, Const):
        return a if condition.value else b
    return Select(condition, a, b)


def call(function: str, *arguments: Expr) -> Expr:
    """A mathematical function by name, one of `FUNCTIONS`."""
    if function not in FUNCTIONS:
        raise ExpressionError(f"unknown function '{function}'; known are {', '.join(FUNCTIONS)}")
    return Call(function, arguments)


def cast(value: Expr, dtype: str) -> Expr:
    """Convert to another dtype; floats to integers towards zero, limited to what fits, and NaN to 0."""
    if value.dtype == dtype:
        return value
    if not isinstance(value, Const):
        return Cast(value, dtype)
    number = value.value
    if isinstance(number, float) and dtype not in FLOAT_DTYPES and dtype != "bool":
        low, high = integer_limits(dtype)
        number = 0 if math.isnan(number) else low if number < low else high if number > high else int(number)
    return const(number, dtype)


def with_children(expr: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same operation on other operands, folded again."""
    match expr:
        case Binary():
            return binary(expr.op, new[0], new[1])
        case Compare():
            return compare(expr.op, new[0], new[1])
        case Not():
            return logical_not(new[0])
        case Cast():
            return cast(new[0], expr.dtype)
        case Select():
            return select(new[0], new[1], new[2])
        case Call():
            return Call(expr.function, new)
        case Read():
            return Read(expr.tensor, new)
        case Reduce():
            return Reduce(expr.combiner, new[0], expr.axes)
        case _:
            return expr


def transform(expr: Expr, function: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite from the leaves up: `function` may return a replacement for a node whose operands are already rewritten.

    It sees every node once, however often that is used: what was one node stays one. An operation that folds to one of its
    operands is not offered again, because that operand may be a replacement already (`i + j` under `i -> 0, j -> i` is `i`).
    """
    done: dict[int, Expr] = {}
    for node in postorder(expr):
        operands = tuple([done[id(operand)] for operand in node.operands])
        rebuilt = _on(node, operands)
        replacement = function(rebuilt) if id(rebuilt) not in map(id, operands) else None
        done[id(node)] = rebuilt if replacement is None else replacement
    return done[id(expr)]


def _on(node: Expr, operands: tuple[Expr, ...]) -> Expr:
    """The node on other operands; itself if they are its own."""
    for old, new in zip(node.operands, operands, strict=True):
        if old is not new:
            return with_children(node, operands)
    return node


def substitute(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """Replace variables by name."""
    return transform(expr, lambda node: values.get(node.name) if isinstance(node, Var) else None)


def shared(expr: Expr) -> Expr:
    """The same expression with one node for what is computed from the same values in the same way, wherever it stands.

    So `x[i] * x[i]` reads once, though it was written with two reads.
    """
    known: dict[tuple[object, ...], Expr] = {}
    done: dict[int, Expr] = {}
    for node in postorder(expr):
        new = tuple([done[id(operand)] for operand in node.operands])
        key = (node.__class__, node.label, *map(id, new))
        if key not in known:
            known[key] = _on(node, new)
        done[id(node)] = known[key]
    return done[id(expr)]


def reads_of(expr: Expr) -> list[Read]:
    """All tensor reads of an expression, each node once, in the order in which they are written."""
    return [node for node in walk(expr) if isinstance(node, Read)]


def variables_of(expr: Expr) -> frozenset[str]:
    """Names of all variables of an expression; every node remembers its own."""
    if "_variables" not in expr.__dict__:
        for node in postorder(expr, lambda node: "_variables" in node.__dict__):
            own = frozenset((node.name,)) if isinstance(node, Var) else frozenset[str]()
            for operand in node.operands:
                own = _union(own, operand.__dict__["_variables"])
            node.__dict__["_variables"] = own
    names: frozenset[str] = expr.__dict__["_variables"]
    return names


def _union(a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
    """The union, as one of the two sets where that is possible: thousands of nodes depend on the same few variables."""
    return a if b <= a else b if a <= b else a | b
