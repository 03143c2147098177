"""ONNX operators that move elements: views (reshape and its kin), transpose, concat, slice, split, pad, expand."""

from __future__ import annotations

from ansor_py.errors import ModelError, RefusedModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import expr, ops
from ansor_py.te.ops.checks import axes_of, broadcast_shape
from ansor_py.te.tensor import Tensor, tensor_from_body


@onnx_op("Reshape", pattern=Pattern.INJECTIVE, static={1: "shape"}, view=True)
def reshape(call: OperatorCall) -> Tensor:
    """The same elements under another shape: -1 is what remains, 0 is the input's extent (unless `allowzero`)."""
    wanted = list(call.integers("shape"))
    if not call.integer("allowzero", 0):
        for index, extent in enumerate(wanted):
            if extent == 0:
                wanted[index] = call.x.shape[call.checked_axis(index, len(call.x.shape))]
    return ops.reshape(call.x, wanted)


@onnx_op("Flatten", pattern=Pattern.INJECTIVE, view=True)
def flatten(call: OperatorCall) -> Tensor:
    """Two dimensions: before `axis` and from it on."""
    axis = call.integer("axis", 1)
    rank = len(call.x.shape)
    return ops.flatten(call.x, rank if axis == rank else call.checked_axis(axis, rank))


@onnx_op("Squeeze", pattern=Pattern.INJECTIVE, static={1: "axes"}, view=True)
def squeeze(call: OperatorCall) -> Tensor:
    """Without the dimensions `axes` of extent 1 (default: all of them)."""
    shape = call.x.shape
    dropped = call.axes() if call.has("axes") else [axis for axis, extent in enumerate(shape) if extent == 1]
    for axis in dropped:
        if shape[axis] != 1:
            raise ModelError(f"{describe(call.node)}: dimension {axis} of shape {list(shape)} is not 1 and cannot be removed")
    return ops.reshape(call.x, [extent for axis, extent in enumerate(shape) if axis not in dropped])


@onnx_op("Unsqueeze", pattern=Pattern.INJECTIVE, static={1: "axes"}, view=True)
def unsqueeze(call: OperatorCall) -> Tensor:
    """With dimensions of extent 1 put in, so that they are the result's dimensions `axes`."""
    rank = len(call.x.shape) + len(call.integers("axes"))
    inserted = call.axes(rank=rank)
    extents = iter(call.x.shape)
    return ops.reshape(call.x, [1 if axis in inserted else next(extents) for axis in range(rank)])


@onnx_op("Transpose", pattern=Pattern.INJECTIVE)
def transpose(call: OperatorCall) -> Tensor:
    """Dimensions in another order."""
    return ops.transpose(call.x, call.integers("perm") if call.has("perm") else None)


@onnx_op("Concat", pattern=Pattern.INJECTIVE)
def concat(call: OperatorCall) -> Tensor:
    """Tensors one behind the other."""
    return ops.concat([call.tensor(index) for index in range(len(call.inputs))], call.axis(1))


@onnx_op("Join", pattern=Pattern.OPAQUE)
def join(call: OperatorCall) -> Tensor:
    """A Concat that is a kernel of its own; made by the splitting pass, not an ONNX operator."""
    return concat(call)


@onnx_op("Slice", pattern=Pattern.INJECTIVE, static={1: "starts", 2: "ends", 3: "axes", 4: "steps"})
def strided_slice(call: OperatorCall) -> Tensor:
    """Ranges of some dimensions, with steps."""
    starts, ends = call.integers("starts"), call.integers("ends")
    axes = call.axes(default=range(len(starts)))
    steps = call.integers("steps", [1] * len(starts))
    begin, end, stride = [0] * len(call.x.shape), list(call.x.shape), [1] * len(call.x.shape)
    for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True):
        begin[axis], end[axis], stride[axis] = start, stop, step
    return ops.strided_slice(call.x, begin, end, stride)


@onnx_op("Split", pattern=Pattern.INJECTIVE, static={1: "split"})
def split(call: OperatorCall) -> Tensor:
    """One of the consecutive parts of a dimension: the output with this node's index."""
    axis, shape = call.axis(0), call.x.shape
    if call.has("split"):
        sizes = list(call.integers("split"))
    else:
        parts = call.node.output_count
        size = -(-shape[axis] // parts)
        sizes = [min(size, shape[axis] - size * index) for index in range(parts)]
    if sum(sizes) != shape[axis]:
        raise ModelError(f"{describe(call.node)}: parts {sizes} do not make up {shape[axis]}")
    start = sum(sizes[: call.node.output_index])
    begin, end = [0] * len(shape), list(shape)
    begin[axis], end[axis] = start, start + sizes[call.node.output_index]
    return ops.strided_slice(call.x, begin, end)


@onnx_op("Pad", pattern=Pattern.INJECTIVE, static={1: "pads", 3: "axes"}, optional_static={2: "value"})
def pad(call: OperatorCall) -> Tensor:
    """Surrounded by a constant or by its own elements; negative widths crop."""
    rank = len(call.x.shape)
    axes = call.axes(default=range(rank))
    widths = call.integers("pads") if call.has("pads") else call.integers("paddings")
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = widths[position], widths[position + len(axes)]
    mode = call.text("mode", "constant")
    if mode != "constant":
        return ops.pad_repeating(call.x, before, after, mode)
    value = call.optional(2)
    if value is None:
        return ops.pad(call.x, before, after, call.scalar("value", 0))
    if value.size != 1:
        raise RefusedModelError(f"{describe(call.node)}: its value has the shape {list(value.shape)}; it must be a scalar")
    return _padded_with(call.x, before, after, value)


def _padded_with(x: Tensor, before: list[int], after: list[int], value: Tensor) -> Tensor:
    """Padding by a number that is computed."""
    inside = ops.pad(ops.map_elements(x, lambda v: expr.const(True, "bool"), "inside"), before, after, 0, "pad_mask")
    padded = ops.pad(x, before, after, 0, "pad_zero")
    axes = axes_of(padded.shape)
    return tensor_from_body("pad", axes, expr.select(inside[axes], padded[axes], value[(0,) * len(value.shape)]))


@onnx_op("Expand", pattern=Pattern.BROADCAST, static={1: "shape"})
def expand(call: OperatorCall) -> Tensor:
    """Broadcast to a shape, in both directions."""
    shape = broadcast_shape("broadcast_to", [call.x.shape, tuple(call.integers("shape"))], call.x)
    return ops.broadcast_to(call.x, shape)
