"""The model that knows nothing: uniform scores. It is the baseline, and how other models behave before they have data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import FeatureBatch, cost_model
from ansor_py.errors import OptionError
from ansor_py.strategy_options import OptionSet


@cost_model("random")
class RandomModel:
    """Scores drawn uniformly from [0, 1)."""

    def __init__(self, rng: np.random.Generator, options: OptionSet) -> None:
        """`options` are for models that learn."""
        self._rng = rng

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs], new ones at every call."""
        return self._rng.random(len(batch), dtype=np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """There is nothing to learn."""

    def save(self, path: Path) -> None:
        """Write the state of the random numbers."""
        path.write_text(json.dumps({"kind": "random", "rng": self._rng.bit_generator.state}))

    def load(self, path: Path) -> None:
        """Continue the random numbers where `save` was called."""
        try:
            saved = json.loads(path.read_text())
            if saved["kind"] != "random":
                raise KeyError("kind")
            self._rng.bit_generator.state = saved["rng"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(f"'{path}' is not a saved random cost model: {error}") from error
