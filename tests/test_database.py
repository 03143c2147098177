"""The store of best programs: what it keeps, what a search and `compile` make of it, and what is no store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper

import ansor_py
from ansor_py.errors import AnsorWarning, OptionError
from ansor_py.measure import MeasureResult, Record
from ansor_py.measure.database import KEPT, PROGRAMS, Database, Stored
from ansor_py.measure.records import Origin
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.loop.inheriting_policy import STORED
from ansor_py.search.loop.program_store import family_key
from ansor_py.search.loop.results import TuningResult
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.target import Target
from search_fakes import FakeMeasurer

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
OPTIONS = TuningOptions(trials=48, batch=16, policy="random", cost_model="random")
LARGE, SMALL = (Task.from_operator("matmul", (n, n, n), TARGET) for n in (96, 64))


def stored(seconds: float, step: int, key: str = "key", target: Target = TARGET) -> Stored:
    result = MeasureResult((seconds,))
    origin = Origin(0, "tile", (1, 2))
    record = Record(
        workload_key=key, target=str(target), threads=2, trial=step, steps=(["unroll", step],), origin=origin, result=result
    )
    return Stored(record, "family", ("tile", "location"), ((4, (8, None)), "x.0"), seconds)


def searched(task: Task, directory: Path, seed: int = 0) -> TuningResult:
    """A search whose costs follow from the programs."""
    options = replace(OPTIONS, seed=seed, database=str(directory))
    return tune_tasks([task], options, measurer=FakeMeasurer())


def test_the_few_best_programs_of_every_task_on_every_target_are_kept(tmp_path: Path) -> None:
    database = Database(tmp_path / "new" / "store", create=True)
    database.add([stored(1.0 + step, step) for step in range(KEPT + 2)])
    database.add([stored(9.0, 0, key="other"), stored(0.5, 7), stored(9.0, 0, target=Target.parse("x86-64"))])
    database.add([stored(1.75, 0)])  # measured again
    again = Database(tmp_path / "new" / "store")
    assert [(r.workload_key, r.cost) for r in again.records(TARGET, 2)] == [
        ("key", 0.5),
        ("key", 1.75),
        ("key", 2.0),
        ("other", 9.0),
    ]
    assert again.records(TARGET.with_cores(4), 2) == again.records(TARGET, 2)  # threads count, not cores
    assert again.records(TARGET, 1) == again.records(Target.parse("x86-64 cpu=skylake-avx512 cores=2"), 2) == []
    [first, *_] = again.relatives("family", TARGET, 2)
    assert first == stored(0.5, 7)
    assert again.relatives("another", TARGET, 2) == []


def test_what_two_open_stores_add_is_kept_and_a_broken_line_is_told(tmp_path: Path) -> None:
    one, two = Database(tmp_path, create=True), Database(tmp_path, create=True)
    one.add([stored(1.0, 1, "a")])
    two.add([stored(1.0, 1, "b")])
    with (tmp_path / PROGRAMS).open("a") as file:
        file.write('{"record": 1}\n')
    both = Database(tmp_path)
    assert {record.workload_key for record in both.records(TARGET, 2)} == {"a", "b"}
    assert [line.number for line in both.lost] == [3]
    with pytest.warns(AnsorWarning, match="line 3"):
        searched(SMALL, tmp_path)


def test_a_second_search_begins_with_the_best_of_the_first(tmp_path: Path) -> None:
    first = searched(LARGE, tmp_path)
    assert first.best is not None
    assert not any(record.origin.operator == STORED for record in first.records)
    second = searched(LARGE, tmp_path, seed=1)
    begun = [record for record in second.records if record.origin.operator == STORED]
    assert next(record.round for record in begun) == 1
    assert first.best.steps in [record.steps for record in begun]
    assert len(begun) <= KEPT
    assert second.best is not None
    assert second.best.cost <= first.best.cost
    [kept, *_] = Database(tmp_path).records(TARGET, 2)
    assert kept.steps == second.best.steps


def test_a_similar_task_begins_with_adapted_programs(tmp_path: Path) -> None:
    searched(LARGE, tmp_path)
    assert family_key(LARGE) == family_key(SMALL)
    result = searched(SMALL, tmp_path)
    [adapted] = [record for record in result.records if record.origin.operator == STORED]
    assert adapted.valid
    best = Database(tmp_path).relatives(family_key(LARGE), TARGET, 2)
    [source] = [item for item in best if item.record.workload_key == LARGE.workload_key][:1]
    assert adapted.origin.sketch == source.record.origin.sketch


def test_programs_of_fast_math_are_not_for_exact_searches(tmp_path: Path) -> None:
    task = Task.from_operator("conv2d", (1, 16, 14, 14, 16, 3), TARGET)
    search = replace(OPTIONS.search, space=replace(OPTIONS.search.space, math="fast"))
    options = replace(OPTIONS, database=str(tmp_path), search=search)
    result = tune_tasks([task], options, measurer=FakeMeasurer())
    fast = [record for record in result.records if record.algorithms]
    assert fast
    Database(tmp_path).add([Stored(structs.replace(fast[0], result=MeasureResult((1e-5,))), family_key(task), (), (), 0.01)])
    assert not any(record.algorithms for record in searched(task, tmp_path).records)


def model_path(folder: Path) -> Path:
    weight = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_that_was_tuned_compiles_from_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, store = model_path(tmp_path), tmp_path / "store"
    words = ["--runner", "process", "--threads", "1", "--trials", "24", "--policy", "random", "--cost-model", "random"]
    assert main([str(model), *words, "--database", str(store), "--out", str(tmp_path / "run")]) == 0
    compiled = ansor_py.compile(model, database=store, threads=1, workers=0)
    [kept, *_] = Database(store).records(Target.detect().with_cores(1), 1)
    assert list(compiled.plan.schedules.values()) == [f"trial {kept.trial}"]
    x = np.ones((64, 64), dtype=np.float32)
    untuned = ansor_py.compile(model, threads=1, workers=0)
    assert np.allclose(compiled.run({"x": x})["y"], untuned.run({"x": x})["y"], rtol=1e-4, atol=1e-4)
    with pytest.warns(AnsorWarning, match="holds no program of the model's 1 tasks"):
        other = ansor_py.compile(model, database=store, threads=2, workers=0)
    assert list(other.plan.schedules.values()) == ["default"]


def test_what_is_no_store_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file = model_path(tmp_path), tmp_path / "file"
    file.write_text("")
    with pytest.raises(OptionError, match="does not exist; name one that a search with --database"):
        ansor_py.compile(model, database=tmp_path / "none")
    with pytest.raises(OptionError, match="give one of them"):
        ansor_py.compile(model, records=[], database=tmp_path)
    with pytest.raises(OptionError, match="File exists; choose another directory"):
        Database(file, create=True)
    with pytest.raises(OptionError, match="is no directory"):
        Database(file)
    with pytest.raises(OptionError, match="nothing to store"):
        tune_tasks([SMALL], replace(OPTIONS, database=str(tmp_path)), "simulated")
    for runner, words in (("simulated", "runs nothing"), ("process", "choose another directory")):
        assert main(["--op", "matmul:8,8,8", "--runner", runner, "--database", str(file), "--out", str(tmp_path / runner)]) == 2
        assert words in capsys.readouterr().err
