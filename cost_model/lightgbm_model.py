"""The learned cost model: boosted trees whose sum over a program's statements predicts its score (paper, section 5.2).

A program's label is the best cost of its task over its own cost, in (0, 1]; failures have label 0. The loss is the squared
error weighted by the label, so that fast programs matter most. Training starts from scratch on all data whenever
enough is new; scores come from native code (`tree_code.py`). Until there is enough data, scores are random.

    model = create_cost_model("lightgbm", seed=0)
    model.update(batch, costs_seconds, task_ids)
    model.predict(batch)                          # near 1 for the best programs of a task
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import FeatureBatch, cost_model
from ansor_py.cost_model.tree_code import MAX_LEAVES, Trees, parse_trees
from ansor_py.errors import OptionError

# A cost of this many seconds or more is a failed measurement, as in Ansor's logs.
FAILURE_SECONDS = 1e9


@dataclass(frozen=True)
class LightGBMOptions:
    """Constants of the model. `least_weight` is the weight of failures and the least of any program."""

    trees: int = 100
    leaves: int = 16
    learning_rate: float = 0.2
    feature_fraction: float = 0.7
    bins: int = 63
    least_rows_in_leaf: int = 5
    least_weight: float = 0.05
    warm_up_programs: int = 32  # fewer than these: random scores
    retrain_growth: float = 0.03  # retrain when the data has grown by this share since the last training
    threads: int = 1

    def __post_init__(self) -> None:
        if not 2 <= self.leaves <= MAX_LEAVES:
            raise OptionError(f"the cost model's trees must have 2 to {MAX_LEAVES} leaves, not {self.leaves}")
        if self.trees < 1 or self.threads < 1:
            raise OptionError(f"the cost model needs at least one tree and one thread, not {self.trees} and {self.threads}")


@cost_model("lightgbm")
class LightGBMModel:
    """See the module. The same seed and the same updates give bit-equal predictions."""

    def __init__(self, rng: np.random.Generator, options: LightGBMOptions | None = None) -> None:
        self.options = options or LightGBMOptions()
        self._rng = rng
        self._seed = int(rng.integers(2**31))
        self._data: FeatureBatch | None = None
        self._costs = np.empty(0, dtype=np.float64)
        self._tasks = np.empty(0, dtype=np.int64)
        self._trained_on = 0
        self._model_text = ""
        self._trees: Trees | None = None

    @property
    def is_trained(self) -> bool:
        """Whether scores come from trees, and are not random."""
        return self._trees is not None

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs]: the sum of the statements' scores."""
        if self._trees is None:
            return self._rng.random(len(batch), dtype=np.float32)
        return np.add.reduceat(self._trees.predict(batch.rows), batch.offsets[:-1]).astype(np.float32)

    def predict_statements(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[rows] of the single statements, which guide the paper's crossover; zeros before training."""
        if self._trees is None:
            return np.zeros(len(batch.rows), dtype=np.float32)
        return self._trees.predict(batch.rows).astype(np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """Add measured programs and, if enough is new, train on everything."""
        costs, tasks = np.asarray(costs_seconds, dtype=np.float64), np.asarray(task_ids, dtype=np.int64)
        if len(costs) != len(batch) or len(tasks) != len(batch):
            raise ValueError(f"{len(batch)} programs were given with {len(costs)} costs and {len(tasks)} task ids")
        if not len(batch):
            return
        known = batch.rows.shape[1] if self._data is None else self._data.rows.shape[1]
        if batch.rows.shape[1] != known:
            raise OptionError(f"the cost model has learned {known} features, not {batch.rows.shape[1]}; start with a new model")
        self._data = batch if self._data is None else FeatureBatch.concatenate([self._data, batch])
        self._costs, self._tasks = np.concatenate([self._costs, costs]), np.concatenate([self._tasks, tasks])
        enough = max(self.options.warm_up_programs, self._trained_on * (1 + self.options.retrain_growth))
        if len(self._costs) >= enough and np.any(_is_measured(self._costs)):
            self._train(self._data)

    def _train(self, data: FeatureBatch) -> None:
        if np.all(data.rows == data.rows[0]):  # nothing to tell programs apart by
            return
        labels = throughput_labels(self._costs, self._tasks)
        weights = np.maximum(labels, self.options.least_weight)
        self._model_text = train_trees(data, labels, weights, self.options, self._seed)
        self._trees = parse_trees(self._model_text)
        self._trained_on = len(labels)

    def save(self, path: Path) -> None:
        """Write trees, data, options and the state of the random numbers to one file (NumPy's npz)."""
        empty = FeatureBatch(np.empty((0, 0), np.float32), np.zeros(1, np.int64))
        data = self._data or empty
        header = {
            "kind": "lightgbm",
            "options": dataclasses.asdict(self.options),
            "seed": self._seed,
            "trained_on": self._trained_on,
            "rng": self._rng.bit_generator.state,
            "model": self._model_text,
        }
        text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        with path.open("wb") as file:
            np.savez_compressed(file, header=text, rows=data.rows, offsets=data.offsets, costs=self._costs, tasks=self._tasks)

    def load(self, path: Path) -> None:
        """Take over a saved model with its data and options."""
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(file["header"].tobytes())
                if header["kind"] != "lightgbm":
                    raise KeyError("kind")
                data = FeatureBatch(file["rows"], file["offsets"]) if len(file["costs"]) else None
                options = LightGBMOptions(**header["options"])
                self._rng.bit_generator.state = header["rng"]
                self._costs, self._tasks = file["costs"], file["tasks"]
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise OptionError(f"'{path}' is not a saved lightgbm cost model: {error}") from error
        self.options, self._data, self._seed = options, data, int(header["seed"])
        self._trained_on, self._model_text = int(header["trained_on"]), str(header["model"])
        self._trees = parse_trees(self._model_text) if self._model_text else None


def _is_measured(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(costs) & (costs < FAILURE_SECONDS) & (costs > 0)


def throughput_labels(costs: NDArray[np.float64], tasks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Best cost of the task over the program's cost, float64[programs] in (0, 1]; 0 for failures."""
    measured = _is_measured(costs)
    _, group = np.unique(tasks, return_inverse=True)
    best = np.full(int(group.max(initial=-1)) + 1, np.inf)
    np.minimum.at(best, group[measured], costs[measured])
    labels = np.zeros(len(costs))
    labels[measured] = best[group[measured]] / costs[measured]
    return labels


def train_trees(
    data: FeatureBatch, labels: NDArray[np.float64], weights: NDArray[np.float64], options: LightGBMOptions, seed: int
) -> str:
    """Fit trees so that their sum over a program's rows is its label; LightGBM's text form of the model.

    The objective is sum of weight / 2 * (sum over rows - label)**2. Every row of a program moves the sum, so the second
    derivative of a row is multiplied by the program's rows, which keeps the steps stable for programs of many statements.
    """
    import lightgbm

    starts, counts = data.offsets[:-1], data.rows_per_program
    weights = weights / weights.mean()
    hessian = np.repeat(weights * counts, counts)

    def objective(predicted: NDArray[np.float64], dataset: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        residual = np.add.reduceat(predicted, starts) - labels
        return np.repeat(residual * weights, counts), hessian

    parameters: dict[str, Any] = {
        "num_leaves": options.leaves,
        "learning_rate": options.learning_rate,
        "feature_fraction": options.feature_fraction,
        "max_bin": options.bins,
        "min_data_in_leaf": options.least_rows_in_leaf,
        "min_data_in_bin": 1,
        "feature_pre_filter": False,
        "min_sum_hessian_in_leaf": 1e-3,
        "use_missing": False,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": options.threads,
        "seed": seed,
        "verbosity": -1,
    }
    dataset = lightgbm.Dataset(data.rows, label=np.zeros(len(data.rows)), params=parameters)
    booster = lightgbm.train({**parameters, "objective": objective}, dataset, num_boost_round=options.trees)
    return str(booster.model_to_string())
