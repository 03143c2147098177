"""A cost model as the search uses it: what it gives is checked, what it raises is one error that names it.

A model may be a user's own, and may be wrong. `predict` must give one finite number a program; selection goes by rank, so that
a score that is no number, or scores of other programs, would mislead a search without a word.

    model = checked_model("mine", create_cost_model("mine", seed=0))
    model.predict(batch)        # PlugInError: cost model 'mine': predict gave float64[3, 1] for 3 programs; ...
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.interface import CostModel, FeatureBatch, Need, StatementModel, needs_of
from ansor_py.errors import PlugInError, plug_in

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckedModel:
    """A cost model between the search and one that is registered as `name`."""

    def __init__(self, name: str, model: CostModel) -> None:
        self.name = name
        self.model = model
        self.needs: tuple[Need, ...] = needs_of(model)

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs], finite. Raises PlugInError."""
        with plug_in(f"cost model '{self.name}': predict"):
            return self._scores("predict", self.model.predict(batch), len(batch), "programs")

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """Let it learn; the arrays are its own. Raises PlugInError."""
        with plug_in(f"cost model '{self.name}': update"):
            self.model.update(batch, costs_seconds.copy(), task_ids.copy())

    def save(self, path: Path) -> None:
        """Let it write what it has learned, if it can. Raises PlugInError, and OSError where a file cannot be written."""
        if not hasattr(self.model, "save"):
            return
        unwritten: OSError | None = None
        with plug_in(f"cost model '{self.name}': save"):
            try:
                self.model.save(path)
            except OSError as error:
                if error.errno not in DISK_FULL and str(error.filename) != str(path):
                    raise  # it is about something else
                unwritten = error
            if path.is_dir():
                shutil.rmtree(path)
                raise PlugInError(f"cost model '{self.name}': save made a folder; it must write the file that it is given")
        if unwritten is not None:
            raise unwritten

    def load(self, path: Path) -> None:
        """Let it take over what `save` wrote. Raises PlugInError, also for a model that cannot."""
        self.check_loading()
        with plug_in(f"cost model '{self.name}': load"):
            self.model.load(path)

    def check_loading(self) -> None:
        """Raise PlugInError for a model that cannot take over anything."""
        if not callable(getattr(self.model, "load", None)):
            raise PlugInError(
                f"cost model '{self.name}': {type(self.model).__name__} has no method 'load', so it cannot take over what was "
                "saved; write one that reads what 'save' wrote"
            )

    def _scores(self, method: str, given: Any, count: int, of: str) -> NDArray[np.float32]:
        """What a method gave, as float32[count] of its own."""
        scores = np.asarray(given)
        kind = f"{scores.dtype}{list(scores.shape)}" if isinstance(given, (np.ndarray, list, tuple)) else repr(given)[:60]
        wanted = f"it must give {count} finite numbers, float32[{of}]"
        is_real = np.issubdtype(scores.dtype, np.integer) or np.issubdtype(scores.dtype, np.floating)
        if scores.shape != (count,) or not is_real:
            raise PlugInError(f"cost model '{self.name}': {method} gave {kind} for {count} {of}; {wanted}")
        with np.errstate(over="ignore"):
            checked = scores.astype(np.float32)
        if not np.isfinite(checked).all():
            bad = scores[~np.isfinite(checked)]
            raise PlugInError(f"cost model '{self.name}': {method} gave {bad[0]} for {len(bad)} of {count} {of}; {wanted}")
        return checked


class CheckedStatementModel(CheckedModel):
    """The same of a model that also scores single statements."""

    def predict_statements(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[rows], finite. Raises PlugInError."""
        assert isinstance(self.model, StatementModel)
        with plug_in(f"cost model '{self.name}': predict_statements"):
            given = self.model.predict_statements(batch)
            return self._scores("predict_statements", given, len(batch.rows), "statements")


def checked_model(name: str, model: CostModel) -> CheckedModel:
    """The model with checks; it scores statements if the model does."""
    return CheckedStatementModel(name, model) if isinstance(model, StatementModel) else CheckedModel(name, model)
