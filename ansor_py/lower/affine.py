"""Index arithmetic over loops whose extents are numbers, or arrays with one number a program.

An `Affine` is a constant plus a sum of coefficient times term; a term is a loop variable or an `Atom`, a non-affine
function (floor division, modulo, clamping) of another affine value. Coefficients may be `int` or `int64[programs]`, so
the same analysis gives the bounds of one program or of a whole population (design, Idea 2).

    x = variable("C/i.0") * tile + variable("C/i.1")
    interval(x, {"C/i.1": extent}.get)     # lowest value in terms of C/i.0, and the number of values
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Union

import numpy as np
from numpy.typing import NDArray

from ansor_py.te.expr import Binary, Const, Expr, Var, postorder

Number = Union[int, NDArray[np.int64]]
Extents = Callable[[str], Number | None]


@dataclass(frozen=True, eq=False)
class Atom:
    """`floordiv` or `mod` of a value by `divisor`, or the value clamped to `0 <= v <= limit` (then `divisor` is the limit)."""

    kind: Literal["floordiv", "mod", "clamp"]
    value: Affine
    divisor: Number


Term = Union[str, Atom]


@dataclass(frozen=True, eq=False)
class Affine:
    """`constant + sum(coefficient * term)`; variables are keyed by name, atoms by identity."""

    terms: tuple[tuple[Term, Number], ...]
    constant: Number = 0

    def __add__(self, other: Affine | Number) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.terms, self.constant + other)
        constant = self.constant + other.constant
        if not self.terms or not other.terms:
            return Affine(self.terms or other.terms, constant)
        merged: dict[Term, Number] = dict(self.terms)
        for term, coefficient in other.terms:
            if term not in merged:
                merged[term] = coefficient
            elif is_number(merged[term] + coefficient, 0):  # the only way in which a coefficient of zero comes about
                del merged[term]
            else:
                merged[term] = merged[term] + coefficient
        return Affine(tuple(merged.items()), constant)

    def __mul__(self, factor: Number) -> Affine:
        if isinstance(factor, int):
            if factor == 1:
                return self
            if factor == 0:
                return Affine((), 0)
        elif not self.terms:
            return Affine((), self.constant * factor)
        elif not factor.any():
            return Affine((), 0)
        return Affine(tuple([(term, c * factor) for term, c in self.terms]), self.constant * factor)

    def __sub__(self, other: Affine) -> Affine:
        return self + other * -1

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of all variables, inside atoms too."""
        return frozenset().union(*({term} if isinstance(term, str) else term.value.variables for term, _ in self.terms))


def variable(name: str) -> Affine:
    """The value of one loop variable."""
    return Affine(((name, 1),))


def number(value: Number) -> Affine:
    """A constant."""
    return Affine((), value)


def is_number(value: Number, expected: int) -> bool:
    """Whether a number is the given one for all programs."""
    return value == expected if isinstance(value, int) else bool((value == expected).all())


def smaller(a: Number, b: Number) -> Number:
    """The minimum, program by program; a plain int stays one."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else np.minimum(a, b)


def larger(a: Number, b: Number) -> Number:
    """The maximum, program by program."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else np.maximum(a, b)


def ceil_div(a: Number, b: Number) -> Number:
    """Division rounded up."""
    return -(-a // b)


def floor_div(value: Affine, divisor: Number) -> Affine:
    """`value // divisor` as an atom. Exactness is judged program by program in `interval`, so nothing is simplified here."""
    if not value.terms:
        return number(value.constant // divisor)
    return value if is_number(divisor, 1) else Affine(((Atom("floordiv", value, divisor), 1),))


def modulo(value: Affine, divisor: Number) -> Affine:
    """`value % divisor` as an atom."""
    if not value.terms:
        return number(value.constant % divisor)
    return number(0) if is_number(divisor, 1) else Affine(((Atom("mod", value, divisor), 1),))


def clamp(value: Affine, limit: Number) -> Affine:
    """`max(0, min(value, limit))`. What was clamped to the same limit before stays the same value, and compares as such."""
    if not value.terms:
        return number(larger(0, smaller(value.constant, limit)))
    if len(value.terms) == 1 and is_number(value.constant, 0):
        term, factor = value.terms[0]
        if isinstance(term, Atom) and term.kind == "clamp" and is_number(factor - 1, 0) and is_number(term.divisor - limit, 0):
            return value
    return Affine(((Atom("clamp", value, limit), 1),))


def from_expr(expr: Expr, values: dict[str, Affine]) -> Affine | None:
    """An index expression over axes with the given values; None if it holds something else than `+ - * // %` by constants."""
    if isinstance(expr, Var):
        return values.get(expr.name)
    known: dict[int, Affine | None] = {}
    for node in postorder(expr, lambda node: not isinstance(node, Const | Var | Binary)):
        known[id(node)] = _from_node(node, [known.get(id(operand)) for operand in node.operands], values)
    return known[id(expr)]


def _from_node(expr: Expr, operands: list[Affine | None], values: dict[str, Affine]) -> Affine | None:
    if isinstance(expr, Const):
        return number(int(expr.value))
    if isinstance(expr, Var):
        return values.get(expr.name)
    if not isinstance(expr, Binary):
        return None
    left, right = operands
    if left is None or right is None:
        return None
    if expr.op in ("add", "sub"):
        return left + right if expr.op == "add" else left - right
    if expr.op == "mul" and (not right.terms or not left.terms):
        return left * right.constant if not right.terms else right * left.constant
    if expr.op in ("floordiv", "mod") and not right.terms and not is_number(right.constant, 0):
        return floor_div(left, right.constant) if expr.op == "floordiv" else modulo(left, right.constant)
    return None


def interval(value: Affine, varying: Extents, known: dict[int, tuple[Affine, Number]] | None = None) -> tuple[Affine, Number]:
    """The lowest value, in terms of the variables that do not vary, and the width: how many consecutive integers are reached.

    `varying(name)` is the extent of a loop that runs, or None for a fixed variable. Exact for affine values; for floor
    division by an unaligned value and for modulo the width is an upper bound. `known` are those of values inside of others.
    """
    known = {} if known is None else known
    if id(value) not in known:
        known[id(value)] = _interval(value, varying, known)
    return known[id(value)]


def _interval(value: Affine, varying: Extents, known: dict[int, tuple[Affine, Number]]) -> tuple[Affine, Number]:
    extents = {term: varying(term) for term, _ in value.terms if isinstance(term, str)}
    still = tuple([item for item in value.terms if item[0] in extents and extents[item[0]] is None])
    lowest = Affine(still, value.constant)
    width: Number = 1
    for term, coefficient in value.terms:
        reach: Number
        if isinstance(term, str):
            extent = extents[term]
            if extent is None:
                continue
            reach = extent - 1
        else:
            low, atom_width = _atom_interval(term, varying, known)
            lowest = lowest + low * coefficient
            reach = atom_width - 1
        negative = coefficient < 0 if isinstance(coefficient, int) else bool((coefficient < 0).all())
        if negative:
            lowest = lowest + coefficient * reach
        width = width + (-coefficient if negative else coefficient) * reach
    return lowest, width


def _atom_interval(atom: Atom, varying: Extents, known: dict[int, tuple[Affine, Number]]) -> tuple[Affine, Number]:
    low, width = interval(atom.value, varying, known)
    if atom.kind == "clamp":
        return clamp(low, atom.divisor), smaller(width, atom.divisor + 1)
    misaligned = low.constant % atom.divisor
    for _, coefficient in low.terms:
        misaligned = misaligned + coefficient % atom.divisor
    if atom.kind == "floordiv":
        unaligned = (width + atom.divisor - 2) // atom.divisor + 1
        return floor_div(low, atom.divisor), choose(misaligned == 0, ceil_div(width, atom.divisor), unaligned)
    within = choose(misaligned == 0, smaller(width, atom.divisor), atom.divisor)
    reached = choose(width == 1, 1, within)
    # Where a single value is reached it starts at that value, else at 0: decided program by program, as a factor of 1 or 0.
    return modulo(low, atom.divisor) * choose(width == 1, 1, 0), reached


def choose(condition: bool | NDArray[np.bool_], then: Number, otherwise: Number) -> Number:
    """`then` where the condition holds, program by program."""
    if isinstance(condition, bool | np.bool_):
        return then if condition else otherwise
    return np.where(condition, then, otherwise)


def same(a: Affine, b: Affine) -> bool:
    """Whether two values differ by a constant only."""
    if a is b:
        return True
    if len(a.terms) != len(b.terms):
        return False
    return all(any(_same_term(s, t) and is_number(c - d, 0) for t, d in b.terms) for s, c in a.terms)


def _same_term(a: Term, b: Term) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return (
        a.kind == b.kind
        and is_number(a.divisor - b.divisor, 0)
        and same(a.value, b.value)
        and is_number(a.value.constant - b.value.constant, 0)
    )
