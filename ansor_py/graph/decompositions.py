"""Operators that are compiled as other operators, where the standard has no function body for them.

A short-time Fourier transform whose frames are known is a convolution: a window times the rows of the Fourier matrix is its
kernel, the step from frame to frame its stride. With long frames that is more work than a fast transform, which is left to the
fallback.

    tensors, nodes = decomposed(node, values)      # or None
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ansor_py.errors import ModelError, StaticInputError
from ansor_py.graph.ir import Array, OperatorNode, Value
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe

Decomposition: TypeAlias = tuple[list[TensorProto], list[NodeProto]]
# Frames of more elements are transformed faster by the fallback's FFT.
LONGEST_FRAME = 2048


def decomposed(node: OperatorNode, values: Mapping[str, Value]) -> Decomposition | None:
    """Constants and nodes that compute what the node does, under names that begin with its own; None if there are none.

    Raises StaticInputError where an input is not known that has to be, ModelError for a node that makes no sense.
    """
    function = _DECOMPOSITIONS.get(node.op_type) if not node.domain else None
    return None if function is None else function(node, values)


def _stft(node: OperatorNode, values: Mapping[str, Value]) -> Decomposition | None:
    """STFT of signal[batch, length, 1 or 2], and as exporters write it of signal[batch, length], into
    [batch, frames, bins, 2]."""
    if len(node.inputs) < 2 or not node.inputs[0]:
        raise ModelError(f"{describe(node)} needs a signal and a frame step")
    signal = values[node.inputs[0]]
    if len(signal.shape) not in (2, 3) or signal.shape[2:] not in ((), (1,), (2,)):
        raise ModelError(f"{describe(node)}: its signal must be [batch, length, 1 or 2], but has shape {list(signal.shape)}")
    step, length = _known(node, values, 1), _known(node, values, 3)
    window = node.inputs[2] if len(node.inputs) > 2 else ""
    if step is None or not (window or length is not None):
        raise ModelError(f"{describe(node)} needs a frame step, and a window or a frame length")
    size = int(length.reshape(-1)[0]) if length is not None else int(np.prod(values[window].shape))
    stride, (batch, samples, parts) = int(step.reshape(-1)[0]), (*signal.shape, 1)[:3]
    if (window and values[window].shape != (size,)) or not 1 <= size <= samples or stride < 1:
        under = f" under a window of {list(values[window].shape)}" if window else ""
        raise ModelError(f"{describe(node)}: frames of {size} elements every {stride}{under} do not fit a signal of {samples}")
    if size > LONGEST_FRAME:
        return None
    onesided = bool(OperatorCall(node, ()).integer("onesided", 1))
    if onesided and parts == 2:
        raise ModelError(f"{describe(node)} is one-sided, which the transform of a complex signal is not")
    bins = size // 2 + 1 if onesided else size
    matrix = _fourier_matrix(size, bins, parts).astype(signal.dtype)
    frames = (samples - size) // stride + 1

    def inner(name: str) -> str:
        return f"{node.name}/{name}"

    shapes = {"channels": [batch, parts, samples], "frames": [batch, frames, bins, 2]}
    tensors = [numpy_helper.from_array(matrix, inner("matrix"))]
    tensors += [numpy_helper.from_array(np.array(shape, np.int64), inner(name)) for name, shape in shapes.items()]
    first = (
        helper.make_node("Reshape", [node.inputs[0], inner("channels")], [inner("signal")], inner("reshape"))
        if parts == 1
        else helper.make_node("Transpose", [node.inputs[0]], [inner("signal")], inner("transpose"), perm=[0, 2, 1])
    )
    nodes = [
        first,
        helper.make_node("Mul", [inner("matrix"), window], [inner("kernel")], inner("windowed"))
        if window
        else helper.make_node("Identity", [inner("matrix")], [inner("kernel")], inner("rectangular")),
        helper.make_node("Conv", [inner("signal"), inner("kernel")], [inner("bins")], inner("conv"), strides=[stride]),
        helper.make_node("Transpose", [inner("bins")], [inner("rows")], inner("transposed"), perm=[0, 2, 1]),
        helper.make_node("Reshape", [inner("rows"), inner("frames")], [node.output], inner("result")),
    ]
    return tensors, nodes


def _fourier_matrix(size: int, bins: int, parts: int) -> Array:
    """[2 * bins, parts, size]: real and imaginary part of each bin from the real (and imaginary) parts of a frame."""
    angles = 2 * np.pi / size * (np.outer(np.arange(bins), np.arange(size)) % size)
    cosine, sine = np.cos(angles), np.sin(angles)
    rows = np.array([[cosine, sine], [-sine, cosine]])  # of the result's parts, and of the signal's
    return rows[:, :parts].transpose(2, 0, 1, 3).reshape(2 * bins, parts, size)


def _known(node: OperatorNode, values: Mapping[str, Value], index: int) -> Array | None:
    """The value of an input that has to be known; None if it is left out."""
    name = node.inputs[index] if index < len(node.inputs) else ""
    if name and values[name].constant is None:
        raise StaticInputError(
            f"{describe(node)}: its input '{name}' is computed while the model runs; it has to be known when the model is "
            "compiled",
            name,
        )
    return values[name].constant if name else None


_DECOMPOSITIONS: Mapping[str, Callable[[OperatorNode, Mapping[str, Value]], Decomposition | None]] = {"STFT": _stft}
