"""Transposed convolution (the gradient of a convolution, "deconvolution") over one to three spatial dimensions.

    y = conv_transpose(x, weight, stride=2, padding=1)      # x[n, c, h, w], weight[c, f / groups, kh, kw]

Output element `o` of one dimension sums `x[i] * w[k]` over all `i * stride + k * dilation = o + padding`. The outputs with the
same remainder modulo the stride use the same taps: they are an output *phase*, an ordinary convolution of the input with every
`stride`-th tap. All phases are computed by one reduction, which multiplies no inserted zeros, and which leaves them side by
side, so that the result is a reshape of it:

    phases[n, f, q, p] = sum over c, t of
        x[n, c, q + (p + padding) // stride - t] * w[c, f, (p + padding) % stride + t * stride]
    y[n, f, o] = phases[n, f, o // stride, o % stride]

A dimension with both a stride and a dilation has no such phases; there every tap is taken where it meets an input element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr, binary, const, equal, logical_and, select
from ansor_py.te.ops.checks import per_dimension, require, require_rank, require_same_dtype, two_sided
from ansor_py.te.ops.convolution import add_bias, spatial_names
from ansor_py.te.ops.layout import pad
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

Numbers = int | Sequence[int]


@dataclass(frozen=True)
class _Dimension:
    """One spatial dimension: how its outputs are split into phases and which padded input elements they read."""

    extent: int
    kernel: int
    stride: int
    dilation: int
    before: int
    output: int

    @property
    def has_phases(self) -> bool:
        """Whether outputs of equal remainder share their taps; else there is one phase that looks at every tap."""
        return self.stride == 1 or self.dilation == 1

    @property
    def phases(self) -> int:
        """How many phases there are."""
        return self.stride if self.has_phases else 1

    @property
    def taps(self) -> int:
        """Kernel elements of a phase (the last ones of some phases may lie behind the kernel)."""
        return -(-self.kernel // self.phases)

    @property
    def count(self) -> int:
        """How many outputs the longest phase has."""
        return -(-self.output // self.phases)

    @property
    def reach(self) -> int:
        """How far behind its quotient an output reads the input (only where there are phases)."""
        return (self.taps - 1) * self.dilation

    @property
    def pad_before(self) -> int:
        """Zeros in front of the input."""
        return max(self.reach - self.before // self.phases, 0) if self.has_phases else 0

    @property
    def pad_after(self) -> int:
        """Zeros behind the input."""
        last = self.count - 1 + (self.phases - 1 + self.before) // self.phases
        return max(last + 1 - self.extent, 0) if self.has_phases else 0

    def tap(self, phase: Expr, tap: Axis) -> tuple[Expr, list[Expr]]:
        """The kernel element of a phase's tap, and what must hold for it to exist."""
        first = self._over_phases(
            phase, lambda p: (p + self.before) % self.phases, binary("mod", phase + self.before, self.phases)
        )
        element = first + tap * self.phases
        return element, [] if self.kernel % self.phases == 0 else [element < self.kernel]

    def source(self, phase: Expr, place: Axis, tap: Axis) -> tuple[Expr, list[Expr]]:
        """The padded input element that a tap meets at a phase's output, and what must hold for it to exist."""
        if self.has_phases:
            shift = self._over_phases(phase, lambda p: (p + self.before) // self.phases, (phase + self.before) // self.phases)
            return place + shift + self.pad_before - tap * self.dilation, []
        distance = place + self.before - tap * self.dilation
        source = distance // self.stride
        return source, [equal(distance % self.stride, 0), distance >= 0, source < self.extent]

    def _over_phases(self, phase: Expr, value: Callable[[int], int], otherwise: Expr) -> Expr:
        """Quotient or remainder of phase + before over the phases: linear where no phase but perhaps the second wraps round."""
        if self.phases > 2 and self.before % self.phases:
            return otherwise
        step = value(1) - value(0) if self.phases > 1 else 0
        return phase * step + value(0)


def conv_transpose(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv_transpose",
) -> Tensor:
    """Transposed convolution of data[n, c, ...] and weight[c, f / groups, ...]: the result is [n, f, ...].

    A spatial extent becomes `(extent - 1) * stride + (kernel - 1) * dilation + 1 + output_padding` less the `padding` on both
    sides: one number, one a dimension, or all begins and then all ends.
    """
    rank = len(data.shape) - 2
    require(rank >= 1, name, f"'{data.name}' must have dimensions [n, c, ...]", data)
    require_rank(name, weight, rank + 2, "[c, f / groups, ...]")
    require_same_dtype(name, data, weight)
    channels, group_filters = weight.shape[:2]
    require(data.shape[1] == channels, name, f"{data.shape[1]} channels meet a weight for {channels}", data, weight)
    require(groups >= 1 and channels % groups == 0, name, f"{channels} channels cannot form {groups} groups", data, weight)
    dimensions = _dimensions(name, data, weight, stride, padding, output_padding, dilation)
    before, after = ([getattr(d, side) for d in dimensions] for side in ("pad_before", "pad_after"))
    needs_pad = any(before) or any(after)
    padded = pad(data, (0, 0, *before), (0, 0, *after), name=f"{name}_pad") if needs_pad else data
    phases = _phases(padded, weight, dimensions, groups, f"{name}_phases")
    n, f = Axis("n", data.shape[0]), Axis("f", group_filters * groups)
    places = [Axis(axis, d.output) for axis, d in zip(spatial_names(rank), dimensions, strict=True)]
    if all(d.phases == 1 for d in dimensions):  # the only phase is the result
        return phases if bias is None else add_bias(phases, bias, name)
    parts: list[Expr] = []
    for place, d in zip(places, dimensions, strict=True):
        parts += [place // d.phases, binary("mod", place, d.phases)] if d.phases > 1 else [place]
    ordered = tensor_from_body(name, (n, f, *places), phases[(n, f, *parts)])
    return ordered if bias is None else add_bias(ordered, bias, name)


def _dimensions(
    name: str,
    data: Tensor,
    weight: Tensor,
    stride: Numbers,
    padding: Numbers,
    output_padding: Numbers,
    dilation: Numbers,
) -> list[_Dimension]:
    rank = len(data.shape) - 2
    strides, dilations = per_dimension(name, "stride", stride, rank), per_dimension(name, "dilation", dilation, rank)
    extra = per_dimension(name, "output padding", output_padding, rank, least=0)
    before, after = two_sided(name, padding, rank)
    result = []
    for i, (extent, kernel) in enumerate(zip(data.shape[2:], weight.shape[2:], strict=True)):
        output = (extent - 1) * strides[i] + (kernel - 1) * dilations[i] + 1 + extra[i] - before[i] - after[i]
        require(output >= 0 and kernel >= 1, name, f"padding {padding} leaves nothing of dimension {i + 2}", data, weight)
        result.append(_Dimension(extent, kernel, strides[i], dilations[i], before[i], output))
    return result


def _phases(padded: Tensor, weight: Tensor, dimensions: Sequence[_Dimension], groups: int, name: str) -> Tensor:
    """phases[n, f, ...] with two axes a dimension, place and phase; with one where there is only one phase."""
    channels, group_filters = weight.shape[:2]
    group_channels = channels // groups
    names = spatial_names(len(dimensions))
    n, f = Axis("n", padded.shape[0]), Axis("f", group_filters * groups)
    phase: list[Expr] = [
        Axis(f"p{axis}", d.phases) if d.phases > 1 else Const(0, INDEX) for axis, d in zip(names, dimensions, strict=True)
    ]
    places = [Axis(f"q{axis}", d.count) for axis, d in zip(names, dimensions, strict=True)]
    rc = reduce_axis(group_channels, "rc")
    taps = [reduce_axis(d.taps, f"r{axis}") for axis, d in zip(names, dimensions, strict=True)]
    one_channel = groups > 1 and group_channels == 1
    inner: Expr = Const(0, INDEX) if one_channel else rc
    channel = inner if groups == 1 else f // group_filters * group_channels + inner
    filter_index: Expr = f if groups == 1 else binary("mod", f, group_filters)
    elements, sources, conditions = [], [], []
    for d, p, q, t in zip(dimensions, phase, places, taps, strict=True):
        element, exists = d.tap(p, t)
        source, meets = d.source(p, q, t)
        elements.append(element)
        sources.append(source)
        conditions += [*exists, *meets]
    product = padded[(n, channel, *sources)] * weight[(channel, filter_index, *elements)]
    taken = select(logical_and(*conditions), product, const(0, padded.dtype))
    reduction = te_tensor.reduce_sum(taken, taps if one_channel else (rc, *taps))
    pairs = [(q, p) if isinstance(p, Axis) else (q,) for q, p in zip(places, phase, strict=True)]
    return tensor_from_body(name, (n, f, *(axis for pair in pairs for axis in pair)), reduction)


def conv1d_transpose(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv1d_transpose",
) -> Tensor:
    """`conv_transpose` of data[n, c, w]."""
    require_rank(name, data, 3, "[n, c, w]")
    return conv_transpose(data, weight, bias, stride, padding, output_padding, dilation, groups, name)


def conv2d_transpose(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv2d_transpose",
) -> Tensor:
    """`conv_transpose` of data[n, c, h, w]."""
    require_rank(name, data, 4, "[n, c, h, w]")
    return conv_transpose(data, weight, bias, stride, padding, output_padding, dilation, groups, name)


def conv3d_transpose(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
    name: str = "conv3d_transpose",
) -> Tensor:
    """`conv_transpose` of data[n, c, d, h, w]."""
    require_rank(name, data, 5, "[n, c, d, h, w]")
    return conv_transpose(data, weight, bias, stride, padding, output_padding, dilation, groups, name)


def _workload(data: tuple[int, ...], filters: int, k: int, stride: int, pad: int, output_pad: int) -> Tensor:
    rank = len(data) - 2
    weight = placeholder((data[1], filters, *[k] * rank), name="weight", constant=True)
    return conv_transpose(placeholder(data, name="data"), weight, None, stride, pad, output_pad, name=f"conv{rank}d_transpose")


@operator("conv1d_transpose", example="conv1d_transpose:1,64,128,32,4,stride=2,pad=1")
def conv1d_transpose_workload(
    n: int, c: int, w: int, f: int, k: int, *, stride: int = 1, pad: int = 0, output_pad: int = 0
) -> Tensor:
    """Transposed convolution of data[n, c, w] with constant kernels of length k to f channels."""
    return _workload((n, c, w), f, k, stride, pad, output_pad)


@operator("conv2d_transpose", example="conv2d_transpose:1,64,16,16,32,4,stride=2,pad=1")
def conv2d_transpose_workload(
    n: int, c: int, h: int, w: int, f: int, k: int, *, stride: int = 1, pad: int = 0, output_pad: int = 0
) -> Tensor:
    """Transposed convolution of data[n, c, h, w] with constant kernels of k x k to f channels."""
    return _workload((n, c, h, w), f, k, stride, pad, output_pad)


@operator("conv3d_transpose", example="conv3d_transpose:1,16,4,14,14,8,4,stride=2,pad=1")
def conv3d_transpose_workload(
    n: int, c: int, d: int, h: int, w: int, f: int, k: int, *, stride: int = 1, pad: int = 0, output_pad: int = 0
) -> Tensor:
    """Transposed convolution of data[n, c, d, h, w] with constant kernels of k x k x k to f channels."""
    return _workload((n, c, d, h, w), f, k, stride, pad, output_pad)
