"""Values that are used several times are one node in an expression and wherever that goes, down to instructions.

Written out as a tree, most of what is made here would have more nodes than there are atoms.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.cost_model.operation_counts import OperationCounts, count_operations
from ansor_py.schedule.access import MAX_FORMULA_INSTRUCTIONS, formula_instructions
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.state import Inlined, State
from ansor_py.schedule.steps import ComputeInline
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from ansor_py.te.expr import INDEX, Axis, Const, Expr, Var, call, reads_of, shared, substitute, walk
from ansor_py.te.expression_graph import LONGEST_TEXT
from ansor_py.te.simplify import simplify
from ansor_py.te.tensor import Tensor
from graph_interpreter import Array
from repeated_steps import DEPTH, LONG, ROUNDS, SHAPE, assert_close, repeated

TARGET = Target.detect().with_cores(2)
X = te.placeholder(SHAPE, name="x")
ROW, COLUMN = Axis("i", SHAPE[0]), Axis("j", SHAPE[1])


def square(x: Expr) -> Expr:
    return x - x * x


def deep() -> Expr:
    """Built anew: no node of it is in another one."""
    return repeated(square, DEPTH, Var("x", "float32"))


# The expressions themselves.


def test_every_node_is_visited_once() -> None:
    assert len(list(walk(deep()))) == 2 * DEPTH + 1
    assert len(list(walk(substitute(deep(), {"x": X[ROW, COLUMN]})))) == 2 * DEPTH + 3  # the read and its indices
    assert len(list(walk(simplify(deep(), {})))) == 2 * DEPTH + 1
    assert len(reads_of(substitute(deep(), {"x": X[ROW, COLUMN]}))) == 1


def test_equality_and_hash_are_those_of_the_structure() -> None:
    assert deep() == deep()
    assert hash(deep()) == hash(deep())
    assert deep() != deep() + 1.0
    assert deep() != repeated(square, DEPTH, Var("y", "float32"))
    assert Const(0.0, "float32") != Const(-0.0, "float32")
    long = repeated(lambda x: x + 1.0, LONG, Var("x", "float32"))
    assert long == repeated(lambda x: x + 1.0, LONG, Var("x", "float32"))
    assert len({long, long + 1.0, deep(), deep()}) == 3


def test_equal_parts_become_one_node() -> None:
    twice = X[ROW, COLUMN] * X[ROW, COLUMN]
    assert [id(read) for read in reads_of(twice)] != [id(read) for read in reads_of(shared(twice))]
    assert len(reads_of(shared(twice))) == 1
    assert shared(twice) == twice
    apart = te.select(ROW < 3, deep(), 1.0) + te.select(ROW < 3, deep(), 2.0)
    assert len(list(walk(shared(apart)))) == 2 * DEPTH + 1 + 8
    signed = 1.0 / (Const(0.0, "float32") + Var("x", "float32") * 0.0) + Const(-0.0, "float32") / Var("x", "float32")
    assert {repr(node.value) for node in walk(shared(signed)) if isinstance(node, Const)} == {"1.0", "0.0", "-0.0"}


def test_the_text_of_a_large_expression_names_what_is_used_several_times() -> None:
    x = Var("x", "float32")
    assert str(square(square(x))) == "((x - (x * x)) - ((x - (x * x)) * (x - (x * x))))"
    assert len(str(deep())) < 30 * DEPTH
    assert str(deep()).startswith("%0 = (x - (x * x)); %1 = (%0 - (%0 * %0)); ")
    assert str(deep()) == str(shared(deep())) != str(repeated(square, DEPTH + 1, x))
    large = repeated(square, 5, x)  # two copies of it in one expression, and one used twice
    assert str(repeated(square, 4, te.exp(large) * te.exp(repeated(square, 5, x)))) == str(
        repeated(square, 4, te.exp(large) * te.exp(large))
    )
    assert max(map(len, str(repeated(lambda x: x + 1.0, LONG, x)).split("; "))) < LONGEST_TEXT + 100


@pytest.mark.parametrize("kind", ["one body", "stages"])
def test_deep_definitions_travel_to_other_processes(kind: str) -> None:
    plus_one = ROUNDS["plus one"]
    dag = ComputeDAG.from_outputs(plus_one.body(LONG) if kind == "one body" else plus_one.stages(LONG))
    copy = pickle.loads(pickle.dumps(dag))
    assert copy.workload_key == dag.workload_key
    body = copy.computed[0].op.body
    assert not {"_hash", "_variables"} & set(body.__dict__), "a hash value holds in one process only"
    assert body == copy.computed[0].op.body
    assert ComputeDAG.from_outputs(copy.outputs).workload_key == dag.workload_key


def test_data_of_index_type_is_computed_as_it_is_written() -> None:
    """As an index it would be a sum of all its terms, with coefficients beyond 64 bits."""
    data = te.placeholder((8,), dtype=INDEX, name="data")
    doubled = repeated(lambda x: x + x, DEPTH, data[ROW])
    assert len(list(walk(simplify(doubled, {"i": (0, 4)})))) == DEPTH + 2
    tested = repeated(lambda x: te.select(x < 7, x, x * 2), DEPTH, data[ROW])
    assert len(list(walk(simplify(tested, {"i": (0, 4)})))) < 4 * DEPTH
    nested = repeated(lambda x: x // 3 + x % 5, 60, ROW * 1)
    assert isinstance(simplify(nested, {"i": (0, 4)}), Expr)


# What is evaluated, and what is counted.


def test_a_value_is_computed_once() -> None:
    dag = ComputeDAG.from_outputs(te.compute((16,), lambda i: repeated(square, DEPTH, te.placeholder((16,), name="x")[i])))
    text = kernel_text(dag, default_steps(dag, TARGET, 1), TARGET, 1)
    vectors = 16 // TARGET.lanes("float32")
    assert [text.count(word) for word in (" fmul ", " fsub ", "load <")] == [DEPTH * vectors, DEPTH * vectors, vectors]
    assert dag.flops == 2 * DEPTH * 16


def test_operations_count_once_and_a_product_that_is_used_twice_is_no_part_of_a_sum() -> None:
    x = X[ROW, COLUMN]
    squared = x * X[ROW, COLUMN]
    assert count_operations(squared + x) == OperationCounts(float_mad=1)
    assert count_operations(x - squared * 2.0) == OperationCounts(float_mad=1, float_mul=1)
    assert count_operations((squared + 1.0) * (x * x + 2.0)) == OperationCounts(float_addsub=2, float_mul=2)
    assert count_operations(call("exp", x) / (call("exp", x) + 1.0)) == OperationCounts(
        float_math=1, float_addsub=1, float_divmod=1
    )
    assert count_operations(repeated(square, DEPTH, x)) == OperationCounts(float_mad=DEPTH)


def test_flops_of_a_select_are_those_of_its_dearer_branch() -> None:
    def formula(i: Expr) -> Expr:
        x = te.placeholder((8,), name="x")[i]
        cheap, dear = x + 1.0, call("exp", x * x) * 2.0 - x
        return te.select(i < 3, cheap, dear) + te.select(i < 5, dear * 3.0, cheap)

    assert ComputeDAG.from_outputs(te.compute((8,), formula)).flops == 8 * (3 + 1 + 1)


# How much becomes one formula.


@pytest.mark.parametrize("name", ["x - x * x", "silu", "leaky", "plus one"])
def test_formulas_are_bounded_and_short_chains_are_one(name: str) -> None:
    item = ROUNDS[name]
    for depth in (6, min(item.depth, 500)):
        dag = ComputeDAG.from_outputs(item.stages(depth))
        states = [State.initial(dag).replay(default_steps(dag, TARGET, 2))]
        states += [State.initial(dag).replay(sketch.concretise(row)) for sketch, row in first_programs(dag)]
        for state in states:
            formulas = [state.body(stage.name) for stage in state.stages if not isinstance(stage.location, Inlined)]
            assert max(map(formula_instructions, formulas)) <= MAX_FORMULA_INSTRUCTIONS
            if name == "leaky":  # a branch is never inlined
                assert len(formulas) == depth
            else:
                total = sum(map(formula_instructions, formulas))
                assert len(formulas) == 1 if depth == 6 else 1 < len(formulas) <= 2 * total / MAX_FORMULA_INSTRUCTIONS + 1


def first_programs(dag: ComputeDAG) -> list[tuple[Sketch, Array]]:
    found = []
    for sketch in generate_sketches(dag, TARGET):
        found += [(sketch, row) for row in sample(Space(sketch, TARGET, SearchOptions()), 1, np.random.default_rng(0))]
    return found


def neighbours(x: Tensor, size: int) -> Tensor:
    return te.compute((size,), lambda i: (x[i] + x[i + 1]) * 0.5, name="y")


def test_reads_at_shifted_places_do_not_multiply() -> None:
    """Each operation reads two neighbours: inlined completely, the formula would have a million reads."""
    size, rounds = 64, 20
    tensor: Tensor = te.placeholder((size + rounds,), name="x")
    data = np.random.default_rng(0).uniform(-1, 1, size + rounds).astype(np.float32)
    expected = data
    for left in reversed(range(rounds)):
        tensor = neighbours(tensor, size + left)
        expected = (expected[:-1] + expected[1:]) * np.float32(0.5)
    dag = ComputeDAG.from_outputs(tensor)
    steps = default_steps(dag, TARGET, 1)
    assert_close(LoadedKernel(build_kernel(dag, steps, TARGET, 1)).run([data])[0], expected)
    state = State.initial(dag).replay(steps)
    formulas = [state.body(stage.name) for stage in state.stages if not isinstance(stage.location, Inlined)]
    assert 1 < len(formulas) < rounds


def test_all_that_is_inlined_by_hand_is_shared() -> None:
    item = ROUNDS["x - x * x"]
    dag = ComputeDAG.from_outputs(item.stages(DEPTH))
    state = State.initial(dag).replay([ComputeInline(tensor.name) for tensor in dag.computed[:-1]])
    body = state.body(dag.outputs[0].name)
    assert len(list(walk(body))) == 2 * DEPTH + 3
    assert len(reads_of(body)) == 1
    assert [stage.name for stage in state.consumers(dag.computed[0].name)] == [dag.outputs[0].name]
    assert dag.outputs[0].name not in state.prepacked
    table = te.placeholder((7,), dtype=INDEX, name="table")
    order = te.compute((7,), lambda i: table[6 - i], name="order")
    moved = te.compute((7,), lambda i: te.placeholder((7,), name="z")[order[i]], name="moved")
    last = te.compute((7,), lambda i: moved[order[i]] + moved[order[i]], name="last")
    state = State.initial(ComputeDAG.from_outputs(last)).replay([ComputeInline("moved"), ComputeInline("order")])
    reads = reads_of(state.body("last"))
    assert [read.tensor.name for read in reads] == ["z", "table", "table"]
