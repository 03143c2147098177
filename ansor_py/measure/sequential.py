"""How long a program is timed: until it is clearly slower than the best of its task, or has all of its samples.

A program that another one beats by far need not be known to a percent. It is timed in two short blocks (looks); the least of
all its times, less what noise may add to a time, is a bound that the program's seconds exceed with the wanted confidence. If
the bound is above the best, timing ends there. If not, samples follow, and their bound is looked at after each.

How far times lie from the truth is learned from programs that had all their samples: the median of the distances of logarithms
of looks, and of samples, from the median of the program's samples, in units of a normal distribution. A median is not moved by
the few looks that something disturbed, nor by those programs that ended early for one.

A block during which the threads of this process waited for a core is dropped and repeated, at most twice for a program; what
is disturbed after that is kept and counted. It is the waiting that counts, not involuntary context switches: a kernel's own
threads have one in most blocks, when one wakes on the core of another, and lose a few microseconds by it.

    timer = SequentialTimer(RunSettings(), Noises(), lambda number: time_kernel(*kernel, number), seconds_without_core)
    timed = timer.time(first_seconds, best_seconds)     # timed.costs, timed.early_end
"""

from __future__ import annotations

import math
import os
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansor_py.measure.result import LEAST_SECONDS, EarlyEnd

if TYPE_CHECKING:
    from ansor_py.codegen.timing import Block
    from ansor_py.measure.run import RunSettings

LOOKS = 2
REPEATS = 2  # of blocks that something disturbed, for a program
_LONG_ENOUGH = 0.9  # of the wanted length of a block
_SPARE = 1.2  # calls beyond those that fill a block if all take as long as before
_MOST_CALLS = 1 << 30
_SETTLED = 3  # samples by which noise is learned
_KEPT = 200  # times
_FEW = 8  # with fewer the noise is not known
_UNKNOWN = 0.1
_LEAST = 0.01
_DISTURBED = 0.02  # of a block's seconds, for which threads waited. On an idle machine nine blocks of ten have less than 0.008
_TASKS = "/proc/self/task"
_MEDIAN_TO_DEVIATION = 1.4826  # of a normal distribution, from the median distance to the standard deviation


class Noise:
    """The relative standard deviation of one kind of times, as far as a runner has seen it."""

    def __init__(self) -> None:
        self._distances: deque[float] = deque(maxlen=_KEPT)

    def learn(self, seconds: float, median: float) -> None:
        """A program that took `seconds` a call at one time took `median` in the end."""
        self._distances.append(abs(math.log(max(seconds, LEAST_SECONDS) / median)))

    @property
    def deviation(self) -> float:
        """The standard deviation of the logarithm of a time."""
        if len(self._distances) < _FEW:
            return _UNKNOWN
        return max(_MEDIAN_TO_DEVIATION * statistics.median(self._distances), _LEAST)


@dataclass(frozen=True)
class Noises:
    """What a runner has learned of looks and of samples."""

    looks: Noise = field(default_factory=Noise)
    samples: Noise = field(default_factory=Noise)


def early_end(least: float, best: float | None, noise: Noise, confidence: float) -> EarlyEnd | None:
    """Why timing may end when the least seconds of a program are `least`: its bound, if that is above the task's best."""
    if best is None or least <= best:
        return None
    bound = least * math.exp(-statistics.NormalDist().inv_cdf(confidence) * noise.deviation)
    return EarlyEnd(bound, best, confidence) if bound > best else None


@dataclass(frozen=True)
class Timed:
    """Seconds per call, one for each block that counts; or the block in which the kernel returned early with a status."""

    costs: tuple[float, ...]
    stopped: Block | None = None
    early_end: EarlyEnd | None = None
    disturbed: int = 0


class SequentialTimer:
    """Times one program. `block` makes a number of calls; `waited` says how long threads have waited for a core, in seconds."""

    def __init__(
        self, settings: RunSettings, noises: Noises, block: Callable[[int], Block], waited: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._noises = noises
        self._run = block
        self._waited = waited
        self._repeats = REPEATS
        self._spent = 0.0

    def time(self, first: float, best: float | None) -> Timed:
        """Time a program whose first call took `first` seconds, until it is clearly slower than `best` or has its samples.

        A call that fills a block is one.
        """
        settings, looks = self._settings, [first]
        self._spent = first
        if first >= settings.min_block_seconds:
            return self._samples(1, looks, best)
        disturbed = 0
        for _ in range(LOOKS):
            number = _calls(settings.look_seconds, min(looks))
            block, late = self._block(number)
            if block.status:
                return Timed((), block)
            looks.append(block.seconds / number)
            disturbed += late
        if end := self._end(looks, self._noises.looks, best):
            return Timed(tuple(looks[1:]), early_end=end, disturbed=disturbed)
        timed = self._samples(_calls(_SPARE * settings.min_block_seconds, min(looks)), looks, best)
        if len(timed.costs) >= _SETTLED and timed.early_end is None and not timed.disturbed:
            median = statistics.median(timed.costs)
            self._noises.looks.learn(min(looks), median)
            for cost in timed.costs:
                self._noises.samples.learn(cost, median)
        return timed

    def _samples(self, number: int, looks: Sequence[float], best: float | None) -> Timed:
        """Blocks of `number` calls, and of more where these are too short."""
        settings, costs, disturbed = self._settings, list[float](), 0
        while True:
            block, late = self._block(number)
            if block.status:
                return Timed((), block)
            if block.seconds < _LONG_ENOUGH * settings.min_block_seconds and number < _MOST_CALLS:
                costs.clear()
                disturbed = 0
                number = max(2 * number, _calls(_SPARE * settings.min_block_seconds, block.seconds / number))
                continue
            costs.append(block.seconds / number)
            disturbed += late
            end = self._end([*looks, *costs], self._noises.looks, best) or self._end(costs, self._noises.samples, best)
            if end or len(costs) >= settings.max_repeats or self._spent + block.seconds > settings.budget_seconds:
                return Timed(tuple(costs), early_end=end, disturbed=disturbed)

    def _end(self, times: Sequence[float], noise: Noise, best: float | None) -> EarlyEnd | None:
        return early_end(min(times), best, noise, self._settings.confidence)

    def _block(self, number: int) -> tuple[Block, bool]:
        """A block that nothing disturbed, if that can be had; whether something did."""
        while True:
            before = self._waited()
            block = self._run(number)
            self._spent += block.seconds
            disturbed = self._waited() - before > _DISTURBED * block.seconds
            if block.status or not disturbed or not self._repeats:
                return block, disturbed
            self._repeats -= 1


def _calls(seconds: float, per_call: float) -> int:
    return min(math.ceil(seconds / max(per_call, 1e-9)), _MOST_CALLS)


def seconds_without_core() -> float:
    """How long threads of this process have been ready to run and had no core, as the scheduler says; 0 if it does not."""
    try:
        return sum(_delay(os.path.join(_TASKS, task, "schedstat")) for task in os.listdir(_TASKS))
    except OSError:
        return 0.0  # no Linux


def _delay(path: str) -> float:
    """The second of three numbers, in nanoseconds; nothing of a thread that has just ended, or without these statistics."""
    try:
        with open(path, "rb") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0
