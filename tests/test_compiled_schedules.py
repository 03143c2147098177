"""Compiled programs against NumPy: random legal schedules, and default schedules of every operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.errors import LoweringError, ScheduleError
from ansor_py.lower.lower import lower
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import (
    ComputeInline,
    Fuse,
    Pragma,
    Reorder,
    Split,
    Step,
    TransformLayout,
    Vectorize,
    step_from_json,
)
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor
from arbitrary_steps import arbitrary_state
from random_schedules import random_state
from targets import executed_targets
from te_interpreter import evaluate, random_feeds

on_executed_targets = pytest.mark.parametrize("target", executed_targets())


def conv2d_bias_relu(stride: int = 1) -> Tensor:
    data = te.placeholder((1, 5, 11, 13), name="data")
    weight, bias = te.placeholder((7, 5, 3, 3), name="weight"), te.placeholder((7,), name="bias")
    return te.relu(te.conv2d(data, weight, bias, stride=stride, padding=1))


def max_pool_then_scale() -> Tensor:
    pooled = te.max_pool2d(te.placeholder((1, 3, 9, 18), name="data"), (3, 3), stride=2, padding=1)
    return te.multiply(pooled, te.placeholder((1, 3, 1, 1), name="scale"))


def two_matmuls() -> Tensor:
    first = te.matmul(te.placeholder((9, 21), name="A"), te.placeholder((21, 17), name="B"))
    return te.matmul(first, te.placeholder((17, 35), name="D"))


WORKLOADS: dict[str, Callable[[], Tensor]] = {
    "matmul": lambda: te.matmul(19, 37, 23),
    "conv2d_bias_relu": conv2d_bias_relu,
    "conv2d_stride_2": lambda: conv2d_bias_relu(2),
    "softmax": lambda: te.softmax(te.placeholder((6, 37), name="data"), axis=-1),
    "max_pool": max_pool_then_scale,
    "two_matmuls": two_matmuls,
    "transpose_reshape": lambda: te.relu(te.reshape(te.transpose(te.placeholder((4, 6, 9), name="x"), (2, 0, 1)), (12, 18))),
    "sum": lambda: te.reduce_sum(te.placeholder((3, 5, 130), name="x"), (1, 2)),
}


def check(dag: ComputeDAG, steps: tuple[Step, ...], target: Target, threads: int) -> None:
    feeds = random_feeds(dag.outputs, seed=1)
    compiled = build_kernel(dag, steps, target, threads)
    outputs = LoadedKernel(compiled).run([feeds[tensor] for tensor in dag.inputs])
    for tensor, output in zip(dag.outputs, outputs, strict=True):
        np.testing.assert_allclose(output, evaluate(tensor, feeds, widen=True), rtol=2e-4, atol=2e-5)


@on_executed_targets
@pytest.mark.parametrize("name", WORKLOADS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_schedules_read_from_json_compute_the_right_result(name: str, target: Target, seed: int) -> None:
    dag = ComputeDAG.from_outputs(WORKLOADS[name]())
    state = random_state(dag, np.random.default_rng(seed))
    steps = tuple(map(step_from_json, json.loads(json.dumps([step.to_json() for step in state.steps]))))
    assert steps == state.steps
    check(dag, steps, target, threads=1 + seed % 2)


@on_executed_targets
@pytest.mark.parametrize("name", WORKLOADS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_left_of_arbitrary_steps_is_refused_or_computes_the_right_result(name: str, target: Target, seed: int) -> None:
    dag = ComputeDAG.from_outputs(WORKLOADS[name]())
    state = arbitrary_state(dag, 60, np.random.default_rng(seed))
    try:
        lower(state, target)
    except (ScheduleError, LoweringError):
        return
    check(dag, state.steps, target, threads=1 + seed % 2)


@on_executed_targets
@pytest.mark.parametrize("combine", [te.reduce_max, te.reduce_min, te.reduce_sum, te.reduce_prod])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_fused_reduction_with_tails_skips_what_is_past_the_end(
    combine: Callable[..., Tensor], dtype: str, target: Target
) -> None:
    """The positions of the tail are `//` and `%` of the fused loop, which no loop extent can express."""
    dag = ComputeDAG.from_outputs(combine(te.placeholder((7, 5), dtype, name="x"), (0,), name="r"))
    steps = (
        Split("r", "r0", (5,)),
        Reorder("r", ("i1", "r0.1", "r0.0")),
        Fuse("r", ("r0.1", "r0.0")),
        Split("r", "r0.1@r0.0@", (3,)),
        Pragma("r", 64),
    )
    x = -1 - np.arange(35, dtype=dtype).reshape(7, 5) % 3
    output = LoadedKernel(build_kernel(dag, steps, target, 1)).run([x])[0]
    function = {te.reduce_max: np.max, te.reduce_min: np.min, te.reduce_sum: np.sum, te.reduce_prod: np.prod}[combine]
    np.testing.assert_array_equal(output, function(x, axis=0))


@on_executed_targets
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_stage_with_a_new_layout_may_be_inlined(size: int, target: Target) -> None:
    moved = te.reshape(te.exp(te.placeholder((6, 10), name="x")), (4, 15), name="moved")
    dag = ComputeDAG.from_outputs(te.relu(te.transpose(moved, (1, 0))))
    layout = TransformLayout("moved", (("i1", size),), ("i0", "i1.inner", "i1.outer"))
    check(dag, (layout, ComputeInline("moved")), target, threads=1)


@on_executed_targets
def test_a_tensor_without_elements_is_not_computed(target: Target) -> None:
    x = te.placeholder((0, 4), name="x")
    dag = ComputeDAG.from_outputs([te.exp(x), te.relu(te.concat([te.exp(x), te.placeholder((3, 4), name="y")], 0))])
    y = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for steps in ((), default_steps(dag, target, 2)):
        nothing, some = LoadedKernel(build_kernel(dag, steps, target, 2)).run([np.zeros((0, 4), np.float32), y])
        assert nothing.shape == (0, 4)
        np.testing.assert_array_equal(some, np.maximum(y, 0))


@on_executed_targets
@pytest.mark.parametrize("spec", [operator.example for operator in te.operators().values()])
def test_default_schedules_of_all_operators(spec: str, target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.from_spec(spec))
    feeds = random_feeds(dag.outputs, seed=1, low=0.1, high=2.0)
    compiled = build_kernel(dag, default_steps(dag, target, 2), target, 2)
    outputs = LoadedKernel(compiled).run([feeds[tensor] for tensor in dag.inputs])
    np.testing.assert_allclose(outputs[0], evaluate(dag.outputs[0], feeds, widen=True), rtol=1e-3, atol=1e-4)


@on_executed_targets
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 40),
    width=st.integers(1, 20),
    lanes_tile=st.sampled_from((2, 4, 8, 16, 24, 32)),
    rows=st.integers(1, 20),
    reduction=st.sampled_from((1, 3, 8)),
)
def test_tiles_whose_lanes_are_not_contiguous_in_memory(
    channels: int, width: int, lanes_tile: int, rows: int, reduction: int, target: Target
) -> None:
    """Results are transposed in registers; with a part of the reduction outside the tile they are loaded again first."""
    data, weight = te.placeholder((8, width), name="data"), te.placeholder((8, channels), name="weight")
    k = te.reduce_axis(8, "k")
    dag = ComputeDAG.from_outputs(
        te.compute((channels, width), lambda c, x: te.reduce_sum(data[k, x] * weight[k, c], k), name="C")
    )
    steps = (
        Split("C", "c", (lanes_tile,)),
        Split("C", "x", (rows,)),
        Split("C", "k", (reduction,)),
        Reorder("C", ("c.0", "x.0", "k.0", "k.1", "x.1", "c.1")),
        Vectorize("C", "c.1"),
    )
    check(dag, steps, target, threads=1)


@on_executed_targets
@pytest.mark.parametrize("steps", [(), (Vectorize("m", "k"),)], ids=["scalar", "lanes"])
@pytest.mark.parametrize("place", [0, 5, 36])
@pytest.mark.parametrize("reduce", [te.reduce_max, te.reduce_min])
def test_nan_is_the_maximum_of_what_holds_one(
    reduce: Callable[..., Any], place: int, steps: tuple[Step, ...], target: Target
) -> None:
    x, k = te.placeholder((2, 37), name="x"), te.reduce_axis(37, "k")
    dag = ComputeDAG.from_outputs(te.compute((2,), lambda i: reduce(te.maximum(x[i, k], x[1 - i, k]), k), name="m"))
    values = np.linspace(-3, 3, 74, dtype=np.float32).reshape(2, 37)
    values[0, place] = np.nan
    [output] = LoadedKernel(build_kernel(dag, steps, target, 1)).run([values])
    assert np.isnan(output).all()
