"""Data sets: what they hold, their way through Parquet, who is held out, models trained on them, and the way into a search."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py.cost_model.metrics import peak_at_k, scaled_rmse
from ansor_py.cost_model.model_file import load_model, read_header
from ansor_py.errors import OptionError
from ansor_py.measure import MeasureInput, MeasureResult
from ansor_py.measure.records import Record, read_records
from ansor_py.measure.result import MeasureResult as Result
from ansor_py.schedule.task import Task
from ansor_py.search.data_set.accuracy import Accuracy, judge, mean_accuracy, train
from ansor_py.search.data_set.data_set import DataSet, data_set_of_runs
from ansor_py.search.data_set.parquet import read_data_set, write_data_set
from ansor_py.search.data_set.splits import SPLITS, split
from ansor_py.search.loop.recorded_programs import concrete_batch
from ansor_py.search.loop.run_directory import RunDirectory
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.target import Target
from search_fakes import FakeMeasurer

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
NARROW, WIDE = (Target.parse(f"x86-64 cpu={cpu} cores=2") for cpu in ("haswell", "skylake-avx512"))
SPECS = ("matmul:32,48,40", "matmul:64,32,48", "softmax:24,60", "dense:16,48,40")
OPTIONS = TuningOptions(trials=120, batch=30, policy="random", search=SearchOptions(population=64, iterations=1))


def some_fail(program: MeasureInput, number: int) -> MeasureResult:
    """The cost depends on the program's number of steps; every ninth fails, one is cut."""
    if number % 9 == 5:
        return MeasureResult(error="build" if number % 2 else "cut", costs=() if number % 2 else (0.5,), error_stage="run")
    cost = 1e-3 * len(program.steps) + 1e-6 * (number % 7)
    return MeasureResult((cost, cost, 1.1 * cost), output_checked=True)


def run_into(path: Path, target: Target, specs: Sequence[str], seed: int = 0) -> Path:
    tasks = [Task.from_spec(spec, target) for spec in specs]
    with RunDirectory.create(path, {}) as run:
        tune_tasks(tasks, replace(OPTIONS, seed=seed), measurer=FakeMeasurer(some_fail), subscribers=[run.take])
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        run_into(folder / "a", NARROW, SPECS),
        run_into(folder / "b", WIDE, SPECS[:2]),
        run_into(folder / "c", NARROW, SPECS[:1], seed=1),
    ]


@pytest.fixture(scope="module")
def data(runs: list[Path]) -> DataSet:
    return data_set_of_runs(runs, seed=3, test_share=0.25)


def test_a_data_set_holds_every_program_with_its_features(runs: list[Path], data: DataSet) -> None:
    records = {(run.name, record.trial): record for run in runs for record in read_records(run / "records.jsonl")[0]}
    assert len(data) == len(records) == 360
    assert not any(data.left_out.values())
    assert {(name, r.trial): r for name, r in zip(data.runs, data.records, strict=True)} == records
    assert len(data.groups) == 6
    assert (~data.is_valid).sum() == sum(not record.valid for record in records.values()) > 20
    cut = [n for n, record in enumerate(data.records) if record.result.error == "cut"]
    assert data.costs[cut].tolist() == [0.5] * len(cut)
    for place in range(0, len(data), 23):
        record, group = data.records[place], data.groups[data.group_numbers[place]]
        expected = concrete_batch(record, data.task_of(group), ("features",))
        assert expected is not None
        assert np.array_equal(data.batch.select([place]).rows, expected.rows)
        known = data.training_set(np.arange(len(data)) == place, ("programs",))
        [program] = known.batch.known_programs
        assert program.steps_json == list(record.steps)
        assert (str(program.task.target), program.task.target.cores) == (record.target, record.threads)


def check_equal(one: DataSet, other: DataSet) -> None:
    assert np.array_equal(one.batch.rows, other.batch.rows)
    assert np.array_equal(one.batch.offsets, other.batch.offsets)
    assert np.array_equal(one.costs, other.costs)
    assert np.array_equal(one.is_valid, other.is_valid)
    assert (one.runs, one.groups, one.names, one.version) == (other.runs, other.groups, other.names, other.version)
    assert {name: side.tolist() for name, side in one.splits.items()} == {n: s.tolist() for n, s in other.splits.items()}
    assert {key: task.dag.workload_key for key, task in other.tasks.items()} == {key: key for key in one.tasks}
    fields = ("workload_key", "target", "threads", "trial", "round", "seed", "steps", "genes", "states_tiles", "task", "engine")
    for name in fields:
        assert [getattr(r, name) for r in one.records] == [getattr(r, name) for r in other.records], name
    for name in ("costs", "error"):
        assert [getattr(r.result, name) for r in one.records] == [getattr(r.result, name) for r in other.records], name


def test_a_data_set_comes_back_from_its_file_as_it_was(data: DataSet, tmp_path: Path) -> None:
    write_data_set(data, tmp_path / "data")
    check_equal(data, read_data_set(tmp_path / "data"))
    with pytest.raises(OptionError, match="holds a data set already"):
        write_data_set(data, tmp_path / "data")


def test_any_program_that_reads_parquet_reads_it(data: DataSet, tmp_path: Path) -> None:
    import pyarrow.parquet

    write_data_set(data, tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "programs.parquet")
    row = table.slice(7, 1).to_pylist()[0]
    rows = data.batch.rows[data.batch.offsets[7] : data.batch.offsets[8]]
    assert np.array_equal(np.array(row["features"], dtype=np.float32).reshape(row["statements"], -1), rows)
    assert row["valid"] == data.is_valid[7]
    assert json.loads(row["steps"]) == list(data.records[7].steps)
    assert row["by_task"] == ("test" if data.splits["by_task"][7] else "train")
    costs = table["cost_seconds"].to_pylist()
    assert costs == [record.cost if record.valid else None for record in data.records]
    assert json.loads(table.schema.metadata[b"ansor_py"])["feature_names"] == list(data.names)


def test_what_is_held_out(data: DataSet) -> None:
    keys = np.array([record.workload_key for record in data.records])
    targets = np.array([record.target for record in data.records])
    by_task, by_target, within = (data.splits[name] for name in ("by_task", "by_target", "within_task"))
    assert set(keys[by_task]).isdisjoint(keys[~by_task])
    assert len(set(keys[by_task])) == 1
    assert set(targets[by_target]).isdisjoint(targets[~by_target])
    assert len(set(targets[by_target])) == 1
    for key in set(keys):
        steps = [json.dumps(record.steps) for record in data.records]
        held, kept = ({steps[n] for n in np.flatnonzero((keys == key) & side)} for side in (within, ~within))
        assert held.isdisjoint(kept)
        assert len(held) == pytest.approx(0.25 * len(held | kept), abs=0.6)


def _record(key: int, program: int, target: int) -> Record:
    return Record(
        workload_key=f"{key:032x}",
        target=f"t{target}",
        threads=1,
        trial=0,
        steps=(["unroll", program],),
        result=Result(costs=(1.0,)),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 2)), min_size=1), st.integers(0, 9), st.data())
def test_splits_depend_on_the_seed_alone(labels: list[tuple[int, int, int]], seed: int, drawn: st.DataObject) -> None:
    records = [_record(*label) for label in labels]
    share = drawn.draw(st.sampled_from([0.1, 0.3, 0.5, 0.9]))
    found = split(records, seed, share)
    order = drawn.draw(st.permutations(range(len(records))))
    again = split([records[n] for n in order], seed, share)
    for name in SPLITS:
        assert found[name][order].tolist() == again[name].tolist()
        assert not found[name].all()
    assert found["by_task"].any() == (len({label[0] for label in labels}) > 1)
    assert found["by_target"].any() == (len({label[2] for label in labels}) > 1)
    for task in {label[0] for label in labels}:
        mine = [n for n, label in enumerate(labels) if label[0] == task]
        assert found["within_task"][mine].any() == (len({labels[n][1] for n in mine}) > 1)
        alone = split([records[n] for n in mine], seed, share)
        assert alone["within_task"].tolist() == found["within_task"][mine].tolist()


def test_shares_that_are_none(data: DataSet) -> None:
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="share of what is held out"):
            split(data.records, 0, share)


def test_metrics_by_hand() -> None:
    truth = np.array([1.0, 0.5, 0.25, 0.125])
    assert [peak_at_k([0, 1, 3, 2], truth, k) for k in (1, 2, 3, 9)] == [0.25, 0.25, 0.5, 1.0]
    assert np.isnan(peak_at_k([], [], 3))
    assert scaled_rmse(7 * truth, truth) == pytest.approx(0)
    assert scaled_rmse([1, 1], [1, 0]) == pytest.approx(0.5)
    assert scaled_rmse([0, 0], [1, 0]) == pytest.approx(0.5**0.5)
    found = Accuracy.of(np.array([0.0, 1.0, 3.0, 2.0]), truth, [2])
    assert (found.programs, found.recall, found.peak) == (4, (0.0,), (0.25,))


@pytest.mark.parametrize("name", ["within_task", "by_task", "by_target"])
def test_a_model_learns_from_what_is_not_held_out(data: DataSet, name: str) -> None:
    is_test = data.splits[name]
    model = train("lightgbm", data, name)
    assert len(model.model._known) == (~is_test).sum()  # type: ignore[attr-defined]
    found = judge(model, data, is_test)
    assert sum(item.accuracy.programs for item in found) == (is_test & data.is_valid).sum()
    mean, chance = mean_accuracy(found), mean_accuracy(judge(train("random", data, name), data, is_test))
    assert mean.pairwise == pytest.approx(np.mean([item.accuracy.pairwise for item in found]))
    if name == "within_task":
        assert mean.pairwise > 0.7 > chance.pairwise
    assert judge(train("lightgbm", data, name), data, is_test) == found


def test_what_cannot_be_trained_says_so(data: DataSet, runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no split 'by_chance'"):
        train("lightgbm", data, "by_chance")
    alone = data_set_of_runs([runs[2]])
    for name, reason in (("by_target", "one target"), ("by_task", "one task")):
        with pytest.raises(OptionError, match=f"holds out no valid program.*{reason}"):
            train("lightgbm", alone, name)
    old = replace(data, version=1)
    with pytest.raises(OptionError, match="export its runs again"):
        train("lightgbm", old, "by_task")
    for content in (None, b"nonsense"):
        if content is not None:
            (tmp_path / "programs.parquet").write_bytes(content)
        with pytest.raises(OptionError, match="is not a data set"):
            read_data_set(tmp_path)


def test_records_that_cannot_be_used_are_counted(runs: list[Path], tmp_path: Path) -> None:
    records, _ = read_records(runs[2] / "records.jsonl")
    lines = [json.dumps(record.to_json()) for record in records[:10]]
    other = msgspec.structs.replace(records[0], workload_key="0" * 32)
    wrong = msgspec.structs.replace(records[1], steps=(["split", "nothing", "i", [4]],))
    quick = records[2].with_costs((1e-9,))
    lines += [json.dumps(record.to_json()) for record in (other, wrong, quick)]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "tasks.jsonl").write_bytes((runs[2] / "tasks.jsonl").read_bytes())
    found = data_set_of_runs([tmp_path])
    assert len(found) == 10
    assert sorted(found.left_out.values()) == [1, 1, 1]
    (tmp_path / "records.jsonl").write_text(lines[10] + "\n")
    with pytest.raises(OptionError, match="holds a program that can be used"):
        data_set_of_runs([tmp_path])


def test_from_runs_to_a_search_with_a_model_trained_off_line(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import export_dataset
    import train_cost_model

    def call(command, *words: object) -> str:  # type: ignore[no-untyped-def]
        outcome = CliRunner().invoke(command, list(map(str, words)))
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    steps = EXPERIMENTS / "ideas" / "step_reader.py"
    out, trained = tmp_path / "data", tmp_path / "trained"
    assert "360 programs of 4 tasks on 2 targets" in call(export_dataset.main, *runs, "--out", out, "--test-share", "0.25")
    words = [
        "--import",
        steps,
        "--model",
        "step-reader",
        "--model",
        "lightgbm",
        "--model",
        "random",
        "--k",
        3,
        "--out",
        trained,
    ]
    printed = call(train_cost_model.main, out, *words, "--search", "step_reader.epochs=60")
    assert f"--cost-model step-reader --cost-model-from {trained / 'step-reader.npz'}" in printed
    metrics = json.loads((trained / "metrics.json").read_text())
    mean = {name: found["mean"] for name, found in metrics["models"].items()}
    assert set(mean["step-reader"]) == {"programs", "rmse", "pairwise", "recall@3", "peak@3"}
    assert mean["step-reader"]["pairwise"] > 0.65 > mean["random"]["pairwise"]
    assert len(metrics["models"]["lightgbm"]["tasks"]) == 6
    assert read_header(trained / "step-reader.npz").vector_bytes == (32, 64)
    for name in ("step-reader", "lightgbm"):
        model, header = load_model(trained / f"{name}.npz", WIDE)
        assert {task.workload_key for task in header.tasks} == {r.workload_key for r in data_set_of_runs(runs).records}
        options = replace(OPTIONS, trials=25, policy="evolution", cost_model=name, cost_model_from=str(trained / f"{name}.npz"))
        result = tune_tasks([Task.from_spec(SPECS[3], WIDE)], options, measurer=FakeMeasurer(some_fail))
        assert any(record.origin.operator != "random" for record in result.records if record.round == 1)
        assert model.name == name


def test_scripts_say_what_is_wrong_in_one_line(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import export_dataset
    import train_cost_model

    write_data_set(data, tmp_path / "data")
    (tmp_path / "nan.py").write_text(NOT_A_NUMBER)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "records.jsonl").write_text("")
    trained = [str(tmp_path / "data"), "--import", str(tmp_path / "nan.py"), "--out", str(tmp_path / "out")]
    cases = [
        (export_dataset.main, [str(tmp_path / "old"), "--out", str(tmp_path / "new")], "has no tasks.jsonl"),
        (export_dataset.main, [str(tmp_path / "old"), "--out", str(tmp_path / "new"), "--test-share", "2"], "no tasks.jsonl"),
        (train_cost_model.main, [str(tmp_path / "none"), "--model", "random"], "is not a data set"),
        (train_cost_model.main, [*trained, "--model", "lightgmb"], "there is no cost model 'lightgmb'"),
        (train_cost_model.main, [*trained, "--model", "nan"], "cost model 'nan': predict gave nan"),
        (train_cost_model.main, [*trained, "--model", "nan", "--search", "model.trees=0"], "model.trees"),
    ]
    for command, words, said in cases:
        outcome = CliRunner().invoke(command, words)
        assert outcome.exit_code == 2, outcome.output
        [line] = outcome.output.splitlines()
        assert line.startswith("error: ")
        assert said in line
    outcome = CliRunner().invoke(train_cost_model.main, [*trained, "--model", "unsaved"])
    assert outcome.exit_code == 0, outcome.output
    assert "unsaved: not saved" in outcome.output
    assert not (tmp_path / "out" / "unsaved.npz").exists()


def test_without_pyarrow_the_extra_is_named(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (lambda: write_data_set(data, tmp_path), lambda: read_data_set(tmp_path)):
        with pytest.raises(OptionError, match=r"pip install 'ansor-py\[analysis\]'"):
            use()


NOT_A_NUMBER = """
import numpy as np
from ansor_py.cost_model import cost_model

@cost_model("unsaved")
class Unsaved:
    def __init__(self, rng, options): self.rng = rng
    def predict(self, batch): return self.rng.random(len(batch))
    def update(self, batch, costs, tasks): pass

@cost_model("nan")
class NotANumber(Unsaved):
    def predict(self, batch): return np.full(len(batch), np.nan)
"""
