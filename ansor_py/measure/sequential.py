"""How long a program is timed: until it is clearly slower than the best of its task, or has all of its samples.

A program that another one beats by far need not be known to a percent. It is timed in two short blocks (looks); the least of
all its times, less what noise may add to a time, is a bound that the program's seconds exceed with the wanted confidence. If
the bound is above the best, timing ends there. If not, samples follow, and the bound is looked at again after each.

How far times lie from the truth is learned from programs that had all their samples: the median of the distances of logarithms
of a program's least look from its median, in units of a normal distribution. A median is not moved by the few looks that
something disturbed, nor by those programs that ended early for one.

A block in which another process took a core (an involuntary context switch of this process) is dropped and repeated, at most
twice for a program; what is disturbed after that is kept and counted.

    timer = SequentialTimer(RunSettings(), Noise(), lambda number: time_kernel(*kernel, number), involuntary_switches)
    timed = timer.time(first_seconds, best_seconds)     # timed.costs, timed.early_end
"""

from __future__ import annotations

import math
import resource
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansor_py.measure.result import EarlyEnd

if TYPE_CHECKING:
    from ansor_py.codegen.timing import Block
    from ansor_py.measure.run import RunSettings

LOOKS = 2
REPEATS = 2  # of blocks that something disturbed, for a program
_LONG_ENOUGH = 0.9  # of the wanted length of a block
_SPARE = 1.2  # calls beyond those that fill a block if all take as long as before
_MOST_CALLS = 1 << 30
_SETTLED = 3  # samples by which noise is learned
_KEPT = 200  # programs
_FEW = 8  # with fewer the noise is not known
_UNKNOWN = 0.1
_LEAST = 0.02
_MEDIAN_TO_DEVIATION = 1.4826  # of a normal distribution, from the median distance to the standard deviation


class Noise:
    """The relative standard deviation of times of one machine, as far as a runner has seen it."""

    def __init__(self) -> None:
        self._distances: deque[float] = deque(maxlen=_KEPT)

    def learn(self, look: float, median: float) -> None:
        """A program whose least look took `look` seconds a call took `median` in the end."""
        self._distances.append(abs(math.log(look / median)))

    @property
    def deviation(self) -> float:
        """The standard deviation of the logarithm of a look."""
        if len(self._distances) < _FEW:
            return _UNKNOWN
        return max(_MEDIAN_TO_DEVIATION * statistics.median(self._distances), _LEAST)


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
    """Times one program. `block` makes a number of calls, `switches` counts the involuntary context switches so far."""

    def __init__(self, settings: RunSettings, noise: Noise, block: Callable[[int], Block], switches: Callable[[], int]) -> None:
        self._settings = settings
        self._noise = noise
        self._run = block
        self._switches = switches
        self._repeats = REPEATS
        self._spent = 0.0
        self._times: list[float] = []
        self._disturbed = 0

    def time(self, first: float, best: float | None) -> Timed:
        """Time a program whose first call took `first` seconds, until it is clearly slower than `best` or has its samples.

        A call that fills a block is one.
        """
        settings = self._settings
        self._times, self._spent = [first], first
        short = first < settings.min_block_seconds
        for _ in range(LOOKS if short else 0):
            block = self._block(_calls(settings.look_seconds, min(self._times)))
            if block.status:
                return Timed((), block)
        if short and (end := self._end(best)):
            return Timed(tuple(self._times[1:]), early_end=end, disturbed=self._disturbed)
        look = min(self._times)
        timed = self._samples(_calls(_SPARE * settings.min_block_seconds, look) if short else 1, best)
        if short and len(timed.costs) >= _SETTLED and timed.early_end is None:
            self._noise.learn(look, statistics.median(timed.costs))
        return timed

    def _samples(self, number: int, best: float | None) -> Timed:
        """Blocks of `number` calls, and of more where these are too short."""
        settings, begun = self._settings, len(self._times)
        self._disturbed = 0
        while True:
            block = self._block(number)
            if block.status:
                return Timed((), block)
            if block.seconds < _LONG_ENOUGH * settings.min_block_seconds and number < _MOST_CALLS:
                number = max(2 * number, _calls(_SPARE * settings.min_block_seconds, self._times[-1]))
                begun, self._disturbed = len(self._times), 0
                continue
            end, costs = self._end(best), tuple(self._times[begun:])
            if end or len(costs) >= settings.max_repeats or self._spent + block.seconds > settings.budget_seconds:
                return Timed(costs, early_end=end, disturbed=self._disturbed)

    def _end(self, best: float | None) -> EarlyEnd | None:
        return early_end(min(self._times), best, self._noise, self._settings.confidence)

    def _block(self, number: int) -> Block:
        """A block that nothing disturbed, if that can be had; its seconds per call are noted."""
        while True:
            before = self._switches()
            block = self._run(number)
            self._spent += block.seconds
            disturbed = self._switches() != before
            if block.status or not disturbed or not self._repeats:
                break
            self._repeats -= 1
        self._disturbed += disturbed
        self._times.append(block.seconds / number)
        return block


def _calls(seconds: float, per_call: float) -> int:
    return min(math.ceil(seconds / max(per_call, 1e-9)), _MOST_CALLS)


def involuntary_switches() -> int:
    """How often the system took a core from a thread of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
