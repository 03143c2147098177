"""Sampling of an image at positions that are computed.

y = grid_sample(x, grid, mode="linear", padding="zeros")     # x[n, c, h, w], grid[n, y, x, 2] of (x, y) in -1 .. 1

A position is between pixels; every mode is a sum over a few pixels around it, weighted by the distance in each dimension.
"""

from __future__ import annotations

import itertools

from ansor_py.te import expr
from ansor_py.te.expr import INDEX, Axis, Expr, call, cast, const, logical_and, select
from ansor_py.te.ops.checks import require, require_float
from ansor_py.te.tensor import Tensor, tensor_from_body

PADDINGS = ("zeros", "border", "reflection")
MODES = ("nearest", "linear", "cubic")
_CUBIC = -0.75


def grid_sample(
    x: Tensor,
    grid: Tensor,
    mode: str = "linear",
    padding: str = "zeros",
    align_corners: bool = False,
    name: str = "grid_sample",
) -> Tensor:
    """x[n, c, ...] at the positions grid[n, ..., d], whose last dimension counts the spatial dimensions of x from the last one.

    -1 and 1 are the outer edges of the image, or the centres of its outermost pixels with `align_corners`. Outside there are
    zeros, the outermost pixels, or the mirrored image.
    """
    rank = len(x.shape) - 2
    require_float(name, x, grid)
    require(rank >= 1 and len(grid.shape) == rank + 2 and grid.shape[-1] == rank, name, "the grid does not fit", x, grid)
    require(mode in MODES and padding in PADDINGS, name, f"unknown mode '{mode}' or padding '{padding}'")
    places = tuple(Axis(f"i{p}", extent) for p, extent in enumerate(grid.shape[1:-1]))
    n, c = Axis("n", x.shape[0]), Axis("c", x.shape[1])
    taps = []
    for dimension, extent in enumerate(x.shape[2:]):
        value = grid[(n, *places, rank - 1 - dimension)]
        taps.append(_taps(_position(value, extent, padding, align_corners), extent, mode, padding, align_corners))
    total: Expr = const(0, x.dtype)
    for chosen in itertools.product(*taps):
        weight: Expr = const(1, x.dtype)
        inside: Expr = const(True, "bool")
        for _, factor, is_inside in chosen:
            weight, inside = weight * factor, logical_and(inside, is_inside)
        pixel = x[(n, c, *(index for index, _, _ in chosen))]
        total = total + weight * select(inside, pixel, const(0, x.dtype))
    return tensor_from_body(name, (n, c, *places), total)


def _position(value: Expr, extent: int, padding: str, align_corners: bool) -> Expr:
    """The position in pixels; what leaves the image is brought back where the padding says so."""
    position = (value + 1) * (0.5 * (extent - 1)) if align_corners else (value + 1) * (0.5 * extent) - 0.5
    if padding == "border":
        return expr.minimum(expr.maximum(position, 0), extent - 1)
    return _reflected(position, extent, align_corners) if padding == "reflection" else position


def _reflected(position: Expr, extent: int, align_corners: bool) -> Expr:
    """A position mirrored at both ends until it is inside."""
    low, high = (0.0, extent - 1.0) if align_corners else (-0.5, extent - 0.5)
    width = high - low
    if width == 0:
        return const(0, position.dtype)
    folded = call("abs", position - low)
    folded = folded - call("floor", folded * (1 / (2 * width))) * (2 * width)
    return select(folded > width, 2 * width - folded, folded) + low


def _taps(position: Expr, extent: int, mode: str, padding: str, align_corners: bool) -> list[tuple[Expr, Expr, Expr]]:
    """Pixels around a position along one dimension: index, weight, and whether the pixel exists."""
    one = const(1, position.dtype)
    if mode == "nearest":
        return [_pixel(call("round", position), one, extent, padding, align_corners)]
    base = call("floor", position)
    fraction = position - base
    if mode == "linear":
        weights: list[Expr] = [1 - fraction, fraction]
        return [_pixel(base + tap, w, extent, padding, align_corners) for tap, w in enumerate(weights)]
    distances = [fraction + 1, fraction, 1 - fraction, 2 - fraction]
    a = _CUBIC
    far = [((d * a - 5 * a) * d + 8 * a) * d - 4 * a for d in distances]
    near = [((d * (a + 2) - (a + 3)) * d) * d + 1 for d in distances]
    chosen = [far[0], near[1], near[2], far[3]]
    return [_pixel(base + (tap - 1), w, extent, padding, align_corners) for tap, w in enumerate(chosen)]


def _pixel(whole: Expr, weight: Expr, extent: int, padding: str, align_corners: bool) -> tuple[Expr, Expr, Expr]:
    moved = _reflected(whole, extent, align_corners) if padding == "reflection" else whole
    inside = logical_and(whole >= 0, whole <= extent - 1) if padding == "zeros" else const(True, "bool")
    index = expr.minimum(expr.maximum(cast(call("round", moved), INDEX), 0), extent - 1)
    return index, weight, inside
