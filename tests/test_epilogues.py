"""Epilogues: formulas of consumers on finished register tiles, against NumPy; where they must not be fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.lower.ir import Program
from ansor_py.lower.lower import lower
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import micro_kernel_for
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import ComputeAt, ComputeInline, Pragma, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.target import Target
from ansor_py.te.tensor import Compute, Tensor
from targets import executed_targets, structure_targets
from te_interpreter import evaluate, random_feeds


def product(rows: int = 42, columns: int = 96) -> Tensor:
    return te.matmul(te.placeholder((rows, 40), name="A"), te.placeholder((40, columns), name="B", constant=True), name="C")


def convolution(width: int = 28) -> Tensor:
    data = te.placeholder((1, 16, 6, width), name="data")
    weight, bias = (te.placeholder(shape, name=name, constant=True) for name, shape in (("w", (64, 16, 3, 3)), ("b", (64,))))
    return te.conv2d(data, weight, bias, padding=1, name="C")


def leaky(x: Tensor) -> Tensor:
    return te.compute(x.shape, lambda *i: te.select(x[i] > 0, x[i], x[i] * 0.1), name="leaky")


def squares(dtype: str) -> Tensor:
    """A formula of nothing but the tile, of numbers that might as well be indices."""
    a, b = te.placeholder((42, 40), dtype=dtype, name="A"), te.placeholder((40, 96), dtype=dtype, name="B")
    c = te.matmul(a, b, name="C")
    return te.compute(c.shape, lambda i, j: c[i, j] * 3 + 5 - c[i, j] * c[i, j], name="squares")


FUSED: dict[str, Callable[[], Tensor]] = {
    "bias and relu": lambda: te.relu(te.add(product(), te.placeholder((96,), name="bias"))),
    "two reads of the tile": lambda: leaky(product()),
    "residual along the lanes": lambda: te.relu(te.add(product(), te.placeholder((42, 96), name="residual"))),
    "channels in lanes": lambda: te.relu(convolution()),
    "another dtype of as many bytes": lambda: te.cast(product(), "int32"),
    "edges": lambda: te.relu(te.add(product(43, 101), te.placeholder((101,), name="bias"))),
    "position": lambda: position(product()),
    "int64": lambda: squares("int64"),
    "int32": lambda: squares("int32"),
}
APART: dict[str, Callable[[], Tensor]] = {
    "residual across the lanes": lambda: te.add(convolution(), te.placeholder((1, 64, 6, 28), name="residual")),
    "a wider dtype": lambda: te.cast(product(), "int64"),
}
CHANNELS_IN_LANES = ("channels in lanes", "residual across the lanes")


def position(x: Tensor) -> Tensor:
    return te.compute(x.shape, lambda i, j: te.select(j > i, x[i, j], -1.0), name="masked")


def steps_of(name: str, dag: ComputeDAG, target: Target) -> tuple[Step, ...]:
    """One register tile of C in each tile of the output, with the rest inlined; channels of a convolution in the lanes."""
    output = dag.outputs[0]
    inlined = [ComputeInline(t.name) for t in dag.computed if t.name not in ("C", output.name) and not t.name.endswith("pad")]
    if name in CHANNELS_IN_LANES:
        channels = 2 * target.lanes("float32")
        return (
            *inlined,
            Split("C", "f", (channels,)),
            Split("C", "x", (7,)),
            Reorder("C", ("f.0", "n", "y", "x.0", "rc", "ry", "rx", "x.1", "f.1")),
            RegisterTile("C", ("x.1", "f.1"), "float32 outer product"),
            Vectorize("C", "f.1"),
            Split(output.name, "i1", (channels,)),
            Split(output.name, "i3", (7,)),
            Reorder(output.name, ("i1.0", "i0", "i2", "i3.0", "i1.1", "i3.1")),
            Vectorize(output.name, "i3.1"),
            ComputeAt("C", output.name, "i3.0"),
        )
    product = next(tensor for tensor in dag.computed if tensor.name == "C")
    assert isinstance(output.op, Compute)
    rows, columns = (axis.name for axis in output.op.axes)
    kernel = micro_kernel_for(State.initial(dag).body("C"), target).name
    return (
        *inlined,
        Split(output.name, rows, (6,)),
        Split(output.name, columns, (2 * target.lanes(product.dtype),)),
        Reorder(output.name, (f"{rows}.0", f"{columns}.0", f"{rows}.1", f"{columns}.1")),
        Vectorize(output.name, f"{columns}.1"),
        ComputeAt("C", output.name, f"{columns}.0"),
        Reorder("C", ("k", "i", "j")),
        RegisterTile("C", ("i", "j"), kernel),
        Vectorize("C", "j"),
        Pragma("C", 64),
    )


def program(dag: ComputeDAG, steps: Sequence[Step], target: Target) -> Program:
    return lower(State.initial(dag).replay(steps), target)


@pytest.mark.parametrize("target", executed_targets())
@pytest.mark.parametrize("name", [*FUSED, *APART])
def test_results_are_right(name: str, target: Target) -> None:
    dag = ComputeDAG.from_outputs((FUSED | APART)[name]())
    feeds = random_feeds(dag.outputs, seed=1)
    [output] = LoadedKernel(build_kernel(dag, steps_of(name, dag, target), target, 2)).run([feeds[t] for t in dag.inputs])
    expected = evaluate(dag.outputs[0], feeds, widen=True)
    if output.dtype == np.float32:
        np.testing.assert_allclose(output, expected, rtol=2e-4, atol=2e-5)
    else:  # the sum of products may round to either side of a whole number
        assert np.mean(output != expected) < 0.01


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("name", FUSED)
def test_no_buffer_is_left_between_a_tile_and_its_consumer(name: str, target: Target) -> None:
    dag = ComputeDAG.from_outputs(FUSED[name]())
    outputs = {tensor.name for tensor in dag.outputs}
    buffers = program(dag, steps_of(name, dag, target), target).buffers
    assert not [name for name in buffers if name == "C"]
    assert outputs <= set(buffers)


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("name", APART)
def test_a_consumer_that_does_not_fit_the_lanes_reads_the_tile_from_memory(name: str, target: Target) -> None:
    dag = ComputeDAG.from_outputs(APART[name]())
    assert "C" in program(dag, steps_of(name, dag, target), target).buffers


@pytest.mark.parametrize("target", structure_targets())
def test_a_tile_with_several_readers_is_stored(target: Target) -> None:
    c = product()
    dag = ComputeDAG.from_outputs([te.relu(c, name="relu"), te.exp(c, name="exp")])
    order = Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1"))
    tile = (RegisterTile("C", ("i.1", "j.1"), "float32 outer product"), Vectorize("C", "j.1"))
    steps = (Split("C", "i", (6,)), Split("C", "j", (target.lanes("float32"),)), order, *tile)
    assert "C" in program(dag, steps, target).buffers


@pytest.mark.parametrize("target", structure_targets())
def test_a_region_larger_than_one_register_tile_is_stored(target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.relu(product(), name="relu"))
    state = State.initial(dag).replay(
        (
            Split("relu", "i0", (14,)),
            ComputeAt("C", "relu", "i0.0"),
            Split("C", "i", (2,)),
            Split("C", "j", (16,)),
            Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1")),
            RegisterTile("C", ("i.1", "j.1"), "float32 outer product"),
            Vectorize("C", "j.1"),
        )
    )
    assert "C" in lower(state, target).buffers
