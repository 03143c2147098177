"""Tasks as JSON and back: every operator, random expressions, the tasks of models; the tasks of a run and of a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ansor_py
from ansor_py import te
from ansor_py.codegen.kernel import kernel_text
from ansor_py.errors import RecordError
from ansor_py.graph import extract_tasks
from ansor_py.measure.records import read_records
from ansor_py.measure.tasks import load_tasks, read_tasks, task_from_json, task_of_record, task_to_json
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.dag_json import dag_from_json, dag_to_json
from ansor_py.schedule.state import State
from ansor_py.schedule.task import Task
from ansor_py.search.loop.run_directory import RunDirectory
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.sketch_rules.space_options import SpaceOptions
from ansor_py.target import Target
from ansor_py.te.expr import Const, Expr, postorder
from ansor_py.te.ops.registry import from_spec
from ansor_py.te.tensor import Compute
from network_blocks import lstm_cell, transformer_layer, unet_block
from random_schedules import random_state
from search_fakes import FakeMeasurer
from test_compiled_sketches import WORKLOADS

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
OPTIONS = TuningOptions(policy="counting", cost_model="even", batch=6, trials=14)


def again(dag: ComputeDAG) -> ComputeDAG:
    """The DAG by way of a text."""
    return dag_from_json(json.loads(json.dumps(dag_to_json(dag), allow_nan=False)))


def check_same(dag: ComputeDAG, made: ComputeDAG) -> None:
    """The same computation, with the same sharing of nodes and the same order of buffers."""
    assert made.workload_key == dag.workload_key
    assert [t.name for t in made.inputs] == [t.name for t in dag.inputs]
    assert [t.name for t in made.outputs] == [t.name for t in dag.outputs]
    assert made.flops == dag.flops
    for one, other in zip(dag.tensors, made.tensors, strict=True):
        assert (one.shape, one.dtype, one.is_constant) == (other.shape, other.dtype, other.is_constant)
        if isinstance(one.op, Compute):
            assert isinstance(other.op, Compute)
            assert one.op.axes == other.op.axes
            assert one.op.reduce_axes == other.op.reduce_axes
            assert len(list(postorder(one.op.body))) == len(list(postorder(other.op.body)))


@pytest.mark.parametrize("spec", WORKLOADS)
def test_programs_of_an_operator_made_again_have_the_same_code(spec: str) -> None:
    task = Task.from_spec(spec, TARGET)
    made = task_from_json(json.loads(json.dumps(task_to_json(task))))
    assert (made.name, made.weight, made.target) == (task.name, task.weight, task.target)
    check_same(task.dag, made.dag)
    rng = np.random.default_rng(3)
    sketch = generate_sketches(task.dag, TARGET)[-1]
    steps = [sketch.concretise(row) for row in sample(Space(sketch, TARGET, SearchOptions()), 1, rng)]
    steps.append(random_state(task.dag, rng).steps)
    for program in steps:
        assert str(State.initial(made.dag).replay(program)) == str(State.initial(task.dag).replay(program))
        assert kernel_text(made.dag, program, TARGET, 2) == kernel_text(task.dag, program, TARGET, 2)


@pytest.mark.parametrize("block", [transformer_layer, lstm_cell, unet_block])
def test_tasks_of_a_model_made_again_are_the_same(block) -> None:  # type: ignore[no-untyped-def]
    model, _ = block()
    tasks = extract_tasks(model.SerializeToString(), TARGET)
    assert any(tensor.is_constant for task in tasks for tensor in task.dag.inputs)
    for task in tasks:
        made = task_from_json(json.loads(json.dumps(task_to_json(task))))
        check_same(task.dag, made.dag)
        sketch, other = generate_sketches(task.dag, TARGET)[0], generate_sketches(made.dag, TARGET)[0]
        assert sketch.holes == other.holes
        row = np.zeros(len(sketch.holes), dtype=np.int32)
        assert sketch.concretise(row) == other.concretise(row)


@st.composite
def expressions(draw: st.DrawFn, leaves: list[Expr]) -> Expr:
    """A float32 expression in which values are shared and constants are of any kind."""
    values = list(leaves)
    numbers = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45])
    for _ in range(draw(st.integers(1, 12))):
        a, b = (values[draw(st.integers(0, len(values) - 1))] for _ in range(2))
        made = draw(
            st.sampled_from(
                [
                    a * b,
                    a - b,
                    te.maximum(a, b),
                    te.select(a < b, b, Const(draw(numbers), "float32")),
                    te.cast(te.cast(a, "int32") + Const(draw(st.integers(-(2**31), 2**31 - 1)), "int32"), "float32"),
                    te.exp(a),
                ]
            )
        )
        values.append(made)
    return values[-1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_expression_made_again_is_the_same(data: st.DataObject) -> None:
    x = te.placeholder((6, 5), name="x", constant=data.draw(st.booleans()))
    y = te.placeholder((5,), name="x")  # which gets a name of its own
    k = te.reduce_axis(5)
    first = te.compute((6, 5), lambda i, j: data.draw(expressions([x[i, j], y[j], x[5 - i, (j * 3 + 1) % 5]])), name="a")
    last = te.compute((6,), lambda i: te.reduce_max(first[i, k] * y[k], k), name="b")
    dag = ComputeDAG.from_outputs([last, first] if data.draw(st.booleans()) else last)
    made = again(dag)
    check_same(dag, made)
    assert str(made) == str(dag)
    assert again(made).workload_key == dag.workload_key
    bodies = [(a.op.body, b.op.body) for a, b in zip(dag.computed, made.computed, strict=True)]  # type: ignore[union-attr]
    for body, other in bodies:  # not equal, as NaN is not, but of the same nodes
        assert [node.label for node in postorder(body) if not isinstance(node, Const | te.expr.Read)] == [
            node.label for node in postorder(other) if not isinstance(node, Const | te.expr.Read)
        ]


def run_into(path: Path, tasks: list[Task], resume: bool = False, trials: int = 14) -> None:
    with RunDirectory.create(path, {"model": "several"}, resume) as run:
        options = replace(OPTIONS, trials=trials)
        tune_tasks(tasks, options, measurer=FakeMeasurer(), subscribers=[run.take], restored=run.restored)


def test_a_task_can_be_made_from_any_record_of_a_run(tmp_path: Path) -> None:
    model, _ = transformer_layer(hidden=32, heads=2, tokens=8)
    tasks = [*extract_tasks(model.SerializeToString(), TARGET)[:2], Task.from_spec("matmul:32,32,32", TARGET)]
    run_into(tmp_path, tasks)
    records, _ = read_records(tmp_path / "records.jsonl")
    assert {record.workload_key for record in records} == {task.workload_key for task in tasks}
    known = ansor_py.load_tasks(tmp_path)
    assert [(t.name, t.weight, t.target) for t in known.values()] == [(t.name, t.weight, t.target) for t in tasks]
    for record in records:
        task = ansor_py.task_of_record(record, tmp_path / "records.jsonl")
        assert (task.workload_key, task.target) == (record.workload_key, TARGET)
        State.initial(task.dag).replay(record.concrete_steps(task.dag))
    other = task_of_record(records[0].__class__.from_json({**records[0].to_json(), "threads": 1}), known)
    assert other.target == TARGET.with_cores(1)


def test_a_run_that_is_continued_keeps_its_earlier_tasks(tmp_path: Path) -> None:
    first, second = (Task.from_spec(f"matmul:{n},32,32", TARGET) for n in (32, 48))
    run_into(tmp_path, [first])
    run_into(tmp_path, [second], resume=True, trials=20)
    assert set(load_tasks(tmp_path)) == {first.workload_key, second.workload_key}
    (tmp_path / "tasks.jsonl").write_text("nonsense")
    run_into(tmp_path, [second], resume=True, trials=26)
    assert set(load_tasks(tmp_path)) == {second.workload_key}


def test_runs_of_older_versions_know_an_operator_or_say_so(tmp_path: Path) -> None:
    run_into(tmp_path, [Task.from_spec("matmul:32,32,32", TARGET)])
    records, _ = read_records(tmp_path / "records.jsonl")
    (tmp_path / "tasks.jsonl").unlink()
    with pytest.raises(RecordError, match=r"has no tasks\.jsonl.*--resume"):
        load_tasks(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": "matmul:32,32,32", "target": str(TARGET)}))
    assert task_of_record(records[0], tmp_path).workload_key == records[0].workload_key
    (tmp_path / "config.json").write_text(json.dumps({"model": "matmul:48,32,32", "target": str(TARGET)}))
    with pytest.raises(RecordError, match=f"there is no task {records[0].workload_key}"):
        task_of_record(records[0], tmp_path)


def test_a_file_of_tasks_that_is_wrong_is_one_clear_error(tmp_path: Path) -> None:
    whole = task_to_json(Task.from_spec("matmul:8,8,8", TARGET))
    dag = whole["dag"]

    def changed(**fields: object) -> dict[str, object]:
        return {**whole, **fields}

    computed = next(n for n, tensor in enumerate(dag["tensors"]) if "body" in tensor)
    wrong_dags = [
        {**dag, "outputs": [99]},
        {**dag, "tensors": dag["tensors"][1:]},
        {**dag, "tensors": [*dag["tensors"][:computed], {**dag["tensors"][computed], "body": [["magic", []]]}]},
        {**dag, "tensors": [*dag["tensors"][:computed], {**dag["tensors"][computed], "body": []}]},
        {**dag, "tensors": [*dag["tensors"][:computed], {**dag["tensors"][computed], "dtype": "int8"}]},
        {**dag, "inputs": "x"},
        [],
        None,
    ]
    cases = [changed(dag=wrong) for wrong in wrong_dags]
    cases += [changed(schema=7), changed(target="nonsense"), changed(weight="many"), changed(workload_key="0" * 32)]
    cases += [{"schema": 1}]
    path = tmp_path / "tasks.jsonl"
    for case in cases:
        path.write_text(json.dumps(whole) + "\n" + json.dumps(case) + "\n")
        with pytest.raises(RecordError, match="line 2: ") as raised:
            read_tasks(path)
        assert "--resume" in str(raised.value)
    path.write_text("[1, 2")
    with pytest.raises(RecordError, match="line 1: "):
        read_tasks(path)


def test_programs_by_another_algorithm_and_with_packed_constants_are_made_again() -> None:
    dag = ComputeDAG.from_outputs(from_spec("conv2d:1,16,14,14,16,3,pad=1"))
    assert any(tensor.is_constant for tensor in dag.inputs)
    made = again(dag)
    fast = SpaceOptions(math="fast")
    found = set()
    rng = np.random.default_rng(0)
    for sketch in generate_sketches(dag, TARGET, options=fast):
        for row in sample(Space(sketch, TARGET, SearchOptions()), 1, rng):
            steps = sketch.concretise(row)
            found |= {step.to_json()[0] for step in steps}
            assert kernel_text(made, steps, TARGET, 2) == kernel_text(dag, steps, TARGET, 2)
    assert {"use_algorithm", "transform_layout"} <= found
