"""Every ONNX operator with a tensor expression compiles to what ONNX's reference evaluator gives."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper
from onnx.reference import ReferenceEvaluator

from ansor_py.graph import partition_model
from ansor_py.graph.compilation import compile
from ansor_py.graph.onnx_ops.registry import registered_operators
from ansor_py.graph.reference import reference_outputs
from graph_interpreter import Array, floats, interpret, make_model, reference
from onnx_operator_cases import CASES, Case, ints


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_equals_onnx_reference(case: Case) -> None:
    """And what is known at compile time is what a kernel computes at run time: dtype, shape and rounding."""
    data = {f"x{index}": np.asarray(array) for index, array in enumerate(case.inputs)}
    constants = {f"c{index}": array for index, array in enumerate(case.constants)}
    outputs = [f"y{index}" for index in range(case.outputs)]
    behind = {f"z{index}": np.asarray(array) for index, array in enumerate(case.inputs_behind)}
    node = helper.make_node(case.op_type, [*data, *constants, *behind], outputs, name="node", **case.attributes)
    data |= behind
    model = make_model([node], data, outputs, constants, case.opset)
    expected = reference(model, data)
    got = compile(model, threads=1, workers=0).run(data)
    for name in outputs:
        assert got[name].dtype == expected[name].dtype
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-5, atol=1e-6, strict=True)
    folded = known_results(make_model([node], {"unused": floats(1)}, outputs, constants | data, case.opset))
    for name in outputs:
        np.testing.assert_allclose(folded[name], got[name], rtol=2e-5, atol=1e-6, strict=True)


def known_results(model: ModelProto) -> dict[str, Array]:
    """The outputs of a model that are known when it is compiled: by the operators' own definitions, by no evaluator."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("ONNX's reference evaluator ran")

    with mock.patch.object(ReferenceEvaluator, "run", refuse):
        compiled = compile(model, threads=1, workers=0, fallback=False)
    assert not compiled.plan.calls
    return compiled.run({"unused": floats(1)})


def test_softmax_before_opset_13_joins_the_axes_behind_its_axis() -> None:
    x = floats(2, 3, 4)
    model = make_model([helper.make_node("Softmax", ["x"], ["y"])], {"x": x}, ["y"], opset=9)
    got = interpret(partition_model(model), {"x": x})["y"]
    rows = np.exp(x.reshape(2, 12))
    np.testing.assert_allclose(got, (rows / rows.sum(axis=1, keepdims=True)).reshape(x.shape), rtol=1e-5)


def run(model: ModelProto, data: dict[str, Array]) -> dict[str, Array]:
    return compile(model, threads=1, workers=0).run(data)


# Operators that ONNX's evaluator does not know, or gets wrong, and what they are.
def test_global_lp_pool_is_a_norm_of_each_channel() -> None:
    x = floats(2, 3, 4, 5)
    model = make_model([helper.make_node("GlobalLpPool", ["x"], ["y"], p=3)], {"x": x}, ["y"])
    expected = (np.abs(x.astype(np.float64)) ** 3).sum((2, 3), keepdims=True) ** (1 / 3)
    np.testing.assert_allclose(run(model, {"x": x})["y"], expected, rtol=1e-5)


def test_mean_variance_normalisation() -> None:
    x = floats(2, 3, 4, 5)
    model = make_model([helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=[0, -1])], {"x": x}, ["y"], opset=12)
    expected = (x - x.mean((0, 3), keepdims=True)) / x.std((0, 3), keepdims=True)
    np.testing.assert_allclose(run(model, {"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_quantised_convolution_is_one_of_real_numbers() -> None:
    generator = np.random.default_rng(0)
    x, w = (generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((1, 2, 5, 6), (3, 2, 3, 3)))
    scales = {"xs": np.array(0.1, np.float32), "ws": np.array([0.02, 0.03, 0.01], np.float32), "ys": np.array(0.5, np.float32)}
    zeros = {"xz": np.array(100, np.uint8), "wz": np.array([90, 128, 140], np.uint8), "yz": np.array(120, np.uint8)}
    data = {"x": x, "xs": scales["xs"], "xz": zeros["xz"], "w": w, "ws": scales["ws"], "wz": zeros["wz"]}
    data |= {"ys": scales["ys"], "yz": zeros["yz"], "b": np.array([50, -20, 0], np.int32)}
    arrays = {name: np.asarray(value) for name, value in data.items()}
    model = make_model([helper.make_node("QLinearConv", list(arrays), ["y"], pads=[1, 0, 1, 0])], arrays, ["y"])
    real_w = (w.astype(np.float64) - zeros["wz"].reshape(3, 1, 1, 1)) * scales["ws"].reshape(3, 1, 1, 1)
    real_x = np.pad((x.astype(np.float64) - 100) * np.float64(scales["xs"]), ((0, 0), (0, 0), (1, 1), (0, 0)))
    real_y = sum(
        np.einsum("nchw,fc->nfhw", real_x[:, :, i : i + 5, j : j + 4], real_w[:, :, i, j]) for i in range(3) for j in range(3)
    )
    real_y = real_y + (np.array([50, -20, 0]) * scales["xs"] * scales["ws"]).reshape(3, 1, 1)
    expected = np.clip(np.round(real_y / 0.5) + 120, 0, 255)
    assert np.abs(run(model, arrays)["y"].astype(int) - expected).max() <= 1


def test_a_range_of_known_numbers_is_a_constant() -> None:
    nodes = [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    known = {"a": np.array(3), "b": np.array(-4), "c": np.array(-2)}
    x = np.arange(4)
    assert (run(make_model(nodes, {"x": x}, ["y"], known), {"x": x})["y"] == x + np.arange(3, -4, -2)).all()


@pytest.mark.parametrize(("op_type", "opset"), [("Resize", 10), ("Upsample", 9), ("Upsample", 7)])
def test_older_resizing_repeats_elements(op_type: str, opset: int) -> None:
    x, scales = floats(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32)
    if opset == 7:
        model = make_model([helper.make_node(op_type, ["x"], ["y"], scales=scales.tolist())], {"x": x}, ["y"], opset=7)
    else:
        model = make_model([helper.make_node(op_type, ["x", "s"], ["y"])], {"x": x}, ["y"], {"s": scales}, opset)
    np.testing.assert_array_equal(run(model, {"x": x})["y"], x.repeat(2, 2).repeat(3, 3))


def test_a_pad_of_a_computed_number_is_not_folded_into_a_convolution() -> None:
    x, value = floats(1, 2, 4, 4), np.array(3.0, np.float32)
    nodes = [helper.make_node("Pad", ["x", "p", "v"], ["a"]), helper.make_node("Conv", ["a", "w"], ["y"])]
    constants = {"p": ints(0, 0, 1, 1, 0, 0, 1, 1), "w": floats(3, 2, 3, 3, seed=1)}
    data = {"x": x, "v": value}
    model = make_model(nodes, data, ["y"], constants)
    np.testing.assert_allclose(run(model, data)["y"], reference(model, data)["y"], rtol=1e-4, atol=1e-5)


def test_division_by_zero_does_not_stop_the_process() -> None:
    a, b = np.array([5, -(2**63), 7]), np.array([0, -1, 2])
    model = make_model([helper.make_node("Div", ["a", "b"], ["y"])], {"a": a, "b": b}, ["y"])
    assert run(model, {"a": a, "b": b})["y"][2] == 3


def test_indices_outside_read_the_nearest_element() -> None:
    x, indices = floats(4, 3), np.array([99, -99, 2])
    model = make_model([helper.make_node("Gather", ["x", "i"], ["y"])], {"x": x, "i": indices}, ["y"])
    np.testing.assert_array_equal(run(model, {"x": x, "i": indices})["y"], x[[3, 0, 2]])


EMPTY = floats(2, 0, 3)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0, 2]),
        helper.make_node("Softmax", ["x"], ["y"], axis=2),
        helper.make_node("Concat", ["x", "x"], ["y"], axis=1),
        helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["y"], axes=[2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
        helper.make_node("MatMul", ["t", "x"], ["y"]),
        helper.make_node("Flatten", ["x"], ["y"]),
    ],
    ids=lambda node: f"{node.op_type}-{'-'.join(node.input)}",
)
def test_tensors_without_elements(node: NodeProto) -> None:
    data = {"x": EMPTY} | ({"t": floats(2, 3, 0)} if "t" in node.input else {})
    model = make_model([node], data, ["y"])
    expected = reference(model, data)["y"]
    np.testing.assert_array_equal(run(model, data)["y"], expected, strict=True)


def test_scalars_inside_a_function_body_stay_scalars() -> None:
    x = floats(3, 4)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    model = make_model([node], {"x": x}, ["y", "scale", "zero"])
    got, expected = run(model, {"x": x}), reference(model, {"x": x})
    assert all(got[name].shape == np.shape(expected[name]) for name in expected)
    np.testing.assert_array_equal(got["y"], expected["y"])


def test_transposed_convolution_of_groups_is_one_of_each_group() -> None:
    x, w = floats(1, 4, 5), floats(4, 3, 4, seed=1)

    def transposed(data: Array, weight: Array, groups: int) -> Array:
        node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[3], pads=[1, 0], group=groups)
        return run(make_model([node], {"x": data, "w": weight}, ["y"]), {"x": data, "w": weight})["y"]

    parts = [transposed(x[:, c : c + 2], w[c : c + 2], 1) for c in (0, 2)]
    np.testing.assert_allclose(transposed(x, w, 2), np.concatenate(parts, 1), rtol=1e-5)


def test_every_registered_operator_has_a_case() -> None:
    made_by_passes = {"ChannelAffine", "Join"}
    above = {"GlobalLpPool", "MeanVarianceNormalization", "QLinearConv", "Range"}
    assert set(registered_operators()) - made_by_passes - above == {case.op_type for case in CASES}


def test_negative_pad_crops() -> None:
    x = floats(4, 5)
    model = make_model([helper.make_node("Pad", ["x", "p"], ["y"])], {"x": x}, ["y"], {"p": ints(-1, 2, 1, -3)})
    expected = np.pad(x[1:, :2], [(0, 1), (2, 0)])
    np.testing.assert_array_equal(interpret(partition_model(model), {"x": x})["y"], expected)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_lrn_of_one_image_covers_all_channels(size: int) -> None:
    x = floats(1, 6, 2, 2)
    model = make_model([helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.5, beta=0.6)], {"x": x}, ["y"])
    expected = reference_outputs(model, {"x": x})["y"]
    np.testing.assert_allclose(interpret(partition_model(model), {"x": x})["y"], expected, rtol=1e-5)
    assert (expected != x).all()
