"""Whole networks, compiled with default schedules: every kernel's result equals ONNX's reference evaluator's."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper

from ansor_py.graph import compile, compile_partition, partition_model
from ansor_py.graph.random_weights import find_light_models, randomise_constant_weights
from ansor_py.graph.reference import reference_outputs
from graph_interpreter import Array, floats, interpret, make_model


def transformer_layer(hidden: int, heads: int, tokens: int) -> tuple[ModelProto, dict[str, Array]]:
    """An encoder layer as exporters write it: shape arithmetic, erf for gelu, layer norm from primitive operators."""
    nodes: list[NodeProto] = []
    constants: dict[str, Array] = {}

    def add(op_type: str, *inputs: str | Array, **attributes: object) -> str:
        names = []
        for given in inputs:
            if not isinstance(given, str):
                constants[f"k{len(constants)}"] = given
                given = f"k{len(constants) - 1}"
            names.append(given)
        output = f"v{len(nodes)}"
        nodes.append(helper.make_node(op_type, names, [output], name=f"{op_type}{len(nodes)}", **attributes))
        return output

    def weight(*shape: int) -> Array:
        return floats(*shape, seed=len(constants)) / np.float32(np.sqrt(shape[0]))

    def linear(x: str, width: int, result: int) -> str:
        return add("Add", add("MatMul", x, weight(width, result)), weight(result))

    def norm(x: str) -> str:
        centred = add("Sub", x, add("ReduceMean", x, axes=[-1]))
        variance = add("ReduceMean", add("Pow", centred, np.float32(2)), axes=[-1])
        deviation = add("Sqrt", add("Add", variance, np.float32(1e-5)))
        return add("Add", add("Mul", add("Div", centred, deviation), weight(hidden)), weight(hidden))

    def split_heads(x: str, order: list[int]) -> str:
        batch = add("Unsqueeze", add("Gather", add("Shape", x), np.int64(0)), np.array([0]))
        shape = add("Concat", batch, np.array([-1, heads, hidden // heads]), axis=0)
        return add("Transpose", add("Reshape", x, shape), perm=order)

    query = split_heads(linear("x", hidden, hidden), [0, 2, 1, 3])
    key = split_heads(linear("x", hidden, hidden), [0, 2, 3, 1])
    value = split_heads(linear("x", hidden, hidden), [0, 2, 1, 3])
    scores = add("Div", add("MatMul", query, key), np.float32(np.sqrt(hidden // heads)))
    mixed = add("MatMul", add("Softmax", scores, axis=-1), value)
    merged = add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, hidden]))
    attended = norm(add("Add", linear(merged, hidden, hidden), "x"))
    wide = linear(attended, hidden, 4 * hidden)
    gate = add("Add", add("Erf", add("Div", wide, np.float32(np.sqrt(2)))), np.float32(1))
    gelu = add("Mul", add("Mul", wide, gate), np.float32(0.5))
    result = norm(add("Add", linear(gelu, 4 * hidden, hidden), attended))
    data = {"x": floats(1, tokens, hidden)}
    return make_model(nodes, data, [result], constants), data


def test_transformer_layer() -> None:
    model, data = transformer_layer(hidden=64, heads=4, tokens=24)
    parts = partition_model(model)
    assert not {"Shape", "Gather", "Unsqueeze"} & {node.op_type for node in parts.graph.nodes}
    expected = reference_outputs(model, data)
    for got in (interpret(parts, data), compile(model, threads=2, workers=0).run(data)):
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50"])
def test_every_kernel_of_a_light_model(name: str) -> None:
    """With random weights, and all results of kernels made outputs of the model."""
    model = randomise_constant_weights(onnx.load(find_light_models()[name]), seed=0)
    parts = partition_model(model)
    graph = parts.graph
    results = [subgraph.output for subgraph in parts.subgraphs]
    data = {port: floats(*graph.values[port].shape) for port in graph.inputs}
    expected = reference_outputs(model, data, results)
    everything = dataclasses.replace(graph, outputs={result: result for result in results})
    got = compile_partition(dataclasses.replace(parts, graph=everything), threads=2).run(data)
    for result in results:
        scale = float(np.abs(expected[result]).max())
        np.testing.assert_allclose(got[result], expected[result], rtol=1e-3, atol=1e-4 * scale, err_msg=result)
