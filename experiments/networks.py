"""Networks by name and batch size, as ONNX models with seeded weights and inputs: what `bench_networks.py` times.

    item = network("mobilenet_v2", batch=16)
    onnx.save(item.model, "mobilenet_v2.onnx")
    ansor_py.compile(item.model).run(item.feed)
    network_names()      # those that need no download: built here, and the light models of the onnx wheel

Some are built here as PyTorch exports them (convolutions beside batch normalisations, attention of products), with weights
scaled so that activations keep their size and outputs tell right from wrong. The light models (`light_models.py`) and the
trained ones that ship inside Python packages (`real_models.py`) are given another batch where they can be. A sibling module of
the scripts in this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.shape_inference import InferenceError

from ansor_py.errors import ModelError
from ansor_py.graph.random_weights import find_light_models
from light_models import INPUT_SEED, WEIGHT_SEED, input_of, light_model
from real_models import MODELS, Feed, RealModel, default_cache, read_model, wheel_of, whole

OPSET, OUTPUT = 17, "output"

Array = NDArray[Any]
Shape = tuple[int, ...]


class BatchError(ModelError):
    """The model has no form of fixed shapes for this batch size."""


@dataclass(frozen=True)
class Network:
    """A model of fixed input shapes, and what to feed; `original` is the file that a light model was made of."""

    name: str
    batch: int
    model: ModelProto
    feed: Mapping[str, Array]
    original: Path | None = None


def network_names() -> list[str]:
    """The names of `network` that need no download."""
    return [*BUILDERS, *find_light_models()]


def network(name: str, batch: int = 1) -> Network:
    """The network of this name for so many samples. Raises ModelError for an unknown name, BatchError for this batch size."""
    if name in BUILDERS:
        built = Builder()
        output = BUILDERS[name](built, batch)
        return Network(name, batch, built.model(name, output), drawn(built.feeds))
    if name in find_light_models():
        light = light_model(name)
        item, shape = input_of(light.model)
        feeds = {item: Feed((batch, *shape[1:]), normal)}
        return Network(name, batch, with_batch(name, light.model, feeds, batch), drawn(feeds), light.path)
    for real in MODELS:
        if real.name == name:
            return _trained_network(real, batch)
    known = ", ".join([*network_names(), *(real.name for real in MODELS)])
    raise ModelError(f"there is no network '{name}'; known are {known}")


def _trained_network(real: RealModel, batch: int) -> Network:
    feeds = dict(real.feeds)
    if batch != 1:
        if any(feed.shape[:1] != (1,) for feed in feeds.values()):
            raise BatchError(f"'{real.name}' has no form of batch {batch}: not every input begins with the samples")
        feeds = {name: replace(feed, shape=(batch, *feed.shape[1:])) for name, feed in feeds.items()}
    model = ModelProto.FromString(read_model(real, wheel_of(real, default_cache())))
    return Network(real.name, batch, with_batch(real.name, model, feeds, batch), drawn(feeds))


def drawn(feeds: Mapping[str, Feed]) -> dict[str, Array]:
    """The inputs, always the same ones."""
    rng = np.random.default_rng(INPUT_SEED)
    return {name: feed.draw(rng, feed.shape) for name, feed in feeds.items()}


def with_batch(name: str, model: ModelProto, feeds: Mapping[str, Feed], batch: int) -> ModelProto:
    """The model with inputs of these shapes. A constant that reshapes data to one sample reshapes it to so many. BatchError
    where shapes do not fit then, an output is not of so many samples, or branches hold shapes of their own."""
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise BatchError(f"'{name}' has no form of fixed shapes: it has branches or loops, not all for these shapes")
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for info in graph.input:
        if info.name in feeds:
            kind = info.type.tensor_type.elem_type
            info.CopyFrom(helper.make_tensor_value_info(info.name, kind, feeds[info.name].shape))
    if batch != 1:
        _reshape_to(changed, batch)
    del graph.value_info[:]
    for info in graph.output:
        for dimension in info.type.tensor_type.shape.dim:
            dimension.Clear()  # and inferred anew
    try:
        inferred = shape_inference.infer_shapes(changed, strict_mode=True, data_prop=True)
    except InferenceError as error:
        raise BatchError(f"'{name}' has no form of batch {batch}: {' '.join(str(error).split())}") from error
    for info, found in zip(graph.output, inferred.graph.output, strict=True):
        info.CopyFrom(found)
        shape = [dimension.dim_value for dimension in found.type.tensor_type.shape.dim]
        if batch != 1 and shape[:1] not in ([], [0], [batch]):  # nothing or 0: not known
            raise BatchError(f"'{name}' has no form of batch {batch}: output '{info.name}' would be of shape {shape}")
    return changed


def _reshape_to(model: ModelProto, batch: int) -> None:
    """Constant shapes that say one sample say so many, but for those of weights."""
    data = {info.name for info in model.graph.input}
    shapes = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            shapes.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
        if not data.isdisjoint(node.input) and node.op_type != "Shape":
            data.update(node.output)
            if node.op_type == "Reshape" and node.input[1] in shapes:
                tensor = shapes[node.input[1]]
                extents = numpy_helper.to_array(tensor).copy()
                if extents.size and extents[0] == 1:
                    extents[0] = batch
                    tensor.CopyFrom(numpy_helper.from_array(extents, tensor.name))


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Standard normal float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def sentences(rng: np.random.Generator, shape: Shape) -> Array:
    """The mask int64[batch, tokens] of sentences that fill from half to all of the tokens: 1 for a token, 0 behind the last."""
    lengths = rng.integers(shape[1] // 2, shape[1] + 1, (shape[0], 1))
    return np.asarray(np.arange(shape[1]) < lengths, np.int64)


class Builder:
    """Nodes, weights and inputs in the making; every operator gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.feeds: dict[str, Feed] = {}
        self._rng = np.random.default_rng(WEIGHT_SEED)

    def input(self, name: str, feed: Feed) -> str:
        """An input of the model."""
        self.feeds[name] = feed
        return name

    def constant(self, array: Any) -> str:
        """An initializer with these values."""
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, fan_in: int, gain: float = 1.0) -> str:
        """Normal values of variance `gain` / `fan_in`: a gain of 2 keeps the size of what a ReLU halves, 1 of anything else."""
        return self.constant(normal(self._rng, shape) * np.float32(sqrt(gain / fan_in)))

    def near(self, value: float, size: int) -> str:
        """A vector evenly spread around a value, up to a fifth of it or 0.1 away."""
        spread = 0.2 * value or 0.1
        return self.constant(self._rng.uniform(value - spread, value + spread, size).astype(np.float32))

    def add(self, op_type: str, *inputs: Any, **attributes: Any) -> str:
        """One node; what is no name among the inputs becomes an initializer."""
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        output = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, names, [output], name=f"/{output}", **attributes))
        return output

    def conv(
        self,
        x: str,
        channels: int,
        filters: int,
        kernel: Sequence[int],
        stride: Sequence[int] | int = 1,
        groups: int = 1,
        scale: float = 1.0,
    ) -> str:
        """A convolution without bias, padded by half a kernel, and a batch normalisation with a scale near `scale`."""
        shape = (filters, channels // groups, *kernel)
        spans = {
            "kernel_shape": list(kernel),
            "strides": [stride] * len(kernel) if isinstance(stride, int) else list(stride),
            "pads": [extent // 2 for extent in kernel] * 2,
            "dilations": [1] * len(kernel),
            "group": groups,
        }
        weight = self.weight(*shape, fan_in=prod(shape[1:]), gain=2.0)
        return self.batch_norm(self.add("Conv", x, weight, **spans), filters, scale)

    def batch_norm(self, x: str, channels: int, scale: float = 1.0) -> str:
        """Batch normalisation with statistics that are not trivial."""
        vectors = [self.near(value, channels) for value in (scale, 0.0, 0.0, 1.0)]
        return self.add("BatchNormalization", x, *vectors, epsilon=1e-5)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A product with a weight and a bias, as exports of a linear layer on three dimensions have it."""
        return self.add("Add", self.add("MatMul", x, self.weight(inputs, outputs, fan_in=inputs)), self.near(0.0, outputs))

    def classifier(self, x: str, channels: int, classes: int) -> str:
        """The mean of each channel, then a product with a weight: scores."""
        flat = self.add("Flatten", self.add("GlobalAveragePool", x), axis=1)
        return self.add("Gemm", flat, self.weight(classes, channels, fan_in=channels), self.near(0.0, classes), transB=1)

    def model(self, name: str, output: str) -> ModelProto:
        """The model whose result is `output`, under the name `OUTPUT`."""
        self.nodes[-1].output[0] = OUTPUT
        assert self.nodes[-1].name == f"/{output}", "the result is that of the last node"
        infos = [
            helper.make_tensor_value_info(item, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for item, array in drawn(self.feeds).items()
        ]
        result = helper.make_empty_tensor_value_info(OUTPUT)
        graph = helper.make_graph(self.nodes, name, infos, [result], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        [found] = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output
        result.CopyFrom(found)
        model.graph.output[0].CopyFrom(found)
        return model


Build: TypeAlias = Callable[[Builder, int], str]
BUILDERS: dict[str, Build] = {}


def builder(build: Build) -> Build:
    """Register what builds a network of a batch size, under the function's name; it returns the name of the result."""
    BUILDERS[build.__name__] = build
    return build


@builder
def mobilenet_v2(net: Builder, batch: int) -> str:
    """MobileNet-V2 for images of 224 x 224 and 1000 classes (Sandler et al. 2018)."""

    def bounded(x: str) -> str:
        return net.add("Clip", x, np.float32(0), np.float32(6))

    x = bounded(net.conv(net.input("input", Feed((batch, 3, 224, 224), normal)), 3, 32, (3, 3), 2))
    channels = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, filters, blocks, first_stride in stages:
        for block in range(blocks):
            stride, wide, kept = first_stride if block == 0 else 1, channels * expansion, x
            if expansion != 1:
                x = bounded(net.conv(x, channels, wide, (1, 1)))
            x = bounded(net.conv(x, wide, wide, (3, 3), stride, groups=wide))
            adds = stride == 1 and channels == filters
            x = net.conv(x, wide, filters, (1, 1), scale=0.3 if adds else 1.0)  # or sums would grow until all is cut at 6
            x = net.add("Add", kept, x) if adds else x
            channels = filters
    return net.classifier(bounded(net.conv(x, channels, 1280, (1, 1))), 1280, 1000)


@builder
def resnet3d_18(net: Builder, batch: int) -> str:
    """3D-ResNet-18 for 16 frames of 112 x 112 and 400 classes (Tran et al. 2018)."""
    video = net.input("input", Feed((batch, 3, 16, 112, 112), normal))
    x = net.add("Relu", net.conv(video, 3, 64, (3, 7, 7), (1, 2, 2)))
    channels = 64
    for filters in (64, 64, 128, 128, 256, 256, 512, 512):
        stride = 1 if filters == channels else 2
        inner = net.add("Relu", net.conv(x, channels, filters, (3, 3, 3), stride))
        outer = net.conv(inner, filters, filters, (3, 3, 3), scale=0.5)
        kept = x if filters == channels else net.conv(x, channels, filters, (1, 1, 1), stride)
        x = net.add("Relu", net.add("Add", outer, kept))
        channels = filters
    return net.classifier(x, 512, 400)


@builder
def dcgan(net: Builder, batch: int) -> str:
    """DCGAN's generator of images of 64 x 64 from 100 numbers (Radford et al. 2016)."""
    x = net.input("input", Feed((batch, 100, 1, 1), normal))
    widths = (100, 512, 256, 128, 64, 3)
    for level, (channels, filters) in enumerate(pairwise(widths)):
        first, last = level == 0, level == len(widths) - 2
        stride, pad = (1, 0) if first else (2, 1)
        # An element of the first result sees one element of each kernel, one of the others sees four.
        weight = net.weight(channels, filters, 4, 4, fan_in=channels * (1 if first else 4), gain=1.0 if last else 2.0)
        x = net.add(
            "ConvTranspose", x, weight, kernel_shape=[4, 4], strides=[stride] * 2, pads=[pad] * 4, dilations=[1, 1], group=1
        )
        x = net.add("Tanh", x) if last else net.add("Relu", net.batch_norm(x, filters))
    return x


@builder
def bert_base(net: Builder, batch: int) -> str:
    """BERT-base without its pooler, for 128 tokens: 12 layers of 12 heads, 768 wide (Devlin et al. 2019)."""
    tokens, hidden, heads, words = 128, 768, 12, 30522
    ids = net.input("input_ids", Feed((batch, tokens), whole(0, words - 1, "int64")))
    mask = net.input("attention_mask", Feed((batch, tokens), sentences))

    def norm(x: str) -> str:
        return net.add("LayerNormalization", x, net.near(1.0, hidden), net.near(0.0, hidden), axis=-1, epsilon=1e-12)

    def split(x: str, order: Sequence[int]) -> str:
        parted = net.add("Reshape", x, np.array([batch, tokens, heads, hidden // heads]))
        return net.add("Transpose", parted, perm=list(order))

    present = net.add("Cast", net.add("Unsqueeze", mask, np.array([1, 2])), to=TensorProto.FLOAT)
    hides = net.add("Mul", net.add("Sub", np.float32(1), present), np.finfo(np.float32).min)
    embedded = net.add("Gather", net.weight(words, hidden, fan_in=1), ids)
    x = norm(net.add("Add", embedded, net.weight(1, tokens, hidden, fan_in=1)))  # places, and the kind of the sentence
    for _ in range(12):
        query, key, value = (net.linear(x, hidden, hidden) for _ in range(3))
        scores = net.add("MatMul", split(query, (0, 2, 1, 3)), split(key, (0, 2, 3, 1)))
        scores = net.add("Add", net.add("Div", scores, np.float32(sqrt(hidden // heads))), hides)
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), split(value, (0, 2, 1, 3)))
        merged = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([batch, tokens, hidden]))
        x = norm(net.add("Add", net.linear(merged, hidden, hidden), x))
        wide = net.linear(x, hidden, 4 * hidden)
        x = norm(net.add("Add", net.linear(_gelu(net, wide), 4 * hidden, hidden), x))
    return x


@builder
def vit_b_block(net: Builder, batch: int) -> str:
    """One layer of ViT-B/16 for images of 224 x 224, 197 tokens (Dosovitskiy et al. 2021): one product for queries, keys and
    values, which are parts of its result."""
    tokens, hidden, heads = 197, 768, 12
    x = net.input("input", Feed((batch, tokens, hidden), normal))
    joined = net.linear(_layer_norm(net, x, hidden), hidden, 3 * hidden)
    parted = net.add("Reshape", joined, np.array([batch, tokens, 3, heads, hidden // heads]))
    ordered = net.add("Transpose", parted, perm=[2, 0, 3, 1, 4])
    query, key, value = (net.add("Gather", ordered, np.int64(place), axis=0) for place in range(3))
    scaled = net.add("Mul", query, np.float32(1 / sqrt(hidden // heads)))
    scores = net.add("MatMul", scaled, net.add("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), value)
    return _transformer_tail(net, x, mixed, (batch, tokens, hidden), lambda wide: _gelu(net, wide))


@builder
def gpt2_block(net: Builder, batch: int) -> str:
    """One layer of GPT-2 for 128 tokens (Radford et al. 2019): each token sees those before it."""
    tokens, hidden, heads = 128, 768, 12
    x = net.input("input", Feed((batch, tokens, hidden), normal))
    flat = net.add("Reshape", _layer_norm(net, x, hidden), np.array([-1, hidden]))
    joined = net.add("Gemm", flat, net.weight(hidden, 3 * hidden, fan_in=hidden), net.near(0.0, 3 * hidden))
    shaped = net.add("Reshape", joined, np.array([batch, tokens, 3 * hidden]))

    def part(number: int, order: Sequence[int]) -> str:
        bounds = (np.array([number * hidden]), np.array([(number + 1) * hidden]))
        taken = net.add("Slice", shaped, *bounds, np.array([2]))
        parted = net.add("Reshape", taken, np.array([batch, tokens, heads, hidden // heads]))
        return net.add("Transpose", parted, perm=list(order))

    scores = net.add("MatMul", part(0, (0, 2, 1, 3)), part(1, (0, 2, 3, 1)))
    seen = np.tril(np.ones((1, 1, tokens, tokens), dtype=bool))
    scaled = net.add("Div", scores, np.float32(sqrt(hidden // heads)))
    masked = net.add("Where", seen, scaled, np.finfo(np.float32).min)
    mixed = net.add("MatMul", net.add("Softmax", masked, axis=-1), part(2, (0, 2, 1, 3)))

    def smooth(wide: str) -> str:
        """GELU by a hyperbolic tangent."""
        cubic = net.add("Mul", net.add("Pow", wide, np.float32(3)), np.float32(0.044715))
        inner = net.add("Mul", net.add("Add", wide, cubic), np.float32(sqrt(2 / np.pi)))
        gate = net.add("Add", net.add("Tanh", inner), np.float32(1))
        return net.add("Mul", net.add("Mul", wide, np.float32(0.5)), gate)

    return _transformer_tail(net, x, mixed, (batch, tokens, hidden), smooth)


def _layer_norm(net: Builder, x: str, hidden: int) -> str:
    return net.add("LayerNormalization", x, net.near(1.0, hidden), net.near(0.0, hidden), axis=-1, epsilon=1e-5)


def _gelu(net: Builder, wide: str) -> str:
    gate = net.add("Add", net.add("Erf", net.add("Div", wide, np.float32(sqrt(2)))), np.float32(1))
    return net.add("Mul", net.add("Mul", wide, gate), np.float32(0.5))


def _transformer_tail(net: Builder, x: str, mixed: str, shape: Shape, activation: Callable[[str], str]) -> str:
    """What follows attention in a layer that normalises first: heads joined and projected, then two products with an
    activation between, each sum added to what it began with."""
    hidden = shape[-1]
    joined = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), np.array(shape))
    x = net.add("Add", x, net.linear(joined, hidden, hidden))
    wide = net.linear(_layer_norm(net, x, hidden), hidden, 4 * hidden)
    return net.add("Add", x, net.linear(activation(wide), 4 * hidden, hidden))
