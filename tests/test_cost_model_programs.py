"""Models that ask for programs: what they are told, that others pay nothing, and that every program of a search is learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ansor_py.cost_model import FeatureBatch, batch_of, cost_model, extract_features, feature_names
from ansor_py.cost_model.interface import COST_MODELS, NEEDS, Need, create_cost_model
from ansor_py.cost_model.programs import Programs
from ansor_py.errors import OptionError, PlugInError
from ansor_py.measure.records import read_records
from ansor_py.schedule.sketch import Population
from ansor_py.schedule.task import Task
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.recorded_programs import concrete_batch
from ansor_py.search.loop.run_directory import RunDirectory
from ansor_py.search.loop.scoring import Scorer
from ansor_py.search.loop.transfer import transferred_programs
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.strategy_options import OptionSet
from ansor_py.target import Target
from search_fakes import FakeMeasurer

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
TASK, OTHER = (Task.from_spec(f"matmul:{n},32,48", TARGET) for n in (32, 64))
SMALL = SearchOptions(population=64, iterations=1)


class Reader:
    """Scores programs by the number of their steps, and notes all batches."""

    needs: tuple[Need, ...] = ("programs",)
    seen: list[FeatureBatch]
    learned: list[tuple[FeatureBatch, NDArray[np.float64], NDArray[np.int64]]]

    def __init__(self, rng: np.random.Generator, options: OptionSet) -> None:
        type(self).seen, type(self).learned = [], []

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        self.seen.append(batch)
        return np.array([len(program.steps) for program in batch.known_programs], dtype=np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        self.learned.append((batch, costs_seconds, task_ids))


class Both(Reader):
    """The same with features."""

    needs = ("features", "programs")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    cost_model("reader")(Reader)
    cost_model("both")(Both)
    yield
    for name in ("reader", "both"):
        COST_MODELS.pop(name)


def populations(count: int = 5) -> list[tuple[Task, Population]]:
    rng = np.random.default_rng(4)
    made = []
    for task in (TASK, OTHER):
        for sketch in generate_sketches(task.dag, TARGET)[:2]:
            made.append((task, Population(sketch, sample(Space(sketch, TARGET, SearchOptions()), count, rng))))
    return made


def test_programs_stay_with_their_features_through_choosing_and_joining() -> None:
    parts = populations()
    whole = FeatureBatch.concatenate([batch_of(population, task, NEEDS) for task, population in parts])
    expected = [(task, population.sketch, row) for task, population in parts for row in population.genes]
    rng = np.random.default_rng(0)
    places = rng.permutation(len(whole))[:11]
    chosen = whole.select(places).select(np.arange(11)[::-1])
    for place, program in zip(places[::-1], chosen.known_programs, strict=True):
        task, sketch, row = expected[place]
        assert program.task is task
        assert program.sketch is sketch
        assert np.array_equal(program.genes, row)
        assert program.steps == sketch.concretise(row)
        assert program.steps_json == [step.to_json() for step in program.steps]
    for number, place in enumerate(places[::-1]):
        task, sketch, row = expected[place]
        alone = extract_features(Population(sketch, row[None]), TARGET)
        assert np.array_equal(chosen.rows[chosen.offsets[number] : chosen.offsets[number + 1]], alone.rows)
    seen = np.concatenate([places for places, _, _ in chosen.known_programs.groups()])
    assert sorted(seen) == list(range(11))
    for rows, task, population in chosen.known_programs.groups():
        for row, place in zip(population.genes, rows.tolist(), strict=True):
            program = chosen.known_programs[place]
            assert (program.task, program.sketch) == (task, population.sketch)
            assert np.array_equal(program.genes, row)
    assert isinstance(chosen.known_programs[2:5], Programs)
    assert len(chosen.known_programs[2:5]) == 3


def test_a_model_gets_what_it_asks_for_and_nothing_else() -> None:
    task, population = populations()[0]
    plain = batch_of(population, task, ("features",))
    assert plain.programs is None
    with pytest.raises(OptionError, match="needs"):
        _ = plain.known_programs
    only = batch_of(population, task, ("programs",))
    assert only.rows.shape == (len(population), 0)
    assert len(only) == len(only.known_programs) == len(population)
    both = batch_of(population, task, NEEDS)
    assert both.rows.shape[1] == len(feature_names())
    assert np.array_equal(both.rows, plain.rows)
    mixed = FeatureBatch.concatenate([plain, both])
    assert mixed.programs is None
    with pytest.raises(ValueError, match="programs were given"):
        FeatureBatch(plain.rows, plain.offsets, only.known_programs[:2])


@pytest.mark.parametrize("wrong", [("steps",), (), "programs", 7, None])
def test_needs_that_mean_nothing_are_an_error(wrong: object) -> None:
    COST_MODELS.pop("both")
    cost_model("both")(type("Wrong", (Reader,), {"needs": wrong}))
    with pytest.raises(PlugInError, match=r"cost model 'both': Wrong needs .*a tuple of features, programs"):
        create_cost_model("both")


@pytest.mark.parametrize("name", ["reader", "both"])
def test_a_search_shows_programs_to_the_model(name: str) -> None:
    options = TuningOptions(trials=30, batch=14, cost_model=name, search=SMALL)
    result = tune_tasks([TASK, OTHER], options, measurer=FakeMeasurer())
    model = Reader if name == "reader" else Both
    assert len(result.records) == 30
    assert {program.task.workload_key for batch in model.seen for program in batch.known_programs} == {
        TASK.workload_key,
        OTHER.workload_key,
    }
    assert all((batch.rows.shape[1] > 0) == (name == "both") for batch in model.seen)
    shown = {}
    for batch, costs, numbers in model.learned:
        for program, cost, number in zip(batch.known_programs, costs, numbers, strict=True):
            assert program.task.workload_key == (TASK, OTHER)[number].workload_key
            shown[(int(number), str(program.steps_json))] = cost
    measured = {
        ([TASK.workload_key, OTHER.workload_key].index(record.workload_key), str(list(record.steps))): record.cost
        for record in result.records
    }
    assert shown == measured


def test_programs_of_another_run_are_told_too(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        options = TuningOptions(trials=20, batch=10, search=SMALL)
        tune_tasks([OTHER], options, measurer=FakeMeasurer(), subscribers=[run.take])
    found = transferred_programs(tmp_path, TARGET, [TASK], SearchOptions(), ("programs",))
    assert len(found.known) == 20
    assert [(task.number, task.workload_key) for task in found.tasks] == [(-2, OTHER.workload_key)]
    records, _ = read_records(tmp_path / "records.jsonl")
    told = {
        str(program.steps_json): cost for program, cost in zip(found.known.batch.known_programs, found.known.costs, strict=True)
    }
    assert told == {str(list(record.steps)): record.cost for record in records}
    options = TuningOptions(trials=20, batch=10, search=SMALL, cost_model="reader", cost_model_from=str(tmp_path))
    tune_tasks([TASK], options, measurer=FakeMeasurer())
    assert [set(numbers.tolist()) for _, _, numbers in Reader.learned] == [{-2}, {0}, {0}, {0}]


def test_the_default_schedule_is_learned_from_whatever_the_rules_are() -> None:
    """Under other rules its sketch is none of those that are searched, and its features come from its steps."""
    search = SearchOptions(population=64, iterations=1, rules=("skip",))
    options = TuningOptions(trials=6, batch=5, policy="counting", cost_model="both", search=search)
    result = tune_tasks([TASK], options, measurer=FakeMeasurer())
    default = result.records[0]
    assert default.is_default
    assert default.sketch_id is None
    batch, costs, _ = Both.learned[0]
    assert costs.tolist() == [default.cost]
    assert batch.known_programs[0].steps_json == list(default.steps)
    expected = concrete_batch(default, TASK, ("features",))
    assert expected is not None
    assert np.array_equal(batch.rows, expected.rows)
    by_sketch = TuningOptions(trials=1, policy="counting", cost_model="both", search=SMALL)
    again = tune_tasks([TASK], by_sketch, measurer=FakeMeasurer()).records[0]
    assert again.sketch_id is not None
    assert again.steps == default.steps
    assert np.array_equal(Both.learned[0][0].rows, batch.rows)


def test_programs_that_were_never_made_teach_nothing() -> None:
    records = tune_tasks([TASK], TuningOptions(trials=4, policy="counting", cost_model="even"), measurer=FakeMeasurer()).records
    default = records[0].to_json()
    default["origin"]["sketch_id"] = None
    failed = {**default, "steps": [], "result": {"error": "build", "error_stage": "concretise"}}
    unknown = {**default, "steps": [["split", "nothing", "i", [4]]]}
    scorer = Scorer(create_cost_model("both"), TASK, 0, PhaseTimer())
    learned = [type(records[0]).from_json(value) for value in (failed, unknown, default)]
    scores, seconds = scorer.train(generate_sketches(TASK.dag, TARGET), learned)
    assert len(scores) == 1
    assert seconds.tolist() == [records[0].cost]
