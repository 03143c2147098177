"""What a winner is worth in another process: best program and default schedule timed in fresh processes, in turns.

The least of many noisy measurements is luck in part, and where a process's buffers happen to lie decides some per cent. So the
figures of a search come from processes that had nothing to do with finding the program. Each of them times both: a slow process
is slow for both, and what differs between processes is in the interval.

    confirmation = Confirmation(best=(0.98e-3, 1.01e-3, 1.0e-3), default=(1.2e-3, 1.26e-3, 1.2e-3))
    confirmation.seconds, confirmation.interval          # 1.0e-3, (0.96e-3, 1.04e-3)
    confirmation.speedup, confirmation.speedup_interval  # 1.22, (1.17, 1.28)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ansor_py.measure import MeasureResult, Record

PROCESSES = 4
LEAST_PROCESSES = 3  # of fewer an interval says nothing
TRIALS_PER_PROCESS = 32  # a short search ends with its re-timing
START_SECONDS = 1.0  # about what it takes to start one
MOST_PROGRAMS = 16  # a network's programs are timed inside it instead
CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Confirmation:
    """Seconds per call of the best program and of the default schedule, one a process, in the same order of processes.

    `default` is the same as `best` where the default schedule is the best program, and empty where there is none.
    """

    best: tuple[float, ...]
    default: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Median seconds of the best program."""
        return statistics.median(self.best)

    @property
    def interval(self) -> Interval:
        """In which the best program's mean over such processes lies, with 95 % confidence."""
        return confidence_interval(self.best)

    @property
    def speedup(self) -> float | None:
        """How many times as long the default schedule takes: the geometric mean over the processes."""
        return statistics.geometric_mean(self._ratios) if self.default else None

    @property
    def speedup_interval(self) -> Interval | None:
        """In which that mean lies, with 95 % confidence."""
        return confidence_interval(self._ratios) if self.default else None

    @property
    def _ratios(self) -> list[float]:
        return [default / best for best, default in zip(self.best, self.default, strict=True)]


def processes_for(trials: int, programs: int) -> int:
    """In how many processes the programs at the end of a search of so many trials are timed; 0: in none."""
    processes = min(PROCESSES, trials // TRIALS_PER_PROCESS)
    return processes if processes >= LEAST_PROCESSES and 0 < programs <= MOST_PROGRAMS else 0


def in_fresh_processes(
    groups: Sequence[Sequence[Record]],
    processes: int,
    measure: Callable[[int, Sequence[Record]], Sequence[MeasureResult | None]],
) -> list[list[list[float]]]:
    """The seconds of every program of every group, one for each process in which it worked.

    `measure(1, programs)` runs programs in the given order in a process of its own, the first one. Every other process has the
    opposite order.
    """
    everyone = [(record, list[float]()) for group in groups for record in group]
    for number in range(1, processes + 1):
        order = everyone[:: 1 if number % 2 == 0 else -1]
        for (_, seconds), result in zip(order, measure(number, [record for record, _ in order]), strict=True):
            if result is not None and result.valid:
                seconds.append(result.cost)
    found = iter(everyone)
    return [[next(found)[1] for _ in group] for group in groups]


def confidence_interval(values: Sequence[float]) -> Interval:
    """In which the geometric mean of such positive values lies with 95 % confidence, if their logarithms are normal."""
    from scipy.special import stdtrit  # quantiles of Student's t distribution

    logs = [math.log(value) for value in values]
    if len(logs) < 2:
        return 0.0, math.inf
    quantile = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2))
    reach = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return math.exp(middle - reach), math.exp(middle + reach)
