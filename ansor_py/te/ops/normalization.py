"""Normalisations: batch (inference), layer, and local response.

y = batch_norm(x, scale, bias, mean, variance)      # x[n, c, ...], vectors of c elements
y = layer_norm(x, scale, bias, axis=-1)
y = lrn(x, size=5, alpha=1e-4, beta=0.75, bias=1.0)
"""

from __future__ import annotations

import math

from ansor_py.te import expr
from ansor_py.te.expr import INDEX, Axis, Const, Expr, binary, call
from ansor_py.te.ops.checks import axes_of, normalized_axis, require, require_channels, require_float
from ansor_py.te.ops.layout import pad
from ansor_py.te.ops.reduction import reduce_mean
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, reduce_sum, tensor_from_body


def batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float = 1e-5, name: str = "batch_norm"
) -> Tensor:
    """Batch normalisation as in inference: x * factor + shift, two vectors that are stages of their own."""
    require_float("batch_norm", x, scale, bias, mean, variance)
    require(len(x.shape) >= 2, "batch_norm", "the input must have dimensions [n, c, ...]", x)
    for what, vector in (("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)):
        require_channels("batch_norm", what, vector, x.shape[1])
    c = Axis("c", x.shape[1])
    factor = tensor_from_body(f"{name}_factor", (c,), scale[c] / call("sqrt", variance[c] + epsilon))
    shift = tensor_from_body(f"{name}_shift", (c,), bias[c] - mean[c] * factor[c])
    axes = axes_of(x.shape)
    return tensor_from_body(name, axes, x[axes] * factor[axes[1]] + shift[axes[1]])


def layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5, name: str = "layer_norm"
) -> Tensor:
    """Layer normalisation over the axes from `axis` to the last; scale and bias have the shape of these axes."""
    first = normalized_axis("layer_norm", axis, x)
    vectors = [scale] if bias is None else [scale, bias]
    require_float("layer_norm", x, *vectors)
    for vector in vectors:
        require(
            vector.shape == x.shape[first:], "layer_norm", f"scale and bias must have shape {list(x.shape[first:])}", x, vector
        )
    axes = axes_of(x.shape)
    inner = tuple(reduce_axis(extent, f"r{position}") for position, extent in enumerate(x.shape) if position >= first)
    outer = (*axes[:first], *(Axis(f"i{position}", 1) for position in range(first, len(x.shape))))
    mean = reduce_mean(x, range(first, len(x.shape)), keepdims=True, name=f"{name}_mean")
    offset = x[(*outer[:first], *inner)] - mean[outer]
    squares = tensor_from_body(f"{name}_squares", outer, reduce_sum(offset * offset, inner))
    row: tuple[Expr, ...] = (*axes[:first], *(Const(0, INDEX),) * len(inner))
    factor_body = 1.0 / call("sqrt", squares[outer] * (1 / math.prod(x.shape[first:])) + epsilon)
    factor = tensor_from_body(f"{name}_factor", outer, factor_body)
    normal = (x[axes] - mean[row]) * factor[row] * scale[axes[first:]]
    return tensor_from_body(name, axes, normal if bias is None else normal + bias[axes[first:]])


def lrn(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, name: str = "lrn") -> Tensor:
    """Local response normalisation across channels: x / (bias + alpha / size * sum of squares of `size` channels) ** beta."""
    require_float("lrn", x)
    require(len(x.shape) >= 2, "lrn", "the input must have dimensions [n, c, ...]", x)
    require(size >= 1, "lrn", f"the size must be at least 1, got {size}")
    before, after = ([0, width] + [0] * (len(x.shape) - 2) for width in ((size - 1) // 2, size // 2))
    padded = pad(x, before, after, name=f"{name}_pad") if size > 1 else x
    axes, window = axes_of(x.shape), reduce_axis(size, "rc")
    element = padded[(axes[0], axes[1] + window, *axes[2:])]
    squares = tensor_from_body(f"{name}_squares", axes, reduce_sum(element * element, window))
    return tensor_from_body(
        name, axes, x[axes] / binary("pow", squares[axes] * (alpha / size) + bias, expr.const(beta, x.dtype))
    )


@operator("batch_norm", example="batch_norm:1,64,56,56")
def batch_norm_workload(n: int, c: int, h: int, w: int) -> Tensor:
    """Batch normalisation of data[n, c, h, w] by four constant vectors."""
    scale, bias, mean, variance = (
        placeholder((c,), name=name, constant=True) for name in ("scale", "bias", "mean", "variance")
    )
    return batch_norm(placeholder((n, c, h, w), name="data"), scale, bias, mean, variance)


@operator("layer_norm", example="layer_norm:128,768")
def layer_norm_workload(n: int, m: int) -> Tensor:
    """Layer normalisation of the rows of x[n, m] with constant scale and bias."""
    scale, bias = (placeholder((m,), name=name, constant=True) for name in ("scale", "bias"))
    return layer_norm(placeholder((n, m), name="x"), scale, bias)


@operator("lrn", example="lrn:1,64,56,56,size=5")
def lrn_workload(n: int, c: int, h: int, w: int, *, size: int = 5) -> Tensor:
    """Local response normalisation of data[n, c, h, w]."""
    return lrn(placeholder((n, c, h, w), name="data"), size)
