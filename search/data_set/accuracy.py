"""How well a cost model orders held-out programs: RMSE, pairwise accuracy, recall and peak at k, for each group of programs.

Seconds can be compared within a group (a task on a machine) only, so every figure is one of a group, and the mean over groups
counts each alike. Truth is throughput, 1 for the fastest program of the group in the whole data set. Failures are not judged.

    trained = train("lightgbm", data, "by_task", seed=0)
    [accuracy.pairwise for accuracy in judge(trained, data, data.splits["by_task"])]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.checked_model import CheckedModel, checked_model
from ansor_py.cost_model.interface import create_cost_model
from ansor_py.cost_model.metrics import pairwise_rank_accuracy, peak_at_k, scaled_rmse, top_k_recall
from ansor_py.errors import OptionError
from ansor_py.search.data_set.data_set import DataSet, Mask
from ansor_py.search.data_set.splits import SPLITS
from ansor_py.strategy_options import NO_OPTIONS, OptionSet

PEAKS = (1, 5, 30)


@dataclass(frozen=True)
class Accuracy:
    """Figures of some programs. `rmse` is that of throughput after the scores were scaled to fit; `peak` has one for each k."""

    programs: int
    rmse: float
    pairwise: float
    recall: tuple[float, ...]
    peak: tuple[float, ...]

    @staticmethod
    def of(scores: NDArray[np.floating], truth: NDArray[np.float64], ks: Sequence[int] = PEAKS) -> Accuracy:
        """Scores (higher is better) against throughputs, both [programs]."""
        return Accuracy(
            len(truth),
            scaled_rmse(scores, truth),
            pairwise_rank_accuracy(scores, truth),
            tuple(top_k_recall(scores, truth, k) for k in ks),
            tuple(peak_at_k(scores, truth, k) for k in ks),
        )


@dataclass(frozen=True)
class GroupAccuracy:
    """The figures of one group."""

    task: str
    workload_key: str
    target: str
    threads: int
    accuracy: Accuracy


def train(
    name: str, data: DataSet, split: str, seed: int | np.random.Generator = 0, options: OptionSet = NO_OPTIONS
) -> CheckedModel:
    """A model that has learned from all programs that a split does not hold out, in one update.

    Raises OptionError for an unknown model or split and for one that holds out nothing, PlugInError for a model that fails.
    """
    if split not in SPLITS:
        raise OptionError(f"there is no split '{split}'; known are {', '.join(SPLITS)}")
    is_test = data.splits[split]
    model = checked_model(name, create_cost_model(name, seed, options))
    if not (is_test & data.is_valid).any():
        number = {"by_task": "one task", "by_target": "one target"}.get(split, "too few programs")
        raise OptionError(f"split '{split}' holds out no valid program, as the data set has {number}; take another split")
    known = data.training_set(~is_test, model.needs)
    model.update(known.batch, known.costs, known.tasks)
    return model


def judge(model: CheckedModel, data: DataSet, places: Mask, ks: Sequence[int] = PEAKS) -> list[GroupAccuracy]:
    """The figures of every group that has at least two valid programs among some of the data set."""
    judged = places & data.is_valid
    best = np.full(len(data.groups), np.inf)
    np.minimum.at(best, data.group_numbers[data.is_valid], data.costs[data.is_valid])
    found = []
    for number, group in enumerate(data.groups):
        mine = judged & (data.group_numbers == number)
        if mine.sum() < 2:
            continue
        scores = model.predict(data.training_set(mine, model.needs).batch)
        accuracy = Accuracy.of(scores, best[number] / data.costs[mine], ks)
        name = data.tasks[group.workload_key].name
        found.append(GroupAccuracy(name, group.workload_key, group.target, group.threads, accuracy))
    if not found:
        raise OptionError("no task has two valid programs that are held out; hold out a larger share")
    return found


def mean_accuracy(found: Sequence[GroupAccuracy]) -> Accuracy:
    """The mean over groups, each alike; what is not known of a group (pairs of equal speed) does not count."""
    rows = np.array([[a.rmse, a.pairwise, *a.recall, *a.peak] for a in (group.accuracy for group in found)])
    means = [float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else float("nan") for column in rows.T]
    ks = len(found[0].accuracy.recall)
    programs = sum(group.accuracy.programs for group in found)
    return Accuracy(programs, means[0], means[1], tuple(means[2 : 2 + ks]), tuple(means[2 + ks :]))
