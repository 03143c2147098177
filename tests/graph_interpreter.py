"""Evaluates a partitioned graph with the NumPy interpreter of tensor expressions: kernels as they are defined, no code made.

outputs = interpret(partition_model(model), {"x": array})
outputs = reference(model, {"x": array})                     # the same by ONNX's own evaluator
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ansor_py.graph.partition import Partition
from te_interpreter import evaluate

Array = npt.NDArray[Any]


def interpret(parts: Partition, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The graph's outputs by public name."""
    graph = parts.graph
    arrays = {name: value.constant for name, value in graph.values.items() if value.constant is not None}
    arrays.update(feed)

    def value(name: str) -> Array:
        owner = parts.owner(name)
        if owner in parts.slices:
            source, first = parts.slices[owner]
            raw = value(source).reshape(-1)
            start = first // raw.itemsize
            arrays[owner] = raw[start : start + math.prod(graph.values[owner].shape)]
        if owner not in arrays:
            inside = sorted((first, part) for part, (whole, first) in parts.joins.items() if parts.owner(whole) == owner)
            arrays[owner] = np.concatenate([value(part).reshape(-1) for _, part in inside])
        return np.asarray(arrays[parts.owner(name)]).reshape(graph.values[name].shape)

    for subgraph in parts.subgraphs:
        dag = subgraph.dag
        given = {t: value(name).reshape(t.shape) for t, name in zip(dag.inputs, subgraph.inputs, strict=True)}
        arrays[subgraph.output] = evaluate(dag.outputs[0], given)
    return {public: value(name) for public, name in graph.outputs.items()}


def reference(model: ModelProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The model's outputs by ONNX's reference evaluator, with nothing replaced."""
    evaluator = ReferenceEvaluator(model)
    return dict(zip(evaluator.output_names, evaluator.run(None, dict(feed)), strict=True))


def make_model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Array | tuple[str | int, ...]],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
) -> ModelProto:
    """A model from nodes; an input is given by an array of its shape and dtype, or a shape of float32."""
    infos = []
    for name, given in inputs.items():
        shape = given.shape if isinstance(given, np.ndarray) else given
        kind = helper.np_dtype_to_tensor_dtype(given.dtype) if isinstance(given, np.ndarray) else TensorProto.FLOAT
        infos.append(helper.make_tensor_value_info(name, kind, shape))
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "test", infos, results, tensors)
    draft = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return with_output_types(draft)


def with_output_types(model: ModelProto) -> ModelProto:
    """The model with the types of its outputs filled in by shape inference; a float32 vector where that finds nothing."""
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    for index, info in enumerate(inferred.graph.output):
        if not info.type.HasField("tensor_type"):
            info.type.tensor_type.elem_type = TensorProto.FLOAT
            info.type.tensor_type.shape.dim.add()
        model.graph.output[index].CopyFrom(info)
    return model


def floats(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Seeded standard normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
