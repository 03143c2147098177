"""Measuring real programs: the naive program against NumPy, schedules against the naive program, and when things run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import CompiledKernel, LoadedKernel
from ansor_py.measure import MeasureInput, MeasureOptions, Measurer, MeasureResult, create_measurer
from ansor_py.measure.build import build_program, build_reference
from ansor_py.measure.cores import CorePlan, available_cores, needs_alternation, plan_cores
from ansor_py.measure.reference import difference, fill_input, poison, relative_tolerance
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import Parallel, Reorder, Split, Step, Vectorize
from ansor_py.target import Target
from test_measure_backends import OPTIONS, distinct, programs

TARGET = Target.detect()
MATMUL = ComputeDAG.from_outputs(te.matmul(30, 40, 50))


def inputs_of(dag: ComputeDAG) -> list[np.ndarray]:
    arrays = [np.empty(tensor.shape, tensor.dtype) for tensor in dag.inputs]
    for position, array in enumerate(arrays):
        fill_input(array, 0, position)
    return arrays


def naive(dag: ComputeDAG) -> tuple[list[np.ndarray], np.ndarray]:
    arrays = inputs_of(dag)
    return arrays, LoadedKernel(build_reference(dag, (), TARGET, 1)).run(arrays)[0]


def test_naive_matmul_is_numpys() -> None:
    (a, b), output = naive(MATMUL)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert difference(output, expected.astype(np.float32), relative_tolerance(MATMUL)) is None


def test_naive_conv2d_is_numpys() -> None:
    dag = ComputeDAG.from_outputs(te.from_spec("conv2d:1,3,9,9,4,3,pad=1"))
    (data, weight), output = naive(dag)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(data[0], ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
    expected = np.einsum("cyxij,fcij->fyx", windows.astype(np.float64), weight.astype(np.float64))[None]
    assert difference(output, expected.astype(np.float32), relative_tolerance(dag)) is None


def test_naive_softmax_is_numpys() -> None:
    dag = ComputeDAG.from_outputs(te.from_spec("softmax:7,33"))
    (data,), output = naive(dag)
    powers = np.exp(data.astype(np.float64) - data.max(axis=-1, keepdims=True))
    expected = powers / powers.sum(axis=-1, keepdims=True)
    assert difference(output, expected.astype(np.float32), relative_tolerance(dag)) is None


def test_tolerance_lets_other_orders_pass_and_missing_summands_fail() -> None:
    dag = ComputeDAG.from_outputs(te.from_spec("matmul:16,16,2048"))
    shapes = {tensor.shape for tensor in dag.inputs}
    assert shapes == {(16, 2048), (2048, 16)}
    a, b = (array.reshape(16, 2048) for array in inputs_of(dag))
    tolerance = relative_tolerance(dag)
    exact = (a.astype(np.float64) @ b.T.astype(np.float64)).astype(np.float32)
    backwards = np.add.reduce(a[:, None, ::-1] * b[None, :, ::-1], axis=-1, dtype=np.float32)
    assert difference(backwards, exact, tolerance) is None
    assert difference(exact - a[:, :1] * b[:, 0], exact, tolerance) is not None


def test_difference_of_special_values() -> None:
    expected = np.array([1.0, np.nan, np.inf, 0.0], np.float32)
    assert difference(expected.copy(), expected, 1e-5) is None
    for place, wrong in ((0, np.nan), (1, 1.0), (2, -np.inf), (3, np.inf)):
        output = expected.copy()
        output[place] = wrong
        sentence = difference(output, expected, 1e-5)
        assert sentence is not None
        assert f"at [{place}]" in sentence
    empty = np.empty((0,), np.float32)
    assert difference(empty, empty, 1e-5) is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "int8", "uint8", "bool"])
def test_inputs_are_reproducible_and_poison_is_noticed(dtype: str) -> None:
    first, again, other = (np.zeros((5, 50), dtype) for _ in range(3))
    fill_input(first, 1, 0)
    fill_input(again, 1, 0)
    fill_input(other, 1, 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    output = first.copy()
    poison(output)
    assert difference(output, first, 1e-5) is not None


def test_cores_are_divided_or_shared_in_time() -> None:
    assert plan_cores(2, (4, 5, 6, 7)) == CorePlan((4, 5), (6, 7), False)
    assert plan_cores(3, (4, 5, 6, 7)) == CorePlan((4, 5, 6), (4, 5, 6, 7), True)
    assert plan_cores(3, (4, 5)) == CorePlan((4, 5), (4, 5), True)
    assert needs_alternation(1, 1)


SCHEDULES: list[tuple[Step, ...]] = [
    (),
    (Parallel("C", "i"),),
    (Split("C", "j", (8,)), Reorder("C", ("i", "j.0", "k", "j.1")), Vectorize("C", "j.1")),
    (Split("C", "no such axis", (8,)),),
]


def test_schedules_are_measured_and_checked() -> None:
    options = MeasureOptions(builders=2)
    batch = [
        MeasureInput(MATMUL.workload_key, MATMUL, steps, TARGET, threads)
        for threads in range(1, min(2, len(available_cores())) + 1)
        for steps in SCHEDULES
    ]
    for kind in ("inline", "process"):
        with create_measurer(kind, target=TARGET, threads=batch[-1].threads, options=options) as measurer:
            results = measurer.measure(batch)
        assert [result.error for result in results] == ["none", "none", "none", "build"] * (len(batch) // 4)
        assert all(result.output_checked for result in results if result.valid)
        assert "no such axis" in results[3].error_text


def test_wrong_schedule_is_caught() -> None:
    options = MeasureOptions(builder=build_transposed)
    square = ComputeDAG.from_outputs(te.from_spec("matmul:24,24,24"))
    with create_measurer("inline", target=TARGET, threads=1, options=options) as measurer:
        (result,) = measurer.measure([MeasureInput(square.workload_key, square, (), TARGET, 1)])
    assert result.error == "wrong-result"


def build_transposed(dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> CompiledKernel:
    kernel = build_program(dag, steps, target, threads)
    swapped = ComputeDAG.from_outputs(dag.outputs, dag.inputs[::-1])  # takes its operands in the other order
    return replace(build_program(swapped, steps, target, threads), buffers=kernel.buffers)


def spans(results: Sequence[MeasureResult]) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    builds, runs = [], []
    for result in results:
        assert result.build is not None
        assert result.run is not None
        builds.append((result.build.started, result.build.finished))
        runs.append((result.run.started, result.run.finished))
    return builds, runs


def all_results(measurer: Measurer) -> list[MeasureResult]:
    results: list[MeasureResult] = []
    while measurer.outstanding:
        results += [result for _, result in measurer.poll(timeout=60)]
    return results


@pytest.mark.parametrize("alternating", [True, False])
def test_runs_overlap_neither_each_other_nor_builds_on_their_cores(monkeypatch: pytest.MonkeyPatch, alternating: bool) -> None:
    from ansor_py.measure import process

    core = available_cores()[:1]
    monkeypatch.setattr(process, "plan_cores", lambda threads: CorePlan(core, available_cores(), alternating))
    with create_measurer("process", target=TARGET, threads=1, options=OPTIONS) as measurer:
        for batch in range(3):
            measurer.submit(distinct(programs(*["good"] * 15))[5 * batch : 5 * batch + 5])
        builds, runs = spans(all_results(measurer))
    assert len(runs) == 15
    for (_, end), (start, _) in itertools.pairwise(sorted(runs)):
        assert end <= start
    overlapping = [(b, r) for b in builds for r in runs if b[0] < r[1] and r[0] < b[1]]
    assert not (alternating and overlapping)
