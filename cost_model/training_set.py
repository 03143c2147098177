"""Measured programs as a cost model learns them: features, seconds and tasks, in memory and in the file of a saved model.

A saved model holds the programs that it was trained on, so that another search can start from them, whichever model it uses.

    known = TrainingSet.empty().extended(batch, costs_seconds, task_ids)
    read_training_set(Path("runs/a/cost_model.npz")).costs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.feature_groups import feature_signature
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.cost_model.model_file import saved_content
from ansor_py.errors import OptionError

# A cost of this many seconds or more is a failed measurement, as in Ansor's logs.
FAILURE_SECONDS = 1e9


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Programs with their seconds float64[programs] (inf for a failure) and the numbers of their tasks int64[programs]."""

    batch: FeatureBatch
    costs: NDArray[np.float64]
    tasks: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.costs) != len(self.batch) or len(self.tasks) != len(self.batch):
            raise ValueError(
                f"{len(self.batch)} programs were given with {len(self.costs)} costs and {len(self.tasks)} task ids"
            )

    def __len__(self) -> int:
        return len(self.costs)

    @staticmethod
    def empty() -> TrainingSet:
        """No programs, of any number of features."""
        return TrainingSet(
            FeatureBatch(np.empty((0, 0), np.float32), np.zeros(1, np.int64)), np.empty(0), np.empty(0, np.int64)
        )

    def extended(self, more: TrainingSet) -> TrainingSet:
        """These programs and then the others. Raises OptionError if the others have another number of features."""
        if not len(self) or not len(more):
            return more if len(more) else self
        known, given = self.batch.rows.shape[1], more.batch.rows.shape[1]
        if known != given:
            raise OptionError(f"the cost model has learned {known} features, not {given}; start with a new model")
        return TrainingSet(
            FeatureBatch.concatenate([self.batch, more.batch]),
            np.concatenate([self.costs, more.costs]),
            np.concatenate([self.tasks, more.tasks]),
        )

    def labels(self) -> NDArray[np.float64]:
        """See `throughput_labels`."""
        return throughput_labels(self.costs, self.tasks)


def is_measured(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which costs are latencies, bool[programs]; the others stand for failures."""
    return np.isfinite(costs) & (costs < FAILURE_SECONDS) & (costs > 0)


def throughput_labels(costs: NDArray[np.float64], tasks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Best cost of the task over the program's cost, float64[programs] in (0, 1]; 0 for failures."""
    measured = is_measured(costs)
    _, group = np.unique(tasks, return_inverse=True)
    best = np.full(int(group.max(initial=-1)) + 1, np.inf)
    np.minimum.at(best, group[measured], costs[measured])
    labels = np.zeros(len(costs))
    labels[measured] = best[group[measured]] / costs[measured]
    return labels


def write_training_set(path: Path, known: TrainingSet, header: Mapping[str, Any]) -> None:
    """Write programs and a header of the model's own (JSON values) to one file, NumPy's npz."""
    text = np.frombuffer(json.dumps({**header, "features": feature_signature()}).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(
            file, header=text, rows=known.batch.rows, offsets=known.batch.offsets, costs=known.costs, tasks=known.tasks
        )


def read_model_file(path: Path) -> tuple[TrainingSet, dict[str, Any]]:
    """Programs and header of a saved model, in a run's `cost_model.npz` or by itself. Raises OptionError for other files."""
    try:
        with np.load(saved_content(path), allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            known = TrainingSet(FeatureBatch(file["rows"], file["offsets"]), file["costs"], file["tasks"])
            if not {"kind", "features"} <= set(header):
                raise KeyError("kind")
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise OptionError(f"'{path}' is not a saved cost model that has learned from programs: {error}") from error
    return known, header


def has_training_set(path: Path) -> bool:
    """Whether a file is a saved model that holds the programs that it learned from."""
    try:
        read_model_file(path)
    except OptionError:
        return False
    return True


def read_training_set(path: Path) -> TrainingSet:
    """The programs of a saved model. Raises OptionError if their features are not those that are extracted now."""
    known, header = read_model_file(path)
    if header["features"] != feature_signature():
        raise OptionError(
            f"'{path}' was saved with other program features than this version (or set of feature groups) has; name the run's "
            "records.jsonl instead, from which features are extracted again"
        )
    return known
