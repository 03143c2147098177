"""What the statements of one concrete program access, for the slow feature extractor: buffers, widths, strides, bytes touched.

uses_of(nest, loops, statement)[0].accesses     # index tuples of its first buffer
footprint(use, inside=loops[2:])     # elements of it that the inner loops touch
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ansor_py.lower.nest import Loop, Nest, Statement
from ansor_py.te.expr import Binary, Const, Expr, Read, Var, walk

BYTES = {"float32": 4, "float64": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class Use:
    """One buffer of a statement: its shape, all index tuples with which it is accessed, the loops that never move it."""

    name: str
    element: int
    shape: tuple[int, ...]
    accesses: tuple[tuple[Expr, ...], ...]
    fixed: frozenset[str]


@dataclass(frozen=True)
class Located:
    """A statement with its loops, outermost first."""

    loops: tuple[Loop, ...]
    statement: Statement
    uses: tuple[Use, ...]


def uses_of(nest: Nest, loops: tuple[Loop, ...], statement: Statement) -> tuple[Use, ...]:
    """The buffers of a statement, the one that it writes first."""
    accesses: dict[str, list[tuple[Expr, ...]]] = {statement.buffer.name: [statement.indices]}

    for expr in walk(statement.value):
        if isinstance(expr, Read):
            accesses.setdefault(expr.tensor.name, []).append(expr.indices)
    uses = []
    for name, indices in accesses.items():
        place = nest.buffers[name]
        names = [loop.variable for loop in loops]
        inside = names.index(place.allocated_in) + 1 if place.allocated_in in names else 0
        uses.append(Use(name, BYTES[place.tensor.dtype], place.tensor.shape, tuple(indices), frozenset(names[:inside])))
    return tuple(uses)


def iteration_count(loops: tuple[Loop, ...]) -> int:
    """How often what stands inside these loops runs."""
    return math.prod(loop.extent for loop in loops)


def linear_terms(expr: Expr, factor: int, terms: list[tuple[Expr, int]]) -> int:
    """Flatten a sum: terms (variable or other expression, coefficient) and the constant."""
    if isinstance(expr, Const):
        return int(expr.value) * factor
    if isinstance(expr, Binary) and expr.op == "add":
        return linear_terms(expr.left, factor, terms) + linear_terms(expr.right, factor, terms)
    if isinstance(expr, Binary) and expr.op == "sub":
        return linear_terms(expr.left, factor, terms) + linear_terms(expr.right, -factor, terms)
    if isinstance(expr, Binary) and expr.op == "mul" and isinstance(expr.right, Const):
        return linear_terms(expr.left, factor * int(expr.right.value), terms)
    if isinstance(expr, Binary) and expr.op == "mul" and isinstance(expr.left, Const):
        return linear_terms(expr.right, factor * int(expr.left.value), terms)
    for number, (term, coefficient) in enumerate(terms):
        if term == expr:
            terms[number] = (term, coefficient + factor)
            return 0
    terms.append((expr, factor))
    return 0


def _clamped(expr: Expr) -> tuple[Expr, int] | None:
    """The value and limit of `max(min(value, limit), 0)`."""
    if isinstance(expr, Binary) and expr.op == "max" and expr.right == Const(0, "int64"):
        low = expr.left
        if isinstance(low, Binary) and low.op == "min" and isinstance(low.right, Const):
            return low.left, int(low.right.value)
    return None


def _width(expr: Expr, running: dict[str, int]) -> int | None:
    """Consecutive values that an index takes when the loops `running` (with their extents) run; None if it is not affine."""
    terms: list[tuple[Expr, int]] = []
    linear_terms(expr, 1, terms)
    width = 1
    for term, coefficient in terms:
        clamped = _clamped(term)
        if isinstance(term, Var):
            values: int | None = running.get(term.name, 1)
        elif clamped is not None:
            inner = _width(clamped[0], running)
            values = None if inner is None else min(inner, clamped[1] + 1)
        elif isinstance(term, Binary) and term.op in ("floordiv", "mod") and isinstance(term.right, Const):
            inner, divisor = _width(term.left, running), int(term.right.value)
            if inner is None:
                return None
            straddles = inner % divisor != 0 and divisor % inner != 0
            values = math.ceil(inner / divisor) + straddles if term.op == "floordiv" else min(inner, divisor)
        else:
            values = None
        if values is None:
            return None
        width += abs(coefficient) * (values - 1)
    return width


def _slope(expr: Expr, variable: str) -> int:
    """By how much an index grows a step of a loop; 0 if it is not affine."""
    terms: list[tuple[Expr, int]] = []
    linear_terms(expr, 1, terms)
    total = 0
    for term, coefficient in terms:
        clamped = _clamped(term)
        if term == Var(variable):
            total += coefficient
        elif clamped is not None:
            total += coefficient * _slope(clamped[0], variable)
        elif isinstance(term, Binary) and term.op == "mod":
            total += coefficient * _slope(term.left, variable)
        elif isinstance(term, Binary) and term.op == "floordiv" and isinstance(term.right, Const):
            total += coefficient * (_slope(term.left, variable) // int(term.right.value))
    return total


def dimension_width(use: Use, dimension: int, inside: tuple[Loop, ...]) -> int:
    """Touched indices of one dimension while the loops `inside` run."""
    running = {loop.variable: loop.extent for loop in inside if loop.variable not in use.fixed}
    widths, constants = [], []
    for access in use.accesses:
        width = _width(access[dimension], running)
        if width is None:
            width = use.shape[dimension] if inside else 1
        else:
            constants.append(linear_terms(access[dimension], 1, []))
        widths.append(width)
    spread = max(constants) - min(constants) if constants else 0
    return min(max(widths) + spread, use.shape[dimension])


def footprint(use: Use, inside: tuple[Loop, ...]) -> int:
    """Elements of a buffer that are touched while the loops `inside` run."""
    return math.prod(dimension_width(use, dimension, inside) for dimension in range(len(use.shape)))


def stride_along(use: Use, loop: Loop) -> int:
    """Elements between consecutive iterations of a loop, the least of all accesses."""
    if loop.variable in use.fixed:
        return 0
    found = []
    for access in use.accesses:
        step = 0
        for dimension, index in enumerate(access):
            step += _slope(index, loop.variable) * math.prod(use.shape[dimension + 1 :])
        found.append(abs(step))
    return min(found)
