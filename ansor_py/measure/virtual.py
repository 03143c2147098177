"""Measurers that run nothing: answers come at once, in order, and time passes on a clock of their own.

Records made with one hold nothing of the machine or the moment, so equal seeds give equal bytes. A trial takes a fixed time on
the clock, about that of a real one, so that searches which time limits can be studied as well.

    class ConstantMeasurer(VirtualMeasurer):
        def answer(self, program):
            return MeasureResult(costs=(1e-3,))
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from ansor_py.errors import MeasureError
from ansor_py.measure.interface import MeasureInput, Measurer
from ansor_py.measure.result import MeasureResult, Span

BUILD_SECONDS, RUN_SECONDS = 0.06, 0.04  # of a trial on the virtual clock


class VirtualMeasurer(Measurer):
    """Asks `answer` for one program a poll and lets the time of a trial pass."""

    def __init__(self) -> None:
        self._now = 0.0
        self._waiting: deque[tuple[int, MeasureInput]] = deque()
        self._submitted = 0
        self._closed = False

    @abstractmethod
    def answer(self, program: MeasureInput) -> MeasureResult:
        """What the program costs, which must depend on nothing but the program."""

    @property
    def virtual_clock(self) -> Callable[[], float]:
        """Seconds since the measurer was made."""
        return lambda: self._now

    @property
    def outstanding(self) -> int:
        """Programs that were submitted and not answered yet."""
        return len(self._waiting)

    def submit(self, batch: Sequence[MeasureInput]) -> list[int]:
        """Queue programs."""
        if self._closed:
            raise MeasureError("programs were submitted to a measurer that is closed")
        first = self._submitted
        self._submitted += len(batch)
        ids = list(range(first, self._submitted))
        self._waiting.extend(zip(ids, batch, strict=True))
        return ids

    def poll(self, timeout: float | None = None) -> list[tuple[int, MeasureResult]]:
        """The next program's result, after which the clock shows when it was finished."""
        if not self._waiting:
            return []
        number, program = self._waiting[0]
        answer = self.answer(program)
        self._waiting.popleft()
        build = Span(self._now, self._now + BUILD_SECONDS)
        run = Span(build.finished, build.finished + RUN_SECONDS) if answer.error != "build" else None
        self._now = (run or build).finished
        return [(number, replace(answer, build=build, run=run))]

    def close(self) -> None:
        """Forget what was not answered."""
        self._closed = True
        self._waiting.clear()
