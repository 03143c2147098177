"""Batched features equal the slow oracle program by program, and both equal what enumerating addresses finds."""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, Columns, feature_group, feature_names
from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.lower.affine import Affine, Number
from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.nest import Statement, scheduled_nest, statements
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import ComputeAt, ComputeInline, Fuse, Parallel, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from ansor_py.te.expr import Binary, Const, Expr, Var, call, cast, equal, logical_not, reads_of, select
from ansor_py.te.ops.registry import from_spec
from ansor_py.te.tensor import Tensor, compute, placeholder, reduce_axis, reduce_max, reduce_sum
from feature_oracle import oracle_features
from sketch_examples import EXAMPLES, is_legal, legal_population, matmul_dag, random_population
from targets import structure_targets

# Small caches, so that the tiny programs below do not fit.
CACHES = "cores=2 l1=2KiB l2=8KiB"
on_four_targets = pytest.mark.parametrize("target", structure_targets(CACHES))
# For what is the same on all of them.
TARGET = Target.parse(f"x86-64 cpu=haswell {CACHES}")
FEATURE_NAMES = feature_names()
SKETCHES = {name: make() for name, make in EXAMPLES.items()}


@st.composite
def populations(draw: st.DrawFn) -> Population:
    """A few programs of one of the example sketches."""
    sketch = SKETCHES[draw(st.sampled_from(sorted(SKETCHES)))]
    gene_rows = st.tuples(*(st.integers(0, int(size) - 1) for size in sketch.sizes))
    rows = draw(st.lists(gene_rows.filter(lambda row: is_legal(sketch, row)), min_size=1, max_size=12))
    return Population(sketch, np.array(rows, dtype=np.int32))


def concrete_state(sketch: Sketch, row: Sequence[int]) -> State:
    return State.initial(sketch.dag).replay(sketch.concretise(row))


def assert_rows_equal(rows: np.ndarray, expected: list[dict[str, float]]) -> None:
    assert len(rows) == len(expected)
    for row, fields in zip(rows, expected, strict=True):
        assert set(fields) == set(FEATURE_NAMES)
        wanted = np.array([fields[name] for name in FEATURE_NAMES])
        wrong = np.flatnonzero(~np.isclose(row, wanted, rtol=2e-6, atol=2e-6))
        assert not len(wrong), {FEATURE_NAMES[c]: (float(row[c]), float(wanted[c])) for c in wrong}


def test_the_oracle_shares_no_function_with_the_batched_path() -> None:
    def imported(path: Path) -> set[tuple[str, str]]:
        nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
        own = (node for node in nodes if (node.module or "").startswith("ansor_py"))
        return {(node.module or "", alias.name) for node in own for alias in node.names}

    tests = Path(__file__).parent
    ours = set().union(*(imported(tests / name) for name in ("feature_oracle.py", "feature_oracle_uses.py")))
    theirs = set().union(*(imported(path) for path in (tests.parent / "cost_model").glob("*.py")))
    assert ("ansor_py.lower.nest", "scheduled_nest") in ours
    assert ("ansor_py.lower.bounds", "bounded") in theirs
    assert not {module for module, _ in ours if module.startswith("ansor_py.cost_model")}
    assert not [name for _, name in ours & theirs if name[0].islower()]


@on_four_targets
@settings(max_examples=25, deadline=None)
@given(population=populations())
def test_batched_features_equal_the_oracle(target: Target, population: Population) -> None:
    batch = extract_features(population, target)
    assert batch.rows.dtype == np.float32
    for program, row in enumerate(population.genes):
        expected = oracle_features(concrete_state(population.sketch, row.tolist()), target)
        assert_rows_equal(batch.rows[batch.offsets[program] : batch.offsets[program + 1]], expected)


DERIVED = (
    "matmul:97,61,53",
    "batch_matmul:3,20,16,24",
    "dense:16,40,512,bias=1",
    "conv2d:1,8,15,15,19,3,pad=1,bias=1,relu=1",
    "conv2d:1,8,14,14,16,3,stride=2,pad=1,groups=4",
    "depthwise_conv2d:1,20,14,14,3,pad=1",
    "conv2d_transpose:1,4,5,6,6,3,stride=2,pad=1,output_pad=1",
    "softmax:1,1024",
    "softmax:64,100",
    "layer_norm:16,96",
    "max_pool2d:1,8,18,18,3,stride=2,pad=1",
    "concat:1,6,5,5,count=2,axis=1",
    "reshape:6,10,4,rows=8",
)


@on_four_targets
@pytest.mark.parametrize("spec", DERIVED)
def test_derived_sketches_agree_with_the_oracle(spec: str, target: Target) -> None:
    rng = np.random.default_rng(0)
    for sketch in generate_sketches(ComputeDAG.from_outputs(from_spec(spec)), target):
        space = Space(sketch, target, SearchOptions())
        space.warm_up()
        population = Population(sketch, sample(space, 3, rng))
        assert len(population)
        batch = extract_features(population, target)
        for program, row in enumerate(population.genes):
            expected = oracle_features(concrete_state(sketch, row.tolist()), target)
            assert_rows_equal(batch.rows[batch.offsets[program] : batch.offsets[program + 1]], expected)


@settings(max_examples=60, deadline=None)
@given(populations())
def test_bounds_of_a_template_equal_those_of_the_concrete_programs(population: Population) -> None:
    sketch = population.sketch
    for template, members in population.groups():
        batched = infer_bounds(template, sketch.holes, population.genes[members])
        for position, program in enumerate(members):
            concrete = infer_bounds(concrete_state(sketch, population.genes[program].tolist()))
            assert list(batched) == list(concrete)
            for name, one in concrete.items():
                many = batched[name]
                loops = [(loop.variable, pick(loop.extent, position), loop.kind) for loop in many.loops]
                assert loops == [(loop.variable, loop.extent, loop.kind) for loop in one.loops]
                assert [loop.variable for loop in many.enclosing] == [loop.variable for loop in one.enclosing]
                assert tuple(pick(size, position) for size in many.region) == one.region
                loop_extents = {loop.variable: int(loop.extent) for loop in (*one.enclosing, *one.loops)}  # type: ignore[arg-type]
                last = {variable: extent - 1 for variable, extent in loop_extents.items()}
                for axis, value in one.values.items():
                    assert evaluate(many.values[axis], last, position) == evaluate(value, last, 0)


def pick(value: Number, program: int) -> int:
    return value if isinstance(value, int) else int(value[program])


def evaluate(value: Affine, variables: dict[str, int], program: int) -> int:
    """The value of an index for one program and one iteration."""
    total = pick(value.constant, program)
    for term, coefficient in value.terms:
        if isinstance(term, str):
            result = variables[term]
        else:
            inner, divisor = evaluate(term.value, variables, program), pick(term.divisor, program)
            clamped = max(0, min(inner, divisor))
            result = clamped if term.kind == "clamp" else inner // divisor if term.kind == "floordiv" else inner % divisor
        total += pick(coefficient, program) * result
    return total


def test_a_population_has_the_same_rows_in_any_order_and_any_company() -> None:
    rng = np.random.default_rng(3)
    for sketch in SKETCHES.values():
        population = legal_population(sketch, 40, rng)
        whole = extract_features(population, TARGET)
        order = rng.permutation(len(population))
        shuffled = extract_features(Population(sketch, population.genes[order]), TARGET)
        assert np.array_equal(shuffled.rows, whole.select(order).rows)
        for program in range(len(population)):
            alone = extract_features(Population(sketch, population.genes[program : program + 1]), TARGET)
            assert np.array_equal(alone.rows, whole.select([program]).rows)


def test_more_programs_than_a_chunk_holds() -> None:
    sketch = SKETCHES["matmul cached"]
    population = random_population(sketch, 1300, np.random.default_rng(0))
    whole = extract_features(population, TARGET)
    chosen = np.array([0, 511, 512, 1023, 1024, 1299])
    few = extract_features(Population(sketch, population.genes[chosen]), TARGET)
    assert np.array_equal(whole.select(chosen).rows, few.rows)


def test_a_group_of_ones_own_is_appended() -> None:
    sketch = SKETCHES["matmul tiled"]
    population = random_population(sketch, 5, np.random.default_rng(0))
    before = extract_features(population, TARGET)

    @feature_group("mine", ["half_iterations"])
    def mine(statement: StatementArrays, target: Target, out: Columns) -> None:
        out[0] = statement.inner[0] / 2

    try:
        after = extract_features(population, TARGET)
        assert feature_names() == (*FEATURE_NAMES, "half_iterations")
    finally:
        FEATURE_GROUPS.popitem()
    assert np.array_equal(after.rows[:, :-1], before.rows)
    iterations = 2.0 ** before.rows[:, FEATURE_NAMES.index("iterations")] - 1
    assert 2.0 ** after.rows[:, -1] - 1 == pytest.approx(iterations / 2, rel=1e-4)


def features_of(outputs: Tensor, target: Target, steps: Sequence[Step] = ()) -> list[dict[str, float]]:
    """Unscaled features by name, one dict a statement; the oracle agrees."""
    dag = ComputeDAG.from_outputs(outputs)
    sketch = Sketch("concrete", dag, tuple(steps), ())
    batch = extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target)
    assert_rows_equal(batch.rows, oracle_features(State.initial(dag).replay(steps), target))
    return [dict(zip(FEATURE_NAMES, 2.0 ** row.astype(np.float64) - 1, strict=True)) for row in batch.rows]


def buffer_fields(row: dict[str, float], unique_bytes: float) -> dict[str, float]:
    """The fields of the buffer with a given footprint."""
    for number in range(5):
        if math.isclose(row[f"buffer{number}.unique_bytes"], unique_bytes, rel_tol=1e-4):
            prefix = f"buffer{number}."
            return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
    raise AssertionError(f"no buffer touches {unique_bytes} bytes")


@on_four_targets
def test_reference_values_of_ansors_unit_test(target: Target) -> None:
    order = ("i.0", "j.0", "k", "i.1", "j.1")
    steps = (Split("C", "i", (8,)), Split("C", "j", (16,)), Reorder("C", order))
    (row,) = features_of(matmul_dag(512, 512, 512).outputs[0], target, steps)
    assert row["float_mad"] == pytest.approx(512**3, rel=1e-4)
    assert row["float_addsub"] == row["float_mul"] == 0
    stored = next(n for n in range(5) if row[f"buffer{n}.read_write"] == 1)
    fields = {name: row[f"buffer{stored}.{name}"] for name in ("bytes", "unique_bytes", "loop_reuse", "stride")}
    assert fields == pytest.approx({"bytes": 4 * 512**3, "unique_bytes": 4 * 512**2, "loop_reuse": 1, "stride": 1}, rel=1e-4)
    assert row[f"buffer{stored}.reuse_distance_iterations"] == pytest.approx(8 * 16, rel=1e-4)
    assert row[f"buffer{stored}.reuse_distance_bytes"] == pytest.approx((8 * 16 + 8 + 16) * 4, rel=1e-4)
    assert row[f"buffer{stored}.reuse_count"] == pytest.approx(512, rel=1e-4)


@on_four_targets
def test_lane_utilisation_and_register_tile(target: Target) -> None:
    order, lanes = ("i.0", "j.0", "k", "i.1", "j.1"), target.lanes("float32")
    tile = RegisterTile("C", ("i.1", "j.1"), "float32 outer product")
    steps = (Split("C", "i", (6,)), Split("C", "j", (lanes * 3 // 2,)), Reorder("C", order), tile, Vectorize("C", "j.1"))
    (row,) = features_of(matmul_dag(12, 48, 5).outputs[0], target, steps)
    assert row["lane_utilisation"] == pytest.approx(3 / 4, rel=1e-5)
    assert row["tile_vectors"] == pytest.approx(6 * 2, rel=1e-5)
    assert row["tile_register_pressure"] == pytest.approx(12 / target.vector_registers, rel=1e-5)
    assert row["redundancy"] == pytest.approx(1, rel=1e-5)


@on_four_targets
def test_a_sum_in_lanes_has_a_tile_of_vectors_and_does_not_wait_for_each(target: Target) -> None:
    x, k = placeholder((2, 4096), name="x"), reduce_axis(4096, name="k")
    total = compute((2,), lambda i: reduce_sum(x[i, k], k), name="S")
    lanes = target.lanes("float32")
    serial, one, eight = (
        features_of(total, target, steps)[0]
        for steps in (
            (),
            (Split("S", "k", (lanes,)), Vectorize("S", "k.1")),
            (Split("S", "k", (8 * lanes,)), Vectorize("S", "k.1")),
        )
    )
    assert one["tile_vectors"] == pytest.approx(1, rel=1e-5)
    assert eight["tile_vectors"] == pytest.approx(8, rel=1e-5)
    assert eight["accumulation_run"] == pytest.approx(4096 / (8 * lanes), rel=1e-5)
    # One vector of accumulators waits eight times as long as eight, one number as often as a vector has lanes.
    assert serial["compute_cycles"] == pytest.approx(lanes * one["compute_cycles"], rel=1e-4)
    assert one["compute_cycles"] == pytest.approx(8 * eight["compute_cycles"], rel=1e-4)


@on_four_targets
def test_redundancy_counts_padded_iterations(target: Target) -> None:
    (row,) = features_of(matmul_dag(10, 10, 4).outputs[0], target, (Split("C", "i", (7,)), Split("C", "j", (4,))))
    assert row["redundancy"] == pytest.approx((14 / 10) * (12 / 10), rel=1e-5)


@on_four_targets
def test_parallel_chunks_are_balanced_over_the_cores(target: Target) -> None:
    steps = (Fuse("C", ("i", "j")), Parallel("C", "i@j@"))
    (row,) = features_of(matmul_dag(3, 3, 4).outputs[0], target, steps)
    assert row["parallel.loops"] == pytest.approx(2)
    assert row["parallel.product"] == pytest.approx(9, rel=1e-5)
    assert row["parallel.at_middle_spatial"] + row["parallel.at_inner_spatial"] == 1
    assert row["parallel_chunks_per_core"] == pytest.approx(4.5, rel=1e-5)
    assert row["parallel_imbalance"] == pytest.approx(10 / 9, rel=1e-5)


@on_four_targets
def test_a_producer_in_the_same_loop_is_serial_reuse(target: Target) -> None:
    x = placeholder((16, 8), name="x")
    power = compute((16, 8), lambda i, j: call("exp", x[i, j]), name="power")
    out = compute((16, 8), lambda i, j: power[i, j] * 2.0, name="out")
    producer, consumer = features_of(out, target, (ComputeAt("power", "out", "i"),))
    assert producer["float_math"] == pytest.approx(128, rel=1e-5)
    row_bytes = buffer_fields(consumer, 8 * 4)
    assert row_bytes["serial_reuse"] == 1
    assert row_bytes["reuse_distance_iterations"] == pytest.approx(8, rel=1e-5)
    assert row_bytes["reuse_distance_bytes"] == pytest.approx(3 * 8 * 4, rel=1e-5)
    assert producer["allocation_outer"] == pytest.approx(16, rel=1e-5)
    assert producer["allocation_inner"] == pytest.approx(8, rel=1e-5)
    assert consumer["allocated_bytes"] == 0


@on_four_targets
def test_every_kind_of_expression(target: Target) -> None:
    """Integers, booleans, casts, gathers, broadcast scalars, several reads of one tensor, no loop at all."""
    x = placeholder((12, 6), name="x")
    index = placeholder((12,), dtype="int64", name="index")
    scalar = placeholder((), name="scalar")

    def body(i: Expr, j: Expr) -> Expr:
        stencil = x[i, j] + x[i + 2, j] * x[i + 1, j + 1]
        gathered = x[index[i], j] - scalar[()]
        return select(logical_not(stencil < gathered), cast(index[i] * 3 + i * 2 + 1, "float32"), stencil / gathered)

    mixed = compute((8, 4), body, name="mixed")
    parity = compute((8, 4), lambda i, j: select(equal((i * 4 + j) % 3, 1), mixed[(i * 4 + j) // 4, j], 0.0), name="parity")
    k = reduce_axis(32, "k")
    total = compute((), lambda: reduce_max(parity[k // 4, k % 4], k), name="total")
    rows = features_of(total, target)
    assert len(rows) == 3
    assert rows[0]["int_mad"] == pytest.approx(32, rel=1e-5)
    assert rows[0]["bool_op"] == pytest.approx(32, rel=1e-5)
    assert rows[1]["int_cmp"] == pytest.approx(32, rel=1e-5)
    assert rows[2]["float_cmp"] == pytest.approx(32, rel=1e-5)
    features_of(total, target, (ComputeInline("parity"), Split("total", "k", (5,))))
    features_of(compute((), lambda: scalar[()] + 1.0, name="constant"), target)
    features_of(total, target, (ComputeAt("mixed", "parity", "i"), ComputeAt("parity", "total", "k")))


# --- enumeration ---------------------------------------------------------------------------------------------------


def evaluate_expr(expr: Expr, values: dict[str, int]) -> int:
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, Var):
        return values[expr.name]
    assert isinstance(expr, Binary)
    a, b = evaluate_expr(expr.left, values), evaluate_expr(expr.right, values)
    operations = {"add": a + b, "sub": a - b, "mul": a * b, "min": min(a, b), "max": max(a, b)}
    if expr.op in ("floordiv", "mod"):
        return a // b if expr.op == "floordiv" else a % b
    return operations[expr.op]


def enumerated(loops: Sequence[object], statement: Statement) -> dict[str, set[int]]:
    """All element addresses of every buffer, tail iterations included as the loops have them."""
    touched: dict[str, set[int]] = {}
    names = [loop.variable for loop in loops]  # type: ignore[attr-defined]
    ranges = [range(loop.extent) for loop in loops]  # type: ignore[attr-defined]
    accesses = [(statement.buffer, statement.indices)]
    accesses += [(read.tensor, read.indices) for read in reads_of(statement.value)]
    for values in itertools.product(*ranges):
        environment = dict(zip(names, values, strict=True))
        if any(evaluate_expr(value, environment) >= limit for value, limit in statement.guards):
            continue
        for tensor, indices in accesses:
            address = 0
            for size, index in zip(tensor.shape, indices, strict=True):
                address = address * size + evaluate_expr(index, environment)
            touched.setdefault(tensor.name, set()).add(address)
    return touched


def check_enumeration(outputs: Tensor, target: Target, steps: Sequence[Step] = ()) -> None:
    """Unique bytes and lines of every buffer (each with a footprint of its own) equal those of the enumerated addresses."""
    rows = features_of(outputs, target, steps)
    state = State.initial(ComputeDAG.from_outputs(outputs)).replay(steps)
    order = [stage.name for stage in state.stages]
    found = sorted(statements(scheduled_nest(state)), key=lambda item: order.index(item[1].stage))
    for row, (loops, statement) in zip(rows, found, strict=True):
        expected = sorted(
            (4 * len(addresses), len({4 * address // target.cache_line_bytes for address in addresses}))
            for addresses in enumerated(loops, statement).values()
        )
        numbers = range(len(expected))
        actual = sorted((row[f"buffer{n}.unique_bytes"], row[f"buffer{n}.unique_lines"]) for n in numbers)
        assert np.array(actual) == pytest.approx(np.array(expected, dtype=float), rel=1e-4)
        assert row["iterations"] == pytest.approx(math.prod(loop.extent for loop in loops), rel=1e-4)


@on_four_targets
@pytest.mark.parametrize("lengths", [(2, 16, 1), (3, 8, 2), (4, 32, 4)])
def test_enumeration_confirms_matmul(lengths: tuple[int, int, int], target: Target) -> None:
    order = ("i.0", "j.0", "k.0", "i.1", "k.1", "j.1")
    tiles = [Split("C", axis, (length,)) for axis, length in zip("ijk", lengths, strict=True)]
    check_enumeration(matmul_dag(12, 64, 32).outputs[0], target, (*tiles, Reorder("C", order)))
    check_enumeration(matmul_dag(12, 64, 32).outputs[0], target)


@on_four_targets
def test_enumeration_confirms_a_stencil_with_halo(target: Target) -> None:
    x = placeholder((10, 16), name="x")
    copy = compute((10, 16), lambda i, j: x[i, j] * 2.0, name="copy")
    blur = compute((8, 16), lambda i, j: copy[i, j] + copy[i + 1, j] + copy[i + 2, j], name="blur")
    check_enumeration(blur, target)
    steps = (Split("blur", "i", (4,)), ComputeAt("copy", "blur", "i.0"))
    producer, consumer = features_of(blur, target, steps)
    assert producer["allocated_bytes"] == pytest.approx(6 * 16 * 4, rel=1e-5)
    assert producer["iterations"] == pytest.approx(2 * 6 * 16, rel=1e-5)
    assert buffer_fields(consumer, 6 * 16 * 4)["serial_reuse"] == 1


@on_four_targets
def test_enumeration_confirms_strides_of_a_transposed_sum(target: Target) -> None:
    x = placeholder((6, 4, 16), name="x")
    k = reduce_axis(6, "k")
    check_enumeration(compute((16, 4), lambda i, j: reduce_sum(x[k, j, i], k), name="total"), target)


def test_the_definition_document_names_every_field() -> None:
    text = (Path(__file__).parent.parent / "docs" / "features.md").read_text()
    for name in FEATURE_NAMES:
        short = name.split(".")[-1].removeprefix("at_") if "." in name else name
        assert short in text or name.startswith("intensity_"), name


@on_four_targets
def test_what_is_computed_from_constants_alone_is_prepacked(target: Target) -> None:
    x = placeholder((16, 8), name="x")
    weight = placeholder((8, 4), name="weight", constant=True)
    packed = compute((8, 4), lambda i, j: weight[i, j] * 2.0, name="packed")
    again = compute((8, 4), lambda i, j: packed[i, j] + 1.0, name="again")
    k = reduce_axis(8, "k")
    out = compute((16, 4), lambda i, j: reduce_sum(x[i, k] * again[k, j], k), name="out")
    assert [row["prepacked"] for row in features_of(out, target)] == [1, 1, 0]
    assert [row["roofline_cycles"] > 0 for row in features_of(out, target)] == [False, False, True]
    assert [row["prepacked"] for row in features_of(out, target, (ComputeAt("again", "out", "i"),))] == [1, 0, 0]
    assert [row["prepacked"] for row in features_of(again, target, (ComputeAt("packed", "again", "i"),))] == [0, 0]
    assert [row["prepacked"] for row in features_of(out, target, (ComputeAt("packed", "again", "i"),))] == [1, 1, 0]


SUITE = (
    "gmm_512 gmm_1024 gmm_bert bmm c1d c2d_56 c2d_14 c2d_s2 c2d_1x1 c3d dep_112 dil grp t2d cap nrm softmax layernorm tbg "
    "conv_bn_relu matmul_softmax gmm_prime"
).split()


@on_four_targets
@pytest.mark.parametrize("name", [*SUITE, "attention_128"])
def test_sampled_programs_of_the_suite_agree_with_the_oracle(
    name: str, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    """A random program of every sketch of a small relative of each workload."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))
    import workloads

    assert set(SUITE) == set(workloads.SUITE)
    rng = np.random.default_rng(1)
    for sketch in generate_sketches(ComputeDAG.from_outputs(workloads.workload(name, scale=4).tensor()), target):
        space = Space(sketch, target, SearchOptions())
        space.warm_up()
        population = Population(sketch, sample(space, 1, rng))
        batch = extract_features(population, target)
        for program, row in enumerate(population.genes):
            expected = oracle_features(concrete_state(sketch, row.tolist()), target)
            assert_rows_equal(batch.rows[batch.offsets[program] : batch.offsets[program + 1]], expected)
