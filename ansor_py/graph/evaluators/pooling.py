"""Pooling over windows of any rank, with every version's padding, dilation and rounding of the output's extents.

Windows are views of the input that is padded with what does not count: the lowest number for a maximum, zero for a sum.

    cut = Windows.of(call, call.x.shape[2:])
    cut.values(call.x, fill=0)          # [N, C, *outputs, *kernel]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator


@dataclass(frozen=True)
class Windows:
    """How a kernel moves over the spatial axes: extents, strides, dilations and paddings of each axis."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    outputs: Sequence[int]

    @classmethod
    def of(cls, call: EvaluatorCall, extents: Sequence[int], kernel: Sequence[int] | None = None) -> Windows:
        """What the attributes of a pooling or convolution say for an input of these extents."""
        rank = len(extents)
        sizes = [int(size) for size in (kernel if kernel is not None else call.get("kernel_shape"))]
        strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
        pads, auto = call.get("pads", [0] * 2 * rank), call.get("auto_pad", "NOTSET")
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
        before, after, outputs = list(pads[:rank]), list(pads[rank:]), []
        for axis, (extent, span, stride) in enumerate(zip(extents, spans, strides, strict=True)):
            if auto in ("SAME_UPPER", "SAME_LOWER"):
                count = -(-extent // stride)
                missing = max((count - 1) * stride + span - extent, 0)
                before[axis] = missing // 2 if auto == "SAME_UPPER" else -(-missing // 2)
                after[axis] = missing - before[axis]
            else:
                if auto == "VALID":
                    before[axis] = after[axis] = 0
                room, up = extent + before[axis] + after[axis] - span, bool(call.get("ceil_mode", 0))
                count = (-(-room // stride) if up else room // stride) + 1
                if up and (count - 1) * stride >= extent + before[axis]:  # it would start in the padding behind
                    count -= 1
            outputs.append(count)
        return cls(sizes, strides, dilations, before, after, outputs)

    def values(self, x: Numbers, fill: Any) -> Numbers:
        """The elements of every window [N, C, *outputs, *kernel]; `fill` stands for those outside."""
        widths = [(0, 0), (0, 0)]
        for axis, extent in enumerate(x.shape[2:]):
            last = (self.outputs[axis] - 1) * self.strides[axis] + (self.kernel[axis] - 1) * self.dilations[axis] + 1
            widths.append((self.before[axis], max(last - extent - self.before[axis], 0)))
        padded = np.pad(x, widths, constant_values=fill)
        spans = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        axes = tuple(range(2, x.ndim))
        views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        starts = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(self.outputs, self.strides, strict=True))
        return views[(slice(None), slice(None), *starts, *(slice(None, None, step) for step in self.dilations))]

    def counted(self, extents: Sequence[int], with_padding: bool) -> Numbers:
        """How many elements of each window [*outputs] lie inside of the input, or inside of it and its stated padding."""
        inside = np.ones((1, 1, *extents))
        if not with_padding:
            counts: Numbers = self.values(inside, 0).sum(tuple(range(2 + len(extents), 2 + 2 * len(extents))))
            return np.asarray(counts[0, 0])
        padded = np.pad(inside, [(0, 0), (0, 0), *zip(self.before, self.after, strict=True)], constant_values=1)
        rank = len(extents)
        moved = Windows(self.kernel, self.strides, self.dilations, [0] * rank, [0] * rank, self.outputs)
        return moved.counted(padded.shape[2:], with_padding=False)


def _window_axes(x: Numbers) -> tuple[int, ...]:
    """The axes of a window's elements in what `Windows.values` gives for `x`."""
    return tuple(range(x.ndim, 2 * x.ndim - 2))


@evaluator("AveragePool")
def average_pool(call: EvaluatorCall) -> tuple[Any, ...]:
    """The mean of each window, of what lies inside of the input or, with `count_include_pad`, of its padding too."""
    x = call.x
    cut = Windows.of(call, x.shape[2:])
    wide = x.astype(np.result_type(x.dtype, np.float32))
    total = cut.values(wide, 0).sum(_window_axes(x))
    return ((total / cut.counted(x.shape[2:], bool(call.get("count_include_pad", 0)))).astype(x.dtype),)


@evaluator("LpPool")
def lp_pool(call: EvaluatorCall) -> tuple[Any, ...]:
    """The p-norm of each window."""
    x, order = call.x, call.get("p", 2)
    cut = Windows.of(call, x.shape[2:])
    wide = np.abs(x).astype(np.result_type(x.dtype, np.float32))
    return (((cut.values(wide, 0) ** order).sum(_window_axes(x)) ** (1 / order)).astype(x.dtype),)


@evaluator("GlobalLpPool")
def global_lp_pool(call: EvaluatorCall) -> tuple[Any, ...]:
    """The p-norm of every channel."""
    x, order = call.x, call.get("p", 2)
    wide = np.abs(x).astype(np.result_type(x.dtype, np.float32))
    return (((wide**order).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / order)).astype(x.dtype),)


@evaluator("GlobalMaxPool")
def global_max_pool(call: EvaluatorCall) -> tuple[Any, ...]:
    """The maximum of every channel."""
    return (call.x.max(tuple(range(2, call.x.ndim)), keepdims=True),)


@evaluator("MaxPool")
def max_pool(call: EvaluatorCall) -> tuple[Any, ...]:
    """The maximum of each window and, as indices, where in the whole input it first is."""
    x = call.x
    cut = Windows.of(call, x.shape[2:])
    lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    values = cut.values(x, lowest)
    flat = values.reshape(*values.shape[: x.ndim], -1)
    if call.outputs < 2:
        return (flat.max(-1),)
    order = np.arange(x[0, 0].size)
    places = order.reshape(x.shape[:1:-1]).T if call.get("storage_order", 0) else order.reshape(x.shape[2:])
    # The position of every element counts only inside: outside ones are -1 and never the first maximum of a window.
    inside = cut.values(np.broadcast_to(places, (1, 1, *places.shape)), -1).reshape(1, 1, *flat.shape[2:])
    first = np.where((flat == flat.max(-1, keepdims=True)) & (inside >= 0), 1, 0).argmax(-1)[..., None]
    chosen = np.take_along_axis(np.broadcast_to(inside, flat.shape), first, -1)[..., 0]
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * (x.ndim - 2)) * order.size
    return (flat.max(-1), chosen + planes)
