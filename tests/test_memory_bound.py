"""Memory-bound operators: transposed tiles, rows that stay in the cache, results that wait in the output, sums over rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.codegen.peak import stream_ir
from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.lower import lower
from ansor_py.lower.storage import shared_storage
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import At, Inlined, State
from ansor_py.schedule.steps import ComputeAt, Parallel, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.sketch_rules.annotate_vectorize import transposed_tiles
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor
from targets import executed_targets, structure_targets

on_executed_targets = pytest.mark.parametrize("target", executed_targets())
on_four_targets = pytest.mark.parametrize("target", structure_targets())
# Elements that are loaded or stored one by one, on x86-64 and on AArch64.
ELEMENTWISE = re.compile(r"gather|scatter|pinsr|insertps|movss|\.s\[|\b(ldr|str|ldp|stp)\ts\d")


def _x(*shape: int, name: str = "x") -> Tensor:
    return te.placeholder(shape, name=name)


def _run(dag: ComputeDAG, steps: tuple[Step, ...], inputs: list[np.ndarray], target: Target, threads: int = 1) -> np.ndarray:
    return np.asarray(LoadedKernel(build_kernel(dag, steps, target, threads)).run(inputs)[0])


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _tile(rows: int, columns: int) -> tuple[Step, ...]:
    return (
        Split("t", "i0", (rows,)),
        Split("t", "i1", (columns,)),
        Reorder("t", ("i0.0", "i1.0", "i0.1", "i1.1")),
        RegisterTile("t", ("i0.1", "i1.1"), "formula"),
        Vectorize("t", "i1.1"),
    )


# Transposition of what a tile reads.


@on_executed_targets
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([4, 5, 8, 16, 32]), st.sampled_from([2, 4, 8, 16, 24, 32]))
def test_transposed_tiles_of_any_shape_copy_every_element(target: Target, n: int, m: int, rows: int, columns: int) -> None:
    x = _x(n, m)
    dag = ComputeDAG.from_outputs(te.transpose(x, name="t"))
    data = _floats(n, m)
    np.testing.assert_array_equal(_run(dag, _tile(rows, columns), [data], target), data.T)


@on_executed_targets
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_transposed_tiles_of_any_dtype(dtype: str, target: Target) -> None:
    x = te.placeholder((37, 29), dtype, name="x")
    data = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 100, (37, 29)).astype(dtype)
    dag = ComputeDAG.from_outputs(te.transpose(x, name="t"))
    np.testing.assert_array_equal(_run(dag, _tile(16, 16), [data], target), data.T)


@on_executed_targets
def test_transposed_and_straight_reads_meet_in_one_formula(target: Target) -> None:
    x, y, bias = _x(45, 33), _x(33, 45, name="y"), _x(33, 1, name="bias")
    turned = te.transpose(x, name="turned")
    dag = ComputeDAG.from_outputs(te.relu(te.add(te.add(turned, y), bias), name="t"))
    arrays = {"x": _floats(45, 33), "y": _floats(33, 45) + 1, "bias": _floats(33, 1) - 1}
    expected = np.maximum(arrays["x"].T + arrays["y"] + arrays["bias"], 0)
    for threads in (1, 2):
        steps = default_steps(dag, target.with_cores(threads), threads)
        got = _run(dag, steps, [arrays[tensor.name] for tensor in dag.inputs], target, threads)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@on_four_targets
def test_a_transposed_tile_gathers_nothing(target: Target) -> None:
    dag, lanes = ComputeDAG.from_outputs(te.transpose(_x(256, 256), name="t")), target.lanes("float32")
    row_by_row: tuple[Step, ...] = (Split("t", "i1", (lanes,)), Vectorize("t", "i1.1"))
    found = [
        bool(ELEMENTWISE.search(emit_assembly(kernel_text(dag, steps, target, 1), target)))
        for steps in (_tile(16, 16), _tile(lanes, lanes), default_steps(dag, target, 1), row_by_row)
    ]
    assert found == [False, False, False, True]


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_tiles_offered_for_transposition_are_bounded(lanes: int) -> None:
    tiles = transposed_tiles(512, 10, lanes, (1, 2, 4))
    assert (lanes, min(lanes, 10)) in tiles
    assert all(rows * -(-columns // lanes) <= 64 for rows, columns in tiles)


@on_executed_targets
@pytest.mark.parametrize("shape", [(64, 48), (61, 53), (5, 200)])
def test_sampled_programs_of_a_permutation_are_right(shape: tuple[int, int], target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.transpose(_x(*shape), name="t"))
    data = _floats(*shape)
    for sketch in generate_sketches(dag, target):
        for row in sample(Space(sketch, target, SearchOptions()), 6, np.random.default_rng(0)):
            np.testing.assert_array_equal(_run(dag, sketch.concretise(row), [data], target, target.cores), data.T)


# Rows that stay in the cache, and results that wait in the output's memory.


def _softmax_rows(lengths: int = 1) -> tuple[ComputeDAG, State]:
    dag = ComputeDAG.from_outputs(te.softmax(_x(12, 40), name="s"))
    host: tuple[Step, ...] = (Split("s", "i0", (lengths,)),) if lengths > 1 else ()
    loop = "i0.0" if lengths > 1 else "i0"
    inside = tuple(ComputeAt(name, "s", loop) for name in ("s_sum", "s_exp", "s_max"))
    return dag, State.initial(dag).replay((*host, *inside))


@pytest.mark.parametrize("lengths", [1, 3, 4])
def test_stages_of_a_softmax_are_computed_for_the_rows_at_hand(lengths: int) -> None:
    _, state = _softmax_rows(lengths)
    bounds = infer_bounds(state)
    assert [bounds[name].region[0] for name in ("s_sum", "s_exp", "s_max")] == [lengths] * 3


@on_executed_targets
@pytest.mark.parametrize("lengths", [1, 3, 4, 5])
def test_softmax_in_the_outputs_memory_is_right(lengths: int, target: Target) -> None:
    dag, state = _softmax_rows(lengths)
    data = _floats(12, 40)
    exponentials = np.exp(data - data.max(axis=1, keepdims=True))
    got = _run(dag, state.steps, [data], target)
    np.testing.assert_allclose(got, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-5)
    parallel = (*state.steps, Parallel("s", "i0.0" if lengths > 1 else "i0"))
    np.testing.assert_array_equal(_run(dag, parallel, [data], target, threads=2), got)


@on_four_targets
def test_exponentials_wait_in_the_output(target: Target) -> None:
    _, state = _softmax_rows()
    assert shared_storage(state, infer_bounds(state)) == {"s_exp": "s"}
    program = lower(state, target)
    assert "s_exp" not in program.buffers
    assert "s_exp[" not in str(program)


def test_nothing_waits_where_the_last_rows_overlap_those_before() -> None:
    _, state = _softmax_rows(5)  # 12 rows in steps of 5: the last step starts at row 7, and row 7 is finished by then
    assert shared_storage(state, infer_bounds(state)) == {}


@on_executed_targets
@pytest.mark.parametrize("rows", [1, 4, 5])
def test_stages_in_a_block_share_one_buffer(rows: int, target: Target) -> None:
    x, w = _x(12, 40), te.placeholder((40, 24), name="w")
    dag = ComputeDAG.from_outputs(
        te.relu(te.matmul(te.softmax(te.multiply(x, 2.0, name="m"), name="s"), w, name="p"), name="out")
    )
    inside = tuple(ComputeAt(name, "out", "i0.0") for name in ("p", "s", "s_sum", "s_exp", "s_max", "m"))
    state = State.initial(dag).replay((Split("out", "i0", (rows,)), *inside))
    assert shared_storage(state, infer_bounds(state)) == {"m": "s", "s_exp": "s"}
    assert {"m", "s_exp"}.isdisjoint(lower(state, target).buffers)
    data, weight = _floats(12, 40), _floats(40, 24)
    exponentials = np.exp(2 * data - 2 * data.max(axis=1, keepdims=True))
    expected = np.maximum(exponentials / exponentials.sum(axis=1, keepdims=True) @ weight, 0)
    got = _run(dag, state.steps, [data, weight], target)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@on_executed_targets
def test_stages_in_a_block_wait_for_the_last_reader(target: Target) -> None:
    m = te.multiply(_x(12, 40), 2.0, name="m")
    t = te.add(te.relu(m, name="s"), 1.0, name="t")
    state = State.initial(ComputeDAG.from_outputs(te.add(t, m, name="out")))
    state = state.replay(tuple(ComputeAt(name, "out", "i0") for name in ("t", "s", "m")))
    assert shared_storage(state, infer_bounds(state)) == {"s": "t", "m": "out"}
    data = _floats(12, 40)
    got = _run(state.dag, state.steps, [data], target)
    np.testing.assert_allclose(got, np.maximum(2 * data, 0) + 1 + 2 * data, rtol=1e-6)


@on_executed_targets
def test_nothing_waits_where_the_rows_at_hand_lie_apart(target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.softmax(_x(12, 40), name="s"))
    apart = (Split("s", "i0", (4,)), Reorder("s", ("i0.1", "i0.0", "i1")))  # rows 0, 4, 8, then 1, 5, 9
    state = State.initial(dag).replay((*apart, *(ComputeAt(name, "s", "i0.1") for name in ("s_sum", "s_exp", "s_max"))))
    assert shared_storage(state, infer_bounds(state)) == {}
    data = _floats(12, 40)
    exponentials = np.exp(data - data.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        _run(dag, state.steps, [data], target), exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-5
    )


@on_executed_targets
def test_nothing_waits_where_a_reader_comes_later_or_looks_elsewhere(target: Target) -> None:
    e = te.exp(_x(16, 32), name="e")
    first = te.multiply(e, e, name="first")
    other = te.reduce_sum(e, 1, name="later")
    state = State.initial(ComputeDAG.from_outputs([first, other]))
    order = list(infer_bounds(state))
    expected = {} if order.index("later") > order.index("first") else {"e": "first"}
    assert shared_storage(state, infer_bounds(state)) == expected

    totals = te.reduce_sum(e, 0, name="totals")  # one for each column: every row is read for it
    outcome = te.multiply(e, totals, name="outcome")
    state = State.initial(ComputeDAG.from_outputs(outcome))
    assert shared_storage(state, infer_bounds(state)) == {"e": "outcome"}
    inside = state.apply(ComputeAt("totals", "outcome", "i0"))
    assert shared_storage(inside, infer_bounds(inside)) == {}
    data = _floats(16, 32)
    exponentials = np.exp(data)
    for steps in (state.steps, inside.steps):
        got = _run(inside.dag, steps, [data], target)
        np.testing.assert_allclose(got, exponentials * exponentials.sum(axis=0), rtol=1e-5)


# Default schedules.


@on_four_targets
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [te.softmax, te.log_softmax, lambda x: te.layer_norm(x, None)])
def test_default_schedules_work_row_by_row(make: object, threads: int, target: Target) -> None:
    dag = ComputeDAG.from_outputs(make(_x(96, 300)))  # type: ignore[operator]
    state = State.initial(dag).replay(default_steps(dag, target.with_cores(threads), threads))
    inner = [stage for stage in state.stages if not state.is_output(stage.name) and not isinstance(stage.location, Inlined)]
    assert inner
    assert all(isinstance(stage.location, At) for stage in inner)
    output = next(stage for stage in state.stages if state.is_output(stage.name))
    assert any(item.annotation == "parallel" for item in output.iterators) == (threads > 1)


@on_four_targets
def test_an_expensive_formula_read_once_is_inlined_and_one_read_twice_is_not(target: Target) -> None:
    once = ComputeDAG.from_outputs(te.add(te.sigmoid(_x(64, 64), name="g"), 1.0, name="y"))
    twice = te.sigmoid(_x(64, 64), name="g")
    both = ComputeDAG.from_outputs([te.add(twice, 1.0, name="a"), te.multiply(twice, 2.0, name="b")])
    for dag, expected in ((once, True), (both, False)):
        state = State.initial(dag).replay(default_steps(dag, target, 1))
        assert isinstance(state.stage("g").location, Inlined) is expected
        first = generate_sketches(dag, target)[0]
        assert ("g" in {hole.stage for hole in first.holes}) is not expected


@on_executed_targets
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 100, 30), (1, 512, 700), (1, 65, 1)])
def test_a_vector_times_a_matrix_by_default(shape: tuple[int, int, int], threads: int, target: Target) -> None:
    n, k, m = shape
    dag = ComputeDAG.from_outputs(te.matmul(_x(n, k), _x(k, m, name="w")))
    a, b = _floats(n, k), _floats(k, m)
    by_name = {"x": a, "w": b}
    steps = default_steps(dag, target.with_cores(threads), threads)
    got = _run(dag, steps, [by_name[tensor.name] for tensor in dag.inputs], target, threads)
    np.testing.assert_allclose(got, a @ b, rtol=1e-4, atol=1e-4)


@on_executed_targets
@pytest.mark.parametrize("shape", [(300, 70), (64, 1000), (129, 3)])
@pytest.mark.parametrize("threads", [1, 2])
def test_sums_and_maxima_over_rows_by_default(shape: tuple[int, int], threads: int, target: Target) -> None:
    data = _floats(*shape)
    data[shape[0] // 2, 1] = np.nan
    for function, expected in ((te.reduce_sum, data.sum(axis=0)), (te.reduce_max, data.max(axis=0))):
        dag = ComputeDAG.from_outputs(function(_x(*shape), 0))
        got = _run(dag, default_steps(dag, target.with_cores(threads), threads), [data], target, threads)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@on_executed_targets
@pytest.mark.parametrize("position", [0, 17, 39])
def test_a_maximum_over_lanes_keeps_nan(position: int, target: Target) -> None:
    data = _floats(5, 40)
    data[2, position] = np.nan
    dag = ComputeDAG.from_outputs(te.reduce_max(_x(5, 40), 1))
    np.testing.assert_array_equal(_run(dag, default_steps(dag, target, 1), [data], target), data.max(axis=1))


# The yardstick.


@on_four_targets
@pytest.mark.parametrize(("reads", "writes", "loads", "stores"), [(1, 1, 4, 4), (2, 1, 8, 4), (1, 2, 4, 8), (1, 0, 4, 0)])
def test_native_loops_touch_every_stream_once(reads: int, writes: int, loads: int, stores: int, target: Target) -> None:
    text, vector, aligned = stream_ir(target, reads, writes), f"<{target.lanes('float32')} x float>", target.vector_bytes
    assert len(re.findall(rf"= load {vector}", text)) == loads
    assert len(re.findall(rf"store {vector} %\w+, ptr %\w+, align {aligned}", text)) == stores
    emit_assembly(text, target)
