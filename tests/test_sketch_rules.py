"""Sketch derivation: counts against the reference, golden structures, tables of tiles, and that every program is legal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py.errors import OptionError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.nest import scheduled_nest, statements
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import FORMULA
from ansor_py.schedule.micro_kernels.outer_products import FLOAT32
from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import ComputeInline, Parallel, step_from_json
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import Derived, PartialSketch, Rule, Verdict, generate_sketches
from ansor_py.sketch_rules.annotate_vectorize import vector_choices
from ansor_py.sketch_rules.register_tile import register_tiles, vector_lengths
from ansor_py.sketch_rules.space_options import SpaceOptions
from ansor_py.sketch_rules.tile_sizes import reduction_lengths, tile_pairs
from ansor_py.target import Target
from ansor_py.te.expr import maximum
from ansor_py.te.ops.convolution import conv2d
from ansor_py.te.ops.elementwise import multiply
from ansor_py.te.ops.matrix import matmul
from ansor_py.te.ops.reduction import softmax
from ansor_py.te.ops.registry import from_spec
from ansor_py.te.tensor import compute, placeholder, reduce_axis, reduce_max, reduce_sum
from targets import four_targets, structure_targets

on_four_targets = pytest.mark.parametrize("target", structure_targets("cores=4"))
# For what is the same on all of them.
TARGET = Target.parse("x86-64 cpu=haswell cores=4")
WORKLOADS = (
    "matmul:48,40,36",
    "matmul:37,53,29",
    "dense:1,100,64",
    "conv2d:1,8,14,14,12,3,pad=1,bias=1,relu=1",
    "conv2d:1,4,13,13,6,5,stride=2,pad=2",
    "softmax:6,96",
    "softmax:1,500",
    "max_pool2d:1,4,14,14,3,stride=2,pad=1",
    "reduce_sum:700",
    "relu:2,5,7",
    "transpose:17,33",
    "layer_norm:9,40",
    "batch_matmul:3,10,12,14",
    "matmul:64,150,100",
)


def dag_of(spec: str) -> ComputeDAG:
    return ComputeDAG.from_outputs(from_spec(spec))


def chained_matmuls() -> ComputeDAG:
    a, b, c = (placeholder((64, 64), name=name) for name in "ABC")
    k, m = reduce_axis(64, "k"), reduce_axis(64, "m")
    d = compute((64, 64), lambda i, j: reduce_sum(a[i, k] * b[k, j], k), name="D")
    return ComputeDAG.from_outputs(compute((64, 64), lambda i, j: reduce_sum(d[i, m] * c[m, j], m), name="E"))


def conv_bn_relu() -> ComputeDAG:
    x, w = placeholder((1, 8, 16, 16), name="X"), placeholder((8, 8, 1, 1), name="W")
    scale, shift = placeholder((8,), name="S"), placeholder((8,), name="B")
    r = reduce_axis(8, "r")
    conv = compute((1, 8, 16, 16), lambda n, f, y, z: reduce_sum(x[n, r, y, z] * w[f, r, 0, 0], r), name="conv")
    scaled = compute((1, 8, 16, 16), lambda n, f, y, z: conv[n, f, y, z] * scale[f], name="scaled")
    norm = compute((1, 8, 16, 16), lambda n, f, y, z: scaled[n, f, y, z] + shift[f], name="norm")
    return ComputeDAG.from_outputs(compute((1, 8, 16, 16), lambda n, f, y, z: maximum(norm[n, f, y, z], 0.0), name="relu"))


def pool_relu() -> ComputeDAG:
    x = placeholder((1, 8, 16, 16), name="X")
    p, q = reduce_axis(2, "p"), reduce_axis(2, "q")
    pool = compute((1, 8, 8, 8), lambda n, c, y, z: reduce_max(x[n, c, y * 2 + p, z * 2 + q], (p, q)), name="pool")
    return ComputeDAG.from_outputs(compute((1, 8, 8, 8), lambda n, c, y, z: maximum(pool[n, c, y, z], 0.0), name="relu"))


@on_four_targets
@pytest.mark.parametrize(
    ("dag", "count"),
    [
        (dag_of("matmul:512,512,512"), 3),
        (dag_of("matmul:8,8,512"), 5),
        (chained_matmuls(), 9),
        (conv_bn_relu(), 3),
        (pool_relu(), 1),
        (dag_of("reduce_min:10,1024"), 3),
        (dag_of("softmax:1,1024"), 9),
        (dag_of("softmax:1,12,128,128"), 9),
        (dag_of("reduce_sum:128"), 3),
    ],
    ids="matmul small-matmul two-matmuls conv-bn-relu pool-relu min softmax-row softmax-4d to-scalar".split(),
)
def test_sketch_counts_of_the_reference(dag: ComputeDAG, count: int, target: Target) -> None:
    """Reference page, section 3.5: the counts of TVM's unit tests, with 4 cores."""
    assert len(generate_sketches(dag, target, rules="ansor")) == count


@on_four_targets
def test_derivation_is_deterministic(target: Target) -> None:
    dag = dag_of("softmax:6,96")
    first, second = (generate_sketches(dag, target) for _ in range(2))
    assert [(s.name, s.steps, s.holes) for s in first] == [(s.name, s.steps, s.holes) for s in second]


@on_four_targets
def test_golden_matmul_sketches(target: Target) -> None:
    plain, outer, inner = generate_sketches(dag_of("matmul:512,512,512"), target, rules="ansor")
    assert [s.name for s in (plain, outer, inner)] == [
        "tile(C)",
        "cache(C) fuse(C.local->C level 1)",
        "cache(C) fuse(C.local->C level 2)",
    ]
    template = inner.structure([0] * len(inner.holes))
    assert str(template).splitlines()[2:] == GOLDEN_LEVEL_2.strip("\n").splitlines()
    loops = [item.name for item in plain.structure([0] * len(plain.holes)).stage("C").iterators]
    assert loops == "i.0 j.0 i.1 j.1 k.0 i.2 j.2 k.1 i.3 j.3".split()


GOLDEN_LEVEL_2 = """
for i.0 in rest:
  for j.0 in rest:
    for i.1 in gene1.1:
      for j.1 in gene2.1:
        for i.0 in rest:
          for j.0 in rest:
            for i.1 in gene1.1:
              for j.1 in gene2.1:
                for k.0 in rest:
                  for i.2 in gene1.0:
                    for j.2 in gene2.0:
                      for k.1 in gene3.0:
                        register tile by float32 outer product:
                          for i.3 in gene0.0:
                            vectorize j.3 in gene0.1:
                              C.local[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i.2 in gene0.0*gene1.0:
          for j.2.0 in rest:
            vectorize j.2.1 in gene4.0:
              C[i, j] = C.local[i, j]
"""


@on_four_targets
def test_a_large_product_may_read_panels_of_one_operand(target: Target) -> None:
    width = 2 * target.lanes("float32")
    sketches = generate_sketches(dag_of("dense:64,1000,512"), target)
    packed = next(sketch for sketch in sketches if sketch.name == f"pack(weight j {width}) tile(dense)")
    state = packed.structure([0] * len(packed.holes))
    assert state.stage("weight.cache").tensor.shape == (math.ceil(1000 / width), 512, width)
    assert f"weight.cache[(j // {width}), k, (j % {width})]" in str(state)
    assert {choice[1] for choice in packed.holes[0].choices} == {width}
    assert state.stage("dense").iterators[-1].name == "j.3"
    product = generate_sketches(dag_of("matmul:512,512,512"), target)
    packed = next(sketch for sketch in product if sketch.name == f"pack(B j {width}) tile(C)")
    assert any(hole.kind == "location" and hole.stage == "B.cache" for hole in packed.holes)


@on_four_targets
@pytest.mark.parametrize("constant", [True, False])
def test_a_constant_weight_is_packed_once_along_the_output_channels(constant: bool, target: Target) -> None:
    data, weight = placeholder((1, 48, 14, 14), name="data"), placeholder((64, 48, 3, 3), name="w", constant=constant)
    sketches = generate_sketches(ComputeDAG.from_outputs(conv2d(data, weight, padding=1)), target)
    packed = [sketch for sketch in sketches if sketch.name.startswith("pack(w ")]
    assert all(sketch.name.startswith(f"pack(w f {2 * target.lanes('float32')})") for sketch in packed)
    assert bool(packed) == constant
    for sketch in packed:
        state = sketch.structure([0] * len(sketch.holes))
        assert "w.cache" in state.prepacked
        assert not any(hole.stage == "w.cache" for hole in sketch.holes)


@on_four_targets
def test_a_product_with_a_transposed_operand_is_vectorised_along_the_reduction(target: Target) -> None:
    sketch = generate_sketches(dag_of("dense:8,64,256"), target)[0]
    last = sketch.structure([0] * len(sketch.holes)).stage("dense").iterators[-1]
    assert (last.kind, last.annotation) == ("reduction", "vectorize")


@on_four_targets
def test_lanes_are_not_left_empty_for_a_short_last_axis(target: Target) -> None:
    """The last axis of a transposed convolution's phases is the phase, which is as long as the stride."""
    dag = dag_of("conv2d_transpose:1,16,64,64,3,4,stride=2,pad=1")
    plain = [sketch for sketch in generate_sketches(dag, target) if sketch.name == "tile(conv2d_transpose_phases)"]
    assert plain
    for sketch in plain:
        [lane] = [
            item
            for item in sketch.structure([0] * len(sketch.holes)).stage("conv2d_transpose_phases").iterators
            if item.annotation == "vectorize"
        ]
        assert lane.name.startswith("qx")


@on_four_targets
def test_row_sums_run_in_lanes_and_column_sums_along_the_output(target: Target) -> None:
    x, k = placeholder((64, 96), name="X"), reduce_axis(96, "k")
    rows = ComputeDAG.from_outputs(compute((64,), lambda i: reduce_sum(x[i, k], k), name="rows"))
    m = reduce_axis(64, "m")
    columns = ComputeDAG.from_outputs(compute((96,), lambda j: reduce_sum(x[m, j], m), name="columns"))
    for dag, kind in ((rows, "reduction"), (columns, "spatial")):
        sketch = generate_sketches(dag, target)[-1]
        assert sketch.structure([0] * len(sketch.holes)).stages[-1].iterators[-1].kind == kind


@on_four_targets
def test_batch_norm_is_inlined_into_the_consumer_of_the_convolution(target: Target) -> None:
    for sketch in generate_sketches(conv_bn_relu(), target):
        assert {step.stage for step in sketch.steps if isinstance(step, ComputeInline)} == {"scaled", "norm"}


# By lanes and registers, the largest tiles of one to four vectors a row, and what else is known to be good on AVX-512.
LARGEST_TILES = {
    (4, 16): {(14, 4), (6, 8), (3, 12), (2, 16)},
    (8, 16): {(14, 8), (6, 16), (4, 24), (3, 32)},
    (16, 32): {(28, 16), (14, 32), (8, 48), (6, 64), (12, 32)},
    (4, 32): {(28, 4), (14, 8), (8, 12), (6, 16)},
}


@on_four_targets
def test_register_tiles_fit_the_registers(target: Target) -> None:
    lanes, registers = target.lanes("float32"), target.vector_registers
    tiles, largest = register_tiles((512, 512), 1, lanes, FLOAT32, target), LARGEST_TILES[lanes, registers]
    assert set(tiles) >= largest
    for rows, width in tiles:
        vectors = width // lanes
        assert width % lanes == 0
        assert rows <= max(most for most, length in largest if length == width)
        assert rows * vectors + min(rows, vectors) + 1 <= registers
    maximum = register_tiles((512, 512), 1, lanes, FORMULA, target)  # of a formula all vectors of a row are at hand
    assert all(rows * (width // lanes) + width // lanes + 1 <= registers for rows, width in maximum)


@given(st.integers(1, 300), st.sampled_from([4, 8, 16]))
def test_vector_lengths_cover_short_axes(extent: int, lanes: int) -> None:
    lengths = vector_lengths(extent, lanes)
    assert lengths == sorted(set(lengths))
    assert all(1 <= length <= extent for length in lengths)
    assert any(length == extent or length % lanes == 0 for length in lengths)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.sampled_from(list(four_targets().values())))
def test_register_tiles_stay_within_the_extents(extents: list[int], target: Target) -> None:
    tiles = register_tiles(tuple(extents), len(extents) - 1, target.lanes("float32"), FLOAT32, target)
    assert tiles
    assert len(tiles) < 1500
    assert len(set(tiles)) == len(tiles)
    assert all(1 <= size <= extent for tile in tiles for size, extent in zip(tile, extents, strict=True))
    assert all(sum(size > 1 for size in tile[:-1]) <= 2 for tile in tiles)


@given(st.integers(1, 5000))
def test_tile_tables_are_bounded_and_contain_the_whole_axis(extent: int) -> None:
    assert (extent,) in reduction_lengths(extent)
    assert all(length <= 512 or length == extent for (length,) in reduction_lengths(extent))
    pairs = tile_pairs(extent, 1)
    assert (1, 1) in pairs
    assert len(pairs) < 1000
    assert all(inner * outer <= extent for inner, outer in pairs)


def test_vector_choices_offer_scalars_only_where_elements_are_apart() -> None:
    assert vector_choices(512, 16, contiguous=True, vectors=(1, 2, 4)) == (8, 16, 32, 64)
    assert vector_choices(512, 16, contiguous=False, vectors=(1, 2, 4)) == (1, 8, 16, 32, 64)
    assert vector_choices(5, 16, contiguous=True, vectors=(1, 2, 4)) == (5,)


@on_four_targets
@pytest.mark.parametrize(
    ("spec", "kind", "options"),
    [
        ("matmul:512,512,512", "unroll", SpaceOptions(unroll_limits=(8, 32))),
        ("matmul:512,512,512", "tile", SpaceOptions(round_sizes=(1, 5))),
        ("matmul:512,512,512", "tile", SpaceOptions(reduction_sizes=(1, 3))),
        ("matmul:512,512,512", "tile", SpaceOptions(near_sizes=3.0)),
        ("matmul:12,512,512", "tile", SpaceOptions(small_extent=600)),
        ("matmul:512,512,512", "register_tile", SpaceOptions(register_sizes=(1, 9))),
        ("matmul:512,512,512", "register_tile", SpaceOptions(register_vectors=1)),
        ("matmul:512,512,512", "register_tile", SpaceOptions(spare_registers=5)),
        ("matmul:512,512,512", "register_tile", SpaceOptions(fewest_accumulators=12)),
        ("conv2d:1,32,28,28,32,3,pad=1", "register_tile", SpaceOptions(most_long_axes=1)),
        ("relu:64,512", "vectorize", SpaceOptions(vectors=(3,))),
        ("reduce_sum:512,512,axis=0", "vectorize", SpaceOptions(wide_vectors=(2, 3))),
        ("matmul:512,512,512", "register_tile", SpaceOptions(panel_vectors=(1,))),
        ("matmul:512,500,512", "register_tile", SpaceOptions(panel_vectors=(5, 1), most_filling=0.0)),
        ("matmul:512,512,512", "location", SpaceOptions(location_structures=2)),
        ("conv2d:1,32,28,28,32,3,pad=1", "location", SpaceOptions(location_levels=1)),
        ("relu:256,512", "parallel", SpaceOptions(serial_operations=1 << 20)),
        ("add:4,8,16,64", "parallel", SpaceOptions(most_parallel_loops=1)),
        ("matmul:2,2,4096", "rfactor", SpaceOptions(rfactor_chunks=(8,))),
        ("matmul:2,4,4096", "rfactor", SpaceOptions(rfactor_elements=1)),
    ],
)
def test_every_constant_of_the_rules_changes_what_is_offered(
    spec: str, kind: str, options: SpaceOptions, target: Target
) -> None:
    def offered(space: SpaceOptions) -> list[object]:
        sketches = generate_sketches(dag_of(spec), target, options=space)
        return [hole for sketch in sketches for hole in sketch.holes if hole.kind == kind]

    assert offered(options) != offered(SpaceOptions())


@on_four_targets
def test_levels_of_fusion_and_blocks_of_rows_follow_their_constants(target: Target) -> None:
    names = [sketch.name for sketch in generate_sketches(conv_bn_relu(), target, options=SpaceOptions(fusion_levels=(2,)))]
    assert any("level 2" in name for name in names)
    assert not any("level 1" in name for name in names)
    for sketch in generate_sketches(attention_scores(), target, options=SpaceOptions(largest_block=4)):
        assert all(max(hole.choices) <= (4,) for hole in sketch.holes if hole.name.startswith("rows "))


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({"unroll_limits": ()}, "'space.unroll_limits' must be 0 or more"),
        ({"vectors": (0, 1)}, "'space.vectors' must be 1 or more, not 0, 1"),
        ({"round_sizes": (8, 1)}, "'space.round_sizes' must ascend, and 8, 1 does not"),
        ({"register_sizes": (2, 4)}, "'space.register_sizes' must contain 1"),
        ({"fusion_levels": (1, 3)}, "'space.fusion_levels' can name 1 and 2, not 1, 3"),
        ({"cache_levels": 3}, "'space.cache_levels' can name 1 and 2, not 3"),
    ],
)
def test_constants_of_the_rules_that_make_no_sense_are_refused(constants: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        SpaceOptions(**constants)


def spaces_of(spec: str, rules: str, target: Target) -> list[Space]:
    return [Space(s, target, SearchOptions()) for s in generate_sketches(dag_of(spec), target, rules)]


@on_four_targets
@pytest.mark.parametrize("rules", ["default", "ansor"])
@pytest.mark.parametrize("spec", WORKLOADS)
def test_random_programs_replay_and_compute_the_whole_output(spec: str, rules: str, target: Target) -> None:
    """Steps of every sampled program are legal, survive JSON, and the nest stores each output element in its bounds."""
    dag = dag_of(spec)
    for number, space in enumerate(spaces_of(spec, rules, target)):
        rows = sample(space, 2, np.random.default_rng(number))
        assert len(rows)
        for row in rows:
            steps = space.sketch.concretise(row)
            assert tuple(step_from_json(step.to_json()) for step in steps) == steps
            state = State.initial(dag).replay(steps)
            for tensor in dag.outputs:
                stores = [loops for loops, s in statements(scheduled_nest(state)) if s.stage == tensor.name]
                assert len(stores) == 1
                iterations = math.prod(loop.extent for loop in stores[0] if loop.kind == "spatial")
                assert iterations >= tensor.size
                assert iterations <= 2 * tensor.size + 64


@on_four_targets
@settings(max_examples=10, deadline=None)
@given(spec=st.sampled_from(WORKLOADS), seed=st.integers(0, 2**31))
def test_a_structure_is_the_concrete_state_without_masks(target: Target, spec: str, seed: int) -> None:
    """The template of a row has the loops of the concrete program, but for fused parallel ones."""
    rng = np.random.default_rng(seed)
    spaces = spaces_of(spec, "default", target)
    space = spaces[int(rng.integers(len(spaces)))]
    for row in sample(space, 2, rng):
        template = space.sketch.structure(row)
        steps = space.sketch.concretise(row)
        state = State.initial(space.sketch.dag).replay(steps)
        assert [s.name for s in template.stages] == [s.name for s in state.stages]
        for ours, theirs in zip(template.stages, state.stages, strict=True):
            parts = [part for item in theirs.iterators for part in (item.name.split("@")[:-1] or [item.name])]
            assert [item.name for item in ours.iterators] == parts


@on_four_targets
def test_a_single_core_has_no_parallel_loops(target: Target) -> None:
    for sketch in generate_sketches(dag_of("matmul:64,64,64"), target.with_cores(1)):
        assert not any(hole.kind == "parallel" for hole in sketch.holes)


@on_four_targets
def test_large_stages_run_in_parallel(target: Target) -> None:
    for space in spaces_of("conv2d:1,64,56,56,64,3,pad=1,bias=1,relu=1", "default", target):
        for row in sample(space, 4, np.random.default_rng(0)):
            steps = space.sketch.concretise(row)
            assert any(isinstance(step, Parallel) and step.stage == "relu" for step in steps)


class KeepEverything(Rule):
    """A user's rule: nothing is transformed."""

    name = "keep_everything"

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        return "apply_and_stop"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        return [(sketch, number - 1)]


def test_a_user_rule_goes_ahead_of_the_built_in_ones() -> None:
    sketches: list[Sketch] = generate_sketches(dag_of("matmul:64,64,64"), TARGET, [KeepEverything(), "skip"])
    assert [sketch.name for sketch in sketches] == ["untransformed"]


@pytest.mark.parametrize("rules", ["nonsense", ["always_inline", "nonsense"], ["multi_level_tiling", "always_inline"]])
def test_bad_rules_are_named(rules: str | list[str]) -> None:
    with pytest.raises(OptionError, match="rule"):
        generate_sketches(dag_of("relu:8,8"), TARGET, rules)


def attention_scores() -> ComputeDAG:
    query, key = placeholder((1, 3, 40, 16), name="query"), placeholder((1, 3, 16, 48), name="key")
    return ComputeDAG.from_outputs(softmax(multiply(matmul(query, key), 0.25)))


@on_four_targets
def test_a_product_and_its_softmax_are_computed_in_blocks_of_rows(target: Target) -> None:
    sketches = generate_sketches(attention_scores(), target)
    plain = [sketch for sketch in sketches if "rows(" not in sketch.name]
    blocked = next(sketch for sketch in sketches if sketch.name.startswith("rows(softmax) tile("))
    assert plain
    block = next(hole for hole in blocked.holes if hole.name == "rows softmax.i2")
    product = next(hole.stage for hole in blocked.holes if hole.kind == "register_tile")
    space = Space(blocked, target, SearchOptions())
    rows = sample(space, 30, np.random.default_rng(0))
    assert len(rows) == 30
    for row in rows:
        (length,) = block.choices[row[blocked.holes.index(block)]]
        bounds = infer_bounds(State.initial(blocked.dag).replay(blocked.concretise(row)))
        assert bounds[product].region == (1, 1, length, 48)
        assert all(found.enclosing for name, found in bounds.items() if name != "softmax")
    assert not any(hole.name == f"tile {product}.b1" for hole in blocked.holes)


@on_four_targets
@pytest.mark.parametrize(
    "spec", ["matmul:64,64,64", "softmax:8,64", "layer_norm:8,64", "conv2d:1,8,14,14,16,3,pad=1,bias=1,relu=1"]
)
def test_row_blocks_are_for_products_behind_reductions(spec: str, target: Target) -> None:
    assert not any("rows(" in sketch.name for sketch in generate_sketches(dag_of(spec), target))
