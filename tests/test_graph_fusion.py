"""Fusion by TVM's rules: which operators become one kernel; and partition into deduplicated tasks."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper

from ansor_py.graph import compile, extract_tasks, import_model, partition_model
from ansor_py.graph.fusion import fuse, post_dominators
from ansor_py.graph.ir import Pattern
from ansor_py.target import Target
from graph_interpreter import floats, interpret, make_model, reference

SHAPE = (1, 4, 6, 6)
CONSTANTS = {
    "w": floats(4, 4, 3, 3),
    "w2": floats(4, 4, 3, 3, seed=5),
    "b": floats(4, seed=1),
    "c": floats(4, 1, 1, seed=2),
    "shape": np.array([4, 36]),
    "m": floats(6, 6, seed=3),
}


def node(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{op_type.lower()}_{output}", **attributes)


def conv(source: str, output: str, weight: str = "w") -> NodeProto:
    return node("Conv", f"{source} {weight} b", output, pads=[1, 1, 1, 1])


def model_of(nodes: list[NodeProto], outputs: str = "y") -> ModelProto:
    used = {name for item in nodes for name in item.input}
    constants = {name: array for name, array in CONSTANTS.items() if name in used}
    return make_model(nodes, {"x": SHAPE}, outputs.split(), constants)


def groups_of(model: ModelProto) -> list[str]:
    return ["+".join(member.op_type for member in group.nodes) for group in fuse(import_model(model))]


CASES = {
    "conv-relu": ([conv("x", "a"), node("Relu", "a", "y")], ["Conv+Relu"]),
    "conv-mul-add-relu": (
        [conv("x", "a"), node("Mul", "a c", "d"), node("Add", "d c", "e"), node("Relu", "e", "y")],
        ["Conv+Mul+Add+Relu"],
    ),
    "residual add": ([conv("x", "a"), node("Add", "a x", "d"), node("Relu", "d", "y")], ["Conv+Add+Relu"]),
    "two convs into one add": (
        [conv("x", "a"), conv("x", "d", "w2"), node("Add", "a d", "e"), node("Relu", "e", "y")],
        ["Conv", "Conv+Add+Relu"],
    ),
    "conv into conv": ([conv("x", "a"), conv("a", "y")], ["Conv", "Conv"]),
    "element-wise diamond": (
        [node("Exp", "x", "a"), node("Relu", "a", "d"), node("Sqrt", "a", "e"), node("Add", "d e", "y")],
        ["Exp+Relu+Sqrt+Add"],
    ),
    "diamond behind a conv": (
        [conv("x", "a"), node("Sigmoid", "a", "d"), node("Mul", "a d", "y")],
        ["Conv+Sigmoid+Mul"],
    ),
    "diamond through a conv": (
        [node("Relu", "x", "a"), conv("a", "d"), node("Add", "a d", "y")],
        ["Relu", "Conv+Add"],
    ),
    "softmax alone": (
        [node("Relu", "x", "a"), node("Softmax", "a", "d", axis=-1), node("Relu", "d", "y")],
        ["Relu", "Softmax", "Relu"],
    ),
    "reduction ends a group": (
        [node("Exp", "x", "a"), node("ReduceMean", "a", "d", axes=[2, 3]), node("Relu", "d", "y")],
        ["Exp+ReduceMean", "Relu"],
    ),
    "injective into a reduction": (
        [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("ReduceMax", "a", "y", axes=[-1])],
        ["Transpose+ReduceMax"],
    ),
    "conv into a reduction": ([conv("x", "a"), node("ReduceMean", "a", "y", axes=[2, 3])], ["Conv", "ReduceMean"]),
    "concat of element-wise": (
        [node("Relu", "x", "a"), node("Exp", "x", "d"), node("Concat", "a d", "y", axis=1)],
        ["Relu+Exp+Concat"],
    ),
    "concat of convs then relu": (
        [conv("x", "a"), conv("x", "d", "w2"), node("Concat", "a d", "e", axis=1), node("Relu", "e", "y")],
        ["Conv", "Conv", "Concat+Relu"],
    ),
    "transposes": (
        [
            node("Transpose", "x", "a", perm=[0, 2, 3, 1]),
            node("Relu", "a", "d"),
            node("Transpose", "d", "y", perm=[0, 3, 1, 2]),
        ],
        ["Transpose+Relu+Transpose"],
    ),
    "view is a border": (
        [node("Relu", "x", "a"), node("Reshape", "a shape", "d"), node("Exp", "d", "y")],
        ["Relu", "Reshape", "Exp"],
    ),
    "broadcast of a smaller conv result": (
        [conv("x", "a"), node("GlobalAveragePool", "a", "d"), node("Sigmoid", "d", "e"), node("Mul", "e a", "y")],
        ["Conv", "GlobalAveragePool", "Sigmoid+Mul"],
    ),
    "matmul-add": ([node("MatMul", "x m", "a"), node("Add", "a m", "y")], ["MatMul+Add"]),
}


@pytest.mark.parametrize("name", CASES)
def test_groups(name: str) -> None:
    nodes, expected = CASES[name]
    model = model_of(nodes)
    assert groups_of(model) == expected
    data = {"x": np.abs(floats(*SHAPE)) + 0.1}
    got, wanted = interpret(partition_model(model), data)["y"], reference(model, data)["y"]
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)


def test_graph_output_inside_a_chain_is_a_border() -> None:
    model = model_of([conv("x", "a"), node("Relu", "a", "y")], outputs="a y")
    assert groups_of(model) == ["Conv", "Relu"]


def test_group_size_is_capped() -> None:
    chain = [node("Relu", f"v{index}" if index else "x", f"v{index + 1}") for index in range(100)]
    graph = import_model(model_of(chain, outputs="v100"))
    sizes = [len(group.nodes) for group in fuse(graph, max_nodes=16)]
    assert sum(sizes) == 100
    assert max(sizes) == 16


def test_post_dominator_carries_the_strongest_kind_on_the_way() -> None:
    nodes = [
        node("Exp", "x", "a"),
        node("Concat", "a a", "d", axis=1),
        node("Relu", "a", "e"),
        node("Concat", "d e", "y", axis=1),
    ]
    found = post_dominators(import_model(model_of(nodes)))
    assert (found["exp_a"].node, found["exp_a"].pattern) == ("concat_y", Pattern.INJECTIVE)
    assert "concat_y" not in found


OPERATORS = ["Relu", "Tanh", "Add", "Conv", "Transpose", "MatMul", "ReduceMax", "Softmax", "GlobalMaxPool"]


@st.composite
def random_models(draw: st.DrawFn) -> ModelProto:
    """Random graphs whose values all have shape [1, 4, 6, 6]: reductions are spread again by an addition."""
    names, nodes = ["x"], []
    for index in range(draw(st.integers(1, 14))):
        kind, source, other = draw(st.sampled_from(OPERATORS)), draw(st.sampled_from(names)), draw(st.sampled_from(names))
        out = f"v{index}"
        match kind:
            case "Conv":
                nodes.append(conv(source, out))
            case "MatMul":
                nodes.append(node("MatMul", f"{source} m", out))
            case "Transpose":
                nodes.append(node("Transpose", source, out, perm=[0, 1, 3, 2]))
            case "Add":
                nodes.append(node("Add", f"{source} {other}", out))
            case "ReduceMax" | "GlobalMaxPool":
                attributes = {"axes": [2, 3]} if kind == "ReduceMax" else {}
                nodes.append(node(kind, source, f"{out}r", **attributes))
                nodes.append(node("Add", f"{out}r {other}", out))
            case _:
                nodes.append(node(kind, source, out))
        names.append(out)
    outputs = {names[-1], draw(st.sampled_from(names[1:]))}
    return model_of(nodes, " ".join(sorted(outputs)))


@given(random_models())
@settings(max_examples=60, deadline=None)
def test_groups_of_random_graphs_are_legal(model: ModelProto) -> None:
    graph = import_model(model)
    groups = fuse(graph)
    group_of = {member.name: index for index, group in enumerate(groups) for member in group.nodes}
    assert sorted(group_of) == sorted(member.name for member in graph.nodes)
    between = nx.DiGraph((group_of[a], group_of[b]) for a, b in graph.digraph.edges if group_of[a] != group_of[b])
    assert nx.is_directed_acyclic_graph(between)
    assert all(first < second for first, second in between.edges)
    for index, group in enumerate(groups):
        inner = {member.output for member in group.nodes} - {group.output}
        assert not inner & graph.output_values
        assert all(group_of[reader.name] == index for name in inner for reader in graph.consumers(name))
        kinds = [member.pattern for member in group.nodes]
        assert sum(kind is Pattern.COMPLEX for kind in kinds) <= 1
        assert sum(kind is Pattern.REDUCTION for kind in kinds) <= 1
        assert Pattern.OPAQUE not in kinds or len(kinds) == 1
        assert not {Pattern.COMPLEX, Pattern.REDUCTION} <= set(kinds)


@given(random_models())
@settings(max_examples=12, deadline=None)
def test_random_graphs_compute_what_onnx_says(model: ModelProto) -> None:
    data = {"x": floats(*SHAPE)}
    expected = reference(model, data)
    for got in (interpret(partition_model(model), data), compile(model, threads=2, workers=0).run(data)):
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-4 * float(np.abs(array).max()))


def test_equal_layers_are_one_task_with_their_number_as_weight() -> None:
    nodes = [
        conv("x", "a"),
        node("Relu", "a", "b1"),
        conv("b1", "c1", "w2"),
        node("Relu", "c1", "d1"),
        conv("d1", "e1"),
        node("Exp", "e1", "y"),
    ]
    parts = partition_model(model_of(nodes))
    assert [(unit.name, unit.weight) for unit in parts.tasks] == [("conv_relu_1x4x6x6", 2), ("conv_exp_1x4x6x6", 1)]
    first, second = parts.tasks[0].occurrences
    assert first.inputs == ("x", "w", "b")
    assert second.inputs == ("b1", "w2", "b")
    assert [tensor.name for tensor in first.dag.inputs] == ["data0", "weight0", "weight1"]
    tasks = extract_tasks(parts, Target.parse("x86-64"))
    assert [(task.weight, task.workload_key) for task in tasks] == [(unit.weight, unit.workload_key) for unit in parts.tasks]


def test_input_read_twice_is_one_placeholder() -> None:
    parts = partition_model(model_of([node("Mul", "x x", "a"), node("Add", "a x", "y")]))
    assert [subgraph.inputs for subgraph in parts.subgraphs] == [("x",)]
