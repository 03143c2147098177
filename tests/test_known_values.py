"""Values computed at compile time by NumPy equal ONNX's reference evaluator's; what is not simple is left to that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ansor_py.graph.ir import OperatorNode
from ansor_py.graph.known_values import known_result
from graph_interpreter import Array, make_model

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
def test_left_to_the_reference_evaluator(op_type: str, inputs: list[Array | None], opset: int) -> None:
    node = OperatorNode("n", op_type, ("a", "b")[: len(inputs)], "y", {}, "", opset)
    assert known_result(node, inputs) is None
