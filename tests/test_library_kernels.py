"""Library kernels: right values by the documented rules, between native segments, without ONNX and without fallback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from ansor_py.errors import ModelError
from ansor_py.graph import compile, load, partition_model
from ansor_py.graph.library_kernels import LibraryCall, kernel_operators, run_kernel
from ansor_py.graph.onnx_ops.registry import registered_operators
from ansor_py.graph.plan import Plan
from ansor_py.search.__main__ import main
from graph_interpreter import Array, floats, make_model

NAN, INF = np.nan, np.inf


def top_k(x: Array, k: int, opset: int = 17, **attributes: int) -> tuple[Array, Array]:
    call = LibraryCall("node 't'", opset, attributes, [x, np.array([k])])
    values, places = run_kernel("TopK", call)
    return values, places


def between_kernels(k: int = 3) -> tuple[ModelProto, dict[str, Array]]:
    """A TopK between two native segments; its second result leaves the model."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("TopK", ["a", "k"], ["v", "i"], name="best", axis=1),
        helper.make_node("Neg", ["v"], ["y"]),
    ]
    data = {"x": floats(4, 9)}
    return make_model(nodes, data, ["y", "i"], {"k": np.array([k])}), data


@pytest.mark.parametrize(
    ("x", "k", "attributes", "values", "places"),
    [
        ([1, NAN, 5, 3, 2, 4], 3, {}, [NAN, 5, 4], [1, 2, 5]),
        ([1, NAN, 5, 3, 2, 4], 3, {"sorted": 0}, [NAN, 5, 4], [1, 2, 5]),
        ([1, NAN, 5, 3, 2, 4], 6, {}, [NAN, 5, 4, 3, 2, 1], [1, 2, 5, 3, 4, 0]),
        ([1, NAN, 5, 3, 2, 4], 3, {"largest": 0}, [1, 2, 3], [0, 4, 3]),
        ([1, NAN, 5, NAN, 2, 4], 5, {"largest": 0}, [1, 2, 4, 5, NAN], [0, 4, 5, 2, 1]),
        ([NAN, -INF, INF, NAN], 3, {}, [NAN, NAN, INF], [0, 3, 2]),
        ([2, 7, 7, 7, 1], 2, {}, [7, 7], [1, 2]),
        ([0.0, -0.0, 0.0, -1], 2, {}, [0, 0], [0, 1]),
        ([0.0, -0.0, 0.0, 1], 2, {"largest": 0}, [0, 0], [0, 1]),
        ([3, 1, 2], 0, {}, [], []),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_order_of_top_k(
    x: list[float], k: int, attributes: dict[str, int], values: list[float], places: list[int], dtype: type
) -> None:
    """NaN is larger than everything, zeros of both signs are equal, of equal elements the first comes first."""
    got, at = top_k(np.array(x, dtype), k, **attributes)
    np.testing.assert_array_equal(got, np.array(values, dtype))
    assert got.dtype == dtype
    assert at.tolist() == places


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8])
def test_top_k_of_the_extreme_integers_of_a_dtype(dtype: type) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.array([low, high - 1, high, low + 1, low], dtype)
    values, places = top_k(x, 2)
    assert (values.tolist(), places.tolist()) == ([high, high - 1], [2, 1])
    values, places = top_k(x, 3, largest=0)
    assert (values.tolist(), places.tolist()) == ([low, low, low + 1], [0, 4, 3])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [1, 4, 5])
def test_top_k_of_many_rows_with_equal_elements_equals_a_stable_sort(axis: int, largest: int, k: int) -> None:
    x = np.random.default_rng(k).integers(0, 4, (5, 7, 6)).astype(np.float32)
    order = np.argsort(-x if largest else x, axis=axis, kind="stable")
    places = np.take(order, range(k), axis=axis)
    values, got = top_k(x, k, axis=axis, largest=largest)
    np.testing.assert_array_equal(got, places)
    np.testing.assert_array_equal(values, np.take_along_axis(x, places, axis))


def test_the_first_version_of_top_k_has_its_number_as_attribute() -> None:
    x = np.array([[3, 1, 2]], np.float32)
    values, places = run_kernel("TopK", LibraryCall("node 't'", 1, {"k": 2, "axis": 1}, [x]))
    assert (values.tolist(), places.tolist()) == ([[3, 2]], [[0, 2]])


@pytest.mark.parametrize("k", [-1, 4])
def test_an_impossible_number_of_elements_is_an_error_that_names_the_node(k: int) -> None:
    with pytest.raises(ModelError, match=rf"node 't': there are no {k} elements along axis 0 of shape \[3\]"):
        top_k(np.zeros(3, np.float32), k)


def test_between_native_segments_without_fallback(tmp_path: Path) -> None:
    model, data = between_kernels()
    compiled = compile(model, threads=1, workers=0, fallback=False)
    assert [(node.name, node.op_type) for node in compiled.library_nodes] == [("best", "TopK")]
    assert not compiled.fallback_nodes
    order = np.argsort(-np.maximum(data["x"], 0), axis=1, kind="stable")[:, :3]
    compiled.save(tmp_path / "m.ansor")
    for made in (compiled, load(tmp_path / "m.ansor")):
        got = made.run(data)
        np.testing.assert_array_equal(got["i"], order)
        np.testing.assert_array_equal(got["y"], -np.take_along_axis(np.maximum(data["x"], 0), order, 1))
        assert made.plan == compiled.plan == Plan.from_json(compiled.plan.to_json())
    assert compiled.benchmark(repeats=2).min > 0


def test_running_a_library_kernel_needs_no_onnx(tmp_path: Path) -> None:
    model, data = between_kernels()
    compile(model, threads=1, workers=0).save(tmp_path / "m.ansor")
    np.save(tmp_path / "x.npy", data["x"])
    code = (
        "import sys, numpy, ansor_py\n"
        "y = ansor_py.load('m.ansor').run({'x': numpy.load('x.npy')})['y']\n"
        "print(y.shape, [name for name in sys.modules if name.partition('.')[0] == 'onnx'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 3) []"


def test_known_inputs_are_folded() -> None:
    nodes = [helper.make_node("TopK", ["c", "k"], ["v", "i"]), helper.make_node("Add", ["x", "v"], ["y"])]
    constants = {"c": np.array([1, NAN, 5], np.float32), "k": np.array([2])}
    compiled = compile(make_model(nodes, {"x": floats(2)}, ["y", "i"], constants), threads=1, workers=0, fallback=False)
    assert compiled.plan.fallback is None
    got = compiled.run({"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(got["y"], np.array([NAN, 6], np.float32))
    assert got["i"].tolist() == [1, 2]


def test_a_number_of_elements_that_is_computed_gives_a_dynamic_result() -> None:
    """It is wanted to be known; the result may leave the model or reach another library kernel, not a compiled node."""
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["v", "i"], name="some"),
        helper.make_node("TopK", ["v", "two"], ["w", "j"], name="two_of_them", largest=0),
    ]
    model = make_model(nodes, {"x": floats(6), "k": np.array([4])}, ["i", "w"], {"two": np.array([2])})
    parts = partition_model(model, fallback=False)
    assert parts.graph.wanted == {"k"}
    compiled = compile(model, threads=1, workers=0, fallback=False)
    x = np.array([1, 9, 2, 8, 3, 7], np.float32)
    got = compiled.run({"x": x, "k": np.array([4])})
    assert (got["i"].tolist(), got["w"].tolist()) == ([1, 3, 5, 4], [3, 7])
    nodes.append(helper.make_node("Neg", ["v"], ["n"], name="minus"))
    model = make_model(nodes, {"x": x, "k": np.array([4])}, ["n"], {"two": np.array([2])})
    with pytest.raises(ModelError, match=r"'minus'.*reads 'v', which is not a numeric tensor of a shape that is known"):
        compile(model, threads=1, workers=0, fallback=False)


def test_the_command_line_accepts_library_kernels_without_fallback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(between_kernels()[0], tmp_path / "m.onnx")
    words = [str(tmp_path / "m.onnx"), "--trials", "0", "--threads", "1", "--runner", "inline", "--no-fallback"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "reference evaluator" not in capsys.readouterr().out
    summary = (tmp_path / "run" / "summary.json").read_text()
    assert '"fallback_nodes": []' in summary
    assert '"library_nodes": [' in summary
    assert '"best"' in summary


def test_an_operator_is_compiled_or_has_a_library_kernel() -> None:
    assert not set(registered_operators()) & set(kernel_operators())
    assert kernel_operators()


def test_an_operator_of_another_domain_is_another_operator() -> None:
    node = helper.make_node("TopK", ["x"], ["y"], domain="mine")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)], ir_version=8)
    with pytest.raises(ModelError, match=r"operator mine\.TopK"):
        compile(model, workers=0)
