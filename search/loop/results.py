"""What a search found: the best program of every task, the search curve, all records, and where the time went.

result = tune(task, trials=256)
result.best.cost                 # seconds per call of the best program
result.curve[-1].best_ms
result.tasks[0].gflops
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansor_py.errors import OptionError
from ansor_py.measure.records import Record
from ansor_py.measure.result import TaskInPlace
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import RoundAccuracy
from ansor_py.search.loop.confirmation import Confirmation
from ansor_py.search.loop.machine_watch import UNKNOWN, MachineState
from ansor_py.search.loop.round_times import RoundTimes
from ansor_py.search.scheduler.networks import Networks, describe_networks, total_seconds


@dataclass(frozen=True)
class CurvePoint:
    """One trial of the search curve; None is "not known".

    `best_ms` is the task's best so far, `estimated_total_ms` the weighted sum over all tasks of the best so far.
    """

    trial: int
    elapsed_s: float
    task: str
    latency_ms: float | None
    best_ms: float | None
    estimated_total_ms: float | None


@dataclass(frozen=True)
class TaskResult:
    """One task after (or during) a search. `default_seconds` is the default schedule's latency, None if it has none.

    `ended` says why the task got no more trials, and is empty while it could. `in_place` is known once the programs were timed
    inside the network, `confirmed` once they were timed in fresh processes.
    """

    task: Task
    best: Record | None
    default_seconds: float | None
    trials: int
    ended: str = ""
    in_place: TaskInPlace | None = None
    confirmed: Confirmation | None = None

    @property
    def network_latency(self) -> float | None:
        """Seconds per call inside the network, or those of the best program alone where that was not measured."""
        return self.latency if self.in_place is None else self.in_place.seconds

    @property
    def latency(self) -> float | None:
        """Seconds per call of the best program known, or None when nothing was valid."""
        return self.best.cost if self.best is not None else self.default_seconds

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that the best program uses in place of the definition."""
        return self.best.algorithms if self.best is not None else ()

    @property
    def gflops(self) -> float | None:
        """Throughput of the best program in 1e9 floating-point operations a second."""
        return self.task.flops / self.latency / 1e9 if self.latency else None


@dataclass(frozen=True)
class TuningResult:
    """Everything a search found. `programs_scored` counts candidates for which the cost model was asked.

    `phases` are seconds by phase and add up to `search_seconds`; `drift` the latency of one fixed program, measured before the
    first round and in each, `machine` what is to be thought of it; `stopped` says why the search ended, `interrupted` that it
    was by Ctrl-C or an error. `rounds` tell where their
    seconds went and `accuracy` how well the cost model knew their programs. `contenders` are the programs of each task that are
    worth timing inside the network, by workload key, the best first; there are none after an interruption. `networks` says how
    often each network runs each task; without it the tasks' weights do.
    """

    tasks: tuple[TaskResult, ...]
    records: tuple[Record, ...]
    curve: tuple[CurvePoint, ...]
    search_seconds: float
    phases: Mapping[str, float]
    programs_scored: int = 0
    drift: tuple[float, ...] = ()
    machine: MachineState = UNKNOWN
    interrupted: bool = False
    stopped: str = ""
    rounds: tuple[RoundTimes, ...] = ()
    accuracy: tuple[RoundAccuracy, ...] = ()
    notes: tuple[str, ...] = field(default=())
    contenders: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    networks: Networks | None = None

    @property
    def best(self) -> Record | None:
        """The best record of a search with one task, its costs those of the final measurements; None if nothing was valid.

        Raises OptionError for a search with several tasks.
        """
        if len(self.tasks) != 1:
            raise OptionError(f"this search had {len(self.tasks)} tasks; use result.best_records[workload key]")
        return self.tasks[0].best

    @property
    def best_records(self) -> dict[str, Record]:
        """The best record of every task that has one, by workload key."""
        return {item.task.workload_key: item.best for item in self.tasks if item.best is not None}

    @property
    def estimated_seconds(self) -> float | None:
        """Latency of all networks together, the weighted sum of the tasks', in place where they are known, with the faster of
        alternatives; None while it is unknown."""
        networks = self.networks or describe_networks([item.task for item in self.tasks], ())
        return total_seconds(networks, [item.network_latency for item in self.tasks])

    @property
    def errors(self) -> dict[str, int]:
        """Number of failed trials by kind of error."""
        return count_errors(self.records)


def count_errors(records: Iterable[Record]) -> dict[str, int]:
    """Number of failed records by kind of error, the most frequent first. (A `cut` program was merely slow.)"""
    return dict(Counter(record.result.error for record in records if record.result.error != "none").most_common())


class CurveBuilder:
    """Makes the points of a search curve one record at a time.

    Trials of one batch are numbered as they were proposed but finish in another order. A point's time is when it and all
    before it were known, so that a curve over time never steps back.
    """

    def __init__(self, tasks: Sequence[Task], networks: Networks | None = None) -> None:
        """Without networks the tasks' weights count."""
        self._keys = [task.workload_key for task in tasks]
        self._networks = networks or describe_networks(tasks, ())
        self._best: dict[str, float] = {}
        self.defaults: dict[str, float] = {}
        self._elapsed = 0.0

    def add_all(self, records: Sequence[Record]) -> list[CurvePoint]:
        """The points of the next trials. What default schedules among them cost is known from the first of them on."""
        for record in records:
            if record.is_default and record.valid:
                self.defaults[record.workload_key] = record.cost
        return [self.add(record) for record in records]

    def add(self, record: Record) -> CurvePoint:
        """The point of the next trial."""
        key = record.workload_key
        self._elapsed = max(self._elapsed, record.elapsed)
        if record.valid:
            self._best[key] = min(self._best.get(key, math.inf), record.cost)
        return CurvePoint(
            record.trial,
            self._elapsed,
            record.task,
            record.cost * 1e3 if record.valid else None,
            self._best[key] * 1e3 if key in self._best else None,
            self._total(),
        )

    def _total(self) -> float | None:
        latencies = [self._best.get(key, self.defaults.get(key)) for key in self._keys]
        total = total_seconds(self._networks, latencies)
        return None if total is None else total * 1e3
