"""Window attributes that convolutions and poolings share: kernel, strides, dilations and padding, resolved to numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.errors import ModelError
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe


@dataclass(frozen=True)
class Window:
    """One number a spatial dimension; `padding` is all begins, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[int, ...]


def window_of(call: OperatorCall, kernel: tuple[int, ...]) -> Window:
    """The node's window over the spatial dimensions of the first input; `auto_pad` is worked out."""
    spatial = call.x.shape[2:]
    rank = len(spatial)
    if rank < 1:
        raise ModelError(f"{describe(call.node)} needs spatial dimensions, but its input has shape {list(call.x.shape)}")
    strides = call.integers("strides", [1] * rank)
    dilations = call.integers("dilations", [1] * rank)
    mode = call.text("auto_pad", "NOTSET")
    padding: tuple[int, ...] = (0,) * (2 * rank)
    if mode == "NOTSET":
        padding = call.integers("pads", padding)
    for what, given, length in (
        ("kernel_shape", kernel, rank),
        ("strides", strides, rank),
        ("dilations", dilations, rank),
        ("pads", padding, 2 * rank),
    ):
        if len(given) != length:
            raise ModelError(f"{describe(call.node)}: '{what}' has {len(given)} numbers, but {length} are needed")
        if what != "pads" and min(given) < 1:
            raise ModelError(f"{describe(call.node)}: '{what}' is {list(given)}; its numbers must be at least 1")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        padding = _same_padding(spatial, kernel, strides, dilations, upper=mode == "SAME_UPPER")
    return Window(kernel, strides, dilations, padding)


def _same_padding(
    spatial: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], upper: bool
) -> tuple[int, ...]:
    """So much padding that the result has ceil(extent / stride) elements; an odd rest goes to the end (`upper`) or front."""
    totals = []
    for extent, size, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        count = -(-extent // stride)
        totals.append(max((count - 1) * stride + (size - 1) * dilation + 1 - extent, 0))
    return shared_out(totals, upper)


def shared_out(totals: list[int], upper: bool) -> tuple[int, ...]:
    """Total paddings as all begins, then all ends; an odd rest goes to the end (`upper`) or front."""
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*small, *large) if upper else (*large, *small)
