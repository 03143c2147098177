"""Graph passes keep what a graph computes, and leave the operators that they should."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ansor_py.graph import compile, import_model, partition_model
from ansor_py.graph.ir import Graph
from ansor_py.graph.passes import PASSES, run_passes
from graph_interpreter import Array, floats, interpret, make_model, reference

CHANNELS = 4


def norm_parameters(prefix: str, seed: int) -> dict[str, Array]:
    names = [f"{prefix}{kind}" for kind in ("scale", "shift", "mean", "variance")]
    return {name: np.abs(floats(CHANNELS, seed=seed + index)) + 0.2 for index, name in enumerate(names)}


def batch_norm(source: str, result: str, prefix: str) -> NodeProto:
    inputs = [source, *norm_parameters(prefix, 0)]
    return helper.make_node("BatchNormalization", inputs, [result], name=f"bn_{result}", epsilon=1e-3)


def conv(source: str, result: str, bias: bool = True) -> NodeProto:
    return helper.make_node("Conv", [source, "w", *(["b"] if bias else [])], [result], name=f"conv_{result}", pads=[1, 1, 1, 1])


def image_model(nodes: Sequence[NodeProto], outputs: Sequence[str] = ("y",)) -> tuple[ModelProto, dict[str, Array]]:
    """A model on an image `x`, with weights for `conv` and parameters "p" and "q" for `batch_norm`."""
    constants = {"w": floats(CHANNELS, CHANNELS, 3, 3, seed=7), "b": floats(CHANNELS, seed=8)}
    constants |= norm_parameters("p", 20) | norm_parameters("q", 30)
    constants |= {"perchannel": floats(1, CHANNELS, 1, 1, seed=9) + 2, "scalar": np.float32(1.5), "full": floats(5, 6, seed=10)}
    used = {name for node in nodes for name in node.input}
    data = {"x": floats(2, CHANNELS, 5, 6, seed=11)}
    return make_model(nodes, data, outputs, {name: array for name, array in constants.items() if name in used}), data


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def node(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{op_type.lower()}_{output}", **attributes)


# Nodes, and the operators that are left of them.
FOLDED = {
    "conv-bn": ([conv("x", "a"), batch_norm("a", "y", "p")], ["Conv"]),
    "conv without bias-bn": ([conv("x", "a", bias=False), batch_norm("a", "y", "p")], ["Conv"]),
    "conv-bn-mul-add-relu": (
        [
            conv("x", "a"),
            batch_norm("a", "b1", "p"),
            node("Mul", "b1 perchannel", "c"),
            node("Add", "scalar c", "d"),
            node("Relu", "d", "y"),
        ],
        ["Conv", "Relu"],
    ),
    "conv-sub-div": ([conv("x", "a"), node("Sub", "a perchannel", "c"), node("Div", "c perchannel", "y")], ["Conv"]),
    "two norms": ([batch_norm("x", "a", "p"), batch_norm("a", "y", "q")], ["ChannelAffine"]),
    "norm-mul": ([batch_norm("x", "a", "p"), node("Mul", "perchannel a", "y")], ["ChannelAffine"]),
    "bn after relu": ([conv("x", "a"), node("Relu", "a", "b1"), batch_norm("b1", "y", "p")], ["Conv", "Relu", "ChannelAffine"]),
    "spatial factor stays": ([conv("x", "a"), node("Mul", "a full", "y")], ["Conv", "Mul"]),
    "constant minus stays": ([conv("x", "a"), node("Sub", "perchannel a", "y")], ["Conv", "Sub"]),
    "lone mul and add stay": ([node("Mul", "x perchannel", "a"), node("Add", "a scalar", "y")], ["Mul", "Add"]),
    "conv read twice": (
        [conv("x", "a"), batch_norm("a", "b1", "p"), node("Add", "a b1", "y")],
        ["Conv", "ChannelAffine", "Add"],
    ),
    "residual": (
        [conv("x", "a"), batch_norm("a", "c", "p"), node("Add", "c x", "d"), node("Relu", "d", "y")],
        ["Conv", "Add", "Relu"],
    ),
    "identities": (
        [node("Identity", "x", "a"), node("Dropout", "a", "c"), node("Relu", "c", "d"), node("Identity", "d", "y")],
        ["Relu"],
    ),
    "dead code": ([node("Relu", "x", "y"), node("Neg", "x", "z")], ["Relu"]),
    "views of views": (
        [
            node("Flatten", "x", "a"),
            node("Relu", "a", "c"),
            node("Flatten", "c", "d"),
            node("Transpose", "d", "y", perm=[0, 1]),
        ],
        ["Reshape", "Relu"],
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_passes_fold_and_keep_the_result(name: str) -> None:
    nodes, expected_kinds = FOLDED[name]
    model, data = image_model(nodes)
    assert sorted(kinds(run_passes(import_model(model)))) == sorted(expected_kinds)
    expected = reference(model, data)["y"]
    np.testing.assert_allclose(interpret(partition_model(model), data)["y"], expected, rtol=2e-4, atol=2e-5)


LARGEST = float(np.finfo(np.float32).max)
ODD = [np.inf, -np.inf, np.nan, 0.0, LARGEST / 16]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("place", ["Mul", "Add", "Sub", "Div", "w", "b", "pscale", "pshift", "pmean", "pvariance"])
def test_what_is_not_finite_is_not_folded(place: str, value: float) -> None:
    """A factor of one channel, or a parameter of an operator: results as if nothing was folded, and no warning of NumPy's."""
    if place in ("Mul", "Add", "Sub", "Div"):
        nodes = [conv("x", "a"), node(place, "a perchannel", "y")]
    elif place in ("w", "b"):
        nodes = [conv("x", "a"), batch_norm("a", "y", "p")]
    else:
        nodes = [batch_norm("x", "a", "p"), node("Mul", "a perchannel", "y")]
    model, data = image_model(nodes)
    [tensor] = [item for item in model.graph.initializer if item.name == (place if place[0] in "wbp" else "perchannel")]
    array = numpy_helper.to_array(tensor).copy()
    array[(0, 1) if array.ndim > 1 else 1] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = compile(model, threads=1, workers=0, fallback=False).run(data)["y"]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, reference(model, data)["y"], rtol=1e-4, atol=1e-4)


def test_what_is_too_large_for_a_weight_may_be_small_enough_for_the_result() -> None:
    model, data = image_model([conv("x", "a", bias=False), node("Mul", "a perchannel", "y")])
    factors = {"w": 1e3, "perchannel": 3e37}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor) * np.float32(factors[tensor.name])
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    data["x"] *= np.float32(1e-30)
    got = compile(model, threads=1, workers=0).run(data)["y"]
    assert 1e10 < np.abs(got).max() < 1e14
    np.testing.assert_allclose(got, reference(model, data)["y"], rtol=1e-4, atol=1e7)


def test_zero_pad_goes_into_the_convolution() -> None:
    pads = np.array([0, 0, 1, 0, 0, 0, 2, 1])
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["a"], name="pad"),
        helper.make_node("Conv", ["a", "w"], ["y"], name="conv"),
    ]
    data = {"x": floats(1, 3, 6, 6)}
    model = make_model(nodes, data, ["y"], {"pads": pads, "w": floats(4, 3, 3, 3, seed=1)})
    graph = run_passes(import_model(model))
    assert kinds(graph) == ["Conv"]
    assert graph.nodes[0].attributes["pads"] == (1, 0, 2, 1)
    np.testing.assert_allclose(interpret(partition_model(model), data)["y"], reference(model, data)["y"], rtol=1e-4, atol=1e-5)


def test_pad_with_another_value_stays() -> None:
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    nodes = [helper.make_node("Pad", ["x", "pads", "one"], ["a"]), helper.make_node("Conv", ["a", "w"], ["y"])]
    constants = {"pads": pads, "one": np.float32(1), "w": floats(4, 3, 3, 3)}
    model = make_model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants)
    assert kinds(run_passes(import_model(model))) == ["Pad", "Conv"]


def test_each_pass_alone_keeps_a_residual_block() -> None:
    nodes = [
        conv("x", "a", bias=False),
        batch_norm("a", "n", "p"),
        node("Relu", "n", "r"),
        conv("r", "c"),
        batch_norm("c", "m", "q"),
        node("Add", "m x", "s"),
        node("Dropout", "s", "t"),
        node("Flatten", "t", "y"),
    ]
    model, data = image_model(nodes, outputs=("y", "s"))
    expected = reference(model, data)
    from ansor_py.graph.fusion import fuse
    from ansor_py.graph.partition import partition

    for apply in dict.fromkeys(PASSES):
        graph = apply(import_model(model))
        got = interpret(partition(graph, fuse(graph)), data)
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=2e-4, atol=2e-5, err_msg=apply.__name__)


def test_a_graph_prints_a_line_for_each_node() -> None:
    model, _ = image_model([conv("x", "a"), node("Relu", "a", "y")])
    lines = str(import_model(model)).splitlines()
    assert lines[0] == "graph test(x: float32[2, 4, 5, 6]) -> y  # 2 nodes, 2 constants"
    assert lines[2] == "  y: float32[2, 4, 5, 6] = Relu(a)"


@pytest.mark.parametrize(("count", "joins"), [(8, 0), (9, 2), (17, 3), (64, 9), (65, 10)])
@pytest.mark.parametrize("axis", [0, -1])
def test_many_tensors_are_joined_by_a_tree(count: int, joins: int, axis: int) -> None:
    """Every tensor is in its place, and no kernel joins more than eight."""
    shape = (1, 2) if axis == 0 else (2, 1)
    data = {f"x{index}": floats(*shape, seed=index) for index in range(count)}
    model = make_model([helper.make_node("Concat", [*data], ["y"], axis=axis)], data, ["y"])
    parts = partition_model(model)
    assert kinds(parts.graph) == (["Join"] * joins or ["Concat"])
    assert max(len(node.inputs) for node in parts.graph.nodes) == 8
    assert all(len(subgraph.nodes) == 1 for subgraph in parts.subgraphs)
    np.testing.assert_array_equal(interpret(parts, data)["y"], np.concatenate([*data.values()], axis))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divisions_by_powers_of_two_are_multiplications_to_the_last_bit(dtype: type) -> None:
    x = np.concatenate([floats(60), [0.0, np.inf, -np.inf, np.nan]]).astype(dtype).reshape(4, 16)
    for divisor in (np.array(8, dtype), np.array([0.25, -2, 1, 1024] * 4, dtype)):
        model = make_model([node("Div", "x d", "y")], {"x": x}, ["y"], {"d": divisor})
        assert kinds(run_passes(import_model(model))) == ["Mul"]
        np.testing.assert_array_equal(compile(model, workers=0).run({"x": x})["y"], reference(model, {"x": x})["y"])


@pytest.mark.parametrize("divisor", [3.0, 0.0, np.inf, 2.0**-127, 2.0**127, [8.0, 7.0]], ids=str)
def test_other_divisions_stay(divisor: float | list[float]) -> None:
    shape = (4, 2)
    model = make_model([node("Div", "x d", "y")], {"x": shape}, ["y"], {"d": np.array(divisor, np.float32)})
    assert kinds(run_passes(import_model(model))) == ["Div"]


def test_divisions_of_integers_stay() -> None:
    x = np.arange(-8, 8, dtype=np.int32)
    model = make_model([node("Div", "x d", "y")], {"x": x}, ["y"], {"d": np.array(2, np.int32)})
    assert kinds(run_passes(import_model(model))) == ["Div"]
