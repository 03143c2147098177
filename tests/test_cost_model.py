"""The cost models: fitting, ranking, determinism, saving, the native trees and the metrics."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ansor_py.cost_model import (
    CostModel,
    FeatureBatch,
    GuidedModel,
    LightGBMModel,
    ModelOptions,
    create_cost_model,
    extract_features,
    feature_names,
)
from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, Columns, feature_group
from ansor_py.cost_model.guided_model import LEAST_SUM
from ansor_py.cost_model.interface import COST_MODELS, cost_model
from ansor_py.cost_model.lightgbm_model import train_trees
from ansor_py.cost_model.metrics import pairwise_rank_accuracy, rmse, top_k_recall
from ansor_py.cost_model.objectives import pairwise_ranking, squared_error
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.cost_model.training_set import read_training_set, throughput_labels
from ansor_py.cost_model.tree_code import parse_trees
from ansor_py.errors import MissingRuntimeError, OptionError
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.steps import Parallel, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.strategy_options import OptionSet
from ansor_py.target import Target
from sketch_examples import conv_fused, matmul_cached, matmul_dag, random_population
from targets import structure_targets

on_four_targets = pytest.mark.parametrize("target", structure_targets("cores=2"))


def synthetic_batch(programs: int, rng: np.random.Generator, features: int = 20, most_rows: int = 4) -> FeatureBatch:
    counts = rng.integers(1, most_rows + 1, programs)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return FeatureBatch(rng.integers(0, 12, (offsets[-1], features)).astype(np.float32), offsets)


def synthetic_costs(batch: FeatureBatch) -> NDArray[np.float64]:
    """Seconds that depend on some of the features."""
    rows = np.exp(batch.rows[:, 0] / 6) * np.where(batch.rows[:, 1] > 5, 1.0, 2.0) + batch.rows[:, 2] / 4
    return np.add.reduceat(rows.astype(np.float64), batch.offsets[:-1]) * 1e-4


def tasks_of(batch: FeatureBatch) -> NDArray[np.int64]:
    return np.zeros(len(batch), dtype=np.int64)


def trained(programs: int = 300, seed: int = 0) -> tuple[CostModel, FeatureBatch]:
    batch = synthetic_batch(programs, np.random.default_rng(1))
    model = create_cost_model("lightgbm", seed)
    model.update(batch, synthetic_costs(batch), tasks_of(batch))
    return model, batch


@on_four_targets
def test_fifty_programs_with_random_labels_are_fit(target: Target) -> None:
    rng = np.random.default_rng(5)
    population = random_population(matmul_cached(matmul_dag(512, 512, 512)), 50, rng)
    batch = extract_features(population, target)
    costs = rng.uniform(1e-3, 1e-1, 50)
    model = create_cost_model("lightgbm", 0)
    model.update(batch, costs, tasks_of(batch))
    assert rmse(model.predict(batch), throughput_labels(costs, tasks_of(batch))) <= 0.3


@on_four_targets
def test_ranking_on_unseen_programs_is_better_than_random(target: Target) -> None:
    population = random_population(conv_fused(), 500, np.random.default_rng(2))
    batch = extract_features(population, target)
    iterations = 2.0 ** batch.rows[:, feature_names().index("iterations")]
    lanes = 2.0 ** batch.rows[:, feature_names().index("lane_utilisation")] - 1
    costs = np.add.reduceat(iterations.astype(np.float64) / np.maximum(lanes, 0.05), batch.offsets[:-1]) * 1e-9
    seen, unseen = np.arange(300), np.arange(300, 500)
    model = create_cost_model("lightgbm", 0)
    model.update(batch.select(seen), costs[seen], np.zeros(300, dtype=np.int64))
    scores = model.predict(batch.select(unseen))
    assert scores.dtype == np.float32
    assert scores.shape == (200,)
    assert pairwise_rank_accuracy(scores, 1 / costs[unseen]) > 0.85
    assert top_k_recall(scores, 1 / costs[unseen], 30) > 0.5


def test_predictions_are_deterministic_for_a_seed() -> None:
    (first, batch), (second, _) = trained(), trained()
    assert np.array_equal(first.predict(batch), second.predict(batch))
    other, _ = trained(seed=1)
    assert not np.array_equal(first.predict(batch), other.predict(batch))
    a, b = create_cost_model("random", 3), create_cost_model("random", 3)
    assert np.array_equal(a.predict(batch), b.predict(batch))


def test_scores_are_uniform_before_there_is_enough_data() -> None:
    batch = synthetic_batch(400, np.random.default_rng(0))
    for name in ("random", "lightgbm"):
        model = create_cost_model(name, np.random.default_rng(0))
        scores = model.predict(batch)
        assert scores.dtype == np.float32
        assert scores.min() >= 0
        assert scores.max() < 1
        assert 0.4 < scores.mean() < 0.6
        few = batch.select(np.arange(10))
        model.update(few, synthetic_costs(few), tasks_of(few))
        assert len(np.unique(model.predict(batch))) > 390


def test_failures_only_teach_nothing_and_failures_among_others_score_low() -> None:
    batch = synthetic_batch(200, np.random.default_rng(0))
    model = LightGBMModel(np.random.default_rng(0))
    model.update(batch, np.full(200, np.inf), tasks_of(batch))
    assert not model.is_trained
    fails = batch.rows[batch.offsets[:-1], 3] > 8
    fresh = LightGBMModel(np.random.default_rng(0))
    fresh.update(batch, np.where(fails, np.inf, 1e-3), tasks_of(batch))
    scores = fresh.predict(batch)
    assert scores[fails].mean() < scores[~fails].mean() - 0.4


def test_labels_are_relative_to_the_best_of_the_same_task() -> None:
    costs = np.array([2.0, 1.0, np.inf, 40.0, 10.0, 1e10])
    labels = throughput_labels(costs, np.array([7, 7, 7, 2, 2, 5]))
    assert labels == pytest.approx([0.5, 1, 0, 0.25, 1, 0])


@pytest.mark.parametrize("name", ["lightgbm", "lightgbm-rank", "random"])
def test_saving_and_loading_continues_identically(name: str, tmp_path: Path) -> None:
    batch = synthetic_batch(120, np.random.default_rng(1))
    more = synthetic_batch(60, np.random.default_rng(2))
    for count in (0, 10, 120):
        model = create_cost_model(name, 4)
        part = batch.select(np.arange(count))
        model.update(part, synthetic_costs(part) if count else np.empty(0), tasks_of(part))
        model.predict(more)
        model.save(tmp_path / "model")
        loaded = create_cost_model(name, 99)
        loaded.load(tmp_path / "model")
        assert np.array_equal(loaded.predict(more), model.predict(more))
        for one in (model, loaded):
            one.update(more, synthetic_costs(more), tasks_of(more))
        assert np.array_equal(loaded.predict(batch), model.predict(batch))


@pytest.mark.parametrize("name", ["lightgbm", "lightgbm-rank", "lightgbm-roofline", "random", "roofline"])
def test_loading_something_else_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no model")
    for path in (tmp_path / "other", tmp_path / "missing"):
        with pytest.raises(OptionError, match="saved"):
            create_cost_model(name).load(path)


def test_wrong_options_are_clear_errors() -> None:
    model, batch = trained()
    with pytest.raises(OptionError, match="20 features, not 7"):
        model.update(FeatureBatch(batch.rows[:, :7], batch.offsets), synthetic_costs(batch), tasks_of(batch))
    with pytest.raises(OptionError, match="lightgbm, lightgbm-rank, lightgbm-roofline, random, roofline"):
        create_cost_model("oracle")
    with pytest.raises(OptionError, match=r"'model\.leaves' must be 2 to 32, not 64"):
        ModelOptions(leaves=64)
    with pytest.raises(ValueError, match="at least one row"):
        FeatureBatch(np.zeros((2, 3), np.float32), np.array([0, 0, 2]))


def test_a_model_is_made_of_a_generator_and_the_constants() -> None:
    with pytest.raises(OptionError, match=r"'forgetful' must be made of \(rng, options\)"):
        cost_model("forgetful")(lambda rng: create_cost_model("random", rng))  # type: ignore[arg-type,misc]
    assert "forgetful" not in COST_MODELS


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({"trees": 0}, "'model.trees' must be 1 or more, not 0"),
        ({"bins": 1}, "'model.bins' must be 2 or more"),
        ({"feature_fraction": 0.0}, "'model.feature_fraction' must be above 0 and at most 1"),
        ({"roofline_power": -1.0}, "'model.roofline_power' must be 0 or more"),
    ],
)
def test_constants_of_models_that_make_no_sense_are_refused(constants: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        ModelOptions(**constants)


def test_statement_scores_sum_to_the_program_score() -> None:
    model, batch = trained()
    assert isinstance(model, LightGBMModel)
    sums = np.add.reduceat(model.predict_statements(batch).astype(np.float64), batch.offsets[:-1])
    assert sums == pytest.approx(model.predict(batch), abs=1e-5)


def test_a_missing_runtime_of_lightgbm_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Linker:
        """What importing LightGBM does on a machine without OpenMP's runtime."""

        def find_spec(self, name: str, *_: object) -> None:
            if name == "lightgbm":
                raise OSError("libgomp.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Linker(), *sys.meta_path])
    batch = synthetic_batch(20, np.random.default_rng(0))
    with pytest.raises(MissingRuntimeError, match=r"libgomp\.so\.1.*apt-get install libgomp1"):
        train_trees(batch, squared_error(np.ones(20), np.ones(20)), ModelOptions(), 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 32), st.integers(1, 30), st.integers(1, 50))
def test_native_trees_equal_the_booster(seed: int, leaves: int, trees: int, rows: int) -> None:
    import lightgbm

    rng = np.random.default_rng(seed)
    batch = synthetic_batch(80, rng, features=int(rng.integers(1, 9)))
    rows_scale = rng.choice([1.0, 0.37, 1e-3])
    scaled = FeatureBatch(np.asarray(batch.rows * rows_scale, dtype=np.float32), batch.offsets)
    options = ModelOptions(trees=trees, leaves=leaves, least_rows_in_leaf=1)
    text = train_trees(scaled, squared_error(rng.random(80), np.ones(80)), options, seed)
    booster = lightgbm.Booster(model_str=text)
    native = parse_trees(text)
    tested = np.concatenate([scaled.rows[:rows], (rng.random((rows, scaled.rows.shape[1])) * 15).astype(np.float32)])
    assert np.array_equal(native.predict(tested), booster.predict(tested))
    with pytest.raises(ValueError, match="features"):
        native.predict(np.zeros((2, scaled.rows.shape[1] + 1), np.float32))


def test_trees_without_a_split() -> None:
    import lightgbm

    batch = synthetic_batch(40, np.random.default_rng(0))
    text = train_trees(batch, squared_error(np.ones(40), np.ones(40)), ModelOptions(trees=3, least_rows_in_leaf=1000), 0)
    assert np.array_equal(parse_trees(text).predict(batch.rows), lightgbm.Booster(model_str=text).predict(batch.rows))


def test_programs_with_equal_features_leave_the_scores_random() -> None:
    batch = FeatureBatch(np.ones((40, 3), np.float32), np.arange(41))
    model = LightGBMModel(np.random.default_rng(0))
    model.update(batch, np.linspace(1e-3, 2e-3, 40), tasks_of(batch))
    assert not model.is_trained
    rare = FeatureBatch(np.concatenate([np.zeros((1, 3)), np.ones((39, 3))]).astype(np.float32), np.arange(41))
    model.update(rare, np.linspace(1e-3, 2e-3, 40), tasks_of(rare))
    assert model.is_trained


def test_batches_can_be_selected_and_joined() -> None:
    batch = synthetic_batch(9, np.random.default_rng(0))
    chosen = batch.select([4, 1, 1])
    assert len(chosen) == 3
    for position, program in enumerate((4, 1, 1)):
        expected = batch.rows[batch.offsets[program] : batch.offsets[program + 1]]
        assert np.array_equal(chosen.rows[chosen.offsets[position] : chosen.offsets[position + 1]], expected)
    joined = FeatureBatch.concatenate([batch.select([0, 1, 2]), batch.select(range(3, 9))])
    assert np.array_equal(joined.rows, batch.rows)
    assert np.array_equal(joined.offsets, batch.offsets)


def test_metrics() -> None:
    truth = np.array([1.0, 2.0, 3.0, 3.0])
    assert pairwise_rank_accuracy(truth, truth) == 1
    assert pairwise_rank_accuracy(-truth, truth) == 0
    assert pairwise_rank_accuracy(np.zeros(4), truth) == 0.5
    assert pairwise_rank_accuracy([0, 0, 1, 2], truth) == pytest.approx(4.5 / 5)
    assert np.isnan(pairwise_rank_accuracy([1.0], [2.0]))
    assert top_k_recall([9, 1, 2, 3], [9, 8, 1, 2], 2) == 0.5
    assert top_k_recall([1, 2], [1, 2], 30) == 1
    assert rmse([1.0, 3.0], [1.0, 1.0]) == pytest.approx(np.sqrt(2))
    with pytest.raises(ValueError, match="one length"):
        rmse([1.0], [1.0, 2.0])


def test_the_rank_model_orders_unseen_programs_and_scores_them_between_zero_and_one() -> None:
    batch = synthetic_batch(500, np.random.default_rng(1))
    costs = synthetic_costs(batch)
    seen, unseen = batch.select(np.arange(350)), batch.select(np.arange(350, 500))
    model = create_cost_model("lightgbm-rank", 0)
    tasks = np.arange(350) % 2
    model.update(seen, costs[:350] * np.where(tasks == 1, 1000.0, 1.0), tasks)
    scores = model.predict(unseen)
    assert scores.min() > 0
    assert scores.max() < 1
    assert pairwise_rank_accuracy(scores, 1 / costs[350:]) > 0.85


def test_the_rank_objective_pulls_only_programs_of_one_task_apart() -> None:
    labels, tasks = np.array([1.0, 0.5, 1.0, 0.2]), np.array([0, 0, 1, 2])
    gradient, hessian = pairwise_ranking(labels, tasks, 0)(np.zeros(4))
    assert gradient[0] < 0 < gradient[1]
    assert gradient[2] == gradient[3] == 0
    assert np.all(hessian > 0)
    apart, _ = pairwise_ranking(labels, tasks, 0)(np.array([5.0, -5.0, 0.0, 0.0]))
    assert abs(apart[0]) < abs(gradient[0]) / 10


@on_four_targets
def test_the_roofline_needs_no_training_and_prefers_vectors_and_cores(target: Target) -> None:
    dag = matmul_dag(64, 64, 64)
    tile: list[Step] = [Split("C", "i", (4,)), Split("C", "j", (32,)), Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1"))]
    tile.append(RegisterTile("C", ("i.1", "j.1"), "float32 outer product"))
    programs: list[list[Step]] = [
        [],
        tile,
        [*tile, Vectorize("C", "j.1")],
        [*tile, Vectorize("C", "j.1"), Parallel("C", "i.0")],
    ]
    sketches = [Sketch("concrete", dag, tuple(steps), ()) for steps in programs]
    rows = [extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target) for sketch in sketches]
    scores = create_cost_model("roofline").predict(FeatureBatch.concatenate(rows))
    assert scores.dtype == np.float32
    assert scores[0] > 0
    assert np.all(np.diff(scores) > 0)
    assert scores[3] < 2 * scores[2]  # two cores share the work, and starting them takes some time
    with pytest.raises(OptionError, match="features"):
        create_cost_model("roofline").predict(synthetic_batch(3, np.random.default_rng(0)))


@on_four_targets
def test_the_guided_model_is_the_roofline_until_it_has_learned_and_then_both(tmp_path: Path, target: Target) -> None:
    batch = extract_features(random_population(conv_fused(), 300, np.random.default_rng(2)), target)
    costs = np.random.default_rng(3).uniform(1e-3, 2e-3, len(batch))
    tasks = tasks_of(batch)
    guided, learned = create_cost_model("lightgbm-roofline", 7), create_cost_model("lightgbm", 7)
    roofline = create_cost_model("roofline").predict(batch)
    assert np.array_equal(guided.predict(batch), roofline)
    assert isinstance(guided, GuidedModel)
    cycles = np.add.reduceat(-guided.predict_statements(batch).astype(np.float64), batch.offsets[:-1])
    assert 1e9 / cycles == pytest.approx(roofline, rel=1e-4)
    few = np.arange(10)
    guided.update(batch.select(few), costs[few], tasks[few])
    assert np.array_equal(guided.predict(batch), roofline)
    rest = np.arange(10, 300)
    guided.update(batch.select(rest), costs[rest], tasks[rest])
    learned.update(batch, costs, tasks)
    trees = np.maximum(learned.predict(batch), LEAST_SUM)
    assert guided.predict(batch) == pytest.approx(trees * roofline, rel=1e-5)
    assert guided.predict(batch).dtype == np.float32
    trusting = create_cost_model("lightgbm-roofline", 7, OptionSet((ModelOptions(roofline_power=2.0),)))
    trusting.update(batch, costs, tasks)
    assert trusting.predict(batch) == pytest.approx(trees * roofline.astype(np.float64) ** 2, rel=1e-5)
    guided.save(tmp_path / "model.npz")
    loaded = create_cost_model("lightgbm-roofline", 99)
    loaded.load(tmp_path / "model.npz")
    assert np.array_equal(loaded.predict(batch), guided.predict(batch))
    with pytest.raises(OptionError, match="reads rows of"):
        guided.predict(synthetic_batch(3, np.random.default_rng(0)))


def test_a_saved_model_hands_on_what_it_has_learned(tmp_path: Path) -> None:
    model, batch = trained()
    model.save(tmp_path / "model.npz")
    known = read_training_set(tmp_path / "model.npz")
    assert np.array_equal(known.batch.rows, batch.rows)
    assert np.array_equal(known.costs, synthetic_costs(batch))

    @feature_group("mine", ["another"])
    def mine(statement: StatementArrays, target: Target, out: Columns) -> None:
        out[0] = 0

    try:
        with pytest.raises(OptionError, match="other program features"):
            read_training_set(tmp_path / "model.npz")
    finally:
        FEATURE_GROUPS.popitem()
    with pytest.raises(OptionError, match="lightgbm cost model, not a lightgbm-rank"):
        create_cost_model("lightgbm-rank").load(tmp_path / "model.npz")
