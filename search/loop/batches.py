"""One batch of programs through the measurer, with Ctrl-C and the clock taken care of.

runner = BatchRunner(measurer, timer)
runner.run(inputs, finished=lambda place, result: print(place, result.cost))
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ansor_py.errors import AnsorError, MeasureError, PlugInError, plug_in
from ansor_py.measure import MeasureInput, Measurer, MeasureResult
from ansor_py.measure.result import LEAST_SECONDS
from ansor_py.search.loop.phases import PhaseTimer, covered_seconds

_WAITING = "waiting"  # a phase that is divided into build, run and other when the batch is over


# What ends a search in good order: Ctrl-C, `kill`, and a terminal that is closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and the like wait for the end of the block, so that what was measured is noted completely or not at all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class BatchRunner:
    """Measures batches, one after another, and attributes the time to `build`, `run` and `other`."""

    def __init__(self, measurer: Measurer, timer: PhaseTimer) -> None:
        self._measurer = measurer
        self._timer = timer

    def run(self, inputs: Sequence[MeasureInput], finished: Callable[[int, MeasureResult], None]) -> None:
        """Measure all inputs; `finished` gets the place in the batch and the result of each as it comes in.

        After KeyboardInterrupt and MeasureError (which are passed on) it still gets what the measurer had finished.
        """
        if not inputs:
            return
        results: list[MeasureResult] = []
        places: dict[int, int] = {}

        def collect(timeout: float | None) -> None:
            with plug_in("the runner: poll", AnsorError):
                given = list(self._measurer.poll(timeout))
                if not given and timeout is None and not self._measurer.outstanding:
                    raise PlugInError(f"the runner: poll gave nothing, although {len(places)} programs have no result yet")
            for item in given:
                number, result = _checked(item, places)
                with uninterrupted():
                    results.append(result)
                    finished(places.pop(number), result)

        try:
            with self._timer.phase(_WAITING):
                with plug_in("the runner: submit", AnsorError):
                    numbers = list(self._measurer.submit(inputs))
                    if len(numbers) != len(inputs) or len(set(numbers)) != len(inputs):
                        raise PlugInError(
                            f"the runner: submit gave {numbers!r:.60} for {len(inputs)} programs; it must give one for each"
                        )
                places.update((number, place) for place, number in enumerate(numbers))
                while places:
                    collect(None)
        except (KeyboardInterrupt, MeasureError):
            if places:
                with suppress(MeasureError):  # an interrupted measurer may be broken as well
                    collect(0)
            raise
        finally:
            self._attribute(results)

    def _attribute(self, results: Sequence[MeasureResult]) -> None:
        """Building beside running counts as running, so that the phases add up to the wall clock."""
        built = [result.build for result in results if result.build is not None]
        ran = [result.run for result in results if result.run is not None]
        run = covered_seconds(ran)
        self._timer.divide(_WAITING, {"run": run, "build": covered_seconds(built + ran) - run})


def _checked(given: Any, waiting: Container[int]) -> tuple[int, MeasureResult]:
    """What a poll gave, if it is a result that is waited for. Raises PlugInError, also for costs that are no times."""
    match given:
        case (int(number), MeasureResult() as result) if number in waiting:
            pass
        case _:
            raise PlugInError(f"the runner: poll gave {given!r:.60}, which is no result of a program that was submitted")
    if not all(LEAST_SECONDS <= cost < math.inf for cost in result.costs) or (result.error == "none" and not result.costs):
        raise PlugInError(
            f"the runner: poll gave costs {result.costs!r:.60}; they must be seconds of at least {LEAST_SECONDS:g}"
        )
    return number, result
