"""Integers stay integers: no value of theirs goes through a float, and arithmetic wraps around as the machine's does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ansor_py import te
from ansor_py.errors import ExpressionError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import Axis, Compare, Const, binary, cast, compare, const, converted
from ansor_py.te.simplify import Simplifier, simplify
from extreme_values import INTEGERS, allows, assert_same, both_ways, extremes
from graph_interpreter import Array

LARGEST, SMALLEST = 2**63 - 1, -(2**63)
BEYOND = 2**53 + 1  # the first whole number that is no float64


def int64(*values: int) -> Array:
    return np.array(values, np.int64)


LITERAL: list[tuple[str, list[Any], list[Any], dict[str, Any], list[int]]] = [
    ("Clip", [int64(5)], [np.int64(0), np.int64(LARGEST)], {}, [5]),
    ("Clip", [int64(-5, LARGEST, SMALLEST)], [np.int64(-BEYOND), np.int64(BEYOND)], {}, [-5, BEYOND, -BEYOND]),
    ("Clip", [int64(7)], [np.int64(LARGEST - 2), np.int64(LARGEST - 1)], {}, [LARGEST - 2]),
    ("Pad", [int64(1)], [int64(1, 1), np.int64(LARGEST)], {}, [LARGEST, 1, LARGEST]),
    ("Pad", [int64(1)], [int64(0, 1), np.int64(-BEYOND)], {}, [1, -BEYOND]),
    ("Pow", [int64(3, -3, 2, 10)], [np.int64(39)], {}, [3**39, -(3**39), 2**39, (10**39 + 2**63) % 2**64 - 2**63]),
    ("Pow", [int64(94906267, BEYOND)], [np.int64(2)], {}, [94906267**2, (BEYOND**2 + 2**63) % 2**64 - 2**63]),
    ("Pow", [int64(BEYOND, -7)], [np.float32(1)], {}, [BEYOND, -7]),
    ("Pow", [int64(BEYOND, 0, 5)], [np.int64(0)], {}, [1, 1, 1]),
    ("Pow", [int64(1, -1, 2, -5, 0)], [np.int64(-3)], {}, [1, -1, 0, 0, 0]),
    ("Pow", [int64(1, -1, 2, 0)], [np.int64(101)], {}, [1, -1, 0, 0]),
    ("Pow", [int64(3, 7, -1, -1, 1, 2), int64(39, 22, 62, 63, 1000, 70)], [], {}, [3**39, 7**22, 1, -1, 1, 0]),
    ("Pow", [int64(1, -1, -1, 9, 0), int64(-2, -2, -3, -1, 4)], [], {}, [1, 1, -1, 0, 0]),
    ("Pow", [int64(3, 7), np.array([39, 22], np.uint8)], [], {}, [3**39, 7**22]),
    ("ReduceSum", [int64(BEYOND, 1, -BEYOND)], [int64(0)], {"keepdims": 0}, [1]),
    ("ReduceProd", [int64(94906267, 94906265)], [int64(0)], {}, [94906267 * 94906265]),
    ("ReduceMean", [int64(BEYOND, BEYOND)], [int64(0)], {}, [BEYOND]),
    ("CumSum", [int64(BEYOND, 1, LARGEST - BEYOND - 1)], [np.int64(0)], {}, [BEYOND, BEYOND + 1, LARGEST]),
    ("ArgMax", [int64(BEYOND - 1, BEYOND, BEYOND - 1)], [], {"keepdims": 0}, [1]),
    ("ArgMin", [int64(LARGEST, LARGEST - 1, LARGEST)], [], {"keepdims": 0}, [1]),
    ("OneHot", [int64(1)], [np.int64(2), int64(BEYOND, LARGEST)], {"axis": 0}, [BEYOND, LARGEST]),
    ("Where", [np.array([True, False])], [int64(LARGEST), int64(BEYOND)], {}, [LARGEST, BEYOND]),
    ("Mod", [int64(LARGEST, SMALLEST)], [np.int64(10)], {}, [7, 2]),
    ("Mod", [int64(LARGEST, SMALLEST)], [np.int64(10)], {"fmod": 1}, [7, -8]),
    ("Div", [int64(BEYOND, -BEYOND)], [np.int64(2)], {}, [2**52, -(2**52)]),
    ("Equal", [int64(BEYOND, BEYOND - 1)], [np.int64(BEYOND)], {}, [1, 0]),
    ("Less", [int64(BEYOND, BEYOND - 1)], [np.int64(BEYOND)], {}, [0, 1]),
    ("MatMul", [int64(94906267, 1)], [int64(94906265, 2)], {}, [94906267 * 94906265 + 2]),
    ("Cast", [int64(BEYOND)], [], {"to": 7}, [BEYOND]),
]


@pytest.mark.parametrize("case", LITERAL, ids=lambda case: case[0])
def test_the_right_values(case: tuple[str, list[Any], list[Any], dict[str, Any], list[int]]) -> None:
    op_type, inputs, constants, attributes, expected = case
    for (got,) in both_ways(op_type, inputs, constants, **attributes):
        assert got.reshape(-1).astype(np.int64).tolist() == expected


def _truncated(a: Array, b: Array) -> Array:
    quotient, rest = np.divmod(a, b)
    return (quotient + ((rest != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


Function = Callable[..., Any]
BINARY: dict[str, Function] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _truncated,
    "Mod": np.mod,
    "Max": np.maximum,
    "Min": np.minimum,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Equal": np.equal,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "PRelu": lambda x, slope: np.where(x < 0, x * slope, x),
}
UNARY: dict[str, Function] = {
    "Abs": np.abs,
    "Neg": np.negative,
    "Sign": np.sign,
    "Relu": lambda x: np.maximum(x, 0),
    "BitwiseNot": np.invert,
    "Identity": lambda x: x,
}
REDUCTIONS: dict[str, Function] = {
    "ReduceSum": lambda x: x.sum(1, keepdims=True, dtype=x.dtype),
    "ReduceProd": lambda x: x.prod(1, keepdims=True, dtype=x.dtype),
    "ReduceMax": lambda x: x.max(1, keepdims=True),
    "ReduceMin": lambda x: x.min(1, keepdims=True),
    "ReduceL1": lambda x: np.abs(x).sum(1, keepdims=True, dtype=x.dtype),
    "ReduceSumSquare": lambda x: (x * x).sum(1, keepdims=True, dtype=x.dtype),
    "ArgMax": lambda x: x.argmax(1)[:, None],
    "ArgMin": lambda x: x.argmin(1)[:, None],
    "CumSum": lambda x: x.cumsum(1, dtype=x.dtype),
    "MatMul": lambda x: x @ x.T,
}


def of_integers(functions: dict[str, Function]) -> list[tuple[str, str]]:
    """The operators with the integer dtypes that they take."""
    return [(op_type, dtype) for op_type in functions for dtype in INTEGERS if allows(op_type, dtype, 22)]


@pytest.mark.parametrize(("op_type", "dtype"), of_integers(BINARY))
@pytest.mark.parametrize("count", [5, 67])
def test_two_operands_as_numpy(op_type: str, dtype: str, count: int) -> None:
    """In scalars and in vectors; overflow wraps around."""
    a, b = extremes(dtype, count, 1), extremes(dtype, count, 2)
    if op_type in ("Div", "Mod"):  # by 0 it is unspecified, and NumPy warns of the smallest by -1
        b = np.where((b == 0) | (b == np.array(-1).astype(dtype)), np.array(3, dtype), b)
    if op_type in ("Add", "Sub", "Mul") and dtype == "int64":  # ONNX's inference refuses an overflow of small known vectors
        a, b = a[:, None], b[None, :]
    with np.errstate(all="ignore"):
        expected = np.asarray(BINARY[op_type](a, b))
    for (got,) in both_ways(op_type, [a, b]):
        assert_same(got, expected.astype(got.dtype), op_type)


@pytest.mark.parametrize(("op_type", "dtype"), of_integers(UNARY))
@pytest.mark.parametrize("count", [5, 67])
def test_one_operand_as_numpy(op_type: str, dtype: str, count: int) -> None:
    x = extremes(dtype, count, 3)
    with np.errstate(all="ignore"):
        expected = UNARY[op_type](x)
    for (got,) in both_ways(op_type, [x]):
        assert_same(got, np.asarray(expected, dtype), op_type)


@pytest.mark.parametrize(("op_type", "dtype"), of_integers(REDUCTIONS))
@pytest.mark.parametrize("count", [5, 67])
def test_reductions_as_numpy(op_type: str, dtype: str, count: int) -> None:
    x = np.stack([extremes(dtype, count, seed) for seed in range(4)])
    with np.errstate(all="ignore"):
        expected = np.asarray(REDUCTIONS[op_type](x))
    inputs, constants = ([x, x.T.copy()], []) if op_type == "MatMul" else ([x], [np.array([1])])
    if op_type in ("ArgMax", "ArgMin"):
        results = both_ways(op_type, [x], axis=1)
    else:
        results = both_ways(op_type, inputs, [np.array(1)] if op_type == "CumSum" else constants)
    for (got,) in results:
        assert_same(got, expected, op_type)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("count", [5, 67])
def test_powers_as_numpy(dtype: str, count: int) -> None:
    base = extremes(dtype, count, 4)
    exponent = np.random.default_rng(5).integers(0, 64, count).astype(dtype)
    with np.errstate(all="ignore"):
        expected = np.power(base, exponent)
    for (got,) in both_ways("Pow", [base, exponent]):
        assert_same(got, expected, "Pow")
    for known in (0, 1, 2, 3, 13, 31, 62):
        with np.errstate(all="ignore"):
            expected = np.power(base, np.array(known, dtype))
        for (got,) in both_ways("Pow", [base], [np.array(known, dtype)]):
            assert_same(got, expected, known)


def test_the_sign_of_a_power_of_a_float_with_an_integer_exponent_beyond_2_to_the_24() -> None:
    base, exponent = np.array([-1, -1, 1], np.float32), int64(2**24 + 1, 2**24, 2**40 + 1)
    for inputs, constants in (([base, exponent], []), ([base], [exponent])):
        for (got,) in both_ways("Pow", inputs, constants):
            np.testing.assert_array_equal(got, np.array([-1, 1, 1], np.float32))
    for (got,) in both_ways("Pow", [base], [np.int64(2**24 + 1)]):
        np.testing.assert_array_equal(got, np.array([-1, -1, 1], np.float32))


# Constants of tensor expressions.


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (LARGEST, "int64", LARGEST),
        (BEYOND, "int64", BEYOND),
        (LARGEST + 1, "int64", SMALLEST),
        (200, "int8", -56),
        (-1, "uint8", 255),
        (2**31, "int32", -(2**31)),
        (0.1, "float32", 0.10000000149011612),
        (1e40, "float32", np.inf),
        (0.1, "float64", 0.1),
        (3.0, "int32", 3),
        (2, "bool", True),
    ],
)
def test_a_constant_is_a_number_of_its_dtype(value: float, dtype: str, expected: float) -> None:
    assert const(value, dtype).value == converted(value, dtype) == expected


@pytest.mark.parametrize("value", [2.5, np.nan, np.inf])
def test_a_constant_that_is_no_whole_number_is_no_integer(value: float) -> None:
    with pytest.raises(ExpressionError, match="no number of dtype int64"):
        const(value, "int64")


def test_folded_arithmetic_wraps_around() -> None:
    assert binary("add", const(200, "uint8"), const(100, "uint8")) == Const(44, "uint8")
    assert binary("add", const(LARGEST, "int64"), 1) == Const(SMALLEST, "int64")
    assert binary("mul", const(BEYOND, "int64"), 3) == Const(BEYOND * 3, "int64")
    assert compare("gt", const(BEYOND, "int64"), BEYOND - 1) == Const(True, "bool")


def test_a_cast_of_a_constant_saturates_as_one_of_a_value_does() -> None:
    pairs = [(300.0, "uint8", 255), (-3.7, "uint8", 0), (-3.7, "int8", -3), (np.nan, "int32", 0), (1e30, "int64", LARGEST)]
    for value, dtype, expected in pairs:
        assert cast(Const(value, "float64"), dtype) == Const(expected, dtype)


@pytest.mark.parametrize(
    ("one", "other", "dtype"),
    [
        (1234567.0, 1234568.0, "float32"),
        (0.1234567, 0.1234568, "float32"),
        (1 / 3, 1 / 3 + 1e-16, "float64"),
        (BEYOND, BEYOND - 1, "int64"),
    ],
)
def test_computations_with_different_constants_have_different_keys(one: float, other: float, dtype: str) -> None:
    """Equal keys share a kernel; the text that is hashed once had six digits."""

    def key(limit: float) -> str:
        x = te.placeholder((4,), dtype, "x")
        return ComputeDAG.from_outputs(te.compute((4,), lambda i: te.minimum(x[i], limit), name="y")).workload_key

    assert key(one) != key(other)
    assert key(one) == key(one)


def test_the_text_of_a_constant_is_as_short_as_it_was_where_six_digits_are_enough() -> None:
    assert [str(const(value, "float32")) for value in (0.1, 2, 1e-5, 1 / 3)] == ["0.1", "2", "1e-05", "0.33333334"]


def test_simplification_knows_that_sums_of_data_wrap_around() -> None:
    i = Axis("i", 4)
    x, ranges = te.placeholder((4,), "int64", "x")[i], {"i": (0, 3)}
    assert isinstance(simplify(compare("gt", x + 1, x), ranges), Compare)
    assert str(simplify(binary("floordiv", x * 4, 2), ranges)) == "((x[i] * 4) // 2)"
    assert str(simplify(binary("mod", x * 97 + 98, 97), ranges)) == "(((x[i] * 97) + 98) % 97)"
    assert str(simplify(te.maximum(x, x + 1), ranges)).startswith("max(")
    bounded = te.minimum(te.maximum(x, 0), 9)  # as gathers make their indices
    simplifier = Simplifier(ranges)
    assert simplifier.linear((bounded * 4) // 2) == simplifier.linear(bounded * 2)
    assert simplifier.linear((x * 4) // 2) != simplifier.linear(x * 2)
    assert isinstance(simplify(compare("lt", i, 4), ranges), Const)


def test_intervals_are_exact() -> None:
    i = Axis("i", 4)
    expression = compare("le", i + LARGEST - 3, LARGEST)
    assert simplify(expression, {"i": (0, 3)}) == Const(True, "bool")
    assert simplify(binary("floordiv", i + (2**62 + 1), 2**62), {"i": (0, 3)}) == Const(1, "int64")
