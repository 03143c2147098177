"""A single task as a compiled model: its kernel's results, several outputs, records, and loading in a new process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ansor_py
from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.errors import RecordError, TargetError
from ansor_py.graph import compile_task
from ansor_py.measure import Record
from ansor_py.measure.result import MeasureResult
from ansor_py.schedule.steps import CacheRead, Reorder, Split, Step, TransformLayout, Vectorize
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target

TARGET = Target.detect().with_cores(1)
LOAD = """
import sys
import numpy as np
import ansor_py
feed = dict(np.load(sys.argv[2]))
np.savez(sys.argv[3], **ansor_py.load(sys.argv[1]).run(feed))
assert not {"onnx", "ray", "lightgbm"} & set(sys.modules)
"""


def random_inputs(task: Task) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {tensor.name: rng.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in task.dag.inputs}


def run_kernel(task: Task, feed: dict[str, Any]) -> dict[str, Any]:
    """The outputs of the default schedule's kernel without a model around it."""
    kernel = build_kernel(task.dag, default_steps(task.dag, task.target, 1), task.target, 1)
    outputs = LoadedKernel(kernel).run([feed[tensor.name] for tensor in task.dag.inputs])
    return dict(zip((tensor.name for tensor in task.dag.outputs), outputs, strict=True))


def test_an_operator_runs_from_its_run_directory_in_a_new_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    cheap = ["--cost-model", "random", "--policy", "random", "--runner", "inline", "--threads", "1", "--trials", "3"]
    assert main(["--op", "conv2d:1,4,9,9,8,3,pad=1", "--out", str(run), *cheap]) == 0
    task = Task.from_spec("conv2d:1,4,9,9,8,3,pad=1", TARGET)
    feed = random_inputs(task)
    np.savez(tmp_path / "feed.npz", **feed)
    files = [str(run / "model.ansor"), str(tmp_path / "feed.npz"), str(tmp_path / "result.npz")]
    subprocess.run([sys.executable, "-c", LOAD, *files], check=True, cwd=tmp_path)
    expected, found = run_kernel(task, feed), np.load(tmp_path / "result.npz")
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    assert ansor_py.load(run / "model.ansor").benchmark(repeats=2).median > 0


def test_every_output_and_every_constant_has_a_name() -> None:
    x, weight = te.placeholder((5, 7), name="x"), te.placeholder((7, 3), name="weight", constant=True)
    product = te.matmul(x, weight, name="product")
    task = Task.from_compute([product, te.relu(product, name="rectified")], TARGET)
    compiled, feed = compile_task(task, workers=0), random_inputs(task)
    assert [port.name for port in compiled.inputs] == ["x", "weight"]
    outputs = compiled.run(feed)
    np.testing.assert_allclose(outputs["product"], feed["x"] @ feed["weight"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs["rectified"], np.maximum(outputs["product"], 0))
    assert list(compiled.plan.schedules.values()) == ["default"]


def test_what_is_prepacked_from_constants_follows_them() -> None:
    """A packed weight is an input of every run."""
    x, weight = te.placeholder((6, 7), name="x"), te.placeholder((7, 19), name="weight", constant=True)
    task = Task.from_compute(te.matmul(x, weight, name="product"), TARGET)
    pack: tuple[Step, ...] = (
        CacheRead("weight", ("product",)),
        TransformLayout("weight.cache", (("i1", 16),), ("i1.outer", "i0", "i1.inner")),
        Split("product", "j", (16,)),
        Reorder("product", ("i", "j.0", "k", "j.1")),
        Vectorize("product", "j.1"),
    )
    steps = tuple(step.to_json() for step in pack)
    record = Record(
        workload_key=task.workload_key, target=str(TARGET), threads=1, trial=7, steps=steps, result=MeasureResult((1e-6,))
    )
    compiled, feed = compile_task(task, [record], workers=0), random_inputs(task)
    assert list(compiled.plan.schedules.values()) == ["trial 7"]
    assert len(compiled.plan.calls) == 2
    for factor in (1, 3):
        feed["weight"] = feed["weight"] * np.float32(factor)
        np.testing.assert_allclose(compiled.run(feed)["product"], feed["x"] @ feed["weight"], rtol=1e-4, atol=1e-4)


def test_the_best_record_is_used_and_records_of_others_are_refused() -> None:
    task = Task.from_spec("relu:64,8", TARGET)
    options = TuningOptions(policy="random", cost_model="random")
    result = ansor_py.search.tune(task, trials=3, runner="inline", options=options)
    assert result.best is not None
    compiled = compile_task(task, [result.best], workers=0)
    assert list(compiled.plan.schedules.values()) == [f"trial {result.best.trial}"]
    with pytest.raises(RecordError, match="with 2 threads"):
        compile_task(task, result.records, threads=2, workers=0)
    with pytest.raises(TargetError, match="at least 1"):
        compile_task(task, threads=0)
