"""What a search writes down of its cost model: accuracy by round and the model itself; what another run learns from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ansor_py.cost_model.guided_model import GuidedModel
from ansor_py.cost_model.training_set import read_training_set
from ansor_py.errors import OptionError
from ansor_py.measure.records import read_records
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import ACCURACY_COLUMNS, round_accuracy
from ansor_py.search.loop.run_directory import RunDirectory
from ansor_py.search.loop.transfer import check_source, programs_of_records, transferred_programs
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.target import Target
from search_fakes import FakeMeasurer

TARGET = Target.parse("x86-64 cpu=skylake-avx512 cores=2")
SPEC = "matmul:32,32,32"
TASK = Task.from_spec(SPEC, TARGET)
OTHER = Task.from_spec("matmul:48,32,64", TARGET)
SMALL = SearchOptions(population=64, iterations=1)


def options(**more: object) -> TuningOptions:
    return TuningOptions(trials=60, batch=20, search=SMALL, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one operator."""
    path = tmp_path_factory.mktemp("runs") / "first"
    with RunDirectory.create(path, {"model": SPEC, "target": str(TARGET)}) as directory:
        result = tune_tasks([TASK], options(), measurer=FakeMeasurer(), subscribers=[directory.take])
    assert [accuracy.round for accuracy in result.accuracy] == [1, 2, 3]
    return path


def test_every_round_leaves_its_accuracy(run: Path) -> None:
    with (run / "accuracy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ACCURACY_COLUMNS
    assert [(row["round"], row["programs"]) for row in rows] == [("1", "20"), ("2", "20"), ("3", "19")]
    assert {row["task"] for row in rows} == {TASK.name}
    assert all(0 <= float(row["pairwise"]) <= 1 and 0 <= float(row["top_k_recall"]) <= 1 for row in rows)


def test_accuracy_of_scores_in_the_right_order_and_of_none() -> None:
    costs = np.array([1.0, 2.0, 4.0, np.inf])
    good = round_accuracy(1, "t", np.array([8.0, 4.0, 2.0, 9.0]), costs, 1.0)
    assert (good.programs, good.pairwise, good.top_k_recall, good.rmse) == (3, 1.0, 1.0, pytest.approx(0.0))
    bad = round_accuracy(1, "t", np.array([2.0, 4.0, 8.0, 9.0]), costs, 1.0)
    assert (bad.pairwise, bad.top_k_recall) == (0.0, 0.0)
    assert round_accuracy(2, "t", np.empty(0), np.empty(0), np.inf).row() == ["2", "t", "0", "", "", ""]


def test_the_saved_model_knows_all_rounds_and_predicts_alike(run: Path) -> None:
    known = read_training_set(run / "cost_model.npz")
    assert len(known) == 60
    model = GuidedModel(np.random.default_rng(5))
    model.load(run / "cost_model.npz")
    assert model.is_trained
    assert len(np.unique(model.predict(known.batch))) > 5


def test_programs_come_from_the_saved_model_or_from_the_records(run: Path) -> None:
    saved = transferred_programs(run, TARGET, [OTHER], SearchOptions()).known
    again = transferred_programs(run / "records.jsonl", TARGET, [TASK], SearchOptions()).known
    assert len(saved) == 60
    assert len(again) == 60  # the default schedule has features as well
    assert set(saved.tasks.tolist()) == set(again.tasks.tolist()) == {-1}
    rows, more = ({bytes(row) for row in known.batch.rows} for known in (saved, again))
    assert rows <= more


def test_changed_rules_leave_the_concrete_steps(run: Path) -> None:
    records, _ = read_records(run / "records.jsonl")
    known = programs_of_records(records, [TASK], SearchOptions()).known
    only_steps = programs_of_records(records, [TASK], SearchOptions(rules=("skip",))).known
    assert len(only_steps) == len(known)
    assert sorted(only_steps.costs) == sorted(known.costs)
    order, other = np.lexsort(known.batch.rows.T), np.lexsort(only_steps.batch.rows.T)
    assert np.array_equal(known.batch.rows[order], only_steps.batch.rows[other])


def test_a_search_starts_with_what_another_has_learned(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[set[int]] = []
    original = GuidedModel.update

    def update(self: GuidedModel, batch, costs, tasks) -> None:  # type: ignore[no-untyped-def]
        updates.append(set(tasks.tolist()))
        original(self, batch, costs, tasks)

    monkeypatch.setattr(GuidedModel, "update", update)
    result = tune_tasks([OTHER], options(cost_model_from=str(run)), measurer=FakeMeasurer())
    assert updates == [{-1}, {0}, {0}, {0}, {0}]
    assert any(r.origin.operator != "random" for r in result.records if r.round == 1)


def test_what_cannot_be_transferred_is_one_clear_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such run"):
        check_source(tmp_path / "nothing", TARGET)
    with pytest.raises(OptionError, match="vectors of 64 bytes and this target's have 32"):
        check_source(run, Target.parse("x86-64 cpu=haswell cores=2"))
    alone = tmp_path / "records.jsonl"
    alone.write_bytes((run / "records.jsonl").read_bytes())
    with pytest.raises(OptionError, match="none of its programs"):
        transferred_programs(alone, TARGET, [OTHER], SearchOptions())
    (tmp_path / "config.json").write_text(json.dumps({"model": SPEC, "target": str(TARGET)}))
    assert len(transferred_programs(alone, TARGET, [OTHER], SearchOptions()).known) == 60
    alone.write_text("")
    with pytest.raises(OptionError, match="no records"):
        check_source(tmp_path, TARGET)
