"""What a search tells while it runs. Whoever wants to know subscribes: the run directory, the progress on the screen, a user.

def log(event: Event) -> None:
    match event:
        case TrialsMeasured(records):
            print(f"{len(records)} trials more, the best {min(record.cost for record in records):.3g} s")

tune_tasks(tasks, options, subscribers=[RunDirectory.create("runs/x", config={}).take, log])

Subscribers are called one after the other in the search's own thread, which waits for them. What they raise ends the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ansor_py.cost_model.interface import CostModel
from ansor_py.cost_model.model_file import ModelHeader
from ansor_py.measure import Record
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import RoundAccuracy
from ansor_py.search.loop.machine_watch import UNKNOWN, MachineState
from ansor_py.search.loop.results import CurvePoint, TaskResult
from ansor_py.search.loop.round_times import RoundTimes


@dataclass(frozen=True)
class Begun:
    """Measuring begins, or goes on: the tasks of the search, those of equal workload keys merged."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Restored:
    """A search is continued: the trials of the earlier one that count, and their points of the curve."""

    records: tuple[Record, ...]
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Progress:
    """The state of a search: after a round, or (`round_done` false) while its trials come in.

    `activity` says what is going on; `trials` counts measured candidates, restored ones included, up to `budget`, if there is
    one; `trials_per_second` is that of this session; `seconds_left` is known once trials are measured.
    """

    round: int
    round_done: bool
    activity: str
    tasks: tuple[TaskResult, ...]
    current: int | None
    trials: int
    budget: int | None
    elapsed: float
    trials_per_second: float
    errors: Mapping[str, int]
    time_left: float | None = None  # of the time budget
    total: float | None = None  # seconds of all networks, as far as the search knows
    machine: MachineState = UNKNOWN  # how quiet it is

    @property
    def seconds_left(self) -> float | None:
        """Time that the remaining trials will take at the present rate, or what is left of the time budget if that is less."""
        limits = [] if self.time_left is None else [max(self.time_left, 0.0)]
        if self.budget is not None and self.trials_per_second > 0:
            limits.append((self.budget - self.trials) / self.trials_per_second)
        return min(limits, default=None)


@dataclass(frozen=True)
class TrialsMeasured:
    """Trials of one round (all of them, unless it is interrupted), numbered, and their points of the curve."""

    records: tuple[Record, ...]
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class DriftMeasured:
    """The latency of one fixed program, measured before the first round and in every round: what changes is the machine."""

    seconds: float


@dataclass(frozen=True)
class Stopped:
    """No more will be measured: why, in words, and what the cost model has learned. (A fallback runner may go on after it.)

    `header` is what has to be known of the model where it is saved.
    """

    reason: str
    model: CostModel
    header: ModelHeader


# A `RoundAccuracy` says how well the cost model knew a round's programs, `RoundTimes` that the round is over.
Event = Begun | Restored | Progress | TrialsMeasured | DriftMeasured | RoundAccuracy | RoundTimes | Stopped
Subscriber = Callable[[Event], None]
