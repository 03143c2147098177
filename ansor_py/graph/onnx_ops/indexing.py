"""ONNX operators that choose elements: gathers, one-hot, tile, triangles, blocks, reversals."""

from __future__ import annotations

import numpy as np

from ansor_py.errors import ModelError, RefusedModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_nodes import dtype_name
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import ops
from ansor_py.te.ops.indexing import progression_length
from ansor_py.te.tensor import Tensor


@onnx_op("Gather", pattern=Pattern.OPAQUE)
def gather(call: OperatorCall) -> Tensor:
    """Slices of the first input along `axis`, chosen by the second."""
    return ops.gather(call.x, call.tensor(1), call.axis(0))


@onnx_op("GatherElements", pattern=Pattern.OPAQUE)
def gather_elements(call: OperatorCall) -> Tensor:
    """Single elements along `axis`, chosen by the second input."""
    return ops.gather_elements(call.x, call.tensor(1), call.axis(0))


@onnx_op("GatherND", pattern=Pattern.OPAQUE)
def gather_nd(call: OperatorCall) -> Tensor:
    """Slices at positions that the second input holds."""
    batch_dims, most = call.integer("batch_dims", 0), min(len(call.x.shape), len(call.tensor(1).shape)) - 1
    if not 0 <= batch_dims <= most:
        raise RefusedModelError(f"{describe(call.node)}: 'batch_dims' is {batch_dims}; it must lie between 0 and {most}")
    return ops.gather_nd(call.x, call.tensor(1), batch_dims)


@onnx_op("GridSample", pattern=Pattern.OPAQUE)
def grid_sample(call: OperatorCall) -> Tensor:
    """The image at computed positions."""
    mode = call.text("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    padding, align = call.text("padding_mode", "zeros"), bool(call.integer("align_corners", 0))
    return ops.grid_sample(call.x, call.tensor(1), mode, padding, align)


@onnx_op("OneHot", pattern=Pattern.OPAQUE, static={1: "depth"})
def one_hot(call: OperatorCall) -> Tensor:
    """`on` at the index along a new axis, `off` elsewhere."""
    return ops.one_hot(call.x, call.integer("depth"), call.tensor(2), call.integer("axis", -1))


@onnx_op("ReverseSequence", pattern=Pattern.OPAQUE)
def reverse_sequence(call: OperatorCall) -> Tensor:
    """The first steps of each sequence in reverse order."""
    batch, time = call.integer("batch_axis", 1), call.integer("time_axis", 0)
    if batch == time:
        raise RefusedModelError(f"{describe(call.node)}: 'batch_axis' and 'time_axis' are both {batch}; they must differ")
    return ops.reverse_sequence(call.x, call.tensor(1), batch, time)


@onnx_op("Tile", pattern=Pattern.INJECTIVE, static={1: "repeats", 2: "axis"})
def tile(call: OperatorCall) -> Tensor:
    """Repeated along each dimension; before opset 6 along one."""
    if call.opset < 6:
        axis = call.axis(0)
        return ops.tile(call.x, [call.integer("repeats") if i == axis else 1 for i in range(len(call.x.shape))])
    return ops.tile(call.x, call.integers("repeats"))


@onnx_op("Trilu", pattern=Pattern.INJECTIVE, static={1: "k"})
def trilu(call: OperatorCall) -> Tensor:
    """The upper or lower triangle of matrices."""
    return ops.trilu(call.x, bool(call.integer("upper", 1)), call.integer("k", 0))


@onnx_op("EyeLike", pattern=Pattern.INJECTIVE)
def eye_like(call: OperatorCall) -> Tensor:
    """Ones on a diagonal, in the shape of the input."""
    owner = f"the result of {describe(call.node)}"
    dtype = dtype_name(call.integer("dtype"), owner) if call.has("dtype") else call.x.dtype
    return ops.eye(call.x.shape, call.integer("k", 0), dtype)


@onnx_op("DepthToSpace", pattern=Pattern.INJECTIVE)
def depth_to_space(call: OperatorCall) -> Tensor:
    """Channels spread over blocks of pixels."""
    return ops.depth_to_space(call.x, call.integer("blocksize"), call.text("mode", "DCR") == "CRD")


@onnx_op("SpaceToDepth", pattern=Pattern.INJECTIVE)
def space_to_depth(call: OperatorCall) -> Tensor:
    """Blocks of pixels gathered into channels."""
    return ops.space_to_depth(call.x, call.integer("blocksize"), call.text("mode", "DCR") == "CRD")


@onnx_op("Einsum", pattern=Pattern.COMPLEX)
def einsum(call: OperatorCall) -> Tensor:
    """A sum of products by an index equation."""
    return ops.einsum(call.text("equation", ""), *(call.tensor(index) for index in range(len(call.inputs))))


@onnx_op("Range", pattern=Pattern.INJECTIVE, static={0: "start", 1: "limit", 2: "delta"})
def numbers(call: OperatorCall) -> Tensor:
    """Numbers at equal distances; all three inputs have to be known."""
    dtype = str(np.asarray(call.node.attributes["start"]).dtype)
    start, limit, delta = (call.scalar(name) for name in ("start", "limit", "delta"))
    if delta == 0:
        raise ModelError(f"{describe(call.node)}: the distance of the numbers is 0")
    return ops.arithmetic_progression(progression_length(start, limit, delta), start, delta, dtype)
