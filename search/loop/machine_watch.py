"""How quiet the machine is while a search measures: the noise of one fixed program, and what other processes take of its cores.

A search that shares its cores finds worse programs and does not know it. So one cheap program is timed before the first round
and in every round, and after every round the kernel's accounts (`/proc`) say how much of the cores that this process may use
went to processes that are neither it nor its children.

    watch = MachineWatch(ProcessorAccounts())
    watch.add(1.01e-3)              # seconds of the fixed program
    watch.round_ended()             # True the first time that others took more than half a core
    watch.state.noise               # 0.012: the middle half of the measurements lies within 1.2 %
"""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

BEFORE = 4  # measurements of the fixed program before the first round
WORTH_WARNING = 0.5  # cores
LEAST_SECONDS = 2.0  # shorter rounds are judged together, as a process that ends at once disturbs little
_CPU_FIELDS = 8  # of a line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal
_IDLE = (3, 4)


@dataclass(frozen=True)
class MachineState:
    """What is known of the machine during a search; None where it is not.

    Attributes:
        noise_before: share within which the middle half of the fixed program's seconds lay before the first round.
        noise: the same of all its measurements.
        cores_taken: cores that other processes took, the mean of the search so far.
        most_cores_taken: the mean of the round in which it was most.
    """

    noise_before: float | None = None
    noise: float | None = None
    cores_taken: float | None = None
    most_cores_taken: float | None = None


UNKNOWN = MachineState()


class Accounts(Protocol):
    """Seconds of processor time, ever growing; both may be called at any time."""

    def all_seconds(self) -> float | None:
        """What the cores that this process may use have spent on anything; None where that is not known."""

    def own_seconds(self) -> float:
        """What this process and its descendants have spent."""


class MachineWatch:
    """Collects what is known of the machine. `accounts` is None where nothing runs on it."""

    def __init__(self, accounts: Accounts | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = accounts
        self._clock = clock
        self._measured: list[float] = []
        self._noise_before: float | None = None
        self._since = self._now()
        self._seconds = self._taken = self._most = 0.0
        self._warned = False

    @property
    def state(self) -> MachineState:
        """What is known now."""
        known = self._seconds > 0
        return MachineState(
            self._noise_before,
            spread(self._measured),
            self._taken / self._seconds if known else None,
            self._most if known else None,
        )

    def add(self, seconds: float) -> None:
        """The fixed program was measured."""
        self._measured.append(seconds)

    def begin(self) -> None:
        """The first round begins: what was measured so far tells of the time before."""
        self._noise_before = spread(self._measured)
        self._since = self._now()

    def round_ended(self) -> bool:
        """Note what others took since it was noted last. Whether there is something to warn of, which is so once."""
        now, before = self._now(), self._since
        if now is None or before is None:
            self._since = now
            return False
        if now[0] - before[0] < LEAST_SECONDS:
            return False
        self._since = now
        seconds, cores, own = (new - old for new, old in zip(now, before, strict=True))
        taken = max(cores - own, 0.0)
        self._seconds, self._taken = self._seconds + seconds, self._taken + taken
        self._most = max(self._most, taken / seconds)
        warn = not self._warned and taken / seconds > WORTH_WARNING
        self._warned = self._warned or warn
        return warn

    def _now(self) -> tuple[float, float, float] | None:
        """The clock, processor seconds of all and own ones."""
        if self._accounts is None or (cores := self._accounts.all_seconds()) is None:
            return None
        return self._clock(), cores, self._accounts.own_seconds()


def spread(values: list[float]) -> float | None:
    """The distance of the quartiles as a share of the median; None for fewer than four values."""
    if len(values) < 4:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


class ProcessorAccounts:
    """The accounts of Linux's kernel, in `/proc`. Where there is none, nothing is known."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._tick = 1.0 / os.sysconf("SC_CLK_TCK")

    def all_seconds(self) -> float | None:
        """See `Accounts`. What a hypervisor gave to others counts as spent."""
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        try:
            lines = [line.split() for line in (self._root / "stat").read_text().splitlines()]
        except OSError:
            return None
        busy = [list(map(int, words[1 : 1 + _CPU_FIELDS])) for words in lines if words and words[0] in names]
        return self._tick * sum(sum(times) - sum(times[place] for place in _IDLE) for times in busy) if busy else None

    def own_seconds(self) -> float:
        """See `Accounts`. What ended children spent is in the accounts of those that waited for them."""
        children: dict[int, list[int]] = {}
        spent: dict[int, int] = {}
        for number, parent, ticks in self._processes():
            children.setdefault(parent, []).append(number)
            spent[number] = ticks
        total, waiting = 0, deque([os.getpid()])
        while waiting:
            number = waiting.popleft()
            total += spent.get(number, 0)
            waiting.extend(children.get(number, ()))
        return self._tick * total

    def _processes(self) -> Iterator[tuple[int, int, int]]:
        """Number, parent's number and ticks (its own, and those of its ended children) of every process."""
        for path in self._root.glob("[0-9]*/stat"):
            try:
                words = path.read_text().rpartition(")")[2].split()  # the name before it may hold anything
            except OSError:
                continue  # it has ended
            yield int(path.parent.name), int(words[1]), sum(map(int, words[11:15]))
