"""Blocks of well-known networks, built by `onnx.helper` with seeded weights: a model and inputs for it.

model, data = inverted_residual(channels=16, size=14)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from graph_interpreter import Array, floats, make_model


class Network:
    """Nodes and constants in the making; every operator gives the name of its first output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}

    def constant(self, array: Any) -> str:
        """An initialiser."""
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def weight(self, *shape: int, fan_in: int | None = None) -> str:
        """He-scaled random values; the fan-in is by default everything but the first dimension."""
        inputs = fan_in if fan_in is not None else int(np.prod(shape[1:]))
        return self.constant(floats(*shape, seed=len(self.constants)) * np.float32(np.sqrt(2 / max(inputs, 1))))

    def add(self, op_type: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> str:
        """One node; arrays and numbers among the inputs become initialisers."""
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        results = [f"v{len(self.nodes)}"] + [f"v{len(self.nodes)}.{index}" for index in range(1, outputs)]
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, names, results, name=name, **attributes))
        return results[0]

    def conv(self, x: str, channels: int, filters: int, kernel: Sequence[int], **attributes: Any) -> str:
        """A convolution with padding that keeps the size (at stride 1), without bias."""
        pads = [extent // 2 for extent in kernel] * 2
        weight = self.weight(filters, channels // attributes.get("group", 1), *kernel)
        return self.add("Conv", x, weight, pads=pads, kernel_shape=list(kernel), **attributes)

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalisation with statistics that are not trivial."""
        seed = len(self.constants)
        scale, bias, mean = (self.constant(floats(channels, seed=seed + index) * np.float32(0.3)) for index in range(3))
        variance = self.constant(np.abs(floats(channels, seed=seed + 3)) + np.float32(0.5))
        return self.add("BatchNormalization", x, scale, bias, mean, variance)

    def model(self, data: dict[str, Array], *outputs: str, opset: int = 17) -> tuple[ModelProto, dict[str, Array]]:
        """The model, and its inputs."""
        return make_model(self.nodes, data, list(outputs), self.constants, opset), data


def transformer_layer(hidden: int = 256, heads: int = 4, tokens: int = 64) -> tuple[ModelProto, dict[str, Array]]:
    """An encoder layer as exporters write it: shape arithmetic, erf for gelu, layer norm from primitive operators."""
    net = Network()

    def linear(x: str, width: int, result: int) -> str:
        return net.add("Add", net.add("MatMul", x, net.weight(width, result, fan_in=2 * width)), net.weight(result))

    def norm(x: str) -> str:
        centred = net.add("Sub", x, net.add("ReduceMean", x, axes=[-1]))
        variance = net.add("ReduceMean", net.add("Pow", centred, np.float32(2)), axes=[-1])
        deviation = net.add("Sqrt", net.add("Add", variance, np.float32(1e-5)))
        return net.add("Add", net.add("Mul", net.add("Div", centred, deviation), net.weight(hidden)), net.weight(hidden))

    def split_heads(x: str, order: list[int]) -> str:
        batch = net.add("Unsqueeze", net.add("Gather", net.add("Shape", x), np.int64(0)), np.array([0]))
        shape = net.add("Concat", batch, np.array([-1, heads, hidden // heads]), axis=0)
        return net.add("Transpose", net.add("Reshape", x, shape), perm=order)

    query = split_heads(linear("x", hidden, hidden), [0, 2, 1, 3])
    key = split_heads(linear("x", hidden, hidden), [0, 2, 3, 1])
    value = split_heads(linear("x", hidden, hidden), [0, 2, 1, 3])
    scores = net.add("Div", net.add("MatMul", query, key), np.float32(np.sqrt(hidden // heads)))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), value)
    merged = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, hidden]))
    attended = norm(net.add("Add", linear(merged, hidden, hidden), "x"))
    wide = linear(attended, hidden, 4 * hidden)
    gate = net.add("Add", net.add("Erf", net.add("Div", wide, np.float32(np.sqrt(2)))), np.float32(1))
    gelu = net.add("Mul", net.add("Mul", wide, gate), np.float32(0.5))
    result = norm(net.add("Add", linear(gelu, 4 * hidden, hidden), attended))
    return net.model({"x": floats(1, tokens, hidden)}, result)


def transformer_layer_of_functions(hidden: int = 256, heads: int = 4, tokens: int = 64) -> tuple[ModelProto, dict[str, Array]]:
    """The same layer as newer exporters write it: LayerNormalization, Gelu, Gemm-like MatMuls, Split of a joint projection."""
    net = Network()
    joint = net.add("Add", net.add("MatMul", "x", net.weight(hidden, 3 * hidden, fan_in=2 * hidden)), net.weight(3 * hidden))
    first = net.add("Split", joint, np.array([hidden] * 3), outputs=3, axis=-1)

    def split_heads(x: str, order: list[int]) -> str:
        return net.add("Transpose", net.add("Reshape", x, np.array([0, 0, heads, hidden // heads])), perm=order)

    query, key = split_heads(first, [0, 2, 1, 3]), split_heads(f"{first}.1", [0, 2, 3, 1])
    value = split_heads(f"{first}.2", [0, 2, 1, 3])
    scores = net.add("Mul", net.add("MatMul", query, key), np.float32((hidden // heads) ** -0.5))
    mixed = net.add("Transpose", net.add("MatMul", net.add("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])
    merged = net.add("Reshape", mixed, np.array([1, tokens, hidden]))
    projected = net.add("MatMul", merged, net.weight(hidden, hidden, fan_in=2 * hidden))
    attended = net.add("LayerNormalization", net.add("Add", projected, "x"), net.weight(hidden), net.weight(hidden), axis=-1)
    wide = net.add("Gelu", net.add("MatMul", attended, net.weight(hidden, 4 * hidden, fan_in=2 * hidden)))
    narrow = net.add("MatMul", wide, net.weight(4 * hidden, hidden, fan_in=8 * hidden))
    result = net.add("LayerNormalization", net.add("Add", narrow, attended), net.weight(hidden), net.weight(hidden), axis=-1)
    return net.model({"x": floats(1, tokens, hidden)}, result, opset=20)


def inverted_residual(channels: int = 16, size: int = 28, expansion: int = 6) -> tuple[ModelProto, dict[str, Array]]:
    """MobileNet-V2's block: expand by 1x1, depthwise 3x3, project by 1x1, each with batch norm, and the input added."""
    net, wide = Network(), channels * expansion

    def bounded(x: str) -> str:
        return net.add("Clip", x, np.float32(0), np.float32(6))

    x = bounded(net.batch_norm(net.conv("x", channels, wide, [1, 1]), wide))
    x = bounded(net.batch_norm(net.conv(x, wide, wide, [3, 3], group=wide), wide))
    x = net.batch_norm(net.conv(x, wide, channels, [1, 1]), channels)
    return net.model({"x": floats(1, channels, size, size)}, net.add("Add", x, "x"))


def residual_block_3d(channels: int = 8, depth: int = 8, size: int = 14) -> tuple[ModelProto, dict[str, Array]]:
    """A 3-D residual block that halves the size, with a projection around it."""
    net, filters = Network(), 2 * channels
    x = net.add("Relu", net.batch_norm(net.conv("x", channels, filters, [3, 3, 3], strides=[2, 2, 2]), filters))
    x = net.batch_norm(net.conv(x, filters, filters, [3, 3, 3]), filters)
    around = net.batch_norm(net.conv("x", channels, filters, [1, 1, 1], strides=[2, 2, 2]), filters)
    return net.model({"x": floats(1, channels, depth, size, size)}, net.add("Relu", net.add("Add", x, around)))


def generator_block(channels: int = 32, size: int = 8) -> tuple[ModelProto, dict[str, Array]]:
    """A DCGAN generator's last two blocks: transposed convolutions of stride 2, batch norm, relu, then tanh."""
    net, narrow = Network(), channels // 2

    def upward(x: str, width: int, filters: int) -> str:
        weight = net.weight(width, filters, 4, 4, fan_in=4 * width)
        return net.add("ConvTranspose", x, weight, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])

    x = net.add("Relu", net.batch_norm(upward("x", channels, narrow), narrow))
    return net.model({"x": floats(1, channels, size, size)}, net.add("Tanh", upward(x, narrow, 3)))


def unet_block(channels: int = 8, size: int = 24, transposed: bool = False) -> tuple[ModelProto, dict[str, Array]]:
    """One level of a U-Net: down by pooling, two convolutions, up by nearest resizing or a transposed convolution, the skip
    connection concatenated."""
    net, wide = Network(), 2 * channels
    skip = net.add("Relu", net.conv("x", channels, channels, [3, 3]))
    down = net.add("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2])
    low = net.add("Relu", net.conv(net.add("Relu", net.conv(down, channels, wide, [3, 3])), wide, wide, [3, 3]))
    if transposed:
        up = net.add("ConvTranspose", low, net.weight(wide, wide, 2, 2, fan_in=wide), strides=[2, 2], kernel_shape=[2, 2])
    else:
        scales = np.array([1, 1, 2, 2], np.float32)
        up = net.add(
            "Resize", low, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
        )
    joined = net.add("Concat", up, skip, axis=1)
    result = net.add("Relu", net.conv(joined, wide + channels, channels, [3, 3]))
    return net.model({"x": floats(1, channels, size, size)}, result)


def lstm_cell(inputs: int = 64, hidden: int = 64) -> tuple[ModelProto, dict[str, Array]]:
    """One step of an LSTM from primitive operators: the new hidden state and the new cell state."""
    net = Network()
    gates = net.add(
        "Add",
        net.add("Gemm", "x", net.weight(4 * hidden, inputs), net.weight(4 * hidden), transB=1),
        net.add("Gemm", "h", net.weight(4 * hidden, hidden), transB=1),
    )
    first = net.add("Split", gates, np.array([hidden] * 4), outputs=4, axis=1)
    i, o, f = (net.add("Sigmoid", name) for name in (first, f"{first}.1", f"{first}.2"))
    cell = net.add("Add", net.add("Mul", f, "c"), net.add("Mul", i, net.add("Tanh", f"{first}.3")))
    state = net.add("Mul", o, net.add("Tanh", cell))
    data = {"x": floats(1, inputs), "h": floats(1, hidden, seed=1), "c": floats(1, hidden, seed=2)}
    return net.model(data, state, cell)


def lstm_operator(inputs: int = 16, hidden: int = 24, steps: int = 5) -> tuple[ModelProto, dict[str, Array]]:
    """ONNX's LSTM between a projection and a dense layer."""
    net = Network()
    projected = net.add("Relu", net.add("MatMul", "x", net.weight(inputs, inputs)))
    y = net.add(
        "LSTM",
        projected,
        net.weight(1, 4 * hidden, inputs, fan_in=2 * inputs),
        net.weight(1, 4 * hidden, hidden, fan_in=2 * hidden),
        net.weight(1, 8 * hidden),
        outputs=2,
        hidden_size=hidden,
    )
    last = net.add("Squeeze", f"{y}.1", np.array([0]))
    return net.model({"x": floats(steps, 2, inputs)}, net.add("MatMul", last, net.weight(hidden, 10)), y)
