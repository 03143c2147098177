"""Concatenations whose parts are computed in their place: no kernel where that can be, the same values in every case."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from onnx import NodeProto, helper

from ansor_py.graph import compile_partition, partition_model
from ansor_py.graph.partition import Partition
from graph_interpreter import interpret, make_model, reference

SHAPE = (1, 4, 8, 8)  # 1,024 bytes


def relu(source: str, name: str) -> NodeProto:
    return helper.make_node("Relu", [source], [name])


def concat(parts: Sequence[str], name: str, axis: int = 1) -> NodeProto:
    return helper.make_node("Concat", list(parts), [name], axis=axis)


def pooled(source: str, name: str) -> NodeProto:
    """A kernel of its own, whatever is fused."""
    return helper.make_node("MaxPool", [source], [name], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def checked(nodes: Sequence[NodeProto], outputs: Sequence[str], shape: tuple[int, ...] = SHAPE) -> Partition:
    """The partition of a model of x, whose outputs by compiled kernels and by the interpreter are those of ONNX's evaluator."""
    model = make_model(nodes, {"x": shape}, outputs)
    feed = {"x": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    parts = partition_model(model)
    expected = reference(model, feed)
    compiled = compile_partition(parts, threads=1, workers=0)
    for got in (interpret(parts, feed), compiled.run(feed), compiled.run(feed)):
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-6, err_msg=name)
    return parts


POOLS = [pooled("x", "a"), pooled("a", "b")]


def test_parts_are_computed_in_their_place() -> None:
    parts = checked([*POOLS, concat(["a", "b"], "y"), pooled("y", "z")], ["z"])
    assert parts.joins == {"a": ("y", 0), "b": ("y", 1024)}
    assert [subgraph.output for subgraph in parts.subgraphs] == ["a", "b", "z"]


def test_a_whole_is_a_part_of_the_next_one() -> None:
    nodes = [*POOLS, concat(["a", "b"], "ab"), pooled("ab", "c"), concat(["ab", "c"], "y"), pooled("y", "z")]
    parts = checked(nodes, ["z"])
    assert parts.place("b") == ("y", 1024)
    assert parts.place("c") == ("y", 2048)


def test_a_concatenation_that_is_an_output_lies_in_the_callers_buffer() -> None:
    assert checked([*POOLS, concat(["a", "b"], "y")], ["y"]).joins


def test_a_view_of_a_part() -> None:
    flat = helper.make_node("Flatten", ["b"], ["flat"])
    parts = checked([*POOLS, concat(["a", "b"], "y"), pooled("y", "z"), flat, relu("flat", "f")], ["z", "f"])
    assert parts.joins


@pytest.mark.parametrize(
    ("nodes", "outputs", "shape"),
    [
        ([*POOLS, concat(["a", "b"], "y"), pooled("y", "z")], ["z", "a"], SHAPE),  # a part is an output
        ([pooled("x", "a"), concat(["x", "a"], "y"), pooled("y", "z")], ["z"], SHAPE),  # a part is an input
        ([pooled("x", "a"), concat(["a", "a"], "y"), pooled("y", "z")], ["z"], SHAPE),  # a part comes twice
        ([*POOLS, concat(["a", "b"], "y"), pooled("y", "z")], ["z"], (2, 4, 8, 8)),  # parts do not lie in one piece
        ([*POOLS, concat(["a", "b"], "y"), pooled("y", "z")], ["z"], (1, 3, 3, 3)),  # or not where vectors are aligned
        ([*POOLS, concat(["a", "b"], "y", 3), pooled("y", "z")], ["z"], SHAPE),
    ],
)
def test_others_are_copied(nodes: Sequence[NodeProto], outputs: Sequence[str], shape: tuple[int, ...]) -> None:
    assert not checked(nodes, outputs, shape).joins


def test_a_part_belongs_to_one_whole() -> None:
    both = [concat(["a", "b"], "y"), concat(["b", "a"], "w"), pooled("y", "z"), pooled("w", "v")]
    assert len(checked([*POOLS, *both], ["z", "v"]).joins) == 2


def test_outputs_that_are_asked_for_later_are_copied() -> None:
    model = make_model([*POOLS, concat(["a", "b"], "y"), pooled("y", "z")], {"x": SHAPE}, ["z"])
    parts = partition_model(model)
    everything = dataclasses.replace(parts.graph, outputs={name: name for name in ("a", "b", "z")})
    feed = {"x": np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)}
    got = compile_partition(dataclasses.replace(parts, graph=everything), threads=1, workers=0).run(feed)
    expected = interpret(dataclasses.replace(parts, graph=everything), feed)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
