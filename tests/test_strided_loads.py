"""Lanes that read elements a constant distance apart: right for every distance, dtype, length, and within the buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.measure import MeasureInput, create_measurer
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import Split, Step, Vectorize
from ansor_py.target import Target
from targets import executed_targets, structure_targets

STRIDES = (2, 3, 4, 5, 9, -1, -2, -3, -6)


def every(stride: int, count: int, dtype: str = "float32") -> ComputeDAG:
    """Every so many elements of x, of which the first and the last are read, last one first where the stride is negative."""
    length = (count - 1) * abs(stride) + 1
    x = te.placeholder((length,), dtype, name="x")
    first = 0 if stride > 0 else length - 1
    return ComputeDAG.from_outputs(te.compute((count,), lambda i: x[i * stride + first], name="y"))


def in_lanes(length: int) -> tuple[Step, ...]:
    return (Split("y", "i", (length,)), Vectorize("y", "i.1"))


@pytest.mark.parametrize("target", executed_targets())
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(STRIDES),
    st.integers(1, 70),
    st.integers(2, 40),
    st.sampled_from(["float32", "float64", "int32", "uint8", "bool"]),
)
def test_elements_are_right(target: Target, stride: int, count: int, length: int, dtype: str) -> None:
    dag = every(stride, count, dtype)
    [x] = dag.inputs
    data = np.random.default_rng(count).integers(0, 2 if dtype == "bool" else 100, x.shape).astype(dtype)
    [got] = LoadedKernel(build_kernel(dag, in_lanes(min(length, count)), target, 1)).run([data])
    np.testing.assert_array_equal(got, data[:: abs(stride)] if stride > 0 else data[::-1][:: abs(stride)])


@pytest.mark.parametrize("target", executed_targets())
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(STRIDES), st.integers(4, 40), st.integers(0, 20), st.integers(0, 20))
def test_lanes_that_do_not_exist_are_not_read_at_either_end(
    target: Target, stride: int, count: int, before: int, after: int
) -> None:
    """A padded row in lanes: its first and last ones are zeros, whatever lies there in memory."""
    before, after = min(before, count // 2), min(after, count // 2 - 1)
    dag = every(stride, count)
    [x] = dag.inputs
    first = 0 if stride > 0 else x.shape[0] - 1
    padded = te.compute(
        (count,),
        lambda i: te.select(te.logical_and(i >= before, i < count - after), x[i * stride + first], te.const(0.0, "float32")),
        name="y",
    )
    dag = ComputeDAG.from_outputs(padded)
    data = np.random.default_rng(count).standard_normal(x.shape).astype(np.float32)
    wanted = (data[:: abs(stride)] if stride > 0 else data[::-1][:: abs(stride)]).copy()
    gone = np.r_[0:before, count - after : count]
    data[gone * stride + first] = np.nan
    wanted[gone] = 0
    [got] = LoadedKernel(build_kernel(dag, in_lanes(count), target, 1)).run([data])
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("target", executed_targets("cores=1"))
def test_nothing_beyond_the_buffer_is_read(target: Target) -> None:
    """A runner's buffers end where pages without access rights begin."""
    inputs = []
    for stride in STRIDES:
        for count in (1, 2, 7, 16, 33):
            dag = every(stride, count)
            inputs.append(MeasureInput(dag.workload_key, dag, in_lanes(count), target, threads=1))
    with create_measurer("process", target=target, threads=1) as measurer:
        for given_input, result in zip(inputs, measurer.measure(inputs), strict=True):
            assert result.error == "none", (given_input.dag, result.error_text)


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize(("stride", "far"), [(2, False), (4, False), (-3, False), (9, True)])
def test_close_elements_come_in_vectors_and_nothing_is_gathered_where_a_cpu_cannot(
    stride: int, far: bool, target: Target
) -> None:
    lanes = target.lanes("float32")
    text = kernel_text(every(stride, 4 * lanes), in_lanes(lanes), target, 1)
    assert ("masked.gather" in text) == (far and target.gathers)
    assert (f"load <{lanes} x float>" in text) != far
