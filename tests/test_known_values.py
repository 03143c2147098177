"""Values computed at compile time: by NumPy for the simple operators, by the tensor expression for the others; equal to
ONNX's reference evaluator's, and to what a kernel gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ansor_py.errors import ExpressionError
from ansor_py.graph import compile, partition_model
from ansor_py.graph.ir import OperatorNode
from ansor_py.graph.known_values import known_result
from ansor_py.graph.passes import constant_folding
from ansor_py.te.interpreter import saturating_cast
from ansor_py.te.ops.indexing import progression_length
from extreme_values import FLOATS as FLOAT_DTYPES
from extreme_values import INTEGERS as INTEGER_DTYPES
from extreme_values import assert_same, both_ways, extremes
from graph_interpreter import Array, floats, make_model
from onnx_operator_cases import FLOAT_FUNCTIONS

INTEGERS, FLOATS = np.array([[7, -7, 6], [-6, 1, 0]]), np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -4.0]], np.float32)
CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Add", [INTEGERS, np.array([1, 2, 3])], {}),
    ("Sub", [FLOATS, np.float32(2)], {}),
    ("Mul", [INTEGERS, INTEGERS], {}),
    ("Div", [INTEGERS, np.array([2, 2, -4])], {}),
    ("Div", [FLOATS, np.float32(3)], {}),
    ("Max", [INTEGERS, np.int64(1), np.int64(2)], {}),
    ("Pow", [np.abs(FLOATS), np.float32(0.5)], {}),
    ("Less", [INTEGERS, np.int64(1)], {}),
    ("Not", [INTEGERS > 0], {}),
    ("Neg", [INTEGERS], {}),
    ("Sqrt", [np.abs(FLOATS)], {}),
    ("Cast", [FLOATS], {"to": 7}),
    ("Cast", [INTEGERS], {"to": 9}),
    ("CastLike", [INTEGERS, FLOATS], {}),
    ("Concat", [INTEGERS, INTEGERS], {"axis": -1}),
    ("Gather", [INTEGERS, np.array([-1, 0])], {"axis": 1}),
    ("Gather", [INTEGERS[0], np.int64(1)], {}),
    ("Slice", [INTEGERS, np.array([0]), np.array([2]), np.array([1])], {}),
    ("Slice", [INTEGERS, np.array([-1]), np.array([-100]), np.array([1]), np.array([-2])], {}),
    ("Slice", [INTEGERS, np.array([1, -9]), np.array([9, 2])], {}),
    ("Mod", [INTEGERS, np.array([2, 3, 4])], {}),
    ("Mod", [INTEGERS, np.array([2, 3, 4])], {"fmod": 1}),
    ("Pad", [INTEGERS, np.array([1, 0, 0, 2]), np.int64(9)], {}),
    ("Trilu", [INTEGERS, np.int64(1)], {"upper": 0}),
    ("Squeeze", [INTEGERS[None], np.array([0])], {}),
    ("Squeeze", [INTEGERS[None]], {}),
    ("Reshape", [INTEGERS, np.array([-1, 2])], {}),
    ("Reshape", [INTEGERS, np.array([0, -1])], {}),
    ("Expand", [INTEGERS, np.array([2, 1, 1])], {}),
    ("Transpose", [INTEGERS], {}),
    ("Transpose", [INTEGERS[None]], {"perm": [1, 0, 2]}),
    ("Range", [np.int64(10), np.int64(1), np.int64(-3)], {}),
    ("Range", [np.float32(0), np.float32(1), np.float32(0.3)], {}),
    ("Where", [INTEGERS > 0, INTEGERS, np.int64(5)], {}),
    ("Tile", [INTEGERS, np.array([2, 1])], {}),
    ("NonZero", [INTEGERS], {}),
    ("Shape", [INTEGERS[None]], {"start": -2}),
    ("Size", [INTEGERS], {}),
    ("MatMul", [INTEGERS, INTEGERS.T.copy()], {}),
    ("MatMul", [FLOATS, FLOATS.T.copy()], {}),
    ("ReduceProd", [INTEGERS], {"axes": [0], "keepdims": 0}),
    ("ReduceMax", [FLOATS], {"axes": [-1]}),
    ("ReduceSum", [INTEGERS, np.array([1])], {"keepdims": 0}),
    ("ReduceSum", [INTEGERS], {"noop_with_empty_axes": 1}),
    ("ReduceMin", [INTEGERS], {}),
]


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), CASES, ids=[case[0] for case in CASES])
def test_equal_to_the_reference_evaluator(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    arrays: list[Array] = [np.asarray(given) for given in inputs]
    names = tuple(f"i{index}" for index in range(len(arrays)))
    node = OperatorNode(
        "n", op_type, names, "y", {k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()}, "", 17
    )
    got: Any = known_result(node, arrays)
    assert got is not None
    proto = helper.make_node(op_type, names, ["y"], **attributes)
    expected: Any
    (expected,) = ReferenceEvaluator(make_model([proto], {}, ["y"], dict(zip(names, arrays, strict=True)))).run(None, {})
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got.dtype == np.asarray(expected).dtype
    assert got.shape == np.asarray(expected).shape


@pytest.mark.parametrize(
    ("start", "limit", "delta", "dtype", "expected"),
    [
        (0, 0.3, 0.1, np.float32, [0, 0.1, 0.2, 0.3]),  # as float32 3 * 0.1 is below 0.3
        (0, 0.3, 0.1, np.float64, [0, 0.1, 0.2]),
        (0, 1, 0.1, np.float32, [0.1 * index for index in range(10)]),
        (1, 2, 0.2, np.float32, [1, 1.2, 1.4, 1.6, 1.8]),
        (2.5, 1, -0.5, np.float32, [2.5, 2, 1.5]),
        (10, 1, -3, np.int64, [10, 7, 4]),
        (1, 10, -3, np.int32, []),
        (3, 3, 1, np.int64, []),
        (2**53 + 1, 2**53 + 4, 1, np.int64, [2**53 + 1, 2**53 + 2, 2**53 + 3]),
        (-(2**63), 2**63 - 1, 2**62, np.int64, [-(2**63), -(2**62), 0, 2**62]),
    ],
)
def test_the_length_of_a_range(start: float, limit: float, delta: float, dtype: type, expected: list[float]) -> None:
    """The standard's formula on the numbers that the dtype holds; its text does not round the quotient to the dtype."""
    inputs = [np.array(value, dtype) for value in (start, limit, delta)]
    got: Any = known_result(OperatorNode("n", "Range", ("a", "b", "c"), "y", {}, "", 17), inputs)
    np.testing.assert_allclose(got, np.array(expected, dtype), rtol=1e-6, strict=True)
    assert progression_length(*(value.item() for value in inputs)) == len(expected)


@pytest.mark.parametrize("numbers", [(0, np.inf, 1), (np.nan, 1, 1)])
def test_a_range_without_end_is_an_error(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ExpressionError, match="are not so many numbers"):
        progression_length(*map(float, numbers))


@pytest.mark.parametrize(("op_type", "dtype"), [(o, d) for o in ("Div", "Mod") for d in INTEGER_DTYPES])
def test_a_quotient_by_zero_is_unspecified_but_the_same_at_compile_time(op_type: str, dtype: str) -> None:
    a = np.array([7, 0, np.iinfo(dtype).min, 3], dtype)
    (by_kernel,), (folded,) = both_ways(op_type, [a, np.array([0, 0, 0, 2], dtype)])
    np.testing.assert_array_equal(by_kernel, folded)


@pytest.mark.parametrize("source", [*INTEGER_DTYPES, *FLOAT_DTYPES, "bool"])
@pytest.mark.parametrize("target", [*INTEGER_DTYPES, *FLOAT_DTYPES, "bool"])
def test_a_cast_is_the_same_at_compile_time(source: str, target: str) -> None:
    """Floats beyond the integers saturate, and NaN is 0."""
    x = extremes(source, 67, 3)
    (by_kernel,), (folded,) = both_ways("Cast", [x], to=helper.np_dtype_to_tensor_dtype(np.dtype(target)))
    assert_same(by_kernel, folded, target)
    assert_same(folded, saturating_cast(x, target), target)


@pytest.mark.parametrize("op_type", FLOAT_FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_a_function_is_the_same_at_compile_time(op_type: str, dtype: str) -> None:
    """Of infinities, NaN and the largest numbers too."""
    (by_kernel,), (folded,) = both_ways(op_type, [extremes(dtype, 67, 5)])
    assert_same(folded, by_kernel, op_type)


def test_saturating_casts() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 2.9, -2.9, 1e30, 9.3e18])
    assert saturating_cast(x, "int8").tolist() == [0, 127, -128, 2, -2, 127, 127]
    assert saturating_cast(x, "uint8").tolist() == [0, 255, 0, 2, 0, 255, 255]
    assert saturating_cast(x, "int64").tolist() == [0, 2**63 - 1, -(2**63), 2, -2, 2**63 - 1, 2**63 - 1]
    assert saturating_cast(np.array([300, -1]), "uint8").tolist() == [44, 255]


def test_what_would_take_long_is_left_to_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x = floats(3, 4)
    nodes = [helper.make_node("Softmax", ["c"], ["s"]), helper.make_node("Add", ["x", "s"], ["y"])]
    model = make_model(nodes, {"x": x}, ["y"], {"c": x})
    assert len(partition_model(model).graph.nodes) == 1
    monkeypatch.setattr(constant_folding, "MOST_EVALUATIONS", 40)  # four stages of up to 12 elements
    assert [node.op_type for node in partition_model(model).graph.nodes] == ["Softmax", "Add"]
    exponential = np.exp(x - x.max(1, keepdims=True))
    expected = x + exponential / exponential.sum(1, keepdims=True)
    np.testing.assert_allclose(compile(model, threads=1, workers=0).run({"x": x})["y"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("op_type", "inputs", "opset"),
    [
        ("Softmax", [FLOATS], 17),  # not simple
        ("Add", [FLOATS, FLOATS], 6),  # an older meaning
        ("Div", [INTEGERS, INTEGERS * 0], 17),
        ("CastLike", [FLOATS * np.float32(np.inf), INTEGERS], 17),
        ("Cast", [FLOATS], 17),  # no dtype to cast to
        ("Reshape", [INTEGERS, np.array([7])], 17),  # wrong
        ("Add", [INTEGERS, None], 17),
        ("Add", [INTEGERS.astype(np.int16), INTEGERS.astype(np.int16)], 17),
    ],
)
def test_left_to_the_definition(op_type: str, inputs: list[Array | None], opset: int) -> None:
    node = OperatorNode("n", op_type, ("a", "b")[: len(inputs)], "y", {}, "", opset)
    assert known_result(node, inputs) is None
