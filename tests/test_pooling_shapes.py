"""Poolings whose last window would begin in the padding: our shapes count, whatever ONNX's inference makes of them.

Before opset 22 the inference counts such windows. The values come from a plain NumPy pooling, window by window.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ansor_py.graph import compile
from graph_interpreter import Array, floats, make_model

# The oldest version of each operator that has `ceil_mode`, to the newest.
OPSETS = {"MaxPool": (10, 11, 12, 17, 21, 22), "AveragePool": (10, 11, 17, 19, 21, 22), "LpPool": (18, 21, 22)}
DILATED = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}


def starts(extent: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> list[int]:
    """Where the windows begin with `ceil_mode`: so many as cover the input and its padding, none in the padding behind it."""
    span = (kernel - 1) * dilation + 1
    found = [-before]
    while found[-1] + span < extent + after and found[-1] + stride < extent:
        found.append(found[-1] + stride)
    return found


def pooled(op: str, x: Array, kernel: Any, strides: Any, pads: Any, dilations: Any, include: bool) -> Array:
    rank, spatial = len(kernel), x.shape[2:]
    begins = [starts(spatial[i], kernel[i], strides[i], dilations[i], pads[i], pads[rank + i]) for i in range(rank)]
    result = np.zeros((*x.shape[:2], *map(len, begins)), np.float64)
    for place in itertools.product(*(range(len(b)) for b in begins)):
        inside, declared = [], 0
        for tap in itertools.product(*map(range, kernel)):
            at = [begins[i][place[i]] + tap[i] * dilations[i] for i in range(rank)]
            if all(0 <= a < e for a, e in zip(at, spatial, strict=True)):
                inside.append(x[(slice(None), slice(None), *at)].astype(np.float64))
            declared += all(-pads[i] <= at[i] < spatial[i] + pads[rank + i] for i in range(rank))
        values = np.stack(inside)
        if op == "MaxPool":
            answer = values.max(0)
        elif op == "LpPool":
            answer = np.sqrt((values**2).sum(0))
        else:
            answer = values.sum(0) / (declared if include else len(inside))
        result[(slice(None), slice(None), *place)] = answer
    return result


def pool(op: str, opset: int, x: Array, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> onnx.ModelProto:
    return make_model([helper.make_node(op, ["x"], list(outputs), **attributes)], {"x": x}, list(outputs), opset=opset)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("op", "opset"), [(op, opset) for op, opsets in OPSETS.items() for opset in opsets])
def test_the_last_window_never_begins_in_the_padding(op: str, opset: int, dims: int) -> None:
    x = floats(1, 2, *[3] * dims)
    model = pool(op, opset, x, kernel_shape=[2] * dims, strides=[2] * dims, pads=[1] * 2 * dims, ceil_mode=1)
    compiled = compile(model, threads=1, workers=0, fallback=False)
    got = compiled.run({"x": x})["y"]
    assert got.shape == (1, 2, *[2] * dims)
    expected = pooled(op, x, [2] * dims, [2] * dims, [1] * 2 * dims, [1] * dims, False)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    stated = tuple(d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim)  # by ONNX's inference
    assert bool(compiled.notes) == (stated != got.shape)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "pads"),
    [(3, 2, 2, (1, 1)), (4, 2, 3, (1, 1)), (5, 3, 4, (0, 2)), (7, 3, 2, (2, 2)), (6, 1, 4, (0, 0)), (4, 3, 3, (1, 2))],
)
@pytest.mark.parametrize(("op", "include"), [*((op, False) for op in OPSETS), ("AveragePool", True)])
def test_windows_at_the_end(
    op: str, extent: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, include: bool
) -> None:
    x = floats(1, 1, extent)
    attributes: dict[str, Any] = {"kernel_shape": [kernel], "strides": [stride], "pads": list(pads), "ceil_mode": 1}
    if dilation > 1:
        attributes["dilations"] = [dilation]
    if include:
        attributes["count_include_pad"] = 1
    opset = max(DILATED[op], 17)
    got = compile(pool(op, opset, x, **attributes), threads=1, workers=0, fallback=False).run({"x": x})["y"]
    expected = pooled(op, x, [kernel], [stride], pads, [dilation], include)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert got.shape == expected.shape


@pytest.mark.parametrize(
    ("mode", "ceil_mode"), [("VALID", 0), ("SAME_UPPER", 0), ("SAME_UPPER", 1), ("SAME_LOWER", 0), ("SAME_LOWER", 1)]
)
@pytest.mark.parametrize("op", OPSETS)
def test_padding_that_is_worked_out(op: str, ceil_mode: int, mode: str) -> None:
    """SAME has ceil(extent / stride) windows in either mode."""
    x = floats(1, 1, 5)
    attributes: dict[str, Any] = {"kernel_shape": [2], "strides": [2], "auto_pad": mode, "ceil_mode": ceil_mode}
    got = compile(pool(op, 18, x, **attributes), threads=1, workers=0, fallback=False).run({"x": x})["y"]
    pads = {"VALID": (0, 0), "SAME_UPPER": (0, 1), "SAME_LOWER": (1, 0)}[mode]
    expected = pooled(op, x[:, :, :4] if mode == "VALID" else x, [2], [2], pads, [1], False)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got.shape == expected.shape


def test_the_places_of_maxima_have_the_same_shape() -> None:
    x = floats(1, 1, 3, 3)
    model = pool("MaxPool", 17, x, ("y", "i"), kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1)
    got = compile(model, threads=1, workers=0, fallback=False).run({"x": x})
    assert got["i"].shape == got["y"].shape == (1, 1, 2, 2)
    np.testing.assert_array_equal(x.reshape(-1)[got["i"]], got["y"])


def test_what_reads_a_pooling_sees_its_shape() -> None:
    """Shape arithmetic, views, and a node that is not compiled."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1),
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Det", ["p"], ["d"]),
    ]
    x = floats(1, 1, 3, 3)
    model = make_model(nodes, {"x": x}, ["s", "f", "d"])
    for info in model.graph.output:
        if info.name == "d":
            info.CopyFrom(helper.make_tensor_value_info("d", TensorProto.FLOAT, [3, 3]))
    got = compile(model, threads=1, workers=0).run({"x": x})
    assert got["s"].tolist() == [1, 1, 2, 2]
    expected = pooled("MaxPool", x, [2, 2], [2, 2], [1] * 4, [1, 1], False)
    np.testing.assert_allclose(got["f"], expected.reshape(1, 4))
    np.testing.assert_allclose(got["d"], np.linalg.det(expected), rtol=1e-5)
