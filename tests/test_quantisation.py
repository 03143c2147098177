"""Quantised models as exporters write them (QuantizeLinear, DequantizeLinear around float operators), at every opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from ansor_py.graph import compile, partition_model
from extreme_values import assert_same, both_ways
from graph_interpreter import Array, floats, make_model

OPSETS = (10, 13, 17, 19, 21, 23, 24, 25)
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


def quantised(x: Array, scale: Any, zero: Any, dtype: str) -> Array:
    low, high = LIMITS[dtype]
    return np.clip(np.round(x / scale) + zero, low, high).astype(dtype)


def dequantised(x: Array, scale: Any, zero: Any) -> Array:
    return np.asarray((x.astype(np.int32) - np.int32(zero)).astype(np.float32) * scale, np.float32)


def spread(vector: Array, axis: int, rank: int) -> Array:
    return vector.reshape([-1 if position == axis else 1 for position in range(rank)])


def static_model(opset: int) -> tuple[ModelProto, Array, Array]:
    """What `quantize_static` makes of a convolution: int8 weights, an int32 bias, one scale a channel where that exists."""
    rng = np.random.default_rng(opset)
    w, b = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), rng.integers(-900, 900, 4).astype(np.int32)
    x_scale, y_scale, zero = np.float32(0.02), np.float32(0.05), np.uint8(121)
    w_scale = np.float32(0.01) if opset < 13 else np.array([0.01, 0.02, 0.005, 0.03], np.float32)
    axis = {} if opset < 13 else {"axis": 0}
    b_scale, no_zero = np.asarray(x_scale * w_scale), np.zeros_like(w_scale, dtype=np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], **axis),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], **axis),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "ys", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "ys", "z"], ["y"]),
    ]
    constants = {"xs": x_scale, "ys": y_scale, "z": zero, "w": w, "ws": w_scale, "wz": no_zero, "b": b, "bs": b_scale}
    x = floats(1, 3, 6, 5)
    model = make_model(nodes, {"x": x}, ["y"], {name: np.asarray(array) for name, array in constants.items()}, opset)
    xd = np.pad(dequantised(quantised(x, x_scale, zero, "uint8"), x_scale, zero), ((0, 0), (0, 0), (1, 1), (1, 1)))
    per_filter = w_scale.reshape(-1, 1, 1, 1) if w_scale.ndim else w_scale
    wd = dequantised(w, per_filter, 0)
    windows = np.lib.stride_tricks.sliding_window_view(xd, (3, 3), (2, 3))
    c = np.einsum("nchwij,fcij->nfhw", windows, wd) + spread(dequantised(b, b_scale, 0), 1, 4)
    return model, x, dequantised(quantised(c.astype(np.float32), y_scale, zero, "uint8"), y_scale, zero)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_static_model_of_any_opset(opset: int) -> None:
    """Its weights are known floats: ONNX's evaluator, which lacks the operators before opset 19, is not asked."""
    model, x, expected = static_model(opset)
    parts = partition_model(model, fallback=False)
    assert [node.op_type for node in parts.graph.nodes].count("DequantizeLinear") == 2
    got = compile(model, threads=1, workers=0, fallback=False).run({"x": x})["y"]
    assert np.abs(got - expected).max() <= 0.05001  # one step, where a sum in another order is rounded the other way
    assert (np.abs(got - expected) < 1e-5).mean() > 0.95


# The granularities of scales, and the versions that know them.
FORMS = [
    (kind, opset)
    for kind, first in (("one", 10), ("axis", 13), ("last axis", 13), ("blocks", 21))
    for opset in OPSETS
    if opset >= first
]


@pytest.mark.parametrize(("kind", "opset"), FORMS)
@pytest.mark.parametrize(
    ("dtype", "has_zero"), [("uint8", True), ("int8", True), ("uint8", False), ("int8", False), ("int32", False)]
)
def test_dequantize(opset: int, dtype: str, kind: str, has_zero: bool) -> None:
    rng, scale, zero, attributes = parameters(kind, "int8" if dtype == "int32" else dtype)
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max, (4, 6, 5), endpoint=True).astype(dtype)
    expected = dequantised(x, widened(scale, kind), widened(zero, kind) if has_zero else 0)
    for (got,) in both_ways("DequantizeLinear", [x], [scale, zero][: 1 + has_zero], opset, **attributes):
        assert_same(got, expected, kind)


@pytest.mark.parametrize(
    ("kind", "opset", "source"),
    # Between opsets 19 and 23 the scale has the dtype of the data, a float.
    [(*form, source) for form in FORMS for source in ("float32", "int32") if source == "float32" or form[1] not in (19, 21)],
)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantize(opset: int, dtype: str, kind: str, source: str) -> None:
    rng, scale, zero, attributes = parameters(kind, dtype)
    x = (rng.standard_normal((4, 6, 5)) * 20).astype(source)
    expected = quantised(x.astype(np.float32), widened(scale, kind), widened(zero, kind).astype(np.float32), dtype)
    for (got,) in both_ways("QuantizeLinear", [x], [scale, zero], opset, **attributes):
        assert_same(got, expected, kind)


def parameters(kind: str, dtype: str) -> tuple[np.random.Generator, Array, Array, dict[str, int]]:
    """A scale and zero points for data of shape [4, 6, 5]: one, one an element of an axis, or one a block of two."""
    rng = np.random.default_rng(7)
    shape: tuple[int, ...] = {"one": (), "axis": (4,), "last axis": (5,), "blocks": (4, 3, 5)}[kind]
    attributes = {"one": {}, "axis": {"axis": 0}, "last axis": {"axis": -1}, "blocks": {"axis": 1, "block_size": 2}}[kind]
    scale = np.asarray(rng.uniform(0.05, 0.3, shape), np.float32)
    low, high = LIMITS[dtype]
    return rng, scale, np.asarray(rng.integers(low, high, shape, endpoint=True), dtype), attributes


def widened(parameter: Array, kind: str) -> Array:
    """A parameter in a shape that goes with [4, 6, 5]."""
    if kind == "axis":
        return spread(parameter, 0, 3)
    return np.repeat(parameter, 2, axis=1) if kind == "blocks" else parameter


def test_without_zero_point_and_with_a_dtype() -> None:
    x, scale = np.array([-3, 0, 2.5, 300], np.float32), np.float32(1)
    for (got,) in both_ways("QuantizeLinear", [x], [scale], 13):
        assert_same(got, np.array([0, 0, 2, 255], np.uint8), "no zero point")
    for (got,) in both_ways("QuantizeLinear", [x], [scale], 21, output_dtype=3):
        assert_same(got, np.array([-3, 0, 2, 127], np.int8), "output_dtype")


def test_the_precision_of_the_arithmetic_can_be_asked_for() -> None:
    """In float32 the quotient is 2.5, a tie that goes to the even number; in float64 it is above."""
    x, scale = np.array([0.0025], np.float32), np.float32(0.001)
    x = np.nextafter(x, np.float32(1)) if float(x[0]) / float(scale) <= 2.5 else x
    assert x[0] / scale == 2.5
    assert float(x[0]) / float(scale) > 2.5
    for precision, expected in ((0, 2), (1, 2), (11, 3)):
        for (got,) in both_ways("QuantizeLinear", [x], [scale, np.uint8(0)], 23, precision=precision):
            assert got.tolist() == [expected]
    for (got,) in both_ways("DequantizeLinear", [np.array([77], np.int8)], [np.float32(0.1)], 23, output_dtype=11):
        assert_same(got, np.array([77 * float(np.float32(0.1))]), "output_dtype")


@pytest.mark.parametrize(
    "values", [[0, 2, -3, -2.5, 1.34, 0.5], [-1, -2.1, -1.3, -2.5, -3.34, -4], [1, 2.1, 1.3, 2.5, 3.34, 4]]
)
def test_dynamic_quantize(values: list[float]) -> None:
    x = np.array(values, np.float32).reshape(2, 3)
    scale = np.float32((max(x.max(), 0) - min(x.min(), 0)) / np.float32(255))
    zero = np.uint8(np.round(np.clip(-np.float32(min(x.min(), 0)) / scale, 0, 255)))
    expected = (quantised(x, scale, np.float32(zero), "uint8"), np.asarray(scale), np.asarray(zero))
    for results in both_ways("DynamicQuantizeLinear", [x], opset=11, outputs=3):
        for got, right in zip(results, expected, strict=True):
            assert_same(got, right, values)
