"""Deep programs in every way in which they can be written, scheduled and evaluated, against NumPy.

Their depth is the guard: what takes twice as long for every level, or calls itself for every level, comes to no end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.cost_model import extract_features, feature_names
from ansor_py.lower.affine import from_expr
from ansor_py.lower.bounds import infer_bounds
from ansor_py.measure.cpu_simulation import simulate
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import ComputeInline
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from feature_oracle import oracle_features
from repeated_steps import LONG, ROUNDS, SHAPE, assert_close, repeated
from targets import executed_targets
from te_interpreter import evaluate

TARGET = Target.detect().with_cores(2)


@pytest.mark.parametrize("target", executed_targets("cores=2"))
@pytest.mark.parametrize("name", ROUNDS)
def test_one_deep_formula_is_right(name: str, target: Target) -> None:
    item = ROUNDS[name]
    dag = ComputeDAG.from_outputs(item.body(item.depth))
    kernel = build_kernel(dag, default_steps(dag, target, 2), target, 2)
    assert_close(LoadedKernel(kernel).run([item.data()])[0], item.expected())


@pytest.mark.parametrize("name", [name for name in ROUNDS if name != "plus one"])
def test_many_operations_in_a_row_are_right(name: str) -> None:
    item = ROUNDS[name]
    dag = merge_axes(ComputeDAG.from_outputs(item.stages(item.depth)))
    steps = default_steps(dag, TARGET, 2)
    data = item.data().reshape(dag.inputs[0].shape)
    assert_close(LoadedKernel(build_kernel(dag, steps, TARGET, 2)).run([data])[0].reshape(SHAPE), item.expected())
    assert 0 < simulate(dag, steps, TARGET, 2) < 1


@pytest.mark.parametrize("name", ["x - x * x", "silu", "leaky", "branches", "int64", "plus one"])
def test_the_interpreter_agrees(name: str) -> None:
    item = ROUNDS[name]
    depth = 12 if name == "branches" else item.depth  # only where a branch is taken may the interpreter look at it
    shallow = replace(item, depth=depth)
    assert_close(evaluate(shallow.body(depth), {"x": item.data()}), shallow.expected())
    assert_close(evaluate(shallow.stages(depth), {"x": item.data()}), shallow.expected())


@pytest.mark.parametrize("build", ["body", "stages"])
@pytest.mark.parametrize("name", ["x - x * x", "silu", "leaky", "int64 tested"])
def test_random_sketches_are_right_and_their_features_are_the_oracles(name: str, build: str) -> None:
    item = ROUNDS[name]
    many_statements = build == "stages" and name in ("leaky", "int64 tested")  # formulas with branches are not inlined
    depth = 20 if many_statements else item.depth
    item = replace(item, depth=depth)
    dag = ComputeDAG.from_outputs(item.body(depth) if build == "body" else item.stages(depth))
    for sketch in generate_sketches(dag, TARGET):
        population = Population(sketch, sample(Space(sketch, TARGET, SearchOptions()), 4, np.random.default_rng(0)))
        assert len(population)
        batch = extract_features(population, TARGET)
        for program, row in enumerate(population.genes[:2]):
            steps = sketch.concretise(row)
            fields = oracle_features(State.initial(dag).replay(steps), TARGET)
            wanted = np.array([[statement[feature] for feature in feature_names()] for statement in fields])
            rows = batch.rows[batch.offsets[program] : batch.offsets[program + 1]]
            np.testing.assert_allclose(rows, wanted, rtol=2e-6, atol=2e-6)
            assert_close(LoadedKernel(build_kernel(dag, steps, TARGET, 2)).run([item.data()])[0], item.expected())


def test_indices_of_indices_are_worked_out_once() -> None:
    """Each reshape takes the element number apart by `//` and `%`, which the next one puts together and takes apart."""
    rows, columns = 6, 8
    tensor = source = te.placeholder((rows, columns), name="x")
    for number in range(60):
        tensor = te.reshape(tensor, (columns, rows) if number % 2 == 0 else (rows, columns))
    dag = ComputeDAG.from_outputs(tensor)
    steps = [ComputeInline(stage.name) for stage in dag.computed[:-1]]
    data = np.arange(rows * columns, dtype=np.float32).reshape(source.shape)
    [got] = LoadedKernel(build_kernel(dag, steps, TARGET, 1)).run([data])
    np.testing.assert_array_equal(got, data)
    population = Population(Sketch("inlined", dag, tuple(steps), ()), np.zeros((1, 0), np.int32))
    assert len(extract_features(population, TARGET).rows) == 1
    far = te.compute((4,), lambda i: te.placeholder((4 + LONG,), name="x")[repeated(lambda index: index + 1, LONG, i)])
    dag = ComputeDAG.from_outputs(far)
    data = np.arange(4 + LONG, dtype=np.float32)
    [got] = LoadedKernel(build_kernel(dag, default_steps(dag, TARGET, 1), TARGET, 1)).run([data])
    np.testing.assert_array_equal(got, data[LONG:])
    bounds = infer_bounds(State.initial(dag))
    [read] = bounds[dag.outputs[0].name].reads
    value = from_expr(read.indices[0], bounds[dag.outputs[0].name].values)
    assert value is not None
    assert value.constant == LONG
