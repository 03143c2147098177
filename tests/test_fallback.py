"""Nodes that are not compiled: run by ONNX's reference evaluator between native segments, listed, stored, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from ansor_py.errors import FeedError, ModelError
from ansor_py.graph import CompiledModel, compile, load, partition_model
from ansor_py.graph.plan import Plan
from ansor_py.graph.run_function import segments_of
from ansor_py.search.__main__ import main
from graph_interpreter import Array, floats, make_model, reference


def inverse_between_kernels() -> tuple[ModelProto, dict[str, Array]]:
    """A matrix inverse (no tensor expression) between compiled layers, one of which goes around it."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("Add", ["squares", "eye"], ["a"]),
        helper.make_node("Det", ["a"], ["d"], name="determinant"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Mul", ["r", "d"], ["scaled"]),
        helper.make_node("Det", ["scaled"], ["e"], name="second"),
        helper.make_node("Tanh", ["e"], ["y"]),
    ]
    data = {"x": floats(3, 3)}
    return make_model(nodes, data, ["y", "scaled", "d"], {"eye": np.eye(3, dtype=np.float32) * 2}), data


def branches(condition: Array | None = None) -> tuple[ModelProto, dict[str, Array]]:
    """An If that captures a computed value; its condition is an input, or constant."""
    then = helper.make_graph([helper.make_node("Neg", ["a"], ["t"])], "then", [], [_float("t", 2, 3)])
    other = helper.make_graph([helper.make_node("Exp", ["a"], ["o"])], "else", [], [_float("o", 2, 3)])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("If", ["c"], ["b"], name="choice", then_branch=then, else_branch=other),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    data: dict[str, Array] = {"x": floats(2, 3)}
    if condition is not None:
        return make_model(nodes, data, ["y"], {"c": condition}), data
    data["c"] = np.array(True)
    return make_model(nodes, data, ["y"]), data


def _float(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def check(compiled: CompiledModel, model: ModelProto, data: dict[str, Any]) -> None:
    got, expected = compiled.run(data), reference(model, data)
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5, strict=True)


def test_compiled_segments_around_uncompiled_nodes() -> None:
    model, data = inverse_between_kernels()
    told: list[str] = []
    compiled = compile(model, threads=1, workers=0, progress=told.append)
    check(compiled, model, data)
    check(compiled, model, {"x": floats(3, 3, seed=1)})
    assert [node.name for node in compiled.fallback_nodes] == ["determinant", "second"]
    assert all(node.op_type == "Det" and "neither a tensor expression" in node.reason for node in compiled.fallback_nodes)
    assert len([segment for segment in segments_of(compiled.plan) if segment]) == 3
    assert any("reference evaluator: node 'determinant' (operator Det, opset 17), node 'second'" in text for text in told)
    assert compiled.benchmark(repeats=3).min > 0
    call, outputs = compiled.bind(data)
    call()
    np.testing.assert_array_equal(outputs["y"], compiled.run(data)["y"])


def test_without_fallback_an_uncompiled_node_is_one_clear_error() -> None:
    with pytest.raises(ModelError, match=r"node 'determinant' \(operator Det, opset 17\) is not supported"):
        compile(inverse_between_kernels()[0], workers=0, fallback=False)
    with pytest.raises(ModelError, match=r"node 'choice' \(operator If, opset 17\)"):
        compile(branches()[0], workers=0, fallback=False)


@pytest.mark.parametrize("condition", [True, False])
def test_control_flow_that_captures_values(condition: bool) -> None:
    model, data = branches()
    compiled = compile(model, threads=1, workers=0)
    check(compiled, model, data | {"c": np.array(condition)})
    assert [node.op_type for node in compiled.fallback_nodes] == ["If"]


def test_uncompiled_nodes_with_known_inputs_run_at_compile_time() -> None:
    nodes = [helper.make_node("Det", ["k"], ["d"]), helper.make_node("Mul", ["x", "d"], ["y"])]
    data = {"x": floats(2, 3)}
    model = make_model(nodes, data, ["y"], {"k": floats(3, 3, seed=1)})
    compiled = compile(model, threads=1, workers=0)
    assert compiled.plan.fallback is None
    check(compiled, model, data)


def test_data_dependent_shapes_strings_and_sequences() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["where"]),
        helper.make_node("Transpose", ["where"], ["rows"]),
        helper.make_node("SequenceConstruct", ["a", "a"], ["both"]),
        helper.make_node("Exp", ["a"], ["e"]),
        helper.make_node("SequenceInsert", ["both", "e"], ["three"]),
        helper.make_node("ConcatFromSequence", ["three"], ["y"], axis=0),
        helper.make_node("StringNormalizer", ["s"], ["upper"], case_change_action="UPPER"),
    ]
    infos = [_float("x", 2, 3), helper.make_tensor_value_info("s", TensorProto.STRING, [None])]
    results = [
        helper.make_tensor_value_info("rows", TensorProto.INT64, [None, 2]),
        _float("y", 6, 3),
        helper.make_tensor_value_info("upper", TensorProto.STRING, [None]),
        helper.make_tensor_sequence_value_info("three", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "dynamic", infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = {"x": floats(2, 3), "s": np.array(["one", "two"], dtype=object)}
    compiled = compile(model, threads=1, workers=0)
    got, expected = compiled.run(data), reference(model, data)
    assert set(got) == set(expected)
    np.testing.assert_array_equal(got["rows"], expected["rows"])
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-6)
    assert got["upper"].tolist() == ["ONE", "TWO"]
    for one, other in zip(got["three"], expected["three"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    with pytest.raises(FeedError, match="input 's' is missing"):
        compiled.run({"x": data["x"]})
    with pytest.raises(FeedError, match="input 's' is not a numeric tensor"):
        compiled.benchmark()


def test_saved_with_the_model_and_loaded(tmp_path: Path) -> None:
    model, data = inverse_between_kernels()
    compiled = compile(model, threads=1, workers=0)
    compiled.save(tmp_path / "m.ansor")
    loaded = load(tmp_path / "m.ansor")
    assert loaded.plan == compiled.plan == Plan.from_json(compiled.plan.to_json())
    check(loaded, model, data)


def test_a_stated_shape_of_what_depends_on_data_is_not_believed() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["where"], name="find"), helper.make_node("Neg", ["where"], ["y"])]
    graph = helper.make_graph(nodes, "lying", [_float("x", 4)], [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 4])])
    graph.value_info.append(helper.make_tensor_value_info("where", TensorProto.INT64, [1, 4]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compiled = compile(model, threads=1, workers=0)
    assert compiled.run({"x": np.ones(4, np.float32)})["y"].tolist() == [[0, -1, -2, -3]]
    assert compiled.run({"x": np.array([0, 1, 1, 0], np.float32)})["y"].tolist() == [[-1, -2]]


def test_a_result_of_another_shape_than_stated_stops_only_kernels_that_read_it() -> None:
    """Where nothing but the model says what an operator gives, kernels are made for that."""
    branches = [helper.make_graph([helper.make_node("Identity", [n], ["b"])], "branch", [], [_float("b")]) for n in ("x", "z")]
    choice = helper.make_node("If", ["c"], ["a"], name="choice", then_branch=branches[0], else_branch=branches[1])
    inputs = [_float("x", 2), _float("z", 1, 3), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    opsets = [helper.make_opsetid("", 17)]
    feed = {"x": floats(2), "z": floats(1, 3)}

    alone = helper.make_model(helper.make_graph([choice], "g", inputs, [_float("a", 1, 3)]), opset_imports=opsets, ir_version=8)
    compiled = compile(alone, threads=1, workers=0)
    for flag, name in ((True, "x"), (False, "z")):
        np.testing.assert_array_equal(compiled.run({**feed, "c": np.array(flag)})["a"], feed[name])

    read = helper.make_graph([choice, helper.make_node("Neg", ["a"], ["y"])], "g", inputs, [_float("y", 1, 3)])
    read.value_info.append(_float("a", 1, 3))
    compiled = compile(helper.make_model(read, opset_imports=opsets, ir_version=8), threads=1, workers=0)
    np.testing.assert_array_equal(compiled.run({**feed, "c": np.array(False)})["y"], -feed["z"])
    with pytest.raises(ModelError, match=r"node 'choice'.*'a' is float32\[2\], but the model states float32\[1, 3\]"):
        compiled.run({**feed, "c": np.array(True)})


def test_inputs_that_would_let_more_be_compiled_are_known() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Reshape", ["a", "shape"], ["y"])]
    model = make_model(nodes, {"x": floats(2, 3), "shape": np.array([3, 2])}, ["y"])
    graph = partition_model(model).graph
    assert graph.wanted == {"shape"}
    assert [node.op_type for node in graph.opaque] == ["Reshape"]


def test_constants_and_weights_reach_uncompiled_nodes() -> None:
    nodes = [
        helper.make_node("Compress", ["w", "mask"], ["picked"], axis=0),
        helper.make_node("Relu", ["picked"], ["r"]),
        helper.make_node("Mul", ["x", "w"], ["y"]),
    ]
    data = {"x": floats(4, 3), "mask": np.array([True, False, True, False])}
    model = make_model(nodes, data, ["y"], {"w": floats(4, 3, seed=1)})
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [None, 3]))
    compiled = compile(model, threads=1, workers=0)
    check(compiled, model, data)
    assert [node.op_type for node in compiled.fallback_nodes] == ["Compress", "Relu"]


def test_the_command_line_lists_or_refuses_uncompiled_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(inverse_between_kernels()[0], tmp_path / "m.onnx")
    words = [str(tmp_path / "m.onnx"), "--trials", "0", "--threads", "1", "--runner", "inline"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "2 nodes are not compiled" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [node["name"] for node in summary["fallback_nodes"]] == ["determinant", "second"]
    assert len(load(tmp_path / "run" / "model.ansor").fallback_nodes) == 2
    assert main([*words, "--no-fallback", "--out", str(tmp_path / "none")]) == 2
    assert "node 'determinant' (operator Det, opset 17) is not supported" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("condition", [True, False])
def test_the_branch_of_a_known_condition_is_compiled(condition: bool) -> None:
    model, data = branches(np.array(condition))
    compiled = compile(model, threads=1, workers=0, fallback=False)
    check(compiled, model, data)
    assert not compiled.fallback_nodes


def test_functions_with_subgraphs_may_be_called_twice() -> None:
    """Each call has names of its own, also where a subgraph captures a value of the function."""
    then = helper.make_graph([helper.make_node("Neg", ["inner"], ["t"])], "then", [], [_float("t", 2, 3)])
    other = helper.make_graph([helper.make_node("Exp", ["inner"], ["t"])], "else", [], [_float("t", 2, 3)])
    choice = helper.make_node("If", ["flag"], ["chosen"], then_branch=then, else_branch=other)
    body = [helper.make_node("Relu", ["a"], ["inner"]), choice, helper.make_node("Add", ["chosen", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Choose", ["a", "flag"], ["b"], body, opsets[:1])
    nodes = [
        helper.make_node("Choose", ["x", "yes"], ["m"], name="first", domain="mine"),
        helper.make_node("Choose", ["m", "no"], ["n"], name="second", domain="mine"),
        helper.make_node("Choose", ["n", "c"], ["y"], name="third", domain="mine"),
    ]
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    known = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("yes", True), ("no", False))]
    graph = helper.make_graph(nodes, "twice", [_float("x", 2, 3), condition], [_float("y", 2, 3)], known)
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    compiled = compile(model, threads=1, workers=0)
    assert [node.op_type for node in compiled.fallback_nodes] == ["If"]
    for flag in (True, False):
        check(compiled, model, {"x": floats(2, 3), "c": np.array(flag)})


def test_a_loop_in_a_function_of_the_standard_leaves_the_operator_whole() -> None:
    node = helper.make_node("HannWindow", ["n"], ["w"], name="window", output_datatype=TensorProto.FLOAT)
    nodes = [node, helper.make_node("Mul", ["w", "x"], ["y"])]
    graph = helper.make_graph(
        nodes, "windowed", [helper.make_tensor_value_info("n", TensorProto.INT64, []), _float("x", 8)], [_float("y", 8)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compiled = compile(model, threads=1, workers=0)
    check(compiled, model, {"n": np.array(8), "x": floats(8)})
    assert compiled.fallback_nodes[0].name == "window"
