"""Models with meaningful weights: seeded random values in place of constant ones.

The `light_*.onnx` models of the onnx wheel carry one constant in every large weight, so that a wrong result which is equal
across channels goes unnoticed. Here each such weight gets He-scaled random values (standard deviation sqrt(2 / fan-in)) and
the parameters of a normalisation such values that activations keep their size through a deep network.

    model = randomise_constant_weights(onnx.load(find_light_models()["squeezenet"]), seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

# Operators through which a weight's role is that of their result.
_TRANSPARENT = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Identity", "Transpose"})
_BATCH_NORM_ROLES = {1: "scale", 2: "shift", 3: "shift", 4: "scale"}


def find_light_models() -> dict[str, Path]:
    """The light models of the installed onnx wheel by short name ("squeezenet", "resnet50", ...); empty if it has none."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return {path.stem.removeprefix("light_").removeprefix("bvlc_"): path for path in sorted(folder.glob("light_*.onnx"))}


def randomise_constant_weights(model: ModelProto, seed: int) -> ModelProto:
    """A copy whose constant-filled float32 weights are random initialisers.

    A weight is the result of a `ConstantOfShape` with a known shape, or an initialiser of two or more equal values. Its
    values depend on what reads it: normal with variance 2 / fan-in for Conv, Gemm and MatMul, near 1 (and positive) for a
    BatchNormalization's scale and variance or a factor of Mul, near 0 for what is added.
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    rng = np.random.default_rng(seed)
    readers = _readers(changed)
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    replaced: dict[str, tuple[int, ...]] = {}
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in initialisers and _fills_float32(node):
            replaced[node.output[0]] = tuple(numpy_helper.to_array(initialisers[node.input[0]]).tolist())
    kept_nodes = [node for node in graph.node if not (node.output and node.output[0] in replaced)]
    for tensor in graph.initializer:
        if _is_constant_float32(tensor):
            replaced[tensor.name] = tuple(tensor.dims)
    weights = [
        numpy_helper.from_array(_random_values(shape, *_role(name, readers), rng), name) for name, shape in replaced.items()
    ]
    _replace_nodes(changed, kept_nodes)
    used = {name for node in kept_nodes for name in node.input} | {value.name for value in graph.output}
    kept_tensors = [tensor for name, tensor in initialisers.items() if name not in replaced and name in used]
    _replace_initialisers(changed, [*kept_tensors, *weights], set(initialisers) - used)
    return changed


def _readers(model: ModelProto) -> Mapping[str, list[tuple[NodeProto, int]]]:
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, index))
    return readers


def _role(name: str, readers: Mapping[str, list[tuple[NodeProto, int]]]) -> tuple[str, NodeProto | None]:
    """What a weight is for: "weight" (with its reader), "scale" or "shift"."""
    while name in readers:
        node, index = readers[name][0]
        if node.op_type in _TRANSPARENT and index == 0:
            name = node.output[0]
            continue
        if node.op_type == "BatchNormalization":
            return _BATCH_NORM_ROLES.get(index, "shift"), None
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and index < 2:
            return "weight", node
        return ("scale" if node.op_type in ("Mul", "Div") else "shift"), None
    return "shift", None


def _random_values(
    shape: tuple[int, ...], role: str, reader: NodeProto | None, rng: np.random.Generator
) -> NDArray[np.float32]:
    if role == "scale":
        return rng.uniform(0.8, 1.25, shape).astype(np.float32)
    if role == "shift" or reader is None:
        return (rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)).astype(np.float32)
    deviation = np.float32(np.sqrt(2.0 / max(_fan_in(shape, reader), 1)))
    return np.asarray(rng.standard_normal(shape, dtype=np.float32) * deviation, dtype=np.float32)


def _fan_in(shape: tuple[int, ...], reader: NodeProto) -> int:
    """How many products are summed into one element of the reader's result."""
    if reader.op_type == "Conv":
        return int(np.prod(shape[1:]))
    if reader.op_type == "ConvTranspose":
        return int(shape[0] * np.prod(shape[2:]))
    transposed = any(attribute.name == "transB" and attribute.i for attribute in reader.attribute)
    return shape[-1] if transposed else shape[-2] if len(shape) > 1 else shape[0]


def _fills_float32(node: NodeProto) -> bool:
    values = [attribute.t.data_type for attribute in node.attribute if attribute.name == "value"]
    return not values or values[0] == TensorProto.FLOAT


def _is_constant_float32(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims, dtype=np.int64)) < 2:
        return False
    values = numpy_helper.to_array(tensor)
    return bool((values == values.flat[0]).all())


def _replace_nodes(model: ModelProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _replace_initialisers(model: ModelProto, tensors: list[TensorProto], unused: set[str]) -> None:
    """Set the initialisers; inputs that stood for dropped ones go, new ones are declared where the IR version asks for it."""
    graph = model.graph
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    inputs = [info for info in graph.input if info.name not in unused]
    declared = {info.name for info in inputs}
    if model.ir_version < 4:  # such models list every initialiser among the inputs
        inputs += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tuple(tensor.dims))
            for tensor in copies
            if tensor.name not in declared
        ]
    kept_inputs = [type(info).FromString(info.SerializeToString()) for info in inputs]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    del graph.input[:]
    graph.input.extend(kept_inputs)
