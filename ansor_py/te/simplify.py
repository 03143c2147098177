"""Simplification of integer expressions with known ranges of their variables.

Integer subexpressions become sums of coefficient times atom, where an atom is a variable or a floor division, modulo,
minimum or maximum that cannot be resolved. Divisions and comparisons are decided by interval arithmetic, and
`(x // c) * c + x % c` is put together again, so that fused, split and reshaped indices come out affine wherever they are.
Integers that are read from memory are computed as they are written, unless they serve as an index.

    i, j = Var("i"), Var("j")
    simplify((i * 16 + j) // 16, {"i": (0, 3), "j": (0, 15)})      # i
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from ansor_py.te.expr import (
    FLOAT_DTYPES,
    INDEX,
    Binary,
    Compare,
    Const,
    Expr,
    Var,
    binary,
    compare,
    postorder,
    variables_of,
    with_children,
)

Ranges = Mapping[str, tuple[int, int]]
Interval = tuple[float, float]
UNBOUNDED: Interval = (float("-inf"), float("inf"))


@dataclass(frozen=True)
class Linear:
    """`constant + sum(coefficient * atom)`."""

    terms: tuple[tuple[Expr, int], ...]
    constant: int

    def plus(self, other: Linear, factor: int = 1) -> Linear:
        """`self + factor * other`."""
        merged = dict(self.terms)
        for atom, coefficient in other.terms:
            merged[atom] = merged.get(atom, 0) + factor * coefficient
        return Linear(tuple((a, c) for a, c in merged.items() if c), self.constant + factor * other.constant)

    def times(self, factor: int) -> Linear:
        """`factor * self`."""
        return Linear((), 0).plus(self, factor)

    def stride(self, variable: str | None) -> int | None:
        """How much it grows when a variable grows by one; None if that is not constant."""
        stride = 0
        for atom, coefficient in self.terms:
            if isinstance(atom, Var):
                stride = coefficient if atom.name == variable else stride
            elif variable in variables_of(atom):
                return None
        return stride


def simplify(expr: Expr, ranges: Ranges) -> Expr:
    """An equal expression, simpler where the inclusive `ranges` of variables allow it."""
    return Simplifier(ranges).simplify(expr)


class Simplifier:
    """Simplifies many expressions under the same ranges; results are remembered."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self._simple: dict[Expr, Expr] = {}
        self._linear: dict[Expr, Linear] = {}
        self._intervals: dict[Expr, Interval] = {}

    def simplify(self, expr: Expr) -> Expr:
        """See the module's function of the same name. What is one node in the expression is one in the result."""
        if not self._is_settled(expr):
            for node in postorder(expr, self._is_settled):
                if node not in self._simple:
                    self._simple[node] = self._rebuilt(node, [self._simple[operand] for operand in node.operands])
        return self._simple[expr]

    def _is_settled(self, node: Expr) -> bool:
        """Whether the simple form is known; an index gets it at once, from its normal form."""
        if node not in self._simple and node.dtype == INDEX and not node.has_reads and isinstance(node, Const | Var | Binary):
            self._simple[node] = self._to_expr(self.linear(node), INDEX)
        return node in self._simple

    def _rebuilt(self, node: Expr, operands: Sequence[Expr]) -> Expr:
        if isinstance(node, Compare) and node.left.dtype == INDEX:
            return self._compare(node, *operands)
        return with_children(node, tuple(operands))

    def interval(self, expr: Expr) -> Interval:
        """Lowest and highest value that an integer expression can take (an enclosure)."""
        return self.linear_interval(self.linear(expr))

    def linear(self, expr: Expr) -> Linear:
        """The normal form of an integer expression."""
        known = self._linear.get(expr)
        if known is None:
            # Sums in sums, however deep, are worked on from the inside.
            is_deep = isinstance(expr, Binary) and not all(map(self._is_close, expr.operands))
            for node in postorder(expr, self._is_close) if is_deep else (expr,):
                known = self._linear[node] = self.recombine(self._normalise(node))
            assert known is not None
        return known

    def flat(self, shape: Sequence[int], indices: Sequence[Expr]) -> Linear:
        """The row-major number of an element of a tensor; `recombine` finds what several indices are together."""
        number = Linear((), 0)
        stride = 1
        for extent, index in zip(reversed(shape), reversed(indices), strict=True):
            number = number.plus(self.linear(index), stride)
            stride *= extent
        return number

    def _is_close(self, node: Expr) -> bool:
        """Whether finding the normal form takes one step: no arithmetic, or known already."""
        return not isinstance(node, Binary) or node in self._linear

    def linear_interval(self, value: Linear) -> Interval:
        """The interval of a normal form."""
        low: float = value.constant  # exact: an integer as long as no bound is infinite
        high: float = value.constant
        for atom, coefficient in value.terms:
            a, b = self._atom_interval(atom)
            low += coefficient * (a if coefficient > 0 else b)
            high += coefficient * (b if coefficient > 0 else a)
        return low, high

    def _normalise(self, expr: Expr) -> Linear:
        if isinstance(expr, Const):
            return Linear((), int(expr.value))
        if isinstance(expr, Var):
            low, high = self.ranges.get(expr.name, UNBOUNDED)
            return Linear((), int(low)) if low == high else Linear(((expr, 1),), 0)
        if isinstance(expr, Binary):
            left, right = self.linear(expr.left), self.linear(expr.right)
            match expr.op:
                case "add":
                    return left.plus(right)
                case "sub":
                    return left.plus(right, -1)
                case "mul" if not right.terms:
                    return left.times(right.constant)
                case "mul" if not left.terms:
                    return right.times(left.constant)
                case "floordiv" if not right.terms and right.constant > 0:
                    return self._floordiv(left, right.constant)
                case "mod" if not right.terms and right.constant > 0:
                    return self._mod(left, right.constant)
                case "min" | "max":
                    return self._extreme(expr.op, left, right)
            return self._opaque(binary(expr.op, self._to_expr(left, INDEX), self._to_expr(right, INDEX)))
        return self._opaque(with_children(expr, tuple(self.simplify(operand) for operand in expr.operands)))

    def _opaque(self, expr: Expr) -> Linear:
        return Linear((), int(expr.value)) if isinstance(expr, Const) else Linear(((expr, 1),), 0)

    def _may_wrap(self, *values: Linear) -> bool:
        """Whether data of unknown size is among the terms: sums of it are machine arithmetic, not that of whole numbers."""
        atoms = {atom for value in values for atom, _ in value.terms if not isinstance(atom, Var)}
        return any(math.isinf(bound) for atom in atoms for bound in self._atom_interval(atom))

    def _floordiv(self, value: Linear, divisor: int) -> Linear:
        if divisor == 1:
            return value
        if self._may_wrap(value):
            return self._opaque(binary("floordiv", self._to_expr(value, INDEX), divisor))
        quotient = Linear(tuple((a, c // divisor) for a, c in value.terms if c % divisor == 0), value.constant // divisor)
        rest = Linear(tuple((a, c) for a, c in value.terms if c % divisor), value.constant % divisor)
        low, high = self.linear_interval(rest)
        if low > float("-inf") and high < float("inf") and low // divisor == high // divisor:
            return quotient.plus(Linear((), int(low // divisor)))
        if len(rest.terms) == 1 and rest.constant == 0 and rest.terms[0][1] == 1:
            inner = rest.terms[0][0]
            if isinstance(inner, Binary) and inner.op == "floordiv" and isinstance(inner.right, Const):
                return quotient.plus(self._floordiv(self.linear(inner.left), divisor * int(inner.right.value)))
        common = gcd(divisor, *(c for _, c in rest.terms))
        if common > 1:
            reduced = Linear(tuple((a, c // common) for a, c in rest.terms), rest.constant // common)
            return quotient.plus(self._floordiv(reduced, divisor // common))
        return quotient.plus(self._opaque(binary("floordiv", self._to_expr(rest, INDEX), divisor)))

    def _mod(self, value: Linear, divisor: int) -> Linear:
        if self._may_wrap(value):
            return self._opaque(binary("mod", self._to_expr(value, INDEX), divisor))
        rest = Linear(tuple((a, c % divisor) for a, c in value.terms if c % divisor), value.constant % divisor)
        low, high = self.linear_interval(rest)
        if low >= 0 and high < divisor:
            return rest
        whole = Linear(tuple((a, c) for a, c in value.terms if c % divisor), value.constant % divisor)
        low, high = self.linear_interval(whole)
        if low > float("-inf") and high < float("inf") and low // divisor == high // divisor:
            return whole.plus(Linear((), -int(low // divisor) * divisor))
        return self._opaque(binary("mod", self._to_expr(whole, INDEX), divisor))

    def _extreme(self, op: str, left: Linear, right: Linear) -> Linear:
        if not self._may_wrap(left, right):
            low, high = self.linear_interval(left.plus(right, -1))
            if high <= 0:
                return left if op == "min" else right
            if low >= 0:
                return right if op == "min" else left
        return self._opaque(binary(op, self._to_expr(left, INDEX), self._to_expr(right, INDEX)))

    def recombine(self, value: Linear) -> Linear:
        """`b * (x % c) + b * c * (x // c)` replaced by `b * x`, until nothing changes."""
        for atom, coefficient in value.terms:
            if not (isinstance(atom, Binary) and atom.op == "mod" and isinstance(atom.right, Const)):
                continue
            divisor = int(atom.right.value)
            inner = self.linear(atom.left)
            quotient = self._floordiv(inner, divisor)
            present = dict(value.terms)
            if quotient.terms and all(present.get(a) == coefficient * divisor * c for a, c in quotient.terms):
                without = value.plus(Linear(((atom, 1),), 0), -coefficient).plus(quotient, -coefficient * divisor)
                return self.recombine(without.plus(inner, coefficient))
        return value

    def _atom_interval(self, atom: Expr) -> Interval:
        if isinstance(atom, Var):
            return self.ranges.get(atom.name, UNBOUNDED)
        known = self._intervals.get(atom)
        if known is None:
            known = self._intervals[atom] = self._operation_interval(atom)
        return known

    def _operation_interval(self, atom: Expr) -> Interval:
        if isinstance(atom, Binary) and atom.op in ("floordiv", "mod", "min", "max"):
            left, right = self.linear_interval(self.linear(atom.left)), self.linear_interval(self.linear(atom.right))
            if atom.op == "min":
                return min(left[0], right[0]), min(left[1], right[1])
            if atom.op == "max":
                return max(left[0], right[0]), max(left[1], right[1])
            if right[0] == right[1] and right[0] > 0:
                divisor = right[0]
                if atom.op == "mod":
                    return 0, divisor - 1
                return (
                    left[0] // divisor if left[0] > float("-inf") else left[0],
                    left[1] // divisor if left[1] < float("inf") else left[1],
                )
        return UNBOUNDED

    def _compare(self, expr: Compare, left: Expr, right: Expr) -> Expr:
        a, b = self.linear(expr.left), self.linear(expr.right)
        low, high = UNBOUNDED if self._may_wrap(a, b) else self.linear_interval(a.plus(b, -1))
        decided: dict[str, tuple[bool, bool]] = {
            "lt": (high < 0, low >= 0),
            "le": (high <= 0, low > 0),
            "gt": (low > 0, high <= 0),
            "ge": (low >= 0, high < 0),
            "eq": (low == high == 0, low > 0 or high < 0),
            "ne": (low > 0 or high < 0, low == high == 0),
        }
        always, never = decided[expr.op]
        if always or never:
            return Const(always, "bool")
        return compare(expr.op, left, right)

    def _to_expr(self, value: Linear, dtype: str) -> Expr:
        assert dtype not in FLOAT_DTYPES
        result: Expr = Const(0, dtype)
        for atom, coefficient in value.terms:
            if coefficient < 0:
                result = binary("sub", result, binary("mul", atom, -coefficient))
            else:
                result = binary("add", result, binary("mul", atom, coefficient))
        if value.constant < 0:
            return binary("sub", result, -value.constant)
        return binary("add", result, value.constant)
