"""ONNX normalisations, and the per-channel scale and shift that batch normalisations fold to."""

from __future__ import annotations

from ansor_py.errors import ModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import ops
from ansor_py.te.ops.checks import axes_of
from ansor_py.te.tensor import Tensor, tensor_from_body


@onnx_op("BatchNormalization", pattern=Pattern.BROADCAST)
def batch_normalisation(call: OperatorCall) -> Tensor:
    """At inference: scale and shift by the running statistics."""
    if call.node.output_index or call.integer("training_mode", 0):
        raise ModelError(f"{describe(call.node)} is in training mode; export the model for inference")
    scale, bias, mean, variance = (call.tensor(index) for index in range(1, 5))
    return ops.batch_norm(call.x, scale, bias, mean, variance, call.number("epsilon", 1e-5))


@onnx_op("ChannelAffine", pattern=Pattern.BROADCAST)
def channel_affine(call: OperatorCall) -> Tensor:
    """x * scale[c] + shift[c]; made by the folding pass, not an ONNX operator."""
    scale, shift = call.tensor(1), call.tensor(2)
    axes = axes_of(call.x.shape)
    return tensor_from_body("channel_affine", axes, call.x[axes] * scale[axes[1]] + shift[axes[1]])


@onnx_op("LayerNormalization", pattern=Pattern.OPAQUE)
def layer_normalisation(call: OperatorCall) -> Tensor:
    """Normalised over the axes from `axis` on; the outputs for training are not supported."""
    if call.node.output_index:
        raise ModelError(f"{describe(call.node)}: only its first output is supported")
    return ops.layer_norm(call.x, call.tensor(1), call.optional(2), call.integer("axis", -1), call.number("epsilon", 1e-5))


@onnx_op("LRN", pattern=Pattern.OPAQUE)
def local_response_normalisation(call: OperatorCall) -> Tensor:
    """Divided by a power of the sum of squares over neighbouring channels."""
    alpha, beta, bias = call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    return ops.lrn(call.x, call.integer("size"), alpha, beta, bias)
