"""Models that are long chains: results are right, and the time to compile them grows with their length, not faster.

The length is the guard: what takes twice as long for every node, or goes through all nodes for every node, comes to no end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from onnx import NodeProto, helper

from ansor_py.graph import compile_partition, partition_model
from ansor_py.graph.fusion import MAX_GROUP_NODES, fuse
from ansor_py.graph.onnx_import import import_model
from ansor_py.graph.passes import fold_affine, run_passes
from graph_interpreter import Array, floats, make_model, reference

SHAPE = (1, 6, 3, 4)
CHANNELS = (1, 6, 1, 1)
Step = Callable[[str, str], list[NodeProto]]  # the nodes from the value of the first name to that of the second


def node(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{op_type}_{output}", **attributes)


@dataclass(frozen=True)
class Chain:
    """A step and its number, the constants it reads, and how many kernels the model may become at most."""

    step: Step
    length: int
    kernels: int
    constants: dict[str, Array] = field(default_factory=dict)
    dtype: str = "float32"


def silu(x: str, y: str) -> list[NodeProto]:
    return [node("Sigmoid", x, f"{y}.s"), node("Mul", f"{x} {y}.s", y)]


def square(x: str, y: str) -> list[NodeProto]:
    return [node("Mul", f"{x} {x}", f"{y}.s"), node("Sub", f"{x} {y}.s", y)]


def mish(x: str, y: str) -> list[NodeProto]:
    return [node("Softplus", x, f"{y}.p"), node("Tanh", f"{y}.p", f"{y}.t"), node("Mul", f"{x} {y}.t", y)]


def there_and_back(x: str, y: str) -> list[NodeProto]:
    return [node("Reshape", f"{x} flat", f"{y}.f"), node("Reshape", f"{y}.f full", y)]


def gelu(x: str, y: str) -> list[NodeProto]:
    nodes = [node("Div", f"{x} root", f"{y}.d"), node("Erf", f"{y}.d", f"{y}.e"), node("Add", f"{y}.e one", f"{y}.a")]
    return [*nodes, node("Mul", f"{x} {y}.a", f"{y}.m"), node("Mul", f"{y}.m half", y)]


HALF, ONE, ROOT = (np.array([value], np.float32) for value in (0.5, 1.0, np.sqrt(2.0)))
SCALE, SHIFT = np.full(CHANNELS, 0.99, np.float32), floats(*CHANNELS)
CHAINS = {
    "24 SiLUs": Chain(silu, 24, 2),
    "200 times x - x * x": Chain(square, 200, 17),
    "60 times in integers": Chain(square, 60, 5, dtype="int64"),
    "24 Mishs": Chain(mish, 24, 3),
    "24 GELUs": Chain(gelu, 24, 6, {"half": HALF, "one": ONE, "root": ROOT}),
    "24 LeakyRelus": Chain(lambda x, y: [node("LeakyRelu", x, y, alpha=0.9)], 24, 1),
    "2000 Adds": Chain(lambda x, y: [node("Add", f"{x} half", y)], 2000, 84, {"half": HALF}),
    "1000 Identities": Chain(lambda x, y: [node("Identity", x, y)], 1000, 1),
    "500 pairs of views": Chain(there_and_back, 500, 1, {"flat": np.array([6, 12]), "full": np.array(SHAPE)}),
    "60 Concats of one another": Chain(lambda x, y: [node("Concat", f"{x} first", y, axis=1)], 60, 3),
    "300 Transposes": Chain(lambda x, y: [node("Transpose", x, y, perm=[0, 1, 3, 2])], 300, 13),
}


def inputs_of(chain: Chain) -> dict[str, Array]:
    if chain.dtype == "float32":
        return {"first": np.abs(floats(*SHAPE)) * np.float32(0.4) + np.float32(0.1)}
    return {"first": np.random.default_rng(0).integers(-9, 10, SHAPE)}


def chain_of(step: Step, length: int) -> list[NodeProto]:
    names = ["first", *(f"v{number}" for number in range(length))]
    return [item for x, y in pairwise(names) for item in step(x, y)]


@pytest.mark.parametrize("name", CHAINS)
def test_a_long_chain_is_right(name: str) -> None:
    chain = CHAINS[name]
    data = inputs_of(chain)
    end = "end" if name in ("1000 Identities", "500 pairs of views") else f"v{chain.length - 1}"
    nodes = chain_of(chain.step, chain.length)
    if end == "end":  # something has to be computed
        nodes.append(node("Relu", f"v{chain.length - 1}", end))
    model = make_model(nodes, data, [end], chain.constants)
    parts = partition_model(model)
    assert len(parts.subgraphs) <= chain.kernels
    got = compile_partition(parts, threads=2, workers=0).run(data)[end]
    with np.errstate(over="ignore"):
        expected = reference(model, data)[end]
    if chain.dtype == "int64":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("first", ["Conv", "BatchNormalization"])
def test_a_chain_of_scales_and_shifts_folds_in_one_sweep(first: str) -> None:
    """Into the convolution, or into the operator that they become."""
    length = 600
    weight = np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1)
    constants = {"scale": SCALE, "shift": SHIFT, "weight": weight, "ones": np.ones(6, np.float32)}
    start = node(first, "first weight" if first == "Conv" else "first ones ones ones ones", "start")
    names = ["start", *(f"v{number}" for number in range(length))]
    nodes = [
        node("Add" if i % 2 else "Mul", f"{names[i]} {'shift' if i % 2 else 'scale'}", names[i + 1]) for i in range(length)
    ]
    used = {name: array for name, array in constants.items() if name in {*start.input, "scale", "shift"}}
    data = {"first": floats(*SHAPE)}
    model = make_model([start, *nodes], data, [names[-1]], used)
    graph = run_passes(import_model(model))
    assert [item.op_type for item in graph.nodes] == ["Conv" if first == "Conv" else "ChannelAffine"]
    got = compile_partition(partition_model(model), threads=1, workers=0).run(data)[names[-1]]
    np.testing.assert_allclose(got, reference(model, data)[names[-1]], rtol=1e-4, atol=1e-5)


def test_what_more_than_one_reads_is_not_folded_away() -> None:
    constants = {"scale": SCALE, "shift": SHIFT, "ones": np.ones(6, np.float32)}
    nodes = [
        node("BatchNormalization", "first ones ones ones ones", "a"),
        node("Mul", "a scale", "b"),
        node("Add", "b shift", "c"),
        node("Sub", "c b", "d"),
    ]
    data = {"first": floats(*SHAPE)}
    model = make_model(nodes, data, ["d"], constants)
    folded = fold_affine(import_model(model))
    assert sorted(item.op_type for item in folded.nodes) == ["Add", "ChannelAffine", "Sub"]
    got = compile_partition(partition_model(model), threads=1, workers=0).run(data)["d"]
    np.testing.assert_allclose(got, reference(model, data)["d"], rtol=1e-4, atol=1e-5)


def test_fusion_looks_no_further_than_a_group_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of the first half is read once more in the second half, from the last on: all paths between are long."""
    half = 300
    nodes = chain_of(lambda x, y: [node("Neg", x, y)], half)
    last = f"v{half - 1}"
    for number in reversed(range(half)):
        nodes.append(node("Add", f"{last} v{number}", f"u{number}"))
        last = f"u{number}"
    graph = run_passes(import_model(make_model(nodes, {"first": floats(*SHAPE)}, [last])))
    visited: list[str] = []
    successors = type(graph.digraph).successors

    def counted(digraph: object, name: str) -> object:
        visited.append(name)
        return successors(digraph, name)

    monkeypatch.setattr(type(graph.digraph), "successors", counted)
    groups = fuse(graph)
    assert max(len(group.nodes) for group in groups) <= MAX_GROUP_NODES
    assert sorted(item.name for group in groups for item in group.nodes) == sorted(item.name for item in graph.nodes)
    assert 0 < len(visited) <= 2 * len(graph.nodes) * (MAX_GROUP_NODES + 1)
