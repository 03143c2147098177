"""Folding of per-channel scales and shifts: BatchNormalization, and Mul or Add by one constant a channel.

Each is y[c] = x[c] * scale[c] + shift[c] at inference. Behind a convolution (or another such operator) that nobody else
reads, it goes into the constant weights and bias; a BatchNormalization that stays becomes a `ChannelAffine` operator.

    before:  a = Conv(x, w);  b = BatchNormalization(a, ...);  c = Mul(b, s);  y = Add(c, t)
    after:   y = Conv(x, w', bias')

What would make a weight infinite or not a number is left as it is: 0 * inf in one summand is NaN in the whole sum, and what a
scale makes too large for a weight may be small enough for the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ansor_py.graph.ir import ANSOR_DOMAIN, Graph, OperatorNode, Value, fresh_name, rebuild

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class _Affine:
    """y = x * scale + shift along dimension 1; `source` is x, `scale` and `shift` have one element a channel."""

    source: str
    scale: Floats
    shift: Floats
    is_batch_norm: bool


def fold_affine(graph: Graph) -> Graph:
    """Fold whatever can be folded, in one sweep: each operator into what its producer has become."""
    values = dict(graph.values)
    graph = replace(graph, values=values)  # sees the constants that are added
    present = {node.output: node for node in graph.nodes}
    for node in graph.nodes:
        affine = _as_affine(graph, node)
        producer = present.get(affine.source) if affine is not None else None
        if affine is None or producer is None or graph.only_reader(affine.source) is not node:
            continue
        merged = _into_producer(graph, producer, affine, node)
        if merged is not None:
            present[node.output], constants = merged
            del present[producer.output]
            values.update(constants)
    return _with_channel_affines(rebuild(graph, present.values()))


def _as_affine(graph: Graph, node: OperatorNode) -> _Affine | None:
    """The node as a finite scale and shift for each channel, or None."""
    with np.errstate(all="ignore"):  # what is not finite is seen afterwards
        affine = _any_affine(graph, node)
    return affine if affine is not None and _are_finite(affine.scale, affine.shift) else None


def _are_finite(*arrays: Floats) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _any_affine(graph: Graph, node: OperatorNode) -> _Affine | None:
    if node.op_type == "BatchNormalization":
        return _batch_normalisation(graph, node)
    if node.op_type == "ChannelAffine":
        scale, shift = graph.constant(node.inputs[1]), graph.constant(node.inputs[2])
        return None if scale is None or shift is None else _Affine(node.inputs[0], _floats(scale), _floats(shift), False)
    if node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    constant_at = [index for index, name in enumerate(node.inputs) if graph.constant(name) is not None]
    if len(constant_at) != 1 or (node.op_type in ("Sub", "Div") and constant_at == [0]):
        return None
    source = node.inputs[1 - constant_at[0]]
    channels = _per_channel(graph, node.inputs[constant_at[0]], graph.values[source])
    if channels is None or graph.values[source].shape != graph.values[node.output].shape:
        return None
    ones, zeros = np.ones_like(channels), np.zeros_like(channels)
    scale = {"Mul": channels, "Div": 1 / channels if node.op_type == "Div" else ones}.get(node.op_type, ones)
    shift = {"Add": channels, "Sub": -channels}.get(node.op_type, zeros)
    return _Affine(source, scale, shift, False)


def _batch_normalisation(graph: Graph, node: OperatorNode) -> _Affine | None:
    parameters = [graph.constant(name) for name in node.inputs[1:5]]
    if any(array is None or array.ndim != 1 for array in parameters) or node.attributes.get("training_mode", 0):
        return None  # with more dimensions they are of elements, not of channels
    scale, shift, mean, variance = (_floats(array) for array in parameters if array is not None)
    epsilon = float(np.float32(node.attributes.get("epsilon", 1e-5)))  # type: ignore[arg-type]
    factor = scale / np.sqrt(variance + epsilon)
    return _Affine(node.inputs[0], factor, shift - mean * factor, True)


def _floats(array: NDArray[np.generic]) -> NDArray[np.float64]:
    """Folded weights are computed in double precision and rounded once."""
    return np.asarray(array, dtype=np.float64)


def _per_channel(graph: Graph, name: str, data: Value) -> NDArray[np.float64] | None:
    """A floating constant as one element a channel of `data` (dimension 1), or None if it varies along another dimension."""
    array = graph.constant(name)
    if array is None or len(data.shape) < 2 or not np.issubdtype(array.dtype, np.floating):
        return None
    channels = data.shape[1]
    if array.size == 1:
        return np.full(channels, float(array.reshape(-1)[0]))
    aligned = (1,) * (len(data.shape) - array.ndim) + array.shape
    expected = tuple(channels if axis == 1 else 1 for axis in range(len(data.shape)))
    return _floats(array).reshape(-1) if aligned == expected else None


def _into_producer(
    graph: Graph, producer: OperatorNode, affine: _Affine, node: OperatorNode
) -> tuple[OperatorNode, Mapping[str, Value]] | None:
    if producer.op_type == "Conv":
        return _into_convolution(graph, producer, affine, node)
    before = _as_affine(graph, producer)
    if before is None or not (before.is_batch_norm or affine.is_batch_norm or producer.op_type == "ChannelAffine"):
        return None
    joined = _Affine(before.source, before.scale * affine.scale, before.shift * affine.scale + affine.shift, False)
    return _channel_affine(graph, node, joined)


def _into_convolution(
    graph: Graph, convolution: OperatorNode, affine: _Affine, node: OperatorNode
) -> tuple[OperatorNode, Mapping[str, Value]] | None:
    """The convolution with scaled weights and shifted bias, in the place of `node`."""
    weight = graph.constant(convolution.inputs[1])
    bias_name = convolution.inputs[2] if len(convolution.inputs) > 2 else ""
    bias = graph.constant(bias_name) if bias_name else None
    if weight is None or (bias_name and bias is None):
        return None
    factor = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    with np.errstate(invalid="ignore"):  # of weights that are infinite themselves
        scaled = _floats(weight) * factor
        shifted = (0.0 if bias is None else _floats(bias) * affine.scale) + affine.shift
    values = _new_constants(graph, node, {"weight": scaled, "bias": shifted}, weight.dtype)
    if values is None:
        return None
    inputs = (convolution.inputs[0], *values)
    return replace(convolution, name=node.name, inputs=inputs, output=node.output), values


def _new_constants(
    graph: Graph, node: OperatorNode, arrays: Mapping[str, Floats], dtype: str | np.dtype[np.generic]
) -> dict[str, Value] | None:
    """The arrays as constants of a dtype, or None if one of them is not finite then."""
    values: dict[str, Value] = {}
    for kind, array in arrays.items():
        with np.errstate(over="ignore"):
            rounded = np.asarray(array, dtype=dtype)
        if not _are_finite(rounded):
            return None
        name = fresh_name(graph, f"{node.name}.{kind}")
        values[name] = Value(name, rounded.shape, str(rounded.dtype), rounded)
    return values


def _channel_affine(graph: Graph, node: OperatorNode, affine: _Affine) -> tuple[OperatorNode, Mapping[str, Value]] | None:
    values = _new_constants(graph, node, {"scale": affine.scale, "shift": affine.shift}, graph.values[node.output].dtype)
    if values is None:
        return None
    inputs = (affine.source, *values)
    return OperatorNode(node.name, "ChannelAffine", inputs, node.output, {}, ANSOR_DOMAIN, 1), values


def _with_channel_affines(graph: Graph) -> Graph:
    """The BatchNormalizations that are left (with known parameters) as `ChannelAffine`."""
    nodes: list[OperatorNode] = []
    values: dict[str, Value] = {}
    for node in graph.nodes:
        affine = _as_affine(graph, node)
        made = _channel_affine(graph, node, affine) if affine is not None and affine.is_batch_norm else None
        if made is not None:
            node, constants = made
            values.update(constants)
        nodes.append(node)
    return rebuild(graph, nodes, values.values())
