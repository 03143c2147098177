"""Whole numbers: division as in C, remainders, powers, and operations on bits; all broadcast.

q = truncated_divide(a, b)        # -7 / 2 = -3
p = integer_power(a, 3)           # exact, wrapping around as machine arithmetic does
r = remainder(a, b)               # the sign of b, as in Python; fmod(a, b) has the sign of a
s = shift_left(a, b)
"""

from __future__ import annotations

from ansor_py.te import expr
from ansor_py.te.expr import DTYPE_BYTES, FLOAT_DTYPES, INDEX, Expr, binary, call, cast, const, equal, logical_or, select
from ansor_py.te.ops.checks import axes_of, broadcast_index, broadcast_shape, require
from ansor_py.te.ops.elementwise import TensorOrNumber, broadcast, map_elements
from ansor_py.te.tensor import Tensor, tensor_from_body

MOST_SQUARED = 63  # a higher power of anything but 0, 1 and -1 fits no integer


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


def integer_power(a: Tensor, b: Tensor | int, name: str = "integer_power") -> Tensor:
    """a to the power of b, both integers (of any dtypes), by squaring: no float comes in.

    A negative power is that of 1 or -1, and 0 of all else. What does not fit the dtype wraps around up to the 63rd power;
    beyond it is unspecified but for even numbers, whose powers wrap around to 0.
    """
    require(a.dtype not in FLOAT_DTYPES, name, f"needs integers, not {a.dtype}", a)
    if not isinstance(b, Tensor):
        return map_elements(a, lambda x: _known_power(x, b), name)
    require(b.dtype not in FLOAT_DTYPES, name, f"needs integers, not {b.dtype}", b)
    axes = axes_of(broadcast_shape(name, [a.shape, b.shape], a, b))
    base, exponent = a[broadcast_index(a.shape, axes)], cast(b[broadcast_index(b.shape, axes)], INDEX)
    odd = binary("bitand", exponent, 1)
    limited = select(exponent < 0, odd, select(exponent > MOST_SQUARED, odd + (MOST_SQUARED - 1), exponent))
    product: Expr = const(1, a.dtype)
    for bit, square in enumerate(_squares(base, MOST_SQUARED)):
        is_set = equal(binary("bitand", binary("shr", limited, bit), 1), 1)
        product = product * select(is_set, square, const(1, a.dtype))
    vanishes = select(exponent < 0, expr.logical_not(_is_unit(base)), expr.logical_and(exponent > MOST_SQUARED, _is_even(base)))
    return tensor_from_body(name, axes, select(vanishes, const(0, a.dtype), product))


def _known_power(x: Expr, exponent: int) -> Expr:
    zero = const(0, x.dtype)
    if exponent < 0:
        return select(_is_unit(x), x if exponent % 2 else const(1, x.dtype), zero)
    if exponent > MOST_SQUARED:
        return select(_is_even(x), zero, _known_power(x, MOST_SQUARED - 1 + exponent % 2))
    product: Expr = const(1, x.dtype)
    for bit, square in enumerate(_squares(x, exponent)):
        product = product * square if exponent >> bit & 1 else product
    return product


def _squares(x: Expr, exponent: int) -> list[Expr]:
    """x, x^2, x^4, ...: one for each bit of an exponent."""
    squares = [x]
    while len(squares) < exponent.bit_length():
        squares.append(squares[-1] * squares[-1])
    return squares


def _is_unit(x: Expr) -> Expr:
    one = equal(x, 1)
    return one if x.dtype == "uint8" else logical_or(one, equal(x, -1))


def _is_even(x: Expr) -> Expr:
    return equal(binary("bitand", x, 1), 0)


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
