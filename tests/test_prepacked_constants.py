"""What depends on constants alone is computed once: packed weights are buffers of the kernel, not part of its run."""

from __future__ import annotations

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.codegen.memory import aligned_array, buffer_table
from ansor_py.codegen.timing import time_kernel
from ansor_py.schedule.access import has_reduction
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import CacheRead, ComputeAt, Reorder, Split, Step, TransformLayout, Vectorize
from ansor_py.target import Target
from targets import executed_targets
from te_interpreter import evaluate, random_feeds

on_executed_targets = pytest.mark.parametrize("target", executed_targets())


def convolution(constant: bool) -> tuple[ComputeDAG, tuple[Step, ...]]:
    data = te.placeholder((1, 5, 9, 11), name="data")
    weight = te.placeholder((20, 5, 3, 3), name="weight", constant=constant)
    dag = ComputeDAG.from_outputs(te.relu(te.conv2d(data, weight, padding=1)))
    [conv] = [tensor.name for tensor in dag.computed if has_reduction(tensor)]
    steps: tuple[Step, ...] = (
        CacheRead("weight", (conv,)),
        TransformLayout("weight.cache", (("i0", 16),), ("i0.outer", "i1", "i2", "i3", "i0.inner")),
        Split(conv, "f", (16,)),
        Split(conv, "x", (4,)),
        Reorder(conv, ("n", "f.0", "y", "x.0", "rc", "ry", "rx", "x.1", "f.1")),
        Vectorize(conv, "f.1"),
    )
    return dag, steps


@on_executed_targets
@pytest.mark.parametrize("constant", [True, False])
def test_packed_weights_are_prepacked_only_if_they_are_constant(constant: bool, target: Target) -> None:
    dag, steps = convolution(constant)
    compiled = build_kernel(dag, steps, target, threads=1)
    assert [spec.name for spec in compiled.prepacked] == (["weight.cache"] if constant else [])
    assert compiled.unread == (frozenset({"weight"}) if constant else frozenset())
    feeds = random_feeds(dag.outputs, seed=1)
    [output] = LoadedKernel(compiled).run([feeds[tensor] for tensor in dag.inputs])
    np.testing.assert_allclose(output, evaluate(dag.outputs[0], feeds, widen=True), rtol=1e-4, atol=1e-5)


@on_executed_targets
def test_a_run_does_not_look_at_constants_that_were_prepacked(target: Target) -> None:
    dag, steps = convolution(constant=True)
    kernel = LoadedKernel(build_kernel(dag, steps, target, threads=1))
    feeds = random_feeds(dag.outputs, seed=2)
    arrays = [aligned_array(tensor.shape, tensor.dtype) for tensor in (*dag.inputs, *dag.outputs)]
    for array, tensor in zip(arrays, dag.inputs, strict=False):
        array[...] = feeds[tensor]
    prepacked = kernel.prepack(arrays)
    arrays[[tensor.name for tensor in dag.inputs].index("weight")][...] = np.nan
    table = buffer_table([*arrays, *prepacked])
    workspace = aligned_array((max(1, kernel.compiled.workspace_bytes),), "uint8")
    time_kernel(kernel.address, table.ctypes.data, workspace.ctypes.data)
    np.testing.assert_allclose(arrays[-1], evaluate(dag.outputs[0], feeds, widen=True), rtol=1e-4, atol=1e-5)


@on_executed_targets
def test_a_nest_of_constants_is_prepacked_with_all_that_is_computed_in_it(target: Target) -> None:
    data, weight = te.placeholder((6, 8), name="data"), te.placeholder((8, 4), name="weight", constant=True)
    scaled = te.compute((8, 4), lambda i, j: weight[i, j] * 2.0, name="scaled")
    packed = te.compute((8, 4), lambda i, j: scaled[i, j] + 1.0, name="packed")
    k = te.reduce_axis(8, "k")
    dag = ComputeDAG.from_outputs(te.compute((6, 4), lambda i, j: te.reduce_sum(data[i, k] * packed[k, j], k), name="out"))
    inside, apart = (ComputeAt("scaled", "packed", "i"),), (ComputeAt("packed", "out", "i"),)
    assert State.initial(dag).replay(inside).prepacked == {"scaled", "packed"}
    assert State.initial(dag).replay(apart).prepacked == {"scaled"}
    assert [spec.name for spec in build_kernel(dag, inside, target, threads=1).prepacked] == ["packed"]
    assert [spec.name for spec in build_kernel(dag, apart, target, threads=1).prepacked] == ["scaled"]
