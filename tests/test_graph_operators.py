"""Every ONNX operator with a tensor expression compiles to what ONNX's reference evaluator gives."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper

from ansor_py.graph import partition_model
from ansor_py.graph.compilation import compile
from ansor_py.graph.onnx_ops.registry import registered_operators
from ansor_py.graph.reference import reference_outputs
from graph_interpreter import Array, floats, interpret, make_model, reference
from onnx_operator_cases import CASES, Case, ints


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_equals_onnx_reference(case: Case) -> None:
    data = {f"x{index}": array for index, array in enumerate(case.inputs)}
    constants = {f"c{index}": array for index, array in enumerate(case.constants)}
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op_type, [*data, *constants], outputs, name="node", **case.attributes)
    model = make_model([node], data, outputs, constants, case.opset)
    expected = reference(model, data)
    got = compile(model, threads=1, workers=0).run(data)
    for name in outputs:
        assert got[name].dtype == expected[name].dtype
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-5, atol=1e-6, strict=True)


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


def test_transposed_convolution_of_groups_is_one_of_each_group() -> None:
    x, w = floats(1, 4, 5), floats(4, 3, 4, seed=1)

    def transposed(data: Array, weight: Array, groups: int) -> Array:
        node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[3], pads=[1, 0], group=groups)
        return run(make_model([node], {"x": data, "w": weight}, ["y"]), {"x": data, "w": weight})["y"]

    parts = [transposed(x[:, c : c + 2], w[c : c + 2], 1) for c in (0, 2)]
    np.testing.assert_allclose(transposed(x, w, 2), np.concatenate(parts, 1), rtol=1e-5)


def test_every_registered_operator_has_a_case() -> None:
    made_by_passes = {"ChannelAffine"}
    above = {"GlobalLpPool"}
    assert set(registered_operators()) - made_by_passes - above == {case.op_type for case in CASES} - {"HardSwish", "Softplus"}


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
