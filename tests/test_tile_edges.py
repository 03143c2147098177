"""Register tiles at the edges of axes: as many rows as are left, sums side by side, stores of a known number of lanes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.codegen.tile_sums import SHORTEST_SPLIT, sums_side_by_side
from ansor_py.cost_model import extract_features, feature_names
from ansor_py.lower.ir import Tile, tiles_of
from ansor_py.lower.lower import lower
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels.outer_products import FLOAT32
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import ComputeAt, Parallel, Pragma, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from ansor_py.te.ops.registry import from_spec
from targets import executed_targets, structure_targets

MULTIPLY_ADD = re.compile(r"= call [^@]*@llvm\.fmuladd")


def product(rows: int, columns: int, depth: int, fused: bool) -> ComputeDAG:
    a, b = te.placeholder((rows, depth), name="A"), te.placeholder((depth, columns), name="B")
    c = te.matmul(a, b, name="C")
    return ComputeDAG.from_outputs(te.relu(c, name="relu") if fused else c)


def tiled(tile: tuple[int, int], reduction: int, unroll: int, fused: bool) -> tuple[Step, ...]:
    """Register tiles at root, or one in each tile of the consumer."""
    register, lanes = RegisterTile("C", ("i.1", "j.1"), FLOAT32.name), Vectorize("C", "j.1")
    order = Reorder("C", ("i.0", "j.0", "k.0", "k.1", "i.1", "j.1"))
    splits = [Split("C", "i", tile[:1]), Split("C", "j", tile[1:]), Split("C", "k", (reduction,))]
    if not fused:
        return (*splits, order, register, lanes, Pragma("C", unroll))
    consumer = (Split("relu", "i0", tile[:1]), Split("relu", "i1", tile[1:]), Reorder("relu", ("i0.0", "i1.0", "i0.1", "i1.1")))
    return (*consumer, ComputeAt("C", "relu", "i1.0"), *splits, order, register, lanes, Pragma("C", unroll))


def tile_of(dag: ComputeDAG, steps: tuple[Step, ...], target: Target) -> Tile:
    program = lower(State.initial(dag).replay(steps), target)
    return next(tile for region in program.regions for tile in tiles_of(region.body) if tile.combiner is not None)


@pytest.mark.parametrize("target", executed_targets())
@settings(max_examples=25, deadline=None)
@given(
    extents=st.tuples(st.integers(1, 23), st.integers(2, 50), st.integers(1, 90)),
    tile=st.tuples(st.integers(1, 7), st.integers(2, 33)),
    reduction=st.integers(1, 90),
    unroll=st.sampled_from((0, 16, 64)),
    fused=st.booleans(),
)
def test_results_are_right(
    target: Target, extents: tuple[int, int, int], tile: tuple[int, int], reduction: int, unroll: int, fused: bool
) -> None:
    dag = product(*extents, fused)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(tensor.shape, dtype=np.float32) for tensor in dag.inputs)
    [output] = LoadedKernel(build_kernel(dag, tiled(tile, reduction, unroll, fused), target, 2)).run([a, b])
    expected = a.astype(np.float64) @ b
    np.testing.assert_allclose(output, np.maximum(expected, 0) if fused else expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("rows", "rest"), [(13, 1), (7, 3), (6, 2)])
def test_what_is_left_of_rows_is_a_tile_of_so_many(rows: int, rest: int, fused: bool, target: Target) -> None:
    width = 2 * target.lanes("float32")
    dag, steps = product(rows, 2 * width, 64, fused), tiled((4, width), 64, 0, fused)
    [loop, _] = tile_of(dag, steps, target).loops
    assert (loop.extent, loop.rest) == (4, rest)
    assert len(MULTIPLY_ADD.findall(kernel_text(dag, steps, target, 1))) == 2 * (4 + rest)


@pytest.mark.parametrize("target", structure_targets())
def test_vectors_that_are_left_along_the_lanes_are_as_few_as_there_are(target: Target) -> None:
    lanes = target.lanes("float32")
    dag, steps = product(4, 5 * lanes, 64, False), tiled((4, 2 * lanes), 64, 0, False)
    assert len(MULTIPLY_ADD.findall(kernel_text(dag, steps, target, 1))) == 4 * (2 + 1)


@pytest.mark.parametrize("target", structure_targets())
def test_few_accumulators_have_several_sums(target: Target) -> None:
    lanes, busy = target.lanes("float32"), target.core.latency * target.core.vector_units
    for rows in (1, 2, 3, 4, 6):
        tile = tile_of(product(rows, 2 * lanes, 256, False), tiled((rows, 2 * lanes), 256, 64, False), target)
        sums, accumulators = sums_side_by_side(tile, 2 * rows, target), 2 * rows
        assert accumulators * (sums - 1) < busy
        assert accumulators * sums + tile.kernel.registers(rows, 2, 0, target) - accumulators <= target.vector_registers
        assert sums > 1 or accumulators >= busy or 2 * accumulators + 2 > target.vector_registers


@pytest.mark.parametrize("target", structure_targets())
def test_one_sum_where_no_other_step_follows_or_few_do(target: Target) -> None:
    width = target.lanes("float32")
    for depth, unroll in ((256, 0), (SHORTEST_SPLIT - 1, 64)):
        tile = tile_of(product(2, width, depth, False), tiled((2, width), depth, unroll, False), target)
        assert sums_side_by_side(tile, 2, target) == 1


@pytest.mark.parametrize("target", structure_targets())
def test_a_number_of_lanes_that_is_known_is_stored_without_a_mask_unless_masks_are_free(target: Target) -> None:
    lanes = target.lanes("float32")
    dag = product(4, lanes + lanes // 2 + 1, 64, False)
    text = kernel_text(dag, tiled((4, 2 * lanes), 64, 0, False), target, 1)
    assert ("llvm.masked.store" in text) == target.masks_freely


@pytest.mark.parametrize("target", structure_targets("cores=1"))
def test_the_roofline_counts_the_rows_that_there_are(target: Target) -> None:
    """Of 29 rows in tiles of 14 the third has one row, a fourteenth of the work; 28 rows are two tiles, 42 are three."""
    width, column = 2 * target.lanes("float32"), feature_names().index("compute_cycles")

    def cycles(rows: int, tile: int) -> float:
        sketch = Sketch("tiled", product(rows, width, 256, False), tiled((tile, width), 256, 64, False), ())
        [row] = extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target).rows
        return float(np.exp2(row[column]) - 1)

    tile = 14 if target.vector_registers == 32 else 6
    two, more, three = (cycles(rows, tile) for rows in (2 * tile, 2 * tile + 1, 3 * tile))
    assert two < more < two + (three - two) / 2


@pytest.mark.parametrize("target", structure_targets("cores=2"))
def test_the_roofline_knows_that_a_short_share_of_a_parallel_loop_is_no_gain(target: Target) -> None:
    """Of two blocks of rows the second one has half: its thread waits for the other. Of 16 blocks hardly anything is lost."""
    width, column = 2 * target.lanes("float32"), feature_names().index("roofline_cycles")

    def cycles(rows: int, block: int) -> float:
        splits = [Split("C", "i", (4, block // 4)), Split("C", "j", (width,)), Split("C", "k", (32,))]
        order = Reorder("C", ("i.0", "j.0", "i.1", "k.0", "k.1", "i.2", "j.1"))
        tile = (RegisterTile("C", ("i.2", "j.1"), FLOAT32.name), Vectorize("C", "j.1"), Parallel("C", "i.0"), Pragma("C", 64))
        sketch = Sketch("tiled", product(rows, width, 256, False), (*splits, order, *tile), ())
        [row] = extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target).rows
        return float(np.exp2(row[column]) - 1)

    assert cycles(96, 64) == pytest.approx(cycles(128, 64), rel=0.05)
    assert cycles(960, 512) > 1.05 * cycles(960, 480)


@pytest.mark.parametrize("target", structure_targets("cores=1"))
def test_the_roofline_counts_vectors_that_differ_from_row_to_row(target: Target) -> None:
    """Rows of two images under one filter: their vectors are all at hand, and more accumulators than fit beside them spill."""
    lanes, column = target.lanes("float32"), feature_names().index("load_cycles")

    def loads(filters: int) -> float:
        w, x = te.placeholder((filters * 4, 64), name="W"), te.placeholder((64, 2, lanes), name="X")
        k = te.reduce_axis(64, "k")
        out = te.compute((filters * 4, 2, lanes), lambda f, y, x_: te.reduce_sum(w[f, k] * x[k, y, x_], k), name="C")
        axes = [axis.name for axis in out.op.axes]
        names = (f"{axes[0]}.0", "k", f"{axes[0]}.1", axes[1], axes[2])
        steps = (Split("C", axes[0], (filters,)), Reorder("C", names), RegisterTile("C", names[2:], FLOAT32.name))
        sketch = Sketch("tiled", ComputeDAG.from_outputs(out), (*steps, Vectorize("C", axes[2])), ())
        [row] = extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target).rows
        return float(np.exp2(row[column]) - 1) / filters

    most = (target.vector_registers - 3) // 2
    assert loads(most + 1) > 1.5 * loads(most)


@pytest.mark.parametrize("spec", ["matmul:37,53,29", "attention:1,2,21,10"])
def test_programs_have_the_same_features_in_any_company(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A population is looked at in parts; its bounds are those of all programs."""
    target = Target.parse("x86-64 cpu=haswell cores=2")
    sketch = generate_sketches(ComputeDAG.from_outputs(from_spec(spec)), target)[0]
    population = Population(sketch, sample(Space(sketch, target, SearchOptions()), 40, np.random.default_rng(0)))
    whole = extract_features(population, target)
    monkeypatch.setattr("ansor_py.cost_model.features.CHUNK", 7)
    parts = extract_features(population, target)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
