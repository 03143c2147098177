"""ONNX normalisations, and the per-channel scale and shift that batch normalisations fold to."""

from __future__ import annotations

from ansor_py.errors import RefusedModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import ops
from ansor_py.te.ops.checks import axes_of
from ansor_py.te.ops.normalization import moments
from ansor_py.te.tensor import Tensor, tensor_from_body


@onnx_op("BatchNormalization", pattern=Pattern.BROADCAST)
def batch_normalisation(call: OperatorCall) -> Tensor:
    """At inference: scale and shift by the running statistics. In training mode (from opset 14 on): by those of the batch,
    and the further outputs are the running statistics moved towards them."""
    scale, bias, mean, variance = (call.tensor(index) for index in range(1, 5))
    epsilon = call.number("epsilon", 1e-5)
    if call.integer("training_mode", 0) and call.opset >= 14:
        return _trained_batch_normalisation(call, scale, bias, mean, variance, epsilon)
    if call.node.output_index or (call.opset < 7 and not call.integer("is_test", 0)):
        raise RefusedModelError(f"{describe(call.node)} is in training mode; export the model for inference")
    if call.opset < 9 and not call.integer("spatial", 1):
        return _batch_normalisation_of_elements(call, epsilon)
    # What is left of it has parameters that are not known, or not finite (`ansor_py.graph.passes.affine_folding`).
    return ops.batch_norm(call.x, scale, bias, mean, variance, epsilon, centred=True)


def _batch_normalisation_of_elements(call: OperatorCall, epsilon: float) -> Tensor:
    """Before opset 9, with `spatial=0`: parameters and statistics of each element of an image instead of each channel."""
    scale, bias, mean, variance = (call.tensor(index) for index in range(1, 5))
    factor = ops.multiply(scale, ops.reciprocal(ops.sqrt(ops.add(variance, epsilon, "variance"))), "factor")
    return ops.add(ops.multiply(ops.subtract(call.x, mean, "centred"), factor, "scaled"), bias, "batch_norm")


def _trained_batch_normalisation(
    call: OperatorCall, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    axes = [0, *range(2, len(call.x.shape))]
    batch_mean = ops.reduce_mean(call.x, axes, name="batch_mean")
    flat = (1, call.x.shape[1], *(1 for _ in call.x.shape[2:]))
    offset = ops.subtract(call.x, ops.reshape(batch_mean, flat), "offset")
    batch_variance = ops.reduce_mean(ops.multiply(offset, offset, "square"), axes, name="batch_variance")
    if call.node.output_index == 0:
        return ops.batch_norm(call.x, scale, bias, batch_mean, batch_variance, epsilon)
    momentum = call.number("momentum", 0.9)
    running, current = (mean, batch_mean) if call.node.output_index == 1 else (variance, batch_variance)
    return ops.add(ops.multiply(running, momentum, "kept"), ops.multiply(current, 1 - momentum, "moved"), "running")


@onnx_op("ChannelAffine", pattern=Pattern.BROADCAST)
def channel_affine(call: OperatorCall) -> Tensor:
    """x * scale[c] + shift[c]; made by the folding pass, not an ONNX operator."""
    scale, shift = call.tensor(1), call.tensor(2)
    axes = axes_of(call.x.shape)
    return tensor_from_body("channel_affine", axes, call.x[axes] * scale[axes[1]] + shift[axes[1]])


@onnx_op("LayerNormalization", pattern=Pattern.OPAQUE)
def layer_normalisation(call: OperatorCall) -> Tensor:
    """Normalised over the axes from `axis` on; further outputs are the mean and the reciprocal of the deviation."""
    epsilon, axis = call.number("epsilon", 1e-5), call.axis(-1)
    if call.node.output_index:
        mean, factor = moments(call.x, range(axis, len(call.x.shape)), epsilon, "layer_norm")
        assert mean is not None
        return mean if call.node.output_index == 1 else factor
    return ops.layer_norm(call.x, call.tensor(1), call.optional(2), axis, epsilon)


@onnx_op("RMSNormalization", pattern=Pattern.OPAQUE)
def rms_normalisation(call: OperatorCall) -> Tensor:
    """Divided by the root of the mean square over the axes from `axis` on, times a scale."""
    return ops.rms_norm(call.x, call.tensor(1), call.axis(-1), call.number("epsilon", 1e-5))


@onnx_op("InstanceNormalization", pattern=Pattern.OPAQUE)
def instance_normalisation(call: OperatorCall) -> Tensor:
    """Each channel of each element of the batch normalised."""
    return ops.instance_norm(call.x, call.tensor(1), call.tensor(2), call.number("epsilon", 1e-5))


@onnx_op("GroupNormalization", pattern=Pattern.OPAQUE)
def group_normalisation(call: OperatorCall) -> Tensor:
    """Groups of channels normalised; scale and bias are one a group before opset 21, one a channel from then on."""
    return ops.group_norm(call.x, call.tensor(1), call.tensor(2), call.integer("num_groups"), call.number("epsilon", 1e-5))


@onnx_op("MeanVarianceNormalization", pattern=Pattern.OPAQUE)
def mean_variance_normalisation(call: OperatorCall) -> Tensor:
    """Less the mean, divided by the deviation (plus 1e-9)."""
    return ops.mean_variance_norm(call.x, call.axes(default=(0, 2, 3)))


@onnx_op("LpNormalization", pattern=Pattern.OPAQUE)
def lp_normalisation(call: OperatorCall) -> Tensor:
    """Divided by the p-norm along an axis."""
    power = call.integer("p", 2)
    if power not in (1, 2):
        raise RefusedModelError(f"{describe(call.node)}: 'p' is {power}; it must be 1 or 2")
    return ops.lp_normalize(call.x, call.axis(-1), power)


@onnx_op("LRN", pattern=Pattern.OPAQUE)
def local_response_normalisation(call: OperatorCall) -> Tensor:
    """Divided by a power of the sum of squares over neighbouring channels."""
    alpha, beta, bias = call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    return ops.lrn(call.x, call.integer("size"), alpha, beta, bias)
