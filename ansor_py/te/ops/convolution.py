"""Convolution over one to three spatial dimensions (NCW, NCHW, NCDHW), with groups and dilation; and of capsules.

    y = conv2d(x, weight, bias, stride=2, padding=(1, 1, 1, 1))   # x[n, c, h, w], weight[f, c / groups, kh, kw]
    y = conv3d(x, weight, padding=1)                              # x[n, c, d, h, w]

Non-zero padding makes a stage of its own, so that the convolution reads a padded tensor and its indices stay affine.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr
from ansor_py.te.ops import elementwise
from ansor_py.te.ops.checks import per_dimension, require, require_channels, require_rank, require_same_dtype, two_sided
from ansor_py.te.ops.layout import pad
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

Numbers = int | Sequence[int]
Shape = tuple[int, ...]
# Names of the spatial dimensions, the last one last; more than three are numbered.
SPATIAL_NAMES = "zyx"


def spatial_names(rank: int) -> list[str]:
    """Names of the axes over spatial dimensions: `x`; `y`, `x`; `z`, `y`, `x`."""
    return list(SPATIAL_NAMES[-rank:]) if rank <= len(SPATIAL_NAMES) else [f"s{position}" for position in range(rank)]


def convolution(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "convolution",
) -> Tensor:
    """Convolution (without flipping the kernel, as everybody does) of data[n, c, ...] and weight[f, c / groups, ...].

    `padding` is one number, one a spatial dimension, or all begins and then all ends. The bias is added in a stage of its own.
    """
    rank = len(data.shape) - 2
    require(rank >= 1, name, f"'{data.name}' must have dimensions [n, c, ...]", data)
    require_rank(name, weight, rank + 2, "[f, c / groups, ...]")
    require_same_dtype(name, data, weight)
    strides, dilations = per_dimension(name, "stride", stride, rank), per_dimension(name, "dilation", dilation, rank)
    batch, channels = data.shape[:2]
    filters, group_channels, *kernel = weight.shape
    require(groups >= 1 and filters % groups == 0, name, f"{filters} filters cannot form {groups} groups", data, weight)
    require(group_channels * groups == channels, name, f"{channels} channels are not {groups} x {group_channels}", data, weight)
    before, after = two_sided(name, padding, rank)
    needs_pad = any(before) or any(after)
    padded = pad(data, (0, 0, *before), (0, 0, *after), name=f"{name}_pad") if needs_pad else data
    window = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    fits = all(extent >= span for extent, span in zip(padded.shape[2:], window, strict=True))
    require(fits, name, f"the window {window} is too large", padded, weight)
    counts = [(e - span) // step + 1 for e, span, step in zip(padded.shape[2:], window, strides, strict=True)]
    names = spatial_names(rank)
    n, f = Axis("n", batch), Axis("f", filters)
    places = [Axis(axis, count) for axis, count in zip(names, counts, strict=True)]
    rc, taps = reduce_axis(group_channels, "rc"), [reduce_axis(k, f"r{axis}") for axis, k in zip(names, kernel, strict=True)]
    one_channel = groups > 1 and group_channels == 1  # depthwise: no reduction over channels
    inner: Expr = Const(0, INDEX) if one_channel else rc
    # The quotient folds away where a group has one filter, and with it everything that is not affine.
    channel = inner if groups == 1 else f // (filters // groups) * group_channels + inner
    position = [p * s + t * d for p, s, t, d in zip(places, strides, taps, dilations, strict=True)]
    product = padded[(n, channel, *position)] * weight[(f, inner, *taps)]
    axes = (n, f, *places)
    result = tensor_from_body(name, axes, te_tensor.reduce_sum(product, taps if one_channel else (rc, *taps)))
    return result if bias is None else add_bias(result, bias, name)


def add_bias(result: Tensor, bias: Tensor, name: str) -> Tensor:
    """`result` plus one number a channel (dimension 1), in a stage of its own over the same axes."""
    require_channels(name, "bias", bias, result.shape[1])
    assert isinstance(result.op, te_tensor.Compute)
    axes = result.op.axes
    return tensor_from_body(f"{name}_bias", axes, result[axes] + bias[axes[1]])


def conv1d(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv1d",
) -> Tensor:
    """`convolution` of data[n, c, w] and weight[f, c / groups, k]."""
    require_rank(name, data, 3, "[n, c, w]")
    return convolution(data, weight, bias, stride, padding, dilation, groups, name)


def conv2d(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv2d",
) -> Tensor:
    """`convolution` of data[n, c, h, w] and weight[f, c / groups, kh, kw]; padding may be (top, left, bottom, right)."""
    require_rank(name, data, 4, "[n, c, h, w]")
    return convolution(data, weight, bias, stride, padding, dilation, groups, name)


def conv3d(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv3d",
) -> Tensor:
    """`convolution` of data[n, c, d, h, w] and weight[f, c / groups, kd, kh, kw]."""
    require_rank(name, data, 5, "[n, c, d, h, w]")
    return convolution(data, weight, bias, stride, padding, dilation, groups, name)


def capsule_conv2d(
    data: Tensor, weight: Tensor, stride: Numbers = 1, padding: Numbers = 0, name: str = "capsule_conv2d"
) -> Tensor:
    """Convolution whose elements are matrices: data[n, h, w, p, k, c], weight[kh, kw, k, q, c, f] -> [n, y, x, p, q, f].

    Where a convolution multiplies two numbers, this one multiplies two small matrices (Hinton et al., Matrix capsules).
    """
    require_rank(name, data, 6, "[n, h, w, p, k, c]")
    require_rank(name, weight, 6, "[kh, kw, k, q, c, f]")
    require_same_dtype(name, data, weight)
    batch, _, _, rows, inner, channels = data.shape
    kernel_h, kernel_w, weight_inner, columns, weight_channels, filters = weight.shape
    same = inner == weight_inner and channels == weight_channels
    require(same, name, "the matrices or the channels of both operands do not fit", data, weight)
    strides, (before, after) = per_dimension(name, "stride", stride, 2), two_sided(name, padding, 2)
    needs_pad = any(before) or any(after)
    padded = pad(data, (0, *before, 0, 0, 0), (0, *after, 0, 0, 0), name=f"{name}_pad") if needs_pad else data
    require(padded.shape[1] >= kernel_h and padded.shape[2] >= kernel_w, name, "the window is too large", padded, weight)
    height, width = (padded.shape[1] - kernel_h) // strides[0] + 1, (padded.shape[2] - kernel_w) // strides[1] + 1
    n, y, x, p, q, f = (
        Axis(axis, extent) for axis, extent in zip("nyxpqf", (batch, height, width, rows, columns, filters), strict=True)
    )
    ry, rx, k, rc = (
        reduce_axis(extent, axis) for axis, extent in (("ry", kernel_h), ("rx", kernel_w), ("k", inner), ("rc", channels))
    )
    product = padded[n, y * strides[0] + ry, x * strides[1] + rx, p, k, rc] * weight[ry, rx, k, q, rc, f]
    return tensor_from_body(name, (n, y, x, p, q, f), te_tensor.reduce_sum(product, (ry, rx, k, rc)))


def _workload(data: Shape, weight: Shape, stride: int, pad: int, dilation: int, groups: int, bias: int, relu: int) -> Tensor:
    x, kernel = placeholder(data, name="data"), placeholder(weight, name="weight", constant=True)
    vector = placeholder(weight[:1], name="bias", constant=True) if bias else None
    y = convolution(x, kernel, vector, stride, pad, dilation, groups, f"conv{len(data) - 2}d")
    return elementwise.relu(y) if relu else y


def _group_channels(name: str, channels: int, groups: int) -> int:
    require(groups >= 1 and channels % groups == 0, name, f"{channels} channels cannot form {groups} groups")
    return channels // groups


@operator("conv1d", example="conv1d:1,64,256,128,3,stride=2,pad=1")
def conv1d_workload(
    n: int,
    c: int,
    w: int,
    f: int,
    k: int,
    *,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: int = 0,
    relu: int = 0,
) -> Tensor:
    """Convolution of data[n, c, w] with f constant kernels of length k, perhaps with bias and relu."""
    weight = (f, _group_channels("conv1d", c, groups), k)
    return _workload((n, c, w), weight, stride, pad, dilation, groups, bias, relu)


@operator("conv2d", example="conv2d:1,64,56,56,64,3,stride=1,pad=1")
def conv2d_workload(
    n: int,
    c: int,
    h: int,
    w: int,
    f: int,
    k: int,
    *,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: int = 0,
    relu: int = 0,
) -> Tensor:
    """Convolution of data[n, c, h, w] with f constant kernels of k x k, perhaps with bias and relu."""
    weight = (f, _group_channels("conv2d", c, groups), k, k)
    return _workload((n, c, h, w), weight, stride, pad, dilation, groups, bias, relu)


@operator("conv3d", example="conv3d:1,16,8,28,28,32,3,stride=1,pad=1")
def conv3d_workload(
    n: int,
    c: int,
    d: int,
    h: int,
    w: int,
    f: int,
    k: int,
    *,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: int = 0,
    relu: int = 0,
) -> Tensor:
    """Convolution of data[n, c, d, h, w] with f constant kernels of k x k x k, perhaps with bias and relu."""
    weight = (f, _group_channels("conv3d", c, groups), k, k, k)
    return _workload((n, c, d, h, w), weight, stride, pad, dilation, groups, bias, relu)


@operator("depthwise_conv2d", example="depthwise_conv2d:1,96,56,56,3,stride=1,pad=1")
def depthwise_conv2d_workload(
    n: int,
    c: int,
    h: int,
    w: int,
    k: int,
    *,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    bias: int = 0,
    relu: int = 0,
) -> Tensor:
    """Convolution of each channel of data[n, c, h, w] with a constant kernel of its own, k x k."""
    return _workload((n, c, h, w), (c, 1, k, k), stride, pad, dilation, c, bias, relu)


@operator("capsule_conv2d", example="capsule_conv2d:1,16,16,32,32,3,stride=2,pad=1")
def capsule_conv2d_workload(
    n: int, h: int, w: int, c: int, f: int, k: int, *, stride: int = 1, pad: int = 0, capsule: int = 4
) -> Tensor:
    """Convolution of data[n, h, w, capsule, capsule, c], matrices in place of numbers, with constant kernels of k x k."""
    data = placeholder((n, h, w, capsule, capsule, c), name="data")
    weight = placeholder((k, k, capsule, capsule, c, f), name="weight", constant=True)
    return capsule_conv2d(data, weight, stride, pad)
