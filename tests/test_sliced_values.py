"""Slices that are read where they lie: no kernel where that can be, the same values in every case."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, helper

from ansor_py.graph import compile_partition, partition_model
from graph_interpreter import interpret, make_model, reference
from test_joined_values import checked, concat, pooled, relu

SHAPE = (1, 6, 8, 8)  # 256 bytes a channel


def split(source: str, names: list[str], axis: int = 1) -> NodeProto:
    return helper.make_node("Split", [source], names, axis=axis)


def test_parts_of_a_split_are_read_in_the_whole() -> None:
    parts = checked([pooled("x", "a"), split("a", ["b", "c"]), pooled("b", "d"), pooled("c", "e")], ["d", "e"], SHAPE)
    assert parts.slices == {"b": ("a", 0), "c": ("a", 3 * 256)}
    assert [subgraph.output for subgraph in parts.subgraphs] == ["a", "d", "e"]


def test_parts_of_an_input_and_parts_of_parts() -> None:
    nodes = [split("x", ["a", "b"]), split("b", ["c", "d", "e"]), pooled("d", "y"), pooled("a", "z")]
    parts = checked(nodes, ["y", "z"], SHAPE)
    assert parts.place("d") == ("x", 4 * 256)


def test_a_part_of_a_concatenation() -> None:
    nodes = [pooled("x", "a"), pooled("a", "b"), concat(["a", "b"], "y"), pooled("y", "w")]
    parts = checked([*nodes, split("y", ["c", "d", "e", "f"]), pooled("e", "z")], ["w", "z"], SHAPE)
    assert parts.place("e") == ("y", 6 * 256)
    assert parts.place("b") == ("y", 6 * 256)


def test_a_part_may_be_a_part_of_a_concatenation_by_a_copy() -> None:
    nodes = [pooled("x", "a"), split("a", ["b", "c"]), pooled("b", "d"), concat(["c", "d"], "y"), pooled("y", "z")]
    parts = checked(nodes, ["z"], SHAPE)
    assert parts.slices
    assert "y" in [subgraph.output for subgraph in parts.subgraphs]


@pytest.mark.parametrize(
    ("nodes", "outputs", "shape"),
    [
        ([pooled("x", "a"), split("a", ["b", "c"]), pooled("b", "y")], ["y", "c"], SHAPE),  # an output
        ([pooled("x", "a"), split("a", ["b", "c"], 2), pooled("b", "y"), pooled("c", "z")], ["y", "z"], SHAPE),  # rows apart
        ([pooled("x", "a"), split("a", ["b", "c"]), pooled("b", "y"), pooled("c", "z")], ["y", "z"], (2, 6, 8, 8)),
    ],
    ids="output rows batch".split(),
)
def test_parts_that_lie_apart_are_copied(nodes: list[NodeProto], outputs: list[str], shape: tuple[int, ...]) -> None:
    parts = checked(nodes, outputs, shape)
    assert "c" not in parts.slices


def test_what_reads_a_part_by_itself_takes_it_in() -> None:
    parts = checked([pooled("x", "a"), split("a", ["b", "c"]), relu("b", "y"), relu("c", "z")], ["y", "z"], SHAPE)
    assert not parts.slices  # each is one kernel with its slice


def test_tokens_of_a_sequence() -> None:
    weight = np.random.default_rng(1).standard_normal((16, 16), dtype=np.float32)
    numbers = {name: np.array([value], np.int64) for name, value in (("from", 2), ("to", 4), ("axis", 1))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Slice", ["a", *numbers], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    model = make_model(nodes, {"x": (1, 5, 16)}, ["y"], {"w": weight, **numbers})
    parts = partition_model(model)
    assert parts.slices == {"b": ("a", 2 * 64)}
    feed = {"x": np.random.default_rng(0).standard_normal((1, 5, 16), dtype=np.float32)}
    expected = reference(model, feed)["y"]
    for got in (interpret(parts, feed), compile_partition(parts, threads=1, workers=0).run(feed)):
        np.testing.assert_allclose(got["y"], expected, rtol=1e-5, atol=1e-5)
