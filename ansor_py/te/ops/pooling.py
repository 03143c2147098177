"""Pooling over windows of one to three spatial dimensions (NCW, NCHW, NCDHW), and over all of them.

y = max_pool2d(x, kernel=3, stride=2, padding=1)
y = average_pool(x, kernel=(2, 2, 2), stride=2, ceil_mode=True, count_include_pad=False)     # x[n, c, d, h, w]
y = lp_pool(x, kernel=3, p=2)
y = global_average_pool(x)                                      # [n, c, 1, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ansor_py.te import expr
from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr, const, reduction_identity, select
from ansor_py.te.ops.checks import per_dimension, require, require_float, require_rank, two_sided
from ansor_py.te.ops.convolution import spatial_names
from ansor_py.te.ops.layout import pad
from ansor_py.te.ops.position import equal_or_nan
from ansor_py.te.ops.reduction import ReduceExpression, reduce_max, reduce_mean
from ansor_py.te.ops.registry import operator
from ansor_py.te.ops.vector_norm import absolute_power, root
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

Numbers = int | Sequence[int]


@dataclass(frozen=True)
class _Window:
    """One dimension of a pooling: where its windows lie."""

    extent: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    ceil_mode: bool

    @property
    def span(self) -> int:
        """Elements from the first to the last of a window."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def count(self) -> int:
        """Number of windows; the last one must begin inside the input or the padding before it."""
        room = self.extent + self.before + self.after - self.span
        windows = (-(-room // self.stride) if self.ceil_mode else room // self.stride) + 1
        return windows - 1 if self.ceil_mode and (windows - 1) * self.stride >= self.extent + self.before else windows

    @property
    def fill_after(self) -> int:
        """Elements to append so that every window can be read."""
        return max(0, (self.count - 1) * self.stride + self.span - self.before - self.extent)

    def elements(self, position: Axis, include_pad: bool) -> Expr:
        """How many elements of the window at `position` lie in the input, or in the input and its declared padding."""
        low, high = (-self.before, self.extent + self.after) if include_pad else (0, self.extent)
        last = (self.count - 1) * self.stride - self.before + self.span
        if low <= -self.before and last <= high:
            return const(self.kernel, INDEX)
        start = position * self.stride - self.before
        first = expr.maximum((low - start + (self.dilation - 1)) // self.dilation, 0) if -self.before < low else 0
        end = expr.minimum((high - 1 - start) // self.dilation + 1, self.kernel) if last > high else self.kernel
        return expr.binary("sub", end, first)


def max_pool(
    data: Tensor,
    kernel: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    name: str = "max_pool",
) -> Tensor:
    """The largest element of each window of data[n, c, ...]; padding never wins. `stride` is by default the kernel."""
    windows = _windows(name, data, kernel, stride, padding, dilation, ceil_mode)
    return _pool(data, windows, lambda v: v, te_tensor.reduce_max, reduction_identity("max", data.dtype), name)


def max_pool_indices(
    data: Tensor,
    kernel: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    column_major: bool = False,
    name: str = "max_pool_indices",
) -> Tensor:
    """Where the elements that `max_pool` chooses lie: their numbers in all of data, of equal ones the first's.

    `column_major` numbers the spatial dimensions of an image with the first of them fastest.
    """
    windows = _windows(name, data, kernel, stride, padding, dilation, ceil_mode)
    lowest = reduction_identity("max", data.dtype)
    largest = _pool(data, windows, lambda v: v, te_tensor.reduce_max, lowest, f"{name}_max")
    axes, taps, places = _window_axes(data, windows)
    inside = [expr.logical_and(p >= 0, p < w.extent) for p, w in zip(places, windows, strict=True)]
    order = list(range(len(windows)))
    number: Expr = axes[0] * data.shape[1] + axes[1]
    for dimension in reversed(order) if column_major else order:
        number = number * windows[dimension].extent + places[dimension]
    found = equal_or_nan(data[(*axes[:2], *places)], largest[axes])
    outside = const(data.size, INDEX)
    chosen = select(expr.logical_and(*inside), select(found, number, outside), outside)
    return tensor_from_body(name, axes, te_tensor.reduce_min(chosen, taps))


def average_pool(
    data: Tensor,
    kernel: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    name: str = "average_pool",
) -> Tensor:
    """The mean of each window of data[n, c, ...], over its elements inside the input, or inside the padding too.

    What `ceil_mode` adds beyond the declared padding never counts.
    """
    require_float(name, data)
    windows = _windows(name, data, kernel, stride, padding, dilation, ceil_mode)
    total = _pool(data, windows, lambda v: v, te_tensor.reduce_sum, const(0, data.dtype), f"{name}_sum")
    assert isinstance(total.op, te_tensor.Compute)
    axes = total.op.axes
    count: Expr = const(1, INDEX)
    for window, place in zip(windows, axes[2:], strict=True):
        count = count * window.elements(place, count_include_pad)
    factor = (
        const(1 / count.value, data.dtype) if isinstance(count, Const) else const(1, data.dtype) / expr.cast(count, data.dtype)
    )
    return tensor_from_body(name, axes, total[axes] * factor)


def lp_pool(
    data: Tensor,
    kernel: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    p: float = 2,
    name: str = "lp_pool",
) -> Tensor:
    """The p-norm of each window of data[n, c, ...]."""
    require_float(name, data)
    windows = _windows(name, data, kernel, stride, padding, dilation, ceil_mode)
    zero = const(0, data.dtype)
    total = _pool(data, windows, lambda v: absolute_power(v, p), te_tensor.reduce_sum, zero, f"{name}_sum")
    assert isinstance(total.op, te_tensor.Compute)
    return tensor_from_body(name, total.op.axes, root(total[total.op.axes], p))


def max_pool2d(
    data: Tensor,
    kernel: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    name: str = "max_pool2d",
) -> Tensor:
    """`max_pool` of data[n, c, h, w]."""
    require_rank(name, data, 4, "[n, c, h, w]")
    return max_pool(data, kernel, stride, padding, dilation, ceil_mode, name)


def average_pool2d(
    data: Tensor,
    kernel: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    name: str = "average_pool2d",
) -> Tensor:
    """`average_pool` of data[n, c, h, w]."""
    require_rank(name, data, 4, "[n, c, h, w]")
    return average_pool(data, kernel, stride, padding, dilation, ceil_mode, count_include_pad, name)


def global_average_pool(data: Tensor, name: str = "global_average_pool") -> Tensor:
    """The mean over all spatial dimensions of data[n, c, ...], kept with extent 1."""
    require(len(data.shape) >= 3, "global_average_pool", "needs dimensions [n, c, ...]", data)
    return reduce_mean(data, range(2, len(data.shape)), keepdims=True, name=name)


def global_max_pool(data: Tensor, name: str = "global_max_pool") -> Tensor:
    """The maximum over all spatial dimensions of data[n, c, ...], kept with extent 1."""
    require(len(data.shape) >= 3, "global_max_pool", "needs dimensions [n, c, ...]", data)
    return reduce_max(data, range(2, len(data.shape)), keepdims=True, name=name)


def _windows(
    name: str, data: Tensor, kernel: Numbers, stride: Numbers | None, padding: Numbers, dilation: Numbers, ceil_mode: bool
) -> list[_Window]:
    rank = len(data.shape) - 2
    require(rank >= 1, name, f"'{data.name}' must have dimensions [n, c, ...]", data)
    kernels, dilations = per_dimension(name, "kernel", kernel, rank), per_dimension(name, "dilation", dilation, rank)
    strides = kernels if stride is None else per_dimension(name, "stride", stride, rank)
    before, after = two_sided(name, padding, rank)
    result = []
    for i, extent in enumerate(data.shape[2:]):
        window = _Window(extent, kernels[i], strides[i], dilations[i], before[i], after[i], ceil_mode)
        widest = max(before[i], after[i])
        require(widest < window.span, name, f"padding {[*before, *after]} is as wide as the window", data)
        fits = window.span <= extent + before[i] + after[i] or (ceil_mode and window.count >= 1)
        require(fits, name, f"the window of {window.span} elements is too large", data)
        result.append(window)
    return result


def _window_axes(data: Tensor, windows: Sequence[_Window]) -> tuple[tuple[Axis, ...], list[Axis], list[Expr]]:
    """The result's axes, the axes within a window, and the elements of data that these are (perhaps outside of it)."""
    names = spatial_names(len(windows))
    places = [Axis(axis, w.count) for axis, w in zip(names, windows, strict=True)]
    taps = [reduce_axis(w.kernel, f"r{axis}") for axis, w in zip(names, windows, strict=True)]
    elements = [a * w.stride + r * w.dilation - w.before for a, r, w in zip(places, taps, windows, strict=True)]
    return (Axis("n", data.shape[0]), Axis("c", data.shape[1]), *places), taps, elements


def _pool(
    data: Tensor, windows: Sequence[_Window], prepare: Callable[[Expr], Expr], reduce: ReduceExpression, fill: Const, name: str
) -> Tensor:
    before, after = [w.before for w in windows], [w.fill_after for w in windows]
    needs_pad = any(before) or any(after)
    padded = pad(data, (0, 0, *before), (0, 0, *after), fill.value, f"{name}_pad") if needs_pad else data
    axes, taps, _ = _window_axes(data, windows)
    elements = [a * w.stride + r * w.dilation for a, r, w in zip(axes[2:], taps, windows, strict=True)]
    return tensor_from_body(name, axes, reduce(prepare(padded[(*axes[:2], *elements)]), taps))


@operator("max_pool2d", example="max_pool2d:1,64,112,112,3,stride=2,pad=1")
def max_pool2d_workload(n: int, c: int, h: int, w: int, k: int, *, stride: int = 1, pad: int = 0, ceil_mode: int = 0) -> Tensor:
    """Maximum of windows of k x k of data[n, c, h, w]."""
    return max_pool2d(placeholder((n, c, h, w), name="data"), k, stride, pad, ceil_mode=bool(ceil_mode))


@operator("average_pool2d", example="average_pool2d:1,64,56,56,2,stride=2")
def average_pool2d_workload(
    n: int, c: int, h: int, w: int, k: int, *, stride: int = 1, pad: int = 0, ceil_mode: int = 0
) -> Tensor:
    """Mean of windows of k x k of data[n, c, h, w]."""
    return average_pool2d(placeholder((n, c, h, w), name="data"), k, stride, pad, ceil_mode=bool(ceil_mode))


@operator("global_average_pool", example="global_average_pool:1,512,7,7")
def global_average_pool_workload(n: int, c: int, h: int, w: int) -> Tensor:
    """Mean of each channel of data[n, c, h, w]."""
    return global_average_pool(placeholder((n, c, h, w), name="data"))


@operator("global_max_pool", example="global_max_pool:1,512,7,7")
def global_max_pool_workload(n: int, c: int, h: int, w: int) -> Tensor:
    """Maximum of each channel of data[n, c, h, w]."""
    return global_max_pool(placeholder((n, c, h, w), name="data"))
