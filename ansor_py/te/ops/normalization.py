"""Normalisations: batch (inference), layer, root mean square, instance, group, mean-variance, and local response.

y = batch_norm(x, scale, bias, mean, variance)      # x[n, c, ...], vectors of c elements
y = layer_norm(x, scale, bias, axis=-1)
y = lrn(x, size=5, alpha=1e-4, beta=0.75, bias=1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ansor_py.te import expr
from ansor_py.te.expr import INDEX, Axis, Const, Expr, binary, call
from ansor_py.te.ops.checks import (
    axes_of,
    broadcast_index,
    broadcast_shape,
    normalized_axes,
    normalized_axis,
    require,
    require_channels,
    require_float,
)
from ansor_py.te.ops.layout import pad, reshape
from ansor_py.te.ops.reduction import reduce_mean
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, reduce_sum, tensor_from_body


def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float = 1e-5,
    name: str = "batch_norm",
    centred: bool = False,
) -> Tensor:
    """Batch normalisation as in inference: x * factor + shift, two vectors that are stages of their own.

    `centred`: (x - mean) * factor + bias, which is right for an infinite scale or mean, too, where the shift is not a number.
    """
    require_float("batch_norm", x, scale, bias, mean, variance)
    require(len(x.shape) >= 2, "batch_norm", "the input must have dimensions [n, c, ...]", x)
    for what, vector in (("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)):
        require_channels("batch_norm", what, vector, x.shape[1])
    c = Axis("c", x.shape[1])
    factor = tensor_from_body(f"{name}_factor", (c,), scale[c] / call("sqrt", variance[c] + epsilon))
    axes = axes_of(x.shape)
    if centred:
        return tensor_from_body(name, axes, (x[axes] - mean[axes[1]]) * factor[axes[1]] + bias[axes[1]])
    shift = tensor_from_body(f"{name}_shift", (c,), bias[c] - mean[c] * factor[c])
    return tensor_from_body(name, axes, x[axes] * factor[axes[1]] + shift[axes[1]])


def moments(x: Tensor, axes: Sequence[int], epsilon: float, name: str, centred: bool = True) -> tuple[Tensor | None, Tensor]:
    """The mean over axes (extents kept as 1) and the reciprocal of the deviation, 1 / sqrt(mean square + epsilon).

    The squares are of the differences from the mean, or of the elements themselves (no mean) unless `centred`.
    """
    require_float(name, x)
    outer = tuple(Axis(f"i{p}", 1 if p in axes else extent) for p, extent in enumerate(x.shape))
    inner = {p: reduce_axis(x.shape[p], f"r{p}") for p in axes}
    mean = reduce_mean(x, axes, keepdims=True, name=f"{name}_mean") if centred else None
    element = x[tuple(inner.get(p, axis) for p, axis in enumerate(outer))]
    offset = element if mean is None else element - mean[outer]
    squares = tensor_from_body(f"{name}_squares", outer, reduce_sum(offset * offset, tuple(inner.values())))
    count = math.prod(x.shape[p] for p in axes)
    body = 1.0 / call("sqrt", squares[outer] * (1 / max(count, 1)) + epsilon)
    return mean, tensor_from_body(f"{name}_factor", outer, body)


def _standardized(
    x: Tensor, axes: Sequence[int], epsilon: float, name: str, centred: bool = True
) -> tuple[tuple[Axis, ...], Expr]:
    """Axes over x, and its elements less the mean over `axes` divided by the deviation."""
    mean, factor = moments(x, axes, epsilon, name, centred)
    output = axes_of(x.shape)
    row: tuple[Expr, ...] = tuple(Const(0, INDEX) if p in axes else axis for p, axis in enumerate(output))
    centre = x[output] if mean is None else x[output] - mean[row]
    return output, centre * factor[row]


def _scaled(value: Expr, vectors: Sequence[Tensor | None], index: Callable[[Tensor], tuple[Expr, ...]]) -> Expr:
    """value * scale + bias, either of which may be missing."""
    scale, bias = vectors
    value = value if scale is None else value * scale[index(scale)]
    return value if bias is None else value + bias[index(bias)]


def _normalized_tail(
    x: Tensor, vectors: Sequence[Tensor | None], axis: int, epsilon: float, name: str, centred: bool
) -> Tensor:
    first = normalized_axis(name, axis, x)
    tail = x.shape[first:]
    for vector in vectors:
        if vector is not None:
            require_float(name, x, vector)
            fits = broadcast_shape(name, [tail, vector.shape], x, vector) == tail
            require(fits, name, f"scale and bias must have shape {list(tail)}", x, vector)
    axes, value = _standardized(x, range(first, len(x.shape)), epsilon, name, centred)
    return tensor_from_body(name, axes, _scaled(value, vectors, lambda v: broadcast_index(v.shape, axes)))


def layer_norm(
    x: Tensor, scale: Tensor | None, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5, name: str = "layer_norm"
) -> Tensor:
    """Layer normalisation over the axes from `axis` to the last; scale and bias are broadcast to the shape of these axes."""
    return _normalized_tail(x, (scale, bias), axis, epsilon, name, centred=True)


def rms_norm(x: Tensor, scale: Tensor | None, axis: int = -1, epsilon: float = 1e-5, name: str = "rms_norm") -> Tensor:
    """x divided by the root of its mean square over the axes from `axis` to the last, times scale."""
    return _normalized_tail(x, (scale, None), axis, epsilon, name, centred=False)


def mean_variance_norm(
    x: Tensor, axes: Sequence[int] = (0, 2, 3), epsilon: float = 1e-9, name: str = "mean_variance_norm"
) -> Tensor:
    """x less its mean over `axes`, divided by its deviation plus epsilon."""
    reduced = normalized_axes(name, axes, x)
    mean, factor = moments(x, reduced, 0.0, name)
    assert mean is not None
    output = axes_of(x.shape)
    row: tuple[Expr, ...] = tuple(Const(0, INDEX) if p in reduced else axis for p, axis in enumerate(output))
    return tensor_from_body(name, output, (x[output] - mean[row]) / (1.0 / factor[row] + epsilon))


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float = 1e-5, name: str = "instance_norm") -> Tensor:
    """Normalisation of each channel of each element of the batch x[n, c, ...], with one scale and bias a channel."""
    require(len(x.shape) >= 3, name, "the input must have dimensions [n, c, ...]", x)
    require_float(name, x, scale, bias)
    require_channels(name, "scale", scale, x.shape[1])
    require_channels(name, "bias", bias, x.shape[1])
    axes, value = _standardized(x, range(2, len(x.shape)), epsilon, name)
    return tensor_from_body(name, axes, _scaled(value, (scale, bias), lambda v: (axes[1],)))


def group_norm(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float = 1e-5, name: str = "group_norm") -> Tensor:
    """Normalisation of groups of channels of x[n, c, ...]; scale and bias have one element a channel, or one a group."""
    require(len(x.shape) >= 2, name, "the input must have dimensions [n, c, ...]", x)
    require_float(name, x, scale, bias)
    channels = x.shape[1]
    require(groups >= 1 and channels % groups == 0, name, f"{channels} channels cannot form {groups} groups", x)
    members = channels // groups
    for vector in (scale, bias):
        require(vector.shape in ((channels,), (groups,)), name, "scale and bias need one element a channel or group", vector)
    grouped = reshape(x, (x.shape[0], groups, members, *x.shape[2:]), name=f"{name}_groups")
    mean, factor = moments(grouped, range(2, len(grouped.shape)), epsilon, name)
    assert mean is not None
    axes = axes_of(x.shape)
    group = axes[1] // members
    row = (axes[0], group, *(Const(0, INDEX) for _ in range(len(x.shape) - 1)))
    value = (x[axes] - mean[row]) * factor[row]
    return tensor_from_body(
        name, axes, _scaled(value, (scale, bias), lambda v: (axes[1] if v.shape == (channels,) else group,))
    )


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


@operator("rms_norm", example="rms_norm:128,768")
def rms_norm_workload(n: int, m: int) -> Tensor:
    """Root-mean-square normalisation of the rows of x[n, m] with a constant scale."""
    return rms_norm(placeholder((n, m), name="x"), placeholder((m,), name="scale", constant=True))


@operator("instance_norm", example="instance_norm:1,64,56,56")
def instance_norm_workload(n: int, c: int, h: int, w: int) -> Tensor:
    """Normalisation of each channel of data[n, c, h, w] with constant scale and bias."""
    scale, bias = (placeholder((c,), name=name, constant=True) for name in ("scale", "bias"))
    return instance_norm(placeholder((n, c, h, w), name="data"), scale, bias)


@operator("group_norm", example="group_norm:1,64,28,28,groups=32")
def group_norm_workload(n: int, c: int, h: int, w: int, *, groups: int = 1) -> Tensor:
    """Normalisation of groups of channels of data[n, c, h, w] with constant scale and bias."""
    scale, bias = (placeholder((c,), name=name, constant=True) for name in ("scale", "bias"))
    return group_norm(placeholder((n, c, h, w), name="data"), scale, bias, groups)


@operator("lrn", example="lrn:1,64,56,56,size=5")
def lrn_workload(n: int, c: int, h: int, w: int, *, size: int = 5) -> Tensor:
    """Local response normalisation of data[n, c, h, w]."""
    return lrn(placeholder((n, c, h, w), name="data"), size)
