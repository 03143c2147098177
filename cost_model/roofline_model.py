"""The model that needs no training: a roofline of every statement, and their sum (Williams et al., CACM 2009).

The work is done by the feature group `roofline` (`feature_roofline.py`), which knows the target. A score is programs a second
on a core of 1 GHz: comparable between programs of one task, and a rough figure otherwise.

    create_cost_model("roofline").predict(batch)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, feature_count, feature_names
from ansor_py.cost_model.features import raw_features
from ansor_py.cost_model.interface import FeatureBatch, cost_model
from ansor_py.errors import OptionError
from ansor_py.schedule.sketch import Population
from ansor_py.strategy_options import OptionSet
from ansor_py.target import Target

COLUMN = "roofline_cycles"
ROOFLINE = next(group for group in FEATURE_GROUPS.values() if COLUMN in group.fields)
CYCLES_PER_SECOND = 1e9


def roofline_cycles(batch: FeatureBatch) -> NDArray[np.float64]:
    """Cycles of the statements, float64[rows]. Raises OptionError for rows that are not those of `extract_features`."""
    if batch.rows.shape[1] != feature_count():
        raise OptionError(f"the roofline model reads rows of {feature_count()} features, not {batch.rows.shape[1]}")
    return np.asarray(np.exp2(batch.rows[:, feature_names().index(COLUMN)].astype(np.float64)) - 1)


def roofline_throughput(batch: FeatureBatch) -> NDArray[np.float64]:
    """Programs a second, float64[programs], positive. Raises OptionError as `roofline_cycles` does."""
    return np.asarray(CYCLES_PER_SECOND / np.maximum(np.add.reduceat(roofline_cycles(batch), batch.offsets[:-1]), 1.0))


def estimated_cycles(population: Population, target: Target) -> NDArray[np.float64]:
    """Cycles of programs of which nothing but the roofline is computed, float64[programs]; the same on every machine."""
    batch = raw_features(population, target, [ROOFLINE])
    return np.asarray(np.add.reduceat(batch.rows[:, ROOFLINE.fields.index(COLUMN)].astype(np.float64), batch.offsets[:-1]))


@cost_model("roofline")
class RooflineModel:
    """See the module."""

    def __init__(self, rng: np.random.Generator, options: OptionSet) -> None:
        """Neither is used: nothing is random, and nothing learned."""

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs], positive. Raises OptionError for rows that are not those of `extract_features`."""
        return roofline_throughput(batch).astype(np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """There is nothing to learn."""

    def save(self, path: Path) -> None:
        """Write what kind of model it is."""
        path.write_text(json.dumps({"kind": "roofline"}))

    def load(self, path: Path) -> None:
        """Check that the file is of this kind."""
        try:
            if json.loads(path.read_text())["kind"] != "roofline":
                raise KeyError("kind")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(f"'{path}' is not a saved roofline cost model: {error}") from error
