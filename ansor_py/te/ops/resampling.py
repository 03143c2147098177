"""Resizing: every output element reads the input at a position that grows evenly.

    y = resize2d(x, 56, 56, mode="linear")                                # half-pixel centres
    y = resample(x, axis=2, count=56, step=Fraction(1, 2), offset=Fraction(-1, 4), mode="nearest")

The position is `step * i + offset`, exact fractions, so that neighbours and weights come from integer arithmetic that stays
affine under a floor division: nothing is rounded twice. One stage a dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ansor_py.te import expr
from ansor_py.te.expr import FLOAT_DTYPES, Axis, Expr, binary, call, cast, const, logical_and, logical_or, select
from ansor_py.te.ops.checks import axes_of, normalized_axis, require, require_float, require_rank
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body

ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MODES = ("nearest", "linear", "cubic")


@dataclass(frozen=True)
class _Position:
    """`step * axis + offset` as integer arithmetic: (a * axis + b) / c."""

    axis: Axis
    a: int
    b: int
    c: int

    def floor(self, shift: Fraction = Fraction(0)) -> Expr:
        """The whole part of the position plus `shift`."""
        total = Fraction(self.b, self.c) + shift
        common = math.lcm(self.c, total.denominator)
        numerator = self.axis * (self.a * (common // self.c)) + total.numerator * (common // total.denominator)
        return numerator // common

    def fraction(self, dtype: str) -> Expr:
        """The part behind the whole one."""
        rest = binary("mod", self.axis * self.a + self.b, self.c)
        return cast(rest, dtype) * const(1 / self.c, dtype)

    def nearest(self, rounding: str) -> Expr:
        """The whole number next to the position."""
        half, smallest = Fraction(1, 2), Fraction(1, 2 * self.c)  # positions are multiples of 1 / c
        match rounding:
            case "floor":
                return self.floor()
            case "ceil":
                return self.floor(1 - 2 * smallest)
            case "round_prefer_ceil":
                return self.floor(half)
        return self.floor(half - smallest)


def resample(
    x: Tensor,
    axis: int,
    count: int,
    step: Fraction,
    offset: Fraction,
    mode: str = "linear",
    rounding: str = "round_prefer_floor",
    cubic: float = -0.75,
    shrink: float = 1.0,
    exclude_outside: bool = False,
    extrapolation: float | None = None,
    name: str = "resample",
) -> Tensor:
    """`count` elements along `axis`, the i-th at position `step * i + offset` of x; beyond the ends the last elements repeat.

    `rounding` is for mode nearest, `cubic` is the coefficient of mode cubic. `shrink` below 1 widens the filter of the other
    modes against aliasing; `exclude_outside` gives no weight to what lies outside; a position outside takes the value
    `extrapolation` if there is one.
    """
    along = normalized_axis(name, axis, x)
    require(mode in MODES, name, f"unknown mode '{mode}'; known are {', '.join(MODES)}")
    require(rounding in ROUNDINGS, name, f"unknown rounding '{rounding}'; known are {', '.join(ROUNDINGS)}")
    extent = x.shape[along]
    axes = axes_of((*x.shape[:along], count, *x.shape[along + 1 :]))
    common = math.lcm(step.denominator, offset.denominator)
    position = _Position(axes[along], int(step * common), int(offset * common), common)

    def element(index: Expr) -> Expr:
        inside = expr.minimum(expr.maximum(index, 0), extent - 1)
        return x[(*axes[:along], inside, *axes[along + 1 :])]

    if mode == "nearest":
        body = element(position.nearest(rounding))
    else:
        require_float(name, x)
        body = _filtered(position, element, extent, x.dtype, _kernel(mode, cubic), mode == "cubic", shrink, exclude_outside)
    if extrapolation is not None:
        numerator = position.axis * position.a + position.b
        outside = logical_or(numerator < 0, numerator > (extent - 1) * position.c)
        body = select(outside, const(extrapolation, x.dtype), body)
    return tensor_from_body(name, axes, body)


def _kernel(mode: str, a: float) -> Callable[[Expr], Expr]:
    """The weight of an element at a distance from the position."""
    if mode == "linear":
        return lambda d: expr.maximum(1 - call("abs", d), 0)

    def cubic(distance: Expr) -> Expr:
        d = call("abs", distance)
        near = ((d * (a + 2) - (a + 3)) * d) * d + 1
        far = ((d * a - 5 * a) * d + 8 * a) * d - 4 * a
        return select(d <= 1, near, select(d < 2, far, const(0, d.dtype)))

    return cubic


def _filtered(
    position: _Position,
    element: Callable[[Expr], Expr],
    extent: int,
    dtype: str,
    kernel: Callable[[Expr], Expr],
    is_cubic: bool,
    shrink: float,
    exclude_outside: bool,
) -> Expr:
    """The weighted sum of the elements around the position."""
    assert dtype in FLOAT_DTYPES
    base, fraction = position.floor(), position.fraction(dtype)
    reach = 2 if is_cubic else 1
    first = math.floor(-reach / shrink) + 1
    total: Expr = const(0, dtype)
    weights: Expr = const(0, dtype)
    for tap in range(first, 2 - first):
        weight = kernel((const(tap, dtype) - fraction) * shrink)
        if exclude_outside:
            index = base + tap
            weight = select(logical_and(index >= 0, index < extent), weight, const(0, dtype))
        total = total + weight * element(base + tap)
        weights = weights + weight
    return total / weights if exclude_outside or shrink != 1 else total


def resize2d(x: Tensor, height: int, width: int, mode: str = "linear", name: str = "resize2d") -> Tensor:
    """x[n, c, h, w] with other extents, the centres of the pixels evenly spread (half-pixel coordinates)."""
    require_rank(name, x, 4, "[n, c, h, w]")
    require(height >= 1 and width >= 1, name, f"cannot resize to {height} x {width}", x)
    for axis, count in ((2, height), (3, width)):
        if count != x.shape[axis]:
            step = Fraction(x.shape[axis], count)
            x = resample(x, axis, count, step, (step - 1) / 2, mode, name=f"{name}_{'hw'[axis - 2]}")
    return x


def constant_fraction(value: float) -> Fraction:
    """A number that was rounded to float32, as the simplest fraction that rounds to it."""
    exact = Fraction(value)
    for limit in (1, 16, 256, 4096, 65536):
        simple = exact.limit_denominator(limit)
        if abs(float(simple) - value) <= abs(value) * 2.0**-25:
            return simple
    return exact


@operator("resize2d", example="resize2d:1,64,28,28,scale=2")
def resize2d_workload(n: int, c: int, h: int, w: int, *, scale: int = 2, linear: int = 1) -> Tensor:
    """data[n, c, h, w] enlarged, linearly or by the nearest element."""
    data = placeholder((n, c, h, w), name="data")
    return resize2d(data, h * scale, w * scale, "linear" if linear else "nearest")
