"""The operators of the benchmark suite by name, each as a tensor expression and as an ONNX model (float32, batch 1, NCHW).

    item = workload("c2d_56")
    task = Task.from_compute(item.tensor())
    model = item.model()                                    # the same as ONNX, weights as initializers
    compiled = compile_partition(item.partition())          # the tensor expression with the values of its weights
    item.flops / seconds, item.bytes / seconds

`workload(name, scale=4)` is a small relative with every extent but those of kernels divided, for tests. Weights and feeds are
seeded random values, the same for both forms. A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ansor_py import te
from ansor_py.errors import OptionError
from ansor_py.graph.ir import Graph, Value
from ansor_py.graph.partition import Partition, Subgraph
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.te.tensor import Tensor

OPSET = 17
OUTPUT = "y"
WEIGHT_SEED, INPUT_SEED = 0, 1
WITHOUT_VENDOR_KERNEL = frozenset("cap grp dil t2d nrm c3d tbg".split())  # run by slow or general paths of the libraries

Array = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
Shape = tuple[int, ...]
Extent: TypeAlias = Callable[[int], int]  # an extent of the suite at the wanted scale


def _unchanged(constants: Arrays) -> Arrays:
    return constants


@dataclass(frozen=True)
class Workload:
    """One operator. `expression` takes placeholders, `nodes` read and `initializers` are named as `inputs` and `constants`.

    `initializers` makes the initializers of the ONNX model from the values of the constants, where they differ. `flops` are the
    multiplications and additions of the definition, without those by padding or inserted zeros, bias and activation.
    """

    name: str
    inputs: Mapping[str, Shape]
    constants: Mapping[str, Shape]
    flops: int
    expression: Callable[..., Tensor]
    nodes: tuple[NodeProto, ...]
    initializers: Callable[[Arrays], Arrays] = _unchanged

    @property
    def bytes(self) -> int:
        """What a run has to move at least: inputs, constants and the output once."""
        shapes = [*self.inputs.values(), *self.constants.values(), self.tensor().shape]
        return 4 * sum(math.prod(shape) for shape in shapes)

    @property
    def has_vendor_kernel(self) -> bool:
        """Whether libraries of the CPU's vendors have a kernel made for this operator."""
        return self.name not in WITHOUT_VENDOR_KERNEL

    def feed(self) -> dict[str, Array]:
        """Random inputs."""
        return _random(self.inputs, INPUT_SEED)

    def values(self) -> dict[str, Array]:
        """Random values of the constants; those of a variance are positive."""
        arrays = _random(self.constants, WEIGHT_SEED)
        return {name: np.abs(array) + np.float32(0.5) if name == "variance" else array for name, array in arrays.items()}

    def tensor(self) -> Tensor:
        """The tensor expression."""
        return self.expression(**self._placeholders())

    def partition(self) -> Partition:
        """The tensor expression as a graph of one kernel that knows the values of its constants."""
        placeholders = self._placeholders()
        result = self.expression(**placeholders)
        dag = merge_axes(ComputeDAG.from_outputs(result, inputs=list(placeholders.values())))
        known = self.values()
        values = {name: Value(name, t.shape, t.dtype, known.get(name)) for name, t in placeholders.items()}
        values[OUTPUT] = Value(OUTPUT, result.shape, result.dtype)
        graph = Graph(self.name, (), values, tuple(self.inputs), {OUTPUT: OUTPUT})
        return Partition(graph, (Subgraph((), tuple(placeholders), OUTPUT, dag),), {})

    def model(self) -> ModelProto:
        """The ONNX model."""
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self.inputs.items()]
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, self.tensor().shape)]
        tensors = [numpy_helper.from_array(array, name) for name, array in self.initializers(self.values()).items()]
        graph = helper.make_graph(self.nodes, self.name, infos, outputs, tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _placeholders(self) -> dict[str, Tensor]:
        made = {name: te.placeholder(shape, name=name) for name, shape in self.inputs.items()}
        return made | {name: te.placeholder(shape, name=name, constant=True) for name, shape in self.constants.items()}


Maker: TypeAlias = Callable[[str, Extent], Workload]


def workload(name: str, scale: int = 1) -> Workload:
    """The workload of this name, its extents divided by `scale` and rounded up. Raises OptionError for an unknown name."""
    if name not in WORKLOADS:
        raise OptionError(f"there is no workload '{name}'; known are {', '.join(WORKLOADS)}")
    return WORKLOADS[name](name, lambda extent: -(-extent // scale))


def _random(shapes: Mapping[str, Shape], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _node(op_type: str, inputs: str, output: str = OUTPUT, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{op_type}_{output}", **attributes)


def _matmul(n: int, m: int, k: int, batch: Shape = (), constant: bool = False) -> Maker:
    """A[batch, n, k] times B[batch, k, m]; with `constant`, B is a weight."""

    def make(name: str, extent: Extent) -> Workload:
        rows, columns, depth, leading = extent(n), extent(m), extent(k), tuple(map(extent, batch))
        a, b = {"a": (*leading, rows, depth)}, {"b": (*leading, depth, columns)}
        flops = 2 * math.prod(leading) * rows * columns * depth
        inputs, constants = (a, b) if constant else (a | b, {})
        return Workload(name, inputs, constants, flops, lambda a, b: te.matmul(a, b), (_node("MatMul", "a b"),))

    return make


def _convolution(
    data: Shape,
    filters: int,
    kernel: int = 3,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    groups: int = 1,
    depthwise: bool = False,
    bias_relu: bool = False,
    norm_relu: bool = False,
) -> Maker:
    """Convolution of data[1, c, ...], then bias and ReLU or batch normalisation and ReLU on request."""
    convolve = {1: te.conv1d, 2: te.conv2d, 3: te.conv3d}[len(data) - 2]

    def make(name: str, extent: Extent) -> Workload:
        x, count, rank = (1, *map(extent, data[1:])), extent(filters), len(data) - 2
        parts = x[1] if depthwise else groups
        constants = {"weight": (count, x[1] // parts, *[kernel] * rank)}
        options: dict[str, Any] = {"stride": stride, "padding": pad, "dilation": dilation, "groups": parts}
        spans = {"strides": [stride], "pads": [pad, pad], "dilations": [dilation], "kernel_shape": [kernel]}
        attributes: dict[str, Any] = {key: value * rank for key, value in spans.items()} | {"group": parts}
        if bias_relu:
            constants["bias"] = (count,)
        if norm_relu:
            constants |= dict.fromkeys(("scale", "shift", "mean", "variance"), (count,))
        has_more = bias_relu or norm_relu
        read, produced = ("x weight bias" if bias_relu else "x weight"), ("conv" if has_more else OUTPUT)
        nodes = [_node("Conv", read, produced, **attributes)]
        if norm_relu:
            nodes.append(_node("BatchNormalization", "conv scale shift mean variance", "norm"))
        if has_more:
            nodes.append(_node("Relu", nodes[-1].output[0]))

        def expression(x: Tensor, weight: Tensor, bias: Tensor | None = None, **vectors: Tensor) -> Tensor:
            result = convolve(x, weight, bias, **options)
            if norm_relu:
                result = te.batch_norm(result, vectors["scale"], vectors["shift"], vectors["mean"], vectors["variance"])
            return te.relu(result) if has_more else result

        places = [(e + 2 * pad - (kernel - 1) * dilation - 1) // stride + 1 for e in x[2:]]
        flops = 2 * math.prod(places) * math.prod(constants["weight"])
        return Workload(name, {"x": x}, constants, flops, expression, tuple(nodes))

    return make


def _transposed_convolution(name: str, extent: Extent) -> Workload:
    """Kernel 4 and stride 2: every element of the output is a sum over 2x2 taps."""
    channels, filters, size = extent(256), extent(128), extent(8)
    attributes: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [4, 4]}
    return Workload(
        name,
        {"x": (1, channels, size, size)},
        {"weight": (channels, filters, 4, 4)},
        2 * filters * (2 * size) ** 2 * channels * 4,
        lambda x, weight: te.conv2d_transpose(x, weight, stride=2, padding=1),
        (_node("ConvTranspose", "x weight", **attributes),),
    )


def _capsule_convolution(name: str, extent: Extent) -> Workload:
    """Matrices of 4x4 in place of numbers; in ONNX the slices of the nine taps side by side, and one matrix product."""
    size, channels, kernel, pose = extent(16), extent(32), 3, 4
    places, depth = (size + 2 - kernel) // 2 + 1, kernel * kernel * channels
    taps = list(product(range(kernel), repeat=2))
    nodes = [_node("Pad", "x pads", "padded")]
    for tap in taps:
        label = f"{tap[0]}{tap[1]}"
        nodes.append(_node("Slice", f"padded begin{label} end{label} axes steps", f"tap{label}"))
    nodes += [
        _node("Concat", " ".join(f"tap{i}{j}" for i, j in taps), "window", axis=5),
        _node("Reshape", "window rows", "flat"),
        _node("MatMul", "flat matrix", "sums"),
        _node("Reshape", "sums result"),
    ]

    def initializers(constants: Arrays) -> Arrays:
        matrix = constants["weight"].transpose(2, 0, 1, 4, 3, 5).reshape(pose * depth, pose * channels)
        vectors: dict[str, list[int]] = {
            "pads": [0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0],
            "axes": [1, 2],
            "steps": [2, 2],
            "rows": [places * places * pose, pose * depth],
            "result": [1, places, places, pose, pose, channels],
        }
        for i, j in taps:
            vectors[f"begin{i}{j}"] = [i, j]
            vectors[f"end{i}{j}"] = [i + 2 * places - 1, j + 2 * places - 1]
        return {"matrix": np.ascontiguousarray(matrix)} | {key: np.array(v, np.int64) for key, v in vectors.items()}

    return Workload(
        name,
        {"x": (1, size, size, pose, pose, channels)},
        {"weight": (kernel, kernel, pose, pose, channels, channels)},
        2 * places * places * pose * pose * channels * pose * depth,
        lambda x, weight: te.capsule_conv2d(x, weight, stride=2, padding=1),
        tuple(nodes),
        initializers,
    )


def _norm(name: str, extent: Extent) -> Workload:
    shape = (1, extent(256), extent(256))
    node = _node("ReduceL2", "x", axes=[1, 2], keepdims=0)
    return Workload(name, {"x": shape}, {}, 2 * math.prod(shape), lambda x: te.reduce_norm(x, 2, (1, 2)), (node,))


def _softmax(name: str, extent: Extent) -> Workload:
    """Five operations an element: maximum, difference, exponential, sum, quotient."""
    shape = (extent(512), extent(1024))
    return Workload(name, {"x": shape}, {}, 5 * math.prod(shape), lambda x: te.softmax(x), (_node("Softmax", "x", axis=-1),))


def _layer_norm(name: str, extent: Extent) -> Workload:
    """Eight operations an element: two for the mean's sum and the difference, two for the squares, and four to scale."""
    shape = (extent(512), extent(768))
    vectors = {"scale": shape[1:], "bias": shape[1:]}
    node = _node("LayerNormalization", "x scale bias", axis=-1)
    return Workload(
        name, {"x": shape}, vectors, 8 * math.prod(shape), lambda x, scale, bias: te.layer_norm(x, scale, bias), (node,)
    )


def _transposed_batch_matmul(name: str, extent: Extent) -> Workload:
    """Query and key as they leave their projections; the heads go to the front, then queries times keys."""
    length, heads, depth = extent(128), extent(12), extent(64)
    shape = (1, length, heads, depth)
    nodes = (
        _node("Transpose", "query", "q", perm=[0, 2, 1, 3]),
        _node("Transpose", "key", "k", perm=[0, 2, 3, 1]),
        _node("MatMul", "q k"),
    )

    def expression(query: Tensor, key: Tensor) -> Tensor:
        return te.matmul(te.transpose(query, (0, 2, 1, 3), "q"), te.transpose(key, (0, 2, 3, 1), "k"))

    return Workload(name, {"query": shape, "key": shape}, {}, 2 * heads * length * length * depth, expression, nodes)


def _attention_scores(name: str, extent: Extent) -> Workload:
    """The softmax of scaled scores: one product, and six operations an element of the result."""
    length, heads, depth = extent(128), extent(12), extent(64)
    inputs = {"query": (1, heads, length, depth), "key": (1, heads, depth, length)}
    factor = 0.125
    nodes = (
        _node("MatMul", "query key", "scores"),
        _node("Mul", "scores factor", "scaled"),
        _node("Softmax", "scaled", axis=-1),
    )
    return Workload(
        name,
        inputs,
        {},
        heads * length * length * (2 * depth + 6),
        lambda query, key: te.softmax(te.multiply(te.matmul(query, key), factor)),
        nodes,
        lambda constants: {"factor": np.array(factor, np.float32)},
    )


def _attention(tokens: int) -> Maker:
    """Twelve heads of attention, from the projections' results to what the next projection reads.

    Two products, and six operations an element of the scores.
    """

    def make(name: str, extent: Extent) -> Workload:
        length, heads, depth = extent(tokens), extent(12), extent(64)
        factor = np.float32(depth**-0.5)
        nodes = (
            _node("Transpose", "query", "q", perm=[0, 2, 1, 3]),
            _node("Transpose", "key", "k", perm=[0, 2, 3, 1]),
            _node("Transpose", "value", "v", perm=[0, 2, 1, 3]),
            _node("MatMul", "q k", "scores"),
            _node("Mul", "scores factor", "scaled"),
            _node("Softmax", "scaled", "weights", axis=-1),
            _node("MatMul", "weights v", "mixed"),
            _node("Transpose", "mixed", perm=[0, 2, 1, 3]),
        )
        return Workload(
            name,
            dict.fromkeys(("query", "key", "value"), (1, length, heads, depth)),
            {},
            heads * length * length * (4 * depth + 6),
            lambda query, key, value: te.attention(query, key, value),
            nodes,
            lambda constants: {"factor": np.array(factor)},
        )

    return make


_SUITE: Mapping[str, Maker] = {
    "gmm_512": _matmul(512, 512, 512),
    "gmm_1024": _matmul(1024, 1024, 1024),
    "gmm_bert": _matmul(128, 3072, 768, constant=True),
    "bmm": _matmul(128, 128, 64, batch=(12,)),
    "c1d": _convolution((1, 64, 256), 128, stride=2, pad=1),
    "c2d_56": _convolution((1, 64, 56, 56), 64, pad=1, bias_relu=True),
    "c2d_14": _convolution((1, 256, 14, 14), 256, pad=1, bias_relu=True),
    "c2d_s2": _convolution((1, 64, 56, 56), 128, stride=2, pad=1),
    "c2d_1x1": _convolution((1, 256, 56, 56), 64, kernel=1),
    "c3d": _convolution((1, 16, 8, 28, 28), 32, pad=1),
    "dep_112": _convolution((1, 32, 112, 112), 32, pad=1, depthwise=True),
    "dil": _convolution((1, 64, 56, 56), 64, pad=2, dilation=2),
    "grp": _convolution((1, 64, 56, 56), 64, pad=1, groups=4),
    "t2d": _transposed_convolution,
    "cap": _capsule_convolution,
    "nrm": _norm,
    "softmax": _softmax,
    "layernorm": _layer_norm,
    "tbg": _transposed_batch_matmul,
    "conv_bn_relu": _convolution((1, 64, 56, 56), 64, pad=1, norm_relu=True),
    "matmul_softmax": _attention_scores,
    "gmm_prime": _matmul(1021, 1013, 1019),
}
SUITE = tuple(_SUITE)  # what is measured if nothing is named
WORKLOADS: Mapping[str, Maker] = {
    **_SUITE,
    "attention_128": _attention(128),
    "attention_512": _attention(512),
    "attention_4096": _attention(4096),
}
