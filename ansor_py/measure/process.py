"""Measuring in supervised child processes of this one, without Ray.

Each worker is a `ChildProcess` that imports only the layers below measuring, and keeps to its cores.

    with create_measurer("process", target=Target.detect(), threads=2) as measurer: ...
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.build import module_of
from ansor_py.measure.child_process import ChildProcess, child_environment
from ansor_py.measure.cores import WORKER_ENVIRONMENT, CorePlan, plan_cores
from ansor_py.measure.interface import MeasureOptions, Measurer, measurer
from ansor_py.measure.workers import Job, Message, Role, Worker

if TYPE_CHECKING:
    from ansor_py.measure.run import RunSettings
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.target import Target

_PROGRAM = "from ansor_py.measure.child import main; main({descriptor})"
_OUTSIDE = "an access outside of all buffers; each lies between guard pages"
_CRASHES: dict[int, str] = {signal.SIGSEGV: _OUTSIDE, signal.SIGBUS: _OUTSIDE}


class ProcessWorker:
    """One child process that does jobs, with `imports` of its own, on the cores that it may use."""

    def __init__(self, role: Role, cores: Sequence[int], settings: RunSettings, imports: Sequence[str]) -> None:
        self._role = role
        self._greeting = (role, tuple(cores), settings, tuple(imports))
        self._child = ChildProcess(_PROGRAM, child_environment(WORKER_ENVIRONMENT), _CRASHES if role == "runner" else {})
        self._known_dags: set[str] = set()

    @property
    def pid(self) -> int | None:
        """The process id of the present child."""
        return self._child.pid

    @property
    def waitable(self) -> Connection[Any, Any] | None:
        """What becomes readable when there is a message or the child dies."""
        return self._child.waitable

    def start(self) -> None:
        self._known_dags.clear()
        self._child.start()
        self._child.send(self._greeting)

    def send(self, job: Job, dag: ComputeDAG) -> None:
        unknown = job.workload_key not in self._known_dags
        self._known_dags.add(job.workload_key)
        self._child.send((job, dag if unknown and self._role == "builder" else None))

    def receive(self) -> Message | None:
        return cast("Message | None", self._child.receive())

    def kill(self) -> None:
        self._child.kill()


class ProcessPool:
    """Builders on the cores of the plan and one runner that owns its cores."""

    def __init__(self, plan: CorePlan, builders: int, settings: RunSettings, imports: Sequence[str]) -> None:
        self.alternating = plan.alternating
        self._builders = [ProcessWorker("builder", plan.build, settings, imports) for _ in range(builders)]
        self._runners = [ProcessWorker("runner", plan.run, settings, ())]
        self.builders: Sequence[Worker] = self._builders
        self.runners: Sequence[Worker] = self._runners

    @property
    def pids(self) -> list[int]:
        """Process ids of the present children."""
        return [worker.pid for worker in (*self._builders, *self._runners) if worker.pid is not None]

    def wait(self, workers: Sequence[Worker], timeout: float) -> None:
        wanted = {id(worker) for worker in workers}
        candidates = [worker for worker in (*self._builders, *self._runners) if id(worker) in wanted]
        waitables = [worker.waitable for worker in candidates if worker.waitable is not None]
        if len(waitables) == len(candidates):
            connections.wait(waitables, timeout)

    def close(self) -> None:
        for worker in (*self._builders, *self._runners):
            worker.kill()


@measurer("process")
def process_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer with child processes. Raises OptionError when a builder function cannot be imported by a child."""
    plan = plan_cores(threads)
    imports = [module_of(builder) for builder in (options.builder, options.reference_builder)]
    pool = ProcessPool(plan, options.builders or len(plan.build), options.run, imports)
    return BatchMeasurer(pool, options)
