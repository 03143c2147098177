"""Where the seconds of a search go.

Phases may nest: while an inner one runs, the outer one stands still, so that the seconds of all phases add up to the wall
clock. What no phase claims is `other`.

    timer = PhaseTimer()
    with timer.phase("evolve"):
        with timer.phase("predict"):
            scores = model.predict(batch)
    timer.summary()      # {"sketch": 0.0, "evolve": 0.01, ..., "predict": 0.2, ..., "other": 0.0}
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ansor_py.measure.result import Span

PHASES = ("sketch", "evolve", "features", "predict", "train", "build", "run", "other")


class PhaseTimer:
    """Accumulates seconds by phase, from its creation on. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._since = self._began
        self._open: list[str] = []
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute the time inside the block to `name`."""
        self._attribute()
        self._open.append(name)
        try:
            yield
        finally:
            self._attribute()
            self._open.pop()

    def divide(self, name: str, shares: dict[str, float]) -> None:
        """Divide what a phase has so far: seconds for others, as far as it has them, and the rest for `other`."""
        self._attribute()
        left = self.seconds.pop(name, 0.0)
        for other, seconds in shares.items():
            moved = min(max(seconds, 0.0), left)
            self.seconds[other] = self.seconds.get(other, 0.0) + moved
            left -= moved
        self.seconds["other"] = self.seconds.get("other", 0.0) + left

    def elapsed(self) -> float:
        """Seconds since the timer was made."""
        return self._clock() - self._began

    def summary(self) -> dict[str, float]:
        """Seconds of every phase up to now; they add up to `elapsed`."""
        self._attribute()
        phases = dict.fromkeys(PHASES, 0.0) | self.seconds
        phases["other"] += max(self._since - self._began - sum(phases.values()), 0.0)
        return phases

    def _attribute(self) -> None:
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


def covered_seconds(spans: Iterable[Span]) -> float:
    """Length of the union of spans of time."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((span.started, span.finished) for span in spans):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total
