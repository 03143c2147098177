"""What a search has done so far: the first subscriber of its events, of which the result is made.

history = History()
history.take(TrialsMeasured(records, points))
history.records, history.curve
"""

from __future__ import annotations

from collections import Counter

from ansor_py.measure import Record
from ansor_py.search.loop.accuracy import RoundAccuracy
from ansor_py.search.loop.events import DriftMeasured, Event, Restored, TrialsMeasured
from ansor_py.search.loop.results import CurvePoint, count_errors
from ansor_py.search.loop.round_times import RoundTimes


class History:
    """Trials, rounds and the like, in order."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.curve: list[CurvePoint] = []
        self.rounds: list[RoundTimes] = []
        self.accuracy: list[RoundAccuracy] = []
        self.drift: list[float] = []
        self.errors: Counter[str] = Counter()
        self.earlier, self.earlier_seconds = 0, 0.0  # of the search that is continued

    def take(self, event: Event) -> None:
        """Note what happened."""
        match event:
            case Restored(records, points) | TrialsMeasured(records, points):
                self.records += records
                self.curve += points
                self.errors.update(count_errors(records))
                if isinstance(event, Restored):
                    self.earlier, self.earlier_seconds = len(records), max(record.elapsed for record in records)
            case RoundTimes():
                self.rounds.append(event)
            case RoundAccuracy():
                self.accuracy.append(event)
            case DriftMeasured(seconds):
                self.drift.append(seconds)

    @property
    def trials_of_open_round(self) -> int:
        """Trials since the last round that is over."""
        return len(self.records) - self.earlier - sum(times.trials for times in self.rounds)
