"""Workers: what a backend provides to the batch measurer, and what happens inside of one.

A worker does one job at a time and answers with one message. Backends (`process`, `ray_backend`, `inline`) differ in where a
worker lives and how it is replaced; the jobs are performed by the same `JobServer` in all of them.

    pool.runners[0].send(RunJob(...), dag)
    pool.wait([pool.runners[0]], timeout=10)
    message = pool.runners[0].receive()       # MeasureResult, or Died("killed by SIGSEGV ...")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Union

from ansor_py.measure.build import BuildJob, BuildReply, perform_build
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.run import PrepareJob, PrepareReply, RunJob, Runner, RunSettings

if TYPE_CHECKING:
    from ansor_py.schedule.dag import ComputeDAG

Role = Literal["builder", "runner"]
Job = Union[BuildJob, PrepareJob, RunJob]
Reply = Union[BuildReply, PrepareReply, MeasureResult]


@dataclass(frozen=True)
class Ready:
    """The worker has started and waits for jobs."""


@dataclass(frozen=True)
class Died:
    """The worker is gone; `text` says how, as far as is known."""

    text: str


Message = Union[Ready, Died, Reply]


class Worker(Protocol):
    """One place where jobs run, one at a time. After `Died` or `kill` it needs `start` again."""

    def start(self) -> None:
        """Begin to start (or replace) the worker; `Ready` or `Died` follows."""

    def send(self, job: Job, dag: ComputeDAG) -> None:
        """Give a job to a worker that has none; its reply or `Died` follows."""

    def receive(self) -> Message | None:
        """The next message, or None if there is none yet; never waits."""

    def kill(self) -> None:
        """Stop the worker at once, whatever it does."""


class Pool(Protocol):
    """The workers of a backend. `alternating`: builds and runs must not overlap in time."""

    builders: Sequence[Worker]
    runners: Sequence[Worker]
    alternating: bool

    def wait(self, workers: Sequence[Worker], timeout: float) -> None:
        """Return when one of the workers may have a message, or after `timeout` seconds."""

    def close(self) -> None:
        """Kill all workers and release everything; calling it again does nothing."""


class JobServer:
    """Performs jobs inside a worker; keeps what one job leaves for the next (references and buffers of tasks)."""

    def __init__(self, role: Role, settings: RunSettings) -> None:
        self._runner = Runner(settings) if role == "runner" else None

    def perform(self, job: Job, dag: ComputeDAG | None) -> Reply:
        """Do one job. Failures of the program are in the reply; an exception is a defect of the worker."""
        if isinstance(job, BuildJob):
            assert dag is not None, "a build job needs the DAG"
            return perform_build(job, dag)
        assert self._runner is not None, "a builder was given a job for a runner"
        return self._runner.prepare(job) if isinstance(job, PrepareJob) else self._runner.run(job)
