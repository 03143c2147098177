"""Two-dimensional pooling in NCHW layout.

y = max_pool2d(x, kernel=3, stride=2, padding=1)
y = average_pool2d(x, kernel=2, stride=2, ceil_mode=True, count_include_pad=False)
y = global_average_pool(x)                                      # [n, c, 1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansor_py.te import expr
from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import Axis, Const, Expr, const, reduction_identity
from ansor_py.te.ops.checks import four_sided, pair, require, require_float, require_rank
from ansor_py.te.ops.layout import pad
from ansor_py.te.ops.reduction import ReduceExpression, reduce_max, reduce_mean
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

Pair = int | Sequence[int]


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
            return const(self.kernel, expr.INDEX)
        start = position * self.stride - self.before
        first = expr.maximum((low - start + (self.dilation - 1)) // self.dilation, 0) if -self.before < low else 0
        end = expr.minimum((high - 1 - start) // self.dilation + 1, self.kernel) if last > high else self.kernel
        return expr.binary("sub", end, first)


def max_pool2d(
    data: Tensor,
    kernel: Pair,
    stride: Pair | None = None,
    padding: int | Sequence[int] = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    name: str = "max_pool2d",
) -> Tensor:
    """The largest element of each window of data[n, c, h, w]; padding never wins. `stride` is by default the kernel."""
    windows = _windows("max_pool2d", data, kernel, stride, padding, dilation, ceil_mode)
    fill = reduction_identity("max", data.dtype).value
    return _pool(data, windows, te_tensor.reduce_max, float(fill), name)


def average_pool2d(
    data: Tensor,
    kernel: Pair,
    stride: Pair | None = None,
    padding: int | Sequence[int] = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    name: str = "average_pool2d",
) -> Tensor:
    """The mean of each window of data[n, c, h, w]: a sum, then a division by the number of elements in the window.

    Padding counts as elements only if `count_include_pad`; what `ceil_mode` appends never does.
    """
    require_float("average_pool2d", data)
    windows = _windows("average_pool2d", data, kernel, stride, padding, dilation, ceil_mode)
    total = _pool(data, windows, te_tensor.reduce_sum, 0.0, f"{name}_sum")
    assert isinstance(total.op, te_tensor.Compute)
    n, c, y, x = total.op.axes
    count = windows[0].elements(y, count_include_pad) * windows[1].elements(x, count_include_pad)
    factor = (
        const(1 / count.value, data.dtype) if isinstance(count, Const) else const(1, data.dtype) / expr.cast(count, data.dtype)
    )
    return tensor_from_body(name, (n, c, y, x), total[n, c, y, x] * factor)


def global_average_pool(data: Tensor, name: str = "global_average_pool") -> Tensor:
    """The mean over all spatial dimensions of data[n, c, ...], kept with extent 1."""
    require(len(data.shape) >= 3, "global_average_pool", "needs dimensions [n, c, ...]", data)
    return reduce_mean(data, range(2, len(data.shape)), keepdims=True, name=name)


def global_max_pool(data: Tensor, name: str = "global_max_pool") -> Tensor:
    """The maximum over all spatial dimensions of data[n, c, ...], kept with extent 1."""
    require(len(data.shape) >= 3, "global_max_pool", "needs dimensions [n, c, ...]", data)
    return reduce_max(data, range(2, len(data.shape)), keepdims=True, name=name)


def _windows(
    operator_name: str, data: Tensor, kernel: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[_Window, _Window]:
    require_rank(operator_name, data, 4, "[n, c, h, w]")
    kernels, dilations = pair(operator_name, "kernel", kernel), pair(operator_name, "dilation", dilation)
    strides = kernels if stride is None else pair(operator_name, "stride", stride)
    sides = four_sided(operator_name, padding)
    result = []
    for d in (0, 1):
        window = _Window(data.shape[2 + d], kernels[d], strides[d], dilations[d], sides[d], sides[2 + d], ceil_mode)
        require(
            max(sides[d], sides[2 + d]) < window.span, operator_name, f"padding {list(sides)} is as wide as the window", data
        )
        fits = window.span <= window.extent + window.before + window.after
        require(fits, operator_name, f"the window of {window.span} elements is too large", data)
        result.append(window)
    return result[0], result[1]


def _pool(data: Tensor, windows: tuple[_Window, _Window], reduce: ReduceExpression, fill: float, name: str) -> Tensor:
    before, after = [w.before for w in windows], [w.fill_after for w in windows]
    padded = pad(data, (0, 0, *before), (0, 0, *after), fill, f"{name}_pad") if any(before) or any(after) else data
    n, c = Axis("n", data.shape[0]), Axis("c", data.shape[1])
    y, x = Axis("y", windows[0].count), Axis("x", windows[1].count)
    ry, rx = reduce_axis(windows[0].kernel, "ry"), reduce_axis(windows[1].kernel, "rx")
    row, column = (a * w.stride + r * w.dilation for a, r, w in zip((y, x), (ry, rx), windows, strict=True))
    return tensor_from_body(name, (n, c, y, x), reduce(padded[n, c, row, column], (ry, rx)))


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
