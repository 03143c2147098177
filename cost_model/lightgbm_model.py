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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import FeatureBatch, cost_model
from ansor_py.cost_model.model_options import ModelOptions
from ansor_py.cost_model.objectives import ProgramObjective, by_rows, squared_error
from ansor_py.cost_model.training_set import TrainingSet, is_measured, read_model_file, write_training_set
from ansor_py.cost_model.tree_code import Trees, parse_trees
from ansor_py.errors import MissingRuntimeError, OptionError
from ansor_py.strategy_options import NO_OPTIONS, OptionSet


@cost_model("lightgbm", options=ModelOptions)
class LightGBMModel:
    """See the module. The same seed and the same updates give bit-equal predictions.

    A model of another loss derives from this one and overrides `kind`, `objective` and, if sums are no scores, `score`.
    """

    kind = "lightgbm"

    def __init__(self, rng: np.random.Generator, options: OptionSet = NO_OPTIONS) -> None:
        self.options = options.of(ModelOptions)
        self._rng = rng
        self._seed = int(rng.integers(2**31))
        self._known = TrainingSet.empty()
        self._trained_on = 0
        self._earlier = 0  # programs of other searches among the known ones
        self._model_text = ""
        self._trees: Trees | None = None
        self._last: tuple[FeatureBatch, Trees, NDArray[np.float64]] | None = None

    @property
    def is_trained(self) -> bool:
        """Whether scores come from trees, and are not random."""
        return self._trees is not None

    @property
    def trees(self) -> Trees | None:
        """The trees, None before there is enough data."""
        return self._trees

    def objective(self, known: TrainingSet, seed: int) -> ProgramObjective:
        """The loss on these programs."""
        labels = known.labels()
        return squared_error(labels, np.maximum(labels, self.options.least_weight))

    def score(self, sums: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scores of programs, above 0 for all that are worth descending from, from the sums of their statements' outputs."""
        return sums.astype(np.float32)

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs]: the sum of the statements' scores."""
        if self._trees is None:
            return self._rng.random(len(batch), dtype=np.float32)
        return self.score(np.add.reduceat(self._outputs(self._trees, batch), batch.offsets[:-1]))

    def predict_statements(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """The outputs float32[rows] of the single statements, which guide the paper's crossover; zeros before training."""
        if self._trees is None:
            return np.zeros(len(batch.rows), dtype=np.float32)
        return self._outputs(self._trees, batch).astype(np.float32)

    def _outputs(self, trees: Trees, batch: FeatureBatch) -> NDArray[np.float64]:
        """The trees' sums of the rows; those of the last batch are kept, as its statements are asked for after its programs."""
        if self._last is None or self._last[0] is not batch or self._last[1] is not trees:
            self._last = (batch, trees, trees.predict(batch.rows))
        return self._last[2]

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """Add measured programs and, if enough is new, train on everything.

        What is new counts beside this search's own programs: not what was loaded, nor what came under negative numbers.
        """
        costs, tasks = np.asarray(costs_seconds, dtype=np.float64), np.asarray(task_ids, dtype=np.int64)
        self._known = self._known.extended(TrainingSet(batch, costs, tasks))
        if np.all(tasks < 0):
            self._earlier += len(batch)
        own, trained = len(self._known) - self._earlier, max(self._trained_on - self._earlier, 0)
        enough = max(self.options.warm_up_programs - self._earlier, trained * (1 + self.options.retrain_growth))
        if len(batch) and own >= enough and np.any(is_measured(self._known.costs)):
            self._train()

    def _train(self) -> None:
        rows = self._known.batch.rows
        if np.all(rows == rows[0]):  # nothing to tell programs apart by
            return
        objective = self.objective(self._known, self._seed)
        self._model_text = train_trees(self._known.batch, objective, self.options, self._seed)
        self._trees = parse_trees(self._model_text)
        self._trained_on = len(self._known)

    def save(self, path: Path) -> None:
        """Write trees, data, options and the state of the random numbers to one file (NumPy's npz)."""
        header = {
            "kind": self.kind,
            "options": dataclasses.asdict(self.options),
            "seed": self._seed,
            "trained_on": self._trained_on,
            "rng": self._rng.bit_generator.state,
            "model": self._model_text,
        }
        write_training_set(path, self._known, header)

    def load(self, path: Path) -> None:
        """Take over a saved model with its data and options."""
        known, header = read_model_file(path)
        if header["kind"] != self.kind:
            raise OptionError(f"'{path}' is a saved {header['kind']} cost model, not a {self.kind} one")
        try:
            options, state = ModelOptions(**header["options"]), header["rng"]
            self._rng.bit_generator.state = state
            self._seed, self._trained_on = int(header["seed"]), int(header["trained_on"])
            self._model_text = str(header["model"])
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(f"'{path}' is not a saved {self.kind} cost model: {error}") from error
        self.options, self._known, self._earlier = options, known, len(known)
        self._trees = parse_trees(self._model_text) if self._model_text else None


def _lightgbm() -> Any:
    """LightGBM, imported when it is needed. Raises MissingRuntimeError where the system lacks what it is linked with."""
    try:
        import lightgbm
    except OSError as error:
        raise MissingRuntimeError(
            f"LightGBM cannot be loaded ({error}); it needs OpenMP's runtime: `apt-get install libgomp1` (Debian, Ubuntu) or "
            "`dnf install libgomp` (Fedora)"
        ) from error
    return lightgbm


def train_trees(data: FeatureBatch, objective: ProgramObjective, options: ModelOptions, seed: int) -> str:
    """Fit trees whose sums over a program's rows minimise the objective; LightGBM's text form of the model."""
    lightgbm = _lightgbm()
    parameters: dict[str, Any] = {
        "num_leaves": options.leaves,
        "learning_rate": options.learning_rate,
        "feature_fraction": options.feature_fraction,
        "extra_trees": options.random_thresholds,
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
    custom = by_rows(objective, data.offsets)
    booster = lightgbm.train({**parameters, "objective": custom}, dataset, num_boost_round=options.trees)
    return str(booster.model_to_string())
