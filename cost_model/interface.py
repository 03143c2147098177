"""What a cost model is: features of many programs in, one score a program out.

A `FeatureBatch` holds one row of features for every statement of every program; the rows of a program stand together. A
model predicts one score a program (higher is better) and learns from measured costs. Models are registered by name:

    model = create_cost_model("lightgbm", seed=0)
    model.update(batch, costs_seconds, task_ids)      # failures have cost inf
    scores = model.predict(batch)                     # float32[programs]

A model that wants more than features, or none, says so in its attribute `needs` (see `CostModel`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.programs import Programs
from ansor_py.errors import OptionError, PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.strategy_options import NO_OPTIONS, OptionSet, StrategyOptions

Need = Literal["features", "programs"]
NEEDS: tuple[Need, ...] = get_args(Need)


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """`rows` float32[rows, features], a row a statement, and `offsets` int64[programs + 1].

    Program p has the rows `offsets[p]:offsets[p + 1]`. `programs` are there for a model that needs them; for a model that needs
    no features every program has one row of none.
    """

    rows: NDArray[np.float32]
    offsets: NDArray[np.int64]
    programs: Programs | None = None

    def __post_init__(self) -> None:
        if self.programs is not None and len(self.programs) != len(self):
            raise ValueError(f"{len(self.programs)} programs were given with features of {len(self)}")
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
        known = None if self.programs is None else self.programs.select(chosen)
        return FeatureBatch(self.rows[rows], offsets, known)

    @property
    def known_programs(self) -> Programs:
        """The programs. Raises OptionError where the model did not say that it needs them."""
        if self.programs is None:
            raise OptionError("the batch tells no programs; a cost model that reads them says needs = ('features', 'programs')")
        return self.programs

    @staticmethod
    def concatenate(batches: Sequence[FeatureBatch]) -> FeatureBatch:
        """One batch of all programs, in order; at least one batch has to be given. It tells programs if all of them do."""
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([batch.rows_per_program for batch in batches]))])
        known = [batch.programs for batch in batches if batch.programs is not None]
        programs = Programs.concatenate(known) if len(known) == len(batches) else None
        return FeatureBatch(np.concatenate([batch.rows for batch in batches]), offsets, programs)


class CostModel(Protocol):
    """A model of program cost. All randomness comes from the generator given at creation.

    An attribute `needs` (a tuple of `NEEDS`; ("features",) where it is missing) says what its batches hold: `features`, the
    rows; `programs`, what `batch.programs` tells of task, sketch, genes and steps. What is not asked for is not computed.
    `save` and `load` are optional: without them a model cannot be kept, and no search can begin with it.
    """

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


def needs_of(model: object) -> tuple[Need, ...]:
    """What the batches of a model must hold. Raises PlugInError for something else than names among `NEEDS`."""
    needs = getattr(model, "needs", NEEDS[:1])
    if not isinstance(needs, (tuple, list)) or not needs or not set(needs) <= set(NEEDS):
        raise PlugInError(f"{type(model).__name__} needs {needs!r:.60}; 'needs' must be a tuple of {', '.join(NEEDS)}")
    return tuple(needs)


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
    try:
        needs_of(model)
    except PlugInError as error:
        raise PlugInError(f"cost model '{name}': {error}") from error
    return model
