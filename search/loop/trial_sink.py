"""Where the tuning loop's trials go while it runs: a run directory, or anything with its methods.

tune_tasks(tasks, options, sink=RunDirectory.create("runs/x", config={}))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ansor_py.cost_model.interface import CostModel
from ansor_py.measure import Record
from ansor_py.search.loop.accuracy import RoundAccuracy
from ansor_py.search.loop.results import CurvePoint
from ansor_py.search.loop.round_times import RoundTimes


class TrialSink(Protocol):
    """Takes the trials of each round, such as a `RunDirectory`."""

    def add(self, records: Sequence[Record], points: Sequence[CurvePoint]) -> None:
        """Trials that were just measured."""

    def add_points(self, points: Sequence[CurvePoint]) -> None:
        """Points of restored trials."""

    def add_round(self, times: RoundTimes) -> None:
        """A round is over."""

    def add_accuracy(self, accuracy: RoundAccuracy) -> None:
        """How well the cost model knew the programs of a round."""

    def save_cost_model(self, model: CostModel) -> None:
        """The search is over, and this is what it has learned."""
