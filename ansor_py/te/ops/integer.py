"""Whole numbers: division as in C, remainders, and operations on bits; all broadcast.

q = truncated_divide(a, b)        # -7 / 2 = -3
r = remainder(a, b)               # the sign of b, as in Python; fmod(a, b) has the sign of a
s = shift_left(a, b)
"""

from __future__ import annotations

from ansor_py.te import expr
from ansor_py.te.expr import DTYPE_BYTES, FLOAT_DTYPES, Expr, binary, call, const, equal, logical_or, select
from ansor_py.te.ops.checks import require
from ansor_py.te.ops.elementwise import TensorOrNumber, broadcast, map_elements
from ansor_py.te.tensor import Tensor


def truncated_quotient(x: Expr, y: Expr) -> Expr:
    """x / y of integers, rounded towards zero."""
    floored = x // y
    if x.dtype == "uint8":
        return floored
    exact = equal(floored * y, x)
    return select(logical_or(exact, floored >= 0), floored, floored + 1)


def truncated_divide(a: TensorOrNumber, b: TensorOrNumber, name: str = "truncated_divide") -> Tensor:
    """a / b of integers, rounded towards zero; the quotient by 0 is unspecified."""
    return broadcast(truncated_quotient, a, b, name)


def remainder(a: TensorOrNumber, b: TensorOrNumber, name: str = "remainder") -> Tensor:
    """What a floor division leaves, of floats or integers; it has the sign of b."""

    def of(x: Expr, y: Expr) -> Expr:
        if x.dtype not in FLOAT_DTYPES:
            return x % y
        rest = call("fmod", x, y)
        differ = logical_or(expr.logical_and(rest < 0, y > 0), expr.logical_and(rest > 0, y < 0))
        return select(differ, rest + y, rest)

    return broadcast(of, a, b, name)


def fmod(a: TensorOrNumber, b: TensorOrNumber, name: str = "fmod") -> Tensor:
    """What a division towards zero leaves, of floats or integers; it has the sign of a."""

    def of(x: Expr, y: Expr) -> Expr:
        return call("fmod", x, y) if x.dtype in FLOAT_DTYPES else x - truncated_quotient(x, y) * y

    return broadcast(of, a, b, name)


def _bits(op: str, a: TensorOrNumber, b: TensorOrNumber, name: str) -> Tensor:
    for operand in (a, b):
        if isinstance(operand, Tensor):
            require(operand.dtype not in FLOAT_DTYPES, name, f"needs integers, not {operand.dtype}", operand)
    return broadcast(lambda x, y: binary(op, x, y), a, b, name)


def bitwise_and(a: TensorOrNumber, b: TensorOrNumber, name: str = "bitwise_and") -> Tensor:
    """The bits set in both."""
    return _bits("bitand", a, b, name)


def bitwise_or(a: TensorOrNumber, b: TensorOrNumber, name: str = "bitwise_or") -> Tensor:
    """The bits set in either."""
    return _bits("bitor", a, b, name)


def bitwise_xor(a: TensorOrNumber, b: TensorOrNumber, name: str = "bitwise_xor") -> Tensor:
    """The bits set in one of them."""
    return _bits("bitxor", a, b, name)


def bitwise_not(x: Tensor, name: str = "bitwise_not") -> Tensor:
    """All bits flipped."""
    require(x.dtype not in FLOAT_DTYPES, name, f"needs integers, not {x.dtype}", x)
    ones = 255 if x.dtype == "uint8" else -1
    return map_elements(x, lambda v: binary("bitxor", v, const(ones, v.dtype)), name)


def shift_left(a: TensorOrNumber, b: TensorOrNumber, name: str = "shift_left") -> Tensor:
    """a with its bits moved up by b places; zeros come in, and nothing is left of a shift by the width or more."""

    def of(x: Expr, y: Expr) -> Expr:
        inside = _is_within(x, y)
        return select(inside, binary("shl", x, select(inside, y, const(0, y.dtype))), const(0, x.dtype))

    return broadcast(of, a, b, name)


def shift_right(a: TensorOrNumber, b: TensorOrNumber, name: str = "shift_right") -> Tensor:
    """a with its bits moved down by b places; the sign comes in, and only it is left of a shift by the width or more."""

    def of(x: Expr, y: Expr) -> Expr:
        inside, last = _is_within(x, y), const(DTYPE_BYTES[x.dtype] * 8 - 1, y.dtype)
        shifted = binary("shr", x, select(inside, y, last))
        return select(inside, shifted, const(0, x.dtype)) if x.dtype == "uint8" else shifted

    return broadcast(of, a, b, name)


def _is_within(x: Expr, places: Expr) -> Expr:
    return expr.logical_and(places >= 0, places < DTYPE_BYTES[x.dtype] * 8)
