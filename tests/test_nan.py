"""Not a number: it wins wherever an extreme is looked for, the first one of several (docs/conformance.md states the rule).

Every operator that chooses among elements, in scalars (5 elements) and in vectors (67), by a kernel and folded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ansor_py import te
from ansor_py.te.expr import const
from extreme_values import FLOATS, assert_same, both_ways
from graph_interpreter import Array

NAN = np.nan
SIZES = (5, 67)


def rows(dtype: str, count: int) -> Array:
    """Rows with no NaN, one first, one last, two inside, infinities beside one, and nothing else."""
    x = np.random.default_rng(count).standard_normal((6, count)).astype(dtype)
    x[1, 0] = x[2, -1] = x[3, 1] = x[3, 3] = x[4, 2] = NAN
    x[4, 0], x[4, 3] = np.inf, -np.inf
    x[5] = NAN
    return x


def last(function: Any, x: Array) -> Array:
    return np.asarray(x.shape[1] - 1 - function(x[:, ::-1], axis=1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
def test_the_position_of_an_extreme_is_that_of_the_first_nan(op_type: str, count: int, dtype: str) -> None:
    x, function = rows(dtype, count), {"ArgMax": np.argmax, "ArgMin": np.argmin}[op_type]
    for (got,) in both_ways(op_type, [x], axis=1, keepdims=0):
        assert_same(got, function(x, axis=1), op_type)
    for (got,) in both_ways(op_type, [x], axis=1, keepdims=0, select_last_index=1):
        assert_same(got, last(function, x), op_type)


def test_the_example() -> None:
    for (got,) in both_ways("ArgMax", [np.array([2, NAN, 7, 4, 1], np.float32)], keepdims=0):
        assert got.tolist() == 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", SIZES)
def test_reductions_to_an_extreme(count: int, dtype: str) -> None:
    x = rows(dtype, count)
    for op_type, function in (("ReduceMax", np.max), ("ReduceMin", np.min)):
        for (got,) in both_ways(op_type, [x], [np.array([1])]):
            assert_same(got, function(x, axis=1, keepdims=True), op_type)
        for (got,) in both_ways(op_type, [x.T.copy()], [np.array([0])]):
            assert_same(got, function(x.T, axis=0, keepdims=True), op_type)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", SIZES)
def test_extremes_of_several_operands(count: int, dtype: str) -> None:
    x, y = rows(dtype, count), rows(dtype, count)[::-1].copy()
    for op_type, function in (("Max", np.maximum), ("Min", np.minimum)):
        for (got,) in both_ways(op_type, [x, y]):
            assert_same(got, function(x, y), op_type)
        for (got,) in both_ways(op_type, [x], [np.zeros(1, dtype)]):
            assert_same(got, function(x, np.zeros(1, dtype)), op_type)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", SIZES)
def test_limits(count: int, dtype: str) -> None:
    """NaN passes a limit, and a limit that is NaN leaves nothing else."""
    x = rows(dtype, count)
    for (got,) in both_ways("Relu", [x]):
        assert_same(got, np.maximum(x, 0), "Relu")
    for low, high in ((-0.5, 0.5), (NAN, 1), (-1, NAN), (NAN, NAN)):
        limits = [np.array(low, dtype), np.array(high, dtype)]
        expected = np.minimum(np.maximum(x, limits[0]), limits[1])
        for inputs, constants in (([x], limits), ([x, *limits], [])):
            for (got,) in both_ways("Clip", inputs, constants):
                assert_same(got, expected, ("Clip", low, high))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("largest", [1, 0])
@pytest.mark.parametrize("in_order", [1, 0])
def test_top_k_takes_nan_for_larger_than_everything(count: int, dtype: str, largest: int, in_order: int) -> None:
    x = rows(dtype, count)
    key = np.where(np.isnan(x), np.inf, np.where(np.isinf(x), np.sign(x) * 1e30, x))
    order = np.argsort(-key if largest else key, axis=1, kind="stable")[:, :3]
    for values, places in both_ways("TopK", [x], [np.array([3])], outputs=2, axis=1, largest=largest, sorted=in_order):
        assert_same(places, order, "TopK")
        assert_same(values, np.take_along_axis(x, order, 1), "TopK")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", SIZES)
def test_pooling(width: int, dtype: str) -> None:
    """The window's NaN is its maximum, and its place is the first one's; padding never wins."""
    x = np.random.default_rng(0).standard_normal((1, 2, 5, width)).astype(dtype)
    x[0, 0, 1, 1] = x[0, 0, 2, 2] = x[0, 1, 0, 0] = x[0, 1, 4, width - 1] = NAN
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    numbers = np.pad(np.arange(x.size).reshape(x.shape), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3)).reshape(1, 2, 5, width, 9)
    places = np.lib.stride_tricks.sliding_window_view(numbers, (3, 3), (2, 3)).reshape(1, 2, 5, width, 9)
    chosen = windows.argmax(-1)[..., None]
    for values, indices in both_ways("MaxPool", [x], outputs=2, kernel_shape=[3, 3], pads=[1, 1, 1, 1]):
        assert_same(values, windows.max(-1), "MaxPool")
        assert_same(indices, np.take_along_axis(places, chosen, -1)[..., 0], "MaxPool")
    for (got,) in both_ways("GlobalMaxPool", [x]):
        assert_same(got, x.max((2, 3), keepdims=True), "GlobalMaxPool")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", SIZES)
def test_the_softmax_family(count: int, dtype: str) -> None:
    """A row with NaN is NaN throughout; the one of a hardmax is at the first NaN."""
    x = rows(dtype, count)
    x[4, 0] = x[4, 3] = 0
    exponential = np.exp(x - x.max(1, keepdims=True))
    expected = exponential / exponential.sum(1, keepdims=True)
    for op_type, right in (("Softmax", expected), ("LogSoftmax", np.log(expected))):
        for (got,) in both_ways(op_type, [x], opset=13):
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)
    ones = np.zeros_like(x)
    np.put_along_axis(ones, x.argmax(1)[:, None], 1, 1)
    for (got,) in both_ways("Hardmax", [x], opset=13):
        assert_same(got, ones, "Hardmax")


def test_an_extreme_with_a_constant_nan_is_nan() -> None:
    x = te.placeholder((4,), name="x")[0]
    assert str(te.maximum(x, const(NAN, "float32"))) == str(te.minimum(const(NAN, "float32"), x)) == "nan"
    assert str(te.maximum(const(1, "float32"), const(NAN, "float32"))) == "nan"
    assert str(te.minimum(const(NAN, "float32"), const(1, "float32"))) == "nan"
