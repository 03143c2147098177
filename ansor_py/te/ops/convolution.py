"""Two-dimensional convolution in NCHW layout, with groups and dilation.

    y = conv2d(x, weight, bias, stride=2, padding=(1, 1, 1, 1))   # x[n, c, h, w], weight[f, c / groups, kh, kw]

Non-zero padding makes a stage of its own, so that the convolution reads a padded tensor and its indices stay affine.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr
from ansor_py.te.ops import elementwise
from ansor_py.te.ops.checks import four_sided, pair, require, require_channels, require_rank, require_same_dtype
from ansor_py.te.ops.layout import pad
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

Shape = tuple[int, int, int, int]


def conv2d(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    name: str = "conv2d",
) -> Tensor:
    """Convolution (without flipping the kernel, as everybody does) of data[n, c, h, w] and weight[f, c / groups, kh, kw].

    `padding` is one number, (vertical, horizontal) or (top, left, bottom, right). The bias is added in a stage of its own.
    """
    require_rank("conv2d", data, 4, "[n, c, h, w]")
    require_rank("conv2d", weight, 4, "[f, c / groups, kh, kw]")
    require_same_dtype("conv2d", data, weight)
    strides, dilations = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    batch, channels, _, _ = data.shape
    filters, group_channels, kernel_h, kernel_w = weight.shape
    require(groups >= 1 and filters % groups == 0, "conv2d", f"{filters} filters cannot form {groups} groups", data, weight)
    require(
        group_channels * groups == channels, "conv2d", f"{channels} channels are not {groups} x {group_channels}", data, weight
    )
    top, left, bottom, right = four_sided("conv2d", padding)
    padded = pad(data, (0, 0, top, left), (0, 0, bottom, right), name=f"{name}_pad") if top or left or bottom or right else data
    window = ((kernel_h - 1) * dilations[0] + 1, (kernel_w - 1) * dilations[1] + 1)
    require(
        padded.shape[2] >= window[0] and padded.shape[3] >= window[1],
        "conv2d",
        f"the window {list(window)} is too large",
        padded,
        weight,
    )
    height, width = ((padded.shape[2 + d] - window[d]) // strides[d] + 1 for d in (0, 1))
    n, f, y, x = Axis("n", batch), Axis("f", filters), Axis("y", height), Axis("x", width)
    rc, ry, rx = reduce_axis(group_channels, "rc"), reduce_axis(kernel_h, "ry"), reduce_axis(kernel_w, "rx")
    one_channel = groups > 1 and group_channels == 1  # depthwise: no reduction over channels
    inner: Expr = Const(0, INDEX) if one_channel else rc
    # The quotient folds away where a group has one filter, and with it everything that is not affine.
    channel = inner if groups == 1 else f // (filters // groups) * group_channels + inner
    element = padded[n, channel, y * strides[0] + ry * dilations[0], x * strides[1] + rx * dilations[1]]
    reduction = (ry, rx) if one_channel else (rc, ry, rx)
    result = tensor_from_body(name, (n, f, y, x), te_tensor.reduce_sum(element * weight[f, inner, ry, rx], reduction))
    if bias is None:
        return result
    require_channels("conv2d", "bias", bias, filters)
    axes = (n, f, y, x)
    return tensor_from_body(f"{name}_bias", axes, result[axes] + bias[f])


def _workload(data: Shape, weight: Shape, stride: int, pad: int, dilation: int, groups: int, bias: int, relu: int) -> Tensor:
    x, kernel = placeholder(data, name="data"), placeholder(weight, name="weight", constant=True)
    vector = placeholder(weight[:1], name="bias", constant=True) if bias else None
    y = conv2d(x, kernel, vector, stride, pad, dilation, groups)
    return elementwise.relu(y) if relu else y


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
    require(groups >= 1 and c % groups == 0, "conv2d", f"{c} channels cannot form {groups} groups")
    return _workload((n, c, h, w), (f, c // groups, k, k), stride, pad, dilation, groups, bias, relu)


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
