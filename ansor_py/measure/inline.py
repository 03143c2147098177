"""Measuring in this very process, for debugging: breakpoints and tracebacks work.

There is no protection: a program that crashes ends the process, one that hangs hangs it, and time limits are not
enforced. Cores are not pinned either, because that would outlast the measurer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.interface import MeasureOptions, Measurer, measurer
from ansor_py.measure.workers import Job, JobServer, Message, Ready, Role, Worker

if TYPE_CHECKING:
    from ansor_py.measure.run import RunSettings
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.target import Target


class InlineWorker:
    """Does a job at once, inside `send`."""

    def __init__(self, role: Role, settings: RunSettings) -> None:
        self._server = JobServer(role, settings)
        self._message: Message | None = None

    def start(self) -> None:
        self._message = Ready()

    def send(self, job: Job, dag: ComputeDAG) -> None:
        self._message = self._server.perform(job, dag)

    def receive(self) -> Message | None:
        message, self._message = self._message, None
        return message

    def kill(self) -> None:
        self._message = None


class InlinePool:
    """One builder and one runner that take turns."""

    alternating = True

    def __init__(self, settings: RunSettings) -> None:
        self.builders: Sequence[Worker] = (InlineWorker("builder", settings),)
        self.runners: Sequence[Worker] = (InlineWorker("runner", settings),)

    def wait(self, workers: Sequence[Worker], timeout: float) -> None:
        """Messages are there as soon as jobs are given."""

    def close(self) -> None:
        """Nothing to release."""


@measurer("inline")
def inline_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer without worker processes."""
    return BatchMeasurer(InlinePool(options.run), options)
