"""The ONNX backend: prepared models, single nodes, shapes and values that are known only when a model is run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ansor_py.errors import FeedError, ModelError
from ansor_py.graph.backend import KEPT_VARIANTS, AnsorBackend
from graph_interpreter import floats, make_model


def test_prepared_models_take_and_give_lists() -> None:
    nodes = [helper.make_node("Add", ["x", "y"], ["s"]), helper.make_node("Relu", ["s"], ["r"])]
    x, y = floats(2, 3), floats(3, seed=1)
    prepared = AnsorBackend.prepare(make_model(nodes, {"x": x, "y": y}, ["r", "s"]))
    r, s = prepared.run([x, y])
    np.testing.assert_allclose(s, x + y, rtol=1e-6)
    np.testing.assert_allclose(r, np.maximum(x + y, 0), rtol=1e-6)
    np.testing.assert_allclose(prepared.run({"y": y, "x": -x})[1], y - x, rtol=1e-6)
    with pytest.raises(FeedError, match=r"takes 2 inputs \(x, y\), not 1"):
        prepared.run([x])


def test_a_model_is_compiled_for_the_shapes_it_is_run_with() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ("batch", 3)}, ["y"])
    prepared = AnsorBackend.prepare(model)
    for batch in (1, 2, 5, 2):
        data = floats(batch, 3, seed=batch)
        np.testing.assert_array_equal(prepared.run([data])[0], np.maximum(data, 0))
    assert len(prepared.variants) == 3
    for batch in range(1, KEPT_VARIANTS + 3):
        prepared.run([floats(batch, 3)])
    assert len(prepared.variants) == KEPT_VARIANTS


def test_values_that_have_to_be_known_are_compiled_in() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Cast", ["n"], ["extent"], to=TensorProto.INT64),
        helper.make_node("Concat", ["extent", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    data = np.maximum(floats(2, 6), 0)
    graph = helper.make_graph(
        nodes,
        "reshape",
        [_info("x", TensorProto.FLOAT, 2, 6), _info("n", TensorProto.INT32, 1)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])],
        [onnx.numpy_helper.from_array(np.array([-1]), "rest")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    prepared = AnsorBackend.prepare(model)
    for rows in (3, 4, 3):
        (y,) = prepared.run([data, np.array([rows], np.int32)])
        np.testing.assert_array_equal(y, data.reshape(rows, -1))
    assert len(prepared.variants) == 2
    assert not any(compiled.fallback_nodes for compiled in prepared.variants)
    (y,) = AnsorBackend.prepare(model, fallback=False).run([data, np.array([12], np.int32)])
    assert y.shape == (12, 1)


def test_nodes_alone() -> None:
    node = helper.make_node("Gemm", ["a", "b"], ["y"], transB=1)
    a, b = floats(4, 8), floats(3, 8, seed=1)
    (y,) = AnsorBackend.run_node(node, [a, b], outputs_info=[(np.float32, (4, 3))])
    np.testing.assert_allclose(y, a @ b.T, rtol=1e-4, atol=1e-5)
    (y,) = AnsorBackend.run_node(helper.make_node("Softmax", ["a"], ["y"]), {"a": a}, opset_version=13)
    np.testing.assert_allclose(y.sum(-1), np.ones(4), rtol=1e-5)


def test_attributes_left_to_their_defaults_in_operators_with_a_function_body() -> None:
    """ONNX's strict shape inference does not see such a default, and refuses the valid node."""
    model = make_model([helper.make_node("MeanVarianceNormalization", ["x"], ["y"])], {"x": (2, 3, 4, 4)}, ["y"], opset=13)
    model.graph.output[0].CopyFrom(_info("y", TensorProto.FLOAT, 2, 3, 4, 4))
    data = floats(2, 3, 4, 4)
    (y,) = AnsorBackend.run_model(model, [data], fallback=False)
    expected = (data - data.mean((0, 2, 3), keepdims=True)) / data.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_compatibility_and_devices() -> None:
    good = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    bad = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": floats(2).astype(np.float16)}, ["y"])
    assert AnsorBackend.is_compatible(good)
    assert not AnsorBackend.is_compatible(good, "CUDA")
    assert not AnsorBackend.is_compatible(bad)
    assert AnsorBackend.supports_device("CPU:0")
    (y,) = AnsorBackend.run_model(good, [floats(2, 3)])
    assert y.shape == (2, 3)
    dynamic = make_model([helper.make_node("Det", ["x"], ["y"])], {"x": (3, 3)}, ["y"])
    with pytest.raises(ModelError, match="operator Det"):
        AnsorBackend.run_model(dynamic, [floats(3, 3)], fallback=False)


def _info(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
