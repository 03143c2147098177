"""Kernels over rows that may take the place of several: which are offered, and that either way the results are the model's."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper

import ansor_py
from ansor_py import te
from ansor_py.errors import OptionError
from ansor_py.graph import compile, compile_partition, partition_model
from ansor_py.graph.partition import Choice, Partition
from ansor_py.graph.partition_choice import MEASURED_MARGIN, PREDICTED_MARGIN, weighed
from ansor_py.graph.row_access import shared_rows
from ansor_py.graph.split_axes import split_axes
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from graph_interpreter import Array, floats, interpret, make_model, reference
from targets import executed_targets, structure_targets
from te_interpreter import evaluate
from test_graph_fusion import random_models


def node(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{op_type.lower()}_{output}", **attributes)


def every_way(parts: Partition) -> list[Partition]:
    """All choices decided for the parts, and all for the wholes."""
    return [parts.closed(()), parts.closed(choice.key for choice in parts.choices)]


def kinds(choice: Choice) -> list[str]:
    return ["+".join(member.op_type for member in part.nodes) for part in choice.parts]


CONSTANTS = {
    "w": floats(16, 24, seed=1),
    "w2": floats(24, 16, seed=2),
    "b": floats(24, seed=3),
    "two": np.float32(2),
    "tiny": np.float32(1e-5),
    "last": np.array([-1]),
    "kernel": floats(6, 3, 3, 3, seed=4),
    "one": np.array([1]),
    "next": np.array([2]),
    "first": np.array([0]),
    "groups": np.array([2, 3, -1]),
    "images": np.array([2, 6, 6, 6]),
    "ones": np.ones(3, np.float32),
    "zeros": np.zeros(3, np.float32),
    "channel": floats(6, 1, 1, seed=6),
    "large": floats(24, 32768, seed=5),
}
LAYER_NORM = [
    node("ReduceMean", "a", "m", axes=[-1]),
    node("Sub", "a m", "c"),
    node("Pow", "c two", "q"),
    node("ReduceMean", "q", "v", axes=[-1]),
    node("Add", "v tiny", "e"),
    node("Sqrt", "e", "d"),
    node("Div", "c d", "n"),
]
ROWS, IMAGE = (3, 5, 16), (2, 3, 8, 8)
CASES = {
    "product and softmax": (ROWS, [node("MatMul", "x w", "a"), node("Softmax", "a", "y")], [["MatMul", "Softmax"]]),
    "product, bias and decomposed layer norm": (
        ROWS,
        [node("MatMul", "x w", "p"), node("Add", "p b", "a"), *LAYER_NORM, node("Mul", "n b", "y")],
        [["MatMul+Add", "ReduceMean", "Sub", "Pow+ReduceMean", "Add+Sqrt+Div+Mul"]],
    ),
    "layer norm with what is around it": (
        ROWS,
        [node("Add", "x x2", "a"), node("LayerNormalization", "a s", "n"), node("Relu", "n", "y")],
        [["Add", "LayerNormalization", "Relu"]],
    ),
    "product and the reduction behind it": (
        ROWS,
        [node("MatMul", "x w", "a"), node("ReduceMax", "a", "y", axes=[-1])],
        [["MatMul", "ReduceMax"]],
    ),
    "convolution and the mean of each channel": (
        IMAGE,
        [
            node("Conv", "x kernel", "a"),
            node("GlobalAveragePool", "a", "g"),
            node("Sigmoid", "g", "h"),
            node("Mul", "a h", "y"),
        ],
        [["Conv", "GlobalAveragePool", "Sigmoid+Mul"]],
    ),
    "group normalisation as PyTorch exports it": (
        IMAGE,
        [
            node("Conv", "x kernel", "a"),
            node("Reshape", "a groups", "g"),
            node("InstanceNormalization", "g ones zeros", "i"),
            node("Reshape", "i images", "j"),
            node("Mul", "j channel", "k"),
            node("Add", "k channel", "l"),
            node("Relu", "l", "y"),
        ],
        [["Conv", "InstanceNormalization", "Mul+Add+Relu"]],
    ),
    "root mean square by single operators, and the residual": (
        ROWS,
        [
            node("Add", "x x2", "a"),
            node("Pow", "a two", "q"),
            node("ReduceMean", "q", "v", axes=[-1]),
            node("Add", "v tiny", "e"),
            node("Sqrt", "e", "d"),
            node("Div", "a d", "n"),
            node("Mul", "n s", "y"),
        ],
        [["Add", "Pow+ReduceMean", "Add+Sqrt+Div+Mul"]],
    ),
    "a product and the transposition that it reads": (
        ROWS,
        [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "t x2", "a"), node("Add", "a s", "y")],
        [["Transpose", "MatMul+Add"]],
    ),
    "a transposition that two products read": (
        ROWS,
        [
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("MatMul", "t x", "a"),
            node("MatMul", "t x2", "c"),
            node("Add", "a c", "y"),
        ],
        [],
    ),
    "a slice that is read where it lies": (
        ROWS,
        [
            node("MatMul", "x w", "a"),
            node("Slice", "a one next first", "t"),
            node("Softmax", "a", "d"),
            node("Softmax", "t", "e"),
            node("Add", "d e", "y"),
        ],
        [["Softmax", "Add"]],
    ),
    "a window is no row": (IMAGE, [node("Conv", "x kernel", "a"), node("MaxPool", "a", "y", kernel_shape=[2, 2])], []),
    "rows need a reduction": (ROWS, [node("MatMul", "x w", "a"), node("Transpose", "a", "y", perm=[1, 0, 2])], []),
    "two products without a reduction between": (
        ROWS,
        [node("MatMul", "x w", "a"), node("Relu", "a", "d"), node("MatMul", "d w2", "e"), node("Softmax", "e", "y")],
        [["MatMul", "Softmax"]],
    ),
    "two products with a reduction between": (
        ROWS,
        [node("MatMul", "x w", "a"), node("Softmax", "a", "d"), node("MatMul", "d w2", "y")],
        [["MatMul", "Softmax", "MatMul"]],
    ),
    "an operand that no cache holds": (
        ROWS,
        [node("MatMul", "x w", "a"), node("Softmax", "a", "d"), node("MatMul", "d large", "y")],
        [["MatMul", "Softmax"]],
    ),
    "a reduced operand on the other side is no row": (
        ROWS,
        [node("MatMul", "x w", "a"), node("Softmax", "a", "d"), node("MatMul", "x3 d", "y")],
        [["MatMul", "Softmax"]],
    ),
    "a second reader": (
        ROWS,
        [
            *(node("MatMul", "x w", "a"), node("Softmax", "a", "d"), node("MatMul", "a w2", "e"), node("MatMul", "d w2", "f")),
            node("Add", "e f", "y"),
        ],
        [],
    ),
    "a reduction over what rows are not": (
        (7, 16),
        [node("MatMul", "x w", "a"), node("ReduceMax", "a", "m", axes=[0, 1]), node("Sub", "a m", "y")],
        [],
    ),
}


def model_of(shape: tuple[int, ...], nodes: list[NodeProto], outputs: str = "y") -> tuple[ModelProto, dict[str, Array]]:
    used = {name for item in nodes for name in item.input}
    feed = {"x": floats(*shape), "x2": floats(*shape, seed=9), "x3": floats(3, 7, 5, seed=8)}
    constants = {**CONSTANTS, "s": floats(shape[-1], seed=7)}
    feed, constants = ({name: array for name, array in group.items() if name in used} for group in (feed, constants))
    return make_model(nodes, feed, outputs.split(), constants), feed


@pytest.mark.parametrize("name", CASES)
def test_what_is_offered(name: str) -> None:
    shape, nodes, expected = CASES[name]
    model, feed = model_of(shape, nodes)
    parts = partition_model(model)
    assert [kinds(choice) for choice in parts.choices] == expected
    wanted = reference(model, feed)["y"]
    for way in every_way(parts):
        np.testing.assert_allclose(interpret(way, feed)["y"], wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("target", structure_targets("cores=4"))
def test_what_is_offered_has_sketches(target: Target) -> None:
    for shape, nodes, _ in CASES.values():
        for choice in partition_model(model_of(shape, nodes)[0]).choices:
            assert generate_sketches(choice.whole.dag, target)


def test_what_leaves_the_graph_is_not_inside_of_a_kernel() -> None:
    nodes = [node("MatMul", "x w", "a"), node("Softmax", "a", "y")]
    assert not partition_model(model_of(ROWS, nodes, "a y")[0]).choices
    assert not partition_model(model_of(ROWS, nodes)[0], fusion="narrow").choices


def test_kernels_are_offered_up_to_the_size_of_a_group() -> None:
    chain = [node("Softmax", f"v{number}" if number else "x", f"v{number + 1}") for number in range(60)]
    parts = partition_model(model_of(ROWS, chain, "v60")[0])
    assert [len(choice.parts) for choice in parts.choices] == [24, 24, 12]


# Attention.


@dataclass(frozen=True)
class Attention:
    """How attention is exported: sizes, and in which of the usual ways."""

    batch: int
    heads: int
    tokens: int
    others: int
    width: int
    values: int
    joined: bool  # products over [batch * heads, ...]
    transposes: bool  # from and to [batch, tokens, heads, width]
    scale: str
    mask: str
    decomposed: bool  # softmax

    def model(self) -> tuple[ModelProto, dict[str, Array]]:
        b, h, t, o = self.batch, self.heads, self.tokens, self.others
        nodes: list[NodeProto] = []
        constants: dict[str, Array] = {"scale": np.float32(0.3), "low": np.float32(-1e9), "last": np.array([-1])}
        feed: dict[str, Array] = {}

        def add(op_type: str, inputs: str, **attributes: object) -> str:
            nodes.append(node(op_type, inputs, f"v{len(nodes)}", **attributes))
            return f"v{len(nodes) - 1}"

        def shaped(x: str, *shape: int) -> str:
            name = f"shape{len(constants)}"
            constants[name] = np.array(shape)
            return add("Reshape", f"{x} {name}")

        def operand(name: str, length: int, width: int, order: tuple[int, ...]) -> str:
            feed[name] = floats(b, length, h, width, seed=len(feed)) if self.transposes else floats(b, h, length, width)
            x = name
            if self.transposes:
                x = add("Transpose", x, perm=order)
            elif order[2:] == (3, 1):
                x = add("Transpose", x, perm=[0, 1, 3, 2])
            return shaped(x, b * h, *((width, length) if order[2:] == (3, 1) else (length, width))) if self.joined else x

        query = operand("q", t, self.width, (0, 2, 1, 3))
        key, value = operand("k", o, self.width, (0, 2, 3, 1)), operand("v", o, self.values, (0, 2, 1, 3))
        x = add("MatMul", f"{query} {key}")
        x = add(self.scale, f"{x} scale") if self.scale else x
        if self.mask:
            feed["mask"] = {
                "Add": floats(b, 1, 1, o, seed=20),
                "Where": np.random.default_rng(3).random((1, 1, t, o)) < 0.8,
            }[self.mask]
            x = shaped(x, b, h, t, o) if self.joined else x
            x = add("Add", f"{x} mask") if self.mask == "Add" else add("Where", f"mask {x} low")
            x = shaped(x, b * h, t, o) if self.joined else x
        if self.decomposed:
            e = add("Exp", add("Sub", f"{x} {add('ReduceMax', x, axes=[-1])}"))
            x = add("Div", f"{e} {add('ReduceSum', f'{e} last')}")
        else:
            x = add("Softmax", x, axis=-1)
        x = add("MatMul", f"{x} {value}")
        if self.transposes:
            x = shaped(x, b, h, t, self.values) if self.joined else x
            x = add("Transpose", x, perm=[0, 2, 1, 3])
        x = shaped(x, b, t, h * self.values)
        return make_model(
            nodes, feed, [x], {n: a for n, a in constants.items() if any(n in item.input for item in nodes)}
        ), feed


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    sizes = [draw(st.integers(low, high)) for low, high in ((1, 3), (1, 4), (2, 7), (2, 9), (2, 5), (2, 5))]
    flags = (draw(st.booleans()), draw(st.booleans()))
    scale, mask = draw(st.sampled_from(["", "Mul", "Div"])), draw(st.sampled_from(["", "Add", "Where"]))
    return Attention(*sizes, *flags, scale, mask, draw(st.booleans()))


def check_attention(attention: Attention, compiled: bool) -> None:
    model, feed = attention.model()
    parts = partition_model(model)
    [choice] = parts.choices
    assert [member.op_type for member in choice.whole.nodes].count("MatMul") == 2
    assert len(parts.decided([choice.key]).subgraphs) == len(parts.subgraphs) - len(choice.parts) + 1
    rows = prod(axis.extent for axis in shared_rows(choice.whole.dag))
    assert rows == attention.batch * attention.heads * attention.tokens
    [wanted] = reference(model, feed).values()
    for way in every_way(parts):
        ran = compile_partition(way, threads=2, workers=0).run(feed) if compiled else interpret(way, feed)
        [got] = ran.values()
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


@given(attentions())
@settings(max_examples=60, deadline=None)
def test_attention_is_offered_as_one_kernel_however_it_is_exported(attention: Attention) -> None:
    check_attention(attention, compiled=False)


@given(attentions())
@settings(max_examples=8, deadline=None)
def test_compiled_attention_is_right_either_way(attention: Attention) -> None:
    check_attention(attention, compiled=True)


@pytest.mark.parametrize(("tokens", "products"), [(128, 2), (3, 1)])
def test_values_that_no_cache_holds_are_read_again_only_for_more_scores(tokens: int, products: int) -> None:
    model, _ = Attention(1, 1, tokens, 6000, 8, 100, False, False, "Mul", "", False).model()
    [choice] = partition_model(model).choices
    assert [member.op_type for member in choice.whole.nodes].count("MatMul") == products


@pytest.mark.parametrize(("name", "layers"), [("bert_base", 12), ("vit_b_block", 1), ("gpt2_block", 1)])
def test_a_layer_of_a_transformer_has_one_kernel_for_its_attention(
    name: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))
    from networks import network

    parts = partition_model(network(name).model)
    attention = [choice for choice in parts.choices if "Softmax" in kinds(choice)]
    assert len(attention) == layers
    assert len({choice.key for choice in attention}) == 1
    [first, *_] = attention
    assert [kind for kind in kinds(first) if kind != "Transpose"][1:] == ["Softmax", "MatMul"]
    assert kinds(first)[-1] == "Transpose"
    others = {tuple(kinds(choice)) for choice in parts.choices if "Softmax" not in kinds(choice)}
    embedding, added = ("Gather", "Add", "LayerNormalization"), ("MatMul+Add+Add", "LayerNormalization")
    assert others == ({embedding, added} if name == "bert_base" else set())


# Any graph.


@given(random_models(), st.data())
@settings(max_examples=60, deadline=None)
def test_random_graphs_are_right_however_they_are_decided(model: ModelProto, data: st.DataObject) -> None:
    parts = partition_model(model)
    keys = sorted({choice.key for choice in parts.choices})
    wanted = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    decided = parts.decided(wanted)
    assert decided.taken == wanted
    assert decided.decided(()).subgraphs == parts.subgraphs
    assert [(unit.workload_key, unit.name) for unit in decided.all_tasks] == [
        (unit.workload_key, unit.name) for unit in parts.all_tasks
    ]
    inside = [part for choice in parts.choices for part in choice.parts]
    assert len({id(part) for part in inside}) == len(inside)
    ready = set(parts.graph.inputs)
    for subgraph in decided.subgraphs:
        sources = {parts.owner(name) for name in subgraph.inputs if parts.graph.values[name].constant is None}
        assert sources <= ready
        ready.add(subgraph.output)
    feed = {"x": floats(1, 4, 6, 6)}
    expected = reference(model, feed)
    got = interpret(decided, feed)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-4 * float(np.abs(array).max()))


def test_random_graphs_have_choices() -> None:
    """Or the test above would show nothing."""
    counted = []

    @given(random_models())
    @settings(max_examples=60, deadline=None, derandomize=True)
    def count(model: ModelProto) -> None:
        counted.append(len(partition_model(model).choices))

    count()
    assert sum(number > 0 for number in counted) > 10


# Axes that views cut.


@st.composite
def reshaped_chains(draw: st.DrawFn) -> ComputeDAG:
    """Reshapes, transpositions, element-wise operations, products and reductions behind each other."""
    x = te.placeholder(draw(st.sampled_from([(12, 4), (2, 6, 4), (3, 16), (2, 2, 3, 4)])), name="x")
    shapes = [(48,), (4, 12), (12, 4), (2, 6, 4), (6, 2, 2, 2), (3, 4, 4), (2, 3, 2, 4), (1, 48)]
    for _ in range(draw(st.integers(1, 6))):
        match draw(st.sampled_from(["reshape", "reshape", "transpose", "add", "normalise"])):
            case "reshape":
                x = te.reshape(x, draw(st.sampled_from(shapes)))
            case "transpose":
                x = te.transpose(x, draw(st.permutations(range(len(x.shape)))))
            case "add":
                x = te.add(x, te.placeholder(x.shape[-1:], name="b"))
            case _:
                x = te.softmax(x, draw(st.integers(0, len(x.shape) - 1)))
    return ComputeDAG.from_outputs(te.relu(x))


@given(reshaped_chains())
@settings(max_examples=150, deadline=None)
def test_split_axes_change_no_result(dag: ComputeDAG) -> None:
    split = split_axes(dag)
    assert {tensor.name for tensor in split.tensors} == {tensor.name for tensor in dag.tensors}
    arrays = [floats(*tensor.shape, seed=number) for number, tensor in enumerate(dag.inputs)]
    wanted = evaluate(dag.outputs[0], dict(zip(dag.inputs, arrays, strict=True)))
    pairs = zip(split.inputs, arrays, strict=True)
    got = evaluate(split.outputs[0], {tensor: array.reshape(tensor.shape) for tensor, array in pairs})
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)


def test_a_view_of_joined_axes_leaves_plain_copies() -> None:
    x = te.placeholder((6, 5, 7), name="x")
    cut = te.reshape(te.relu(x), (2, 3, 5, 7))
    dag = split_axes(ComputeDAG.from_outputs(te.reshape(te.add(cut, te.placeholder((2, 1, 1, 7), name="m")), (6, 35))))
    assert str(dag).splitlines()[2:] == [
        "relu: float32[2, 3, 5, 7][i0_0, i0_1, i1, i2] = max(x[i0_0, i0_1, i1, i2], 0)",
        "reshape: float32[2, 3, 5, 7][i0, i1, i2, i3] = relu[i0, i1, i2, i3]",
        "add: float32[2, 3, 5, 7][i0, i1, i2, i3] = (reshape[i0, i1, i2, i3] + m[i0, 0, 0, i3])",
        "reshape_1: float32[2, 3, 5, 7][i0_0, i0_1, i1_0, i1_1] = add[i0_0, i0_1, i1_0, i1_1]",
    ]
    unchanged = ComputeDAG.from_outputs(te.max_pool(te.placeholder((1, 3, 8, 8), name="x"), (2, 2), (2, 2)))
    assert split_axes(unchanged) is unchanged


# The decision.


def softmax_model(rows: int, inner: int, columns: int) -> ModelProto:
    nodes = [node("MatMul", "a b", "s"), node("Softmax", "s", "y", axis=-1)]
    return make_model(nodes, {"a": (rows, inner), "b": (inner, columns)}, ["y"])


@pytest.mark.parametrize("target", executed_targets())
def test_untuned_the_roofline_decides(target: Target) -> None:
    for rows, inner, columns in ((512, 16, 512), (16, 16, 16)):
        [choice] = compile(softmax_model(rows, inner, columns), threads=1, target=target, workers=0).choices
        assert choice.by == "roofline"
        assert (choice.occurrences, choice.task) == (1, f"matmul_softmax_{rows}x{columns}")
        assert choice.parts == (f"matmul_{rows}x{columns}", f"softmax_{rows}x{columns}")
        assert choice.wide_seconds is not None
        assert choice.narrow_seconds is not None
        assert choice.wide == (choice.wide_seconds < (1 - PREDICTED_MARGIN) * choice.narrow_seconds)


def test_the_partition_that_is_taken_is_compiled_and_saved(tmp_path: Path) -> None:
    model = softmax_model(256, 16, 256)
    feed = {"a": floats(256, 16), "b": floats(16, 256, seed=1)}
    for fusion in ("wide", "narrow"):
        compiled = compile(model, threads=1, workers=0, fusion=fusion)
        is_wide = any(choice.wide for choice in compiled.choices)
        assert bool(compiled.choices) == (fusion == "wide")
        assert len(compiled.plan.calls) == (1 if is_wide else 2)
        np.testing.assert_allclose(compiled.run(feed)["y"], reference(model, feed)["y"], rtol=1e-4, atol=1e-6)
        compiled.save(tmp_path / "m.ansor")
        assert ansor_py.load(tmp_path / "m.ansor").choices == compiled.choices


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(OptionError, match="fusion is 'deep'; it must be wide or narrow"):
        compile(softmax_model(4, 4, 4), fusion="deep")


@pytest.mark.parametrize(
    ("wide", "matmul", "softmax", "expected"),
    [
        (1.0, 0.6, 0.6, True),
        (1.0, 0.5, 0.5, False),
        (1.0, 0.3, 0.6, False),
        (1.0, None, 0.6, True),
        (1.0, None, None, True),
        (None, 0.6, 0.6, False),
        (None, None, None, False),
    ],
)
def test_the_lesser_sum_wins(wide: float | None, matmul: float | None, softmax: float | None, expected: bool) -> None:
    parts = partition_model(softmax_model(8, 4, 16))
    [choice] = parts.choices
    names = {unit.name: unit.workload_key for unit in parts.all_tasks}
    seconds = {choice.key: wide, names["matmul_8x16"]: matmul, names["softmax_8x16"]: softmax}
    found = weighed(parts, choice, seconds.get, "records", MEASURED_MARGIN)
    assert found.wide == expected
    assert found.wide_seconds == wide
    known = matmul is not None and softmax is not None
    assert found.narrow_seconds == (pytest.approx(matmul + softmax) if known else None)
    equal = weighed(parts, choice, dict.fromkeys(seconds, 1.0).get, "records", MEASURED_MARGIN)
    assert equal.wide
    assert str(equal) == "matmul_softmax_8x16: one kernel, 2.00 times as fast as several (records)"


def test_graph_of_kernels_is_acyclic_when_wide() -> None:
    """A kernel that is read by one far behind may not be passed over."""
    nodes = [node("MatMul", "x w", "a"), node("Softmax", "a", "d"), node("Relu", "d", "e"), node("Exp", "x", "f")]
    nodes += [node("MatMul", "f w", "g"), node("Add", "e g", "y")]
    parts = partition_model(model_of(ROWS, nodes)[0])
    wide = parts.decided(choice.key for choice in parts.choices)
    outputs = {subgraph.output: number for number, subgraph in enumerate(wide.subgraphs)}
    edges = [(outputs[name], number) for number, s in enumerate(wide.subgraphs) for name in s.inputs if name in outputs]
    assert nx.is_directed_acyclic_graph(nx.DiGraph(edges))
    assert all(first < second for first, second in edges)
