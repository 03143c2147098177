"""Whole networks, compiled with default schedules: every kernel's result equals ONNX's reference evaluator's."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from ansor_py.graph import compile, compile_partition, partition_model
from ansor_py.graph.random_weights import find_light_models, randomise_constant_weights
from ansor_py.graph.reference import reference_outputs
from graph_interpreter import floats, interpret
from network_blocks import transformer_layer


def test_transformer_layer() -> None:
    model, data = transformer_layer(hidden=64, heads=4, tokens=24)
    parts = partition_model(model)
    assert not {"Shape", "Gather", "Unsqueeze"} & {node.op_type for node in parts.graph.nodes}
    expected = reference_outputs(model, data)
    for got in (interpret(parts, data), compile(model, threads=2, workers=0).run(data)):
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "wide"), [("squeezenet", False), ("shufflenet", False), ("shufflenet", True), ("resnet50", False)]
)
def test_every_kernel_of_a_light_model(name: str, wide: bool) -> None:
    """With random weights, and all results of kernels made outputs of the model; `wide`: one kernel wherever it may be one."""
    model = randomise_constant_weights(onnx.load(find_light_models()[name]), seed=0)
    parts = partition_model(model)
    parts = parts.closed(choice.key for choice in parts.choices if wide)
    graph = parts.graph
    results = [subgraph.output for subgraph in parts.subgraphs]
    data = {port: floats(*graph.values[port].shape) for port in graph.inputs}
    expected = reference_outputs(model, data, results)
    everything = dataclasses.replace(graph, outputs={result: result for result in results})
    got = compile_partition(dataclasses.replace(parts, graph=everything), threads=2).run(data)
    for result in results:
        scale = float(np.abs(expected[result]).max())
        np.testing.assert_allclose(got[result], expected[result], rtol=1e-3, atol=1e-4 * scale, err_msg=result)
