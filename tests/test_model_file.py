"""Saved models: what their header says, that a search can begin with one, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, FEATURE_VERSION, feature_group, feature_names
from ansor_py.cost_model.interface import COST_MODELS, cost_model
from ansor_py.cost_model.lightgbm_model import LightGBMModel
from ansor_py.cost_model.model_file import KnownTask, ModelHeader, load_model, read_header, save_model
from ansor_py.cost_model.training_set import read_model_file, read_training_set
from ansor_py.errors import OptionError, PlugInError
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.loop.run_directory import RunDirectory
from ansor_py.search.loop.transfer import check_source, transferred_programs
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.target import Target
from search_fakes import EvenModel, FakeMeasurer

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
TASK, OTHER = (Task.from_spec(f"matmul:{n},32,48", TARGET) for n in (32, 64))
SMALL = SearchOptions(population=64, iterations=1)


def options(**more: object) -> TuningOptions:
    return TuningOptions(**{"trials": 60, "batch": 20, "search": SMALL, "cost_model": "lightgbm", **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    with RunDirectory.create(path, {}) as directory:
        tune_tasks([TASK, OTHER], options(trials=80), measurer=FakeMeasurer(), subscribers=[directory.take])
    return path


def test_a_run_s_model_says_what_it_is(run: Path) -> None:
    header = read_header(run / "cost_model.npz")
    assert (header.model, header.needs, header.vector_bytes) == ("lightgbm", ("features",), (32,))
    assert (header.feature_version, header.feature_names) == (FEATURE_VERSION, feature_names())
    assert header.targets == (str(TARGET),)
    assert header.tasks == tuple(KnownTask(n, task.workload_key, task.name) for n, task in enumerate((TASK, OTHER)))
    known = read_training_set(run / "cost_model.npz")
    assert len(known) == 80
    assert set(known.tasks.tolist()) == {0, 1}


def test_a_loaded_model_scores_as_the_saved_one(run: Path, tmp_path: Path) -> None:
    model, header = load_model(run / "cost_model.npz", TARGET, seed=9)
    known, _ = read_model_file(run / "cost_model.npz")
    own = LightGBMModel(np.random.default_rng(1))
    own.load(run / "cost_model.npz")
    scores = model.predict(known.batch)
    assert np.array_equal(scores, own.predict(known.batch))
    assert len(np.unique(scores)) > 5
    assert save_model(tmp_path / "again.npz", model, header)
    again, _ = load_model(tmp_path / "again.npz", TARGET)
    assert np.array_equal(scores, again.predict(known.batch))
    assert [path.name for path in tmp_path.iterdir()] == ["again.npz"]


def test_a_search_begins_with_a_saved_model(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[set[int]] = []
    original = LightGBMModel.update

    def update(self: LightGBMModel, batch, costs, tasks) -> None:  # type: ignore[no-untyped-def]
        assert self.is_trained
        updates.append(set(tasks.tolist()))
        original(self, batch, costs, tasks)

    monkeypatch.setattr(LightGBMModel, "update", update)
    saved = run / "cost_model.npz"
    with RunDirectory.create(tmp_path / "next", {}) as directory:
        result = tune_tasks([OTHER], options(cost_model_from=str(saved)), measurer=FakeMeasurer(), subscribers=[directory.take])
    assert updates == [{2}] * 4  # a number that none of the tasks of the saved model has
    assert any(record.origin.operator != "random" for record in result.records if record.round == 1)
    header = read_header(tmp_path / "next" / "cost_model.npz")
    assert [(task.number, task.workload_key) for task in header.tasks] == [
        (0, TASK.workload_key),
        (1, OTHER.workload_key),
        (2, OTHER.workload_key),
    ]
    assert len(read_training_set(tmp_path / "next" / "cost_model.npz")) == 140
    again = tune_tasks([OTHER], options(cost_model_from=str(saved)), measurer=FakeMeasurer())
    assert [record.genes for record in again.records] == [record.genes for record in result.records]
    monkeypatch.undo()
    other = tune_tasks([OTHER], options(), measurer=FakeMeasurer())
    assert [record.genes for record in other.records] != [record.genes for record in result.records]


def test_programs_of_a_saved_model_keep_their_tasks(run: Path) -> None:
    found = transferred_programs(run, TARGET, [], SearchOptions())
    assert {task.number: task.workload_key for task in found.tasks} == {-1: TASK.workload_key, -2: OTHER.workload_key}
    assert set(found.known.tasks.tolist()) == {-1, -2}


def changed(run: Path, path: Path, **fields: object) -> Path:
    """The run's model with another header."""
    with np.load(run / "cost_model.npz") as file:
        header = msgspec.json.decode(file["header"].tobytes())
        text = np.frombuffer(json.dumps({**header, **fields}).encode(), dtype=np.uint8)
        np.savez(path, header=text, model=file["model"])
    return path


def test_a_model_that_does_not_fit_is_one_clear_error(run: Path, tmp_path: Path) -> None:
    path, names = tmp_path / "m.npz", list(feature_names())
    wrong: list[tuple[dict[str, object], str]] = [
        ({"feature_version": 4}, f"features of version 4, and these are of version {FEATURE_VERSION}"),
        ({"feature_names": ["mine", *names]}, "it reads 'mine';"),
        ({"feature_names": names[2:]}, f"it lacks '{names[0]}', '{names[1]}';"),
        ({"feature_names": names[5:]}, "and 2 more;"),
        ({"feature_names": names[::-1]}, "in another order"),
        ({"vector_bytes": [64]}, "vectors of 64 bytes and this target's have 32"),
        ({"model": "lightgbm-rank"}, "--cost-model lightgbm-rank"),
    ]
    for fields, message in wrong:
        with pytest.raises(OptionError, match=message):
            check_source(changed(run, path, **fields), TARGET, "lightgbm")
        with pytest.raises(OptionError, match=message):
            tune_tasks([TASK], options(cost_model_from=str(path)), measurer=FakeMeasurer())
    for fields in ({"format": 7}, {"tasks": 3}):
        with pytest.raises(OptionError, match="is not a saved cost model"):
            check_source(changed(run, path, **fields), TARGET)
    reads_none = changed(run, path, needs=["programs"], feature_version=1, feature_names=[])
    check_source(reads_none, TARGET, "lightgbm")
    np.savez(path, rows=np.zeros(3))
    with pytest.raises(OptionError, match="is not a saved cost model"):
        load_model(path, TARGET)
    with pytest.raises(OptionError, match=r"a saved model$"):
        check_source(tmp_path / "nothing.npz", TARGET)


def test_a_feature_group_that_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    @feature_group("mine", ["my_column"])
    def mine(statement, target, out) -> None:  # type: ignore[no-untyped-def]
        out[0] = 1

    try:
        with pytest.raises(OptionError, match="it lacks 'my_column'"):
            load_model(run / "cost_model.npz", TARGET)
    finally:
        FEATURE_GROUPS.pop("mine")


class Tally(EvenModel):
    """A model with a format of its own: it counts programs."""

    count = 0

    def update(self, batch, costs_seconds, task_ids) -> None:  # type: ignore[no-untyped-def]
        self.count += len(batch)

    def save(self, path: Path) -> None:
        path.write_text(str(self.count))

    def load(self, path: Path) -> None:
        self.count = int(path.read_text())


@pytest.fixture
def tally() -> Iterator[None]:
    cost_model("tally")(Tally)
    yield
    COST_MODELS.pop("tally")


@pytest.mark.usefixtures("tally")
def test_a_model_of_any_format_is_kept_and_loaded(tmp_path: Path, run: Path) -> None:
    with RunDirectory.create(tmp_path / "a", {}) as directory:
        tune_tasks([TASK], options(cost_model="tally", trials=20), measurer=FakeMeasurer(), subscribers=[directory.take])
    saved = tmp_path / "a" / "cost_model.npz"
    model, _ = load_model(saved, TARGET)
    assert isinstance(model.model, Tally)
    assert model.model.count == 20
    known = transferred_programs(tmp_path / "a", TARGET, [], SearchOptions()).known  # from its records, as it has no programs
    assert len(known) == 20
    with np.load(saved) as file:
        np.savez(tmp_path / "b.npz", header=file["header"], model=np.frombuffer(b"many", dtype=np.uint8))
    with pytest.raises(PlugInError, match=r"cost model 'tally': load failed.*ValueError"):
        load_model(tmp_path / "b.npz", TARGET)


def test_a_model_that_cannot_be_loaded_or_saved_says_so(tmp_path: Path) -> None:
    class Unsaved:
        predict, update = EvenModel.predict, EvenModel.update

        def __init__(self, rng: np.random.Generator, options: object) -> None: ...

    cost_model("tally")(Tally)
    try:
        model = Tally(np.random.default_rng(0))
        header = ModelHeader.of("tally", model, [TARGET])
        assert save_model(tmp_path / "m.npz", model, header)
        COST_MODELS.pop("tally")
        cost_model("tally")(Unsaved)
        with pytest.raises(OptionError, match="cost model 'tally': Unsaved has no method 'load'"):
            load_model(tmp_path / "m.npz", TARGET)
        with pytest.raises(OptionError, match="cost model 'tally': Unsaved has no method 'load'"):
            check_source(tmp_path / "m.npz", TARGET, "tally")
        assert not save_model(tmp_path / "n.npz", Unsaved(np.random.default_rng(0), None), header)  # type: ignore[arg-type]
        assert not (tmp_path / "n.npz").exists()
    finally:
        COST_MODELS.pop("tally")


def test_the_command_line_takes_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--op", "matmul:32,32,32", "--runner", "simulated", "--target", str(TARGET), "--search", "population=64"]
    assert main([*words, "--trials", "40", "--batch", "12", "--out", str(tmp_path / "a")]) == 0
    saved = str(tmp_path / "a" / "cost_model.npz")
    next_run = [*words, "--trials", "12", "--cost-model-from", saved]
    assert main([*next_run, "--out", str(tmp_path / "b")]) == 0
    assert len(read_training_set(tmp_path / "b" / "cost_model.npz")) == 52
    capsys.readouterr()
    assert main([*next_run, "--cost-model", "lightgbm", "--out", str(tmp_path / "c")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "say --cost-model lightgbm-roofline" in error
    assert not (tmp_path / "c").exists()


def test_a_loaded_model_learns_from_the_first_new_programs(run: Path) -> None:
    """However many programs it has learned before, and so does one that was shown programs of another run."""
    known = read_training_set(run / "cost_model.npz")
    few = known.batch.select(range(4))
    loaded, _ = load_model(run / "cost_model.npz", TARGET)
    shown = LightGBMModel(np.random.default_rng(0))
    shown.update(known.batch, known.costs, -1 - known.tasks)
    for model in (loaded.model, shown):
        assert isinstance(model, LightGBMModel)
        trees = model.trees
        model.update(few.select([]), np.zeros(0), np.zeros(0, dtype=np.int64))
        assert model.trees is trees
        model.update(few, np.array([1.0, 2.0, 3.0, np.inf]), np.full(4, 7))
        assert model.trees is not trees
