"""One batch of programs through the measurer, with Ctrl-C and the clock taken care of.

runner = BatchRunner(measurer, timer)
runner.run(inputs, finished=lambda place, result: print(place, result.cost))
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ansor_py.errors import MeasureError
from ansor_py.measure import MeasureInput, Measurer, MeasureResult
from ansor_py.search.phases import PhaseTimer, covered_seconds

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

        After KeyboardInterrupt or MeasureError (which are passed on) it still gets what the measurer had finished.
        """
        if not inputs:
            return
        results: list[MeasureResult] = []
        places: dict[int, int] = {}

        def collect(timeout: float | None) -> None:
            for result in self._measurer.poll(timeout):
                with uninterrupted():
                    results.append(result)
                    finished(places.pop(result.id), result)

        try:
            with self._timer.phase(_WAITING):
                places.update((number, place) for place, number in enumerate(self._measurer.submit(inputs)))
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
        built = [(result.build_started, result.build_finished) for result in results]
        ran = [(result.run_started, result.run_finished) for result in results]
        run = covered_seconds(ran)
        self._timer.divide(_WAITING, {"run": run, "build": covered_seconds(built + ran) - run})
