"""What a cost model is: features of many programs in, one score a program out.

A `FeatureBatch` holds one row of features for every statement of every program; the rows of a program stand together. A
model predicts one score a program (higher is better) and learns from measured costs. Models are registered by name:

    model = create_cost_model("lightgbm", seed=0)
    model.update(batch, costs_seconds, task_ids)      # failures have cost inf
    scores = model.predict(batch)                     # float32[programs]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError, PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.strategy_options import NO_OPTIONS, OptionSet, StrategyOptions


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """`rows` float32[rows, features], a row a statement, and `offsets` int64[programs + 1].

    Program p has the rows `offsets[p]:offsets[p + 1]`.
    """

    rows: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.rows):
            raise ValueError(f"offsets must begin at 0 and end at the number of rows, {len(self.rows)}")
        if np.any(np.diff(self.offsets) < 1):
            raise ValueError("every program needs at least one row of features")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows_per_program(self) -> NDArray[np.int64]:
        """int64[programs]."""
        return np.diff(self.offsets)

    def select(self, programs: Sequence[int] | NDArray[np.integer]) -> FeatureBatch:
        """The batch of some of the programs, in the given order."""
        chosen = np.asarray(programs, dtype=np.int64)
        counts = self.rows_per_program[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        return FeatureBatch(self.rows[rows], offsets)

    @staticmethod
    def concatenate(batches: Sequence[FeatureBatch]) -> FeatureBatch:
        """One batch of all programs, in order; at least one batch has to be given."""
        counts = np.concatenate([batch.rows_per_program for batch in batches])
        return FeatureBatch(np.concatenate([batch.rows for batch in batches]), np.concatenate([[0], np.cumsum(counts)]))


class CostModel(Protocol):
    """A model of program cost. All randomness comes from the generator given at creation."""

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs]; higher is better. Scores of different tasks are not comparable as latencies."""

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """Learn from newly measured programs: mean seconds (inf for a failure) and the number of the task of each."""

    def save(self, path: Path) -> None:
        """Write everything that the model has learned and its data to one file."""

    def load(self, path: Path) -> None:
        """Take over what `save` wrote; raises OptionError if the file is of another kind."""


@runtime_checkable
class StatementModel(Protocol):
    """A cost model whose score of a program is the sum of scores of its statements, which guide the search's crossover."""

    def predict_statements(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[rows]; all alike as long as the model knows nothing."""


CostModelFactory = Callable[[np.random.Generator, OptionSet], CostModel]
COST_MODELS: Registry[CostModelFactory] = Registry("cost model")
FactoryType = TypeVar("FactoryType", bound=CostModelFactory)


def cost_model(name: str, options: type[StrategyOptions] | None = None) -> Callable[[FactoryType], FactoryType]:
    """Register a class or function that makes a model from a random number generator and an `OptionSet`.

    `options` is the class of its own options, which it takes from the set: `options.of(MyOptions)`. Raises OptionError for a
    factory that does not take both, and for a name that is taken.
    """

    def register(factory: FactoryType) -> FactoryType:
        try:
            inspect.signature(factory).bind(None, None)
        except TypeError as error:
            raise OptionError(f"cost model '{name}' must be made of (rng, options): {error}") from error
        COST_MODELS.add(name, factory, options)
        return factory

    return register


def create_cost_model(name: str, seed: int | np.random.Generator = 0, options: OptionSet = NO_OPTIONS) -> CostModel:
    """A new model by name, its random numbers from a seed or a generator.

    Raises OptionError that lists the known models, PlugInError for one that cannot be made or lacks a method.
    """
    make = COST_MODELS.find(name)
    with plug_in(f"cost model '{name}': its construction"):
        model = make(np.random.default_rng(seed), options)
    for method in ("predict", "update"):
        if not callable(getattr(model, method, None)):
            raise PlugInError(f"cost model '{name}': {type(model).__name__} has no method '{method}'")
    return model
