"""Compiling the kernels of a model: in supervised child processes, because LLVM may end the process that it runs in.

    with KernelBuilder(target, threads=2) as builder:
        kernels = builder.build([BuildRequest("kernel_1f..", dag, steps), ...])   # CompiledKernel, or the error's text

`KernelBuilder(..., workers=0)` compiles in this process: for many tiny models, where starting children would take most
of the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from math import inf
from multiprocessing.connection import wait
from types import TracebackType
from typing import TYPE_CHECKING, Union

from ansor_py.codegen.kernel import CompiledKernel, build_kernel
from ansor_py.errors import MeasureError
from ansor_py.measure.build import BuildJob, BuildReply, perform_build
from ansor_py.measure.process import ProcessWorker
from ansor_py.measure.run import RunSettings
from ansor_py.measure.workers import Died, Ready
from ansor_py.target.cores import NOMINAL_HERTZ

if TYPE_CHECKING:
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.schedule.steps import Step
    from ansor_py.target import Target

# A kernel that takes longer to compile is given up, in seconds.
BUILD_TIMEOUT = 120.0
_START_ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class BuildRequest:
    """A program to compile under a symbol of its own, so that all kernels of a model can be linked together.

    Without steps it gets its default schedule, which the worker chooses.
    """

    symbol: str
    dag: ComputeDAG
    steps: tuple[Step, ...] | None


BuildResult = Union[CompiledKernel, str]


@dataclass(frozen=True)
class DefaultKernel(CompiledKernel):
    """A kernel of a default schedule, with the seconds that the roofline expects of a call."""

    predicted_seconds: float = inf


def build_named(symbol: str, dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> CompiledKernel:
    """Lower and compile one program under a symbol; runs in a worker."""
    return build_kernel(dag, steps, target, threads, symbol=symbol)


def build_default(
    symbol: str, dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int, math: str = "exact"
) -> CompiledKernel:
    """The same with the default schedule in the place of `steps`."""
    from ansor_py.search.sampling.default_schedule import default_schedule

    chosen = default_schedule(dag, target, threads, math)
    kernel = build_named(symbol, dag, chosen.steps, target, threads)
    parts = {item.name: getattr(kernel, item.name) for item in fields(kernel)}
    return DefaultKernel(**parts, predicted_seconds=chosen.cycles / NOMINAL_HERTZ)


NamedBuild = Callable[[str, "ComputeDAG", Sequence["Step"], "Target", int], CompiledKernel]


class KernelBuilder(AbstractContextManager["KernelBuilder"]):
    """Compiles programs with up to `workers` child processes, which start at the first use and end with `close`.

    `build` is the picklable function that a worker calls, by default `build_named`. `math` says which algorithms default
    schedules may use.
    """

    def __init__(
        self,
        target: Target,
        threads: int,
        workers: int | None = None,
        build: NamedBuild | None = None,
        math: str = "exact",
    ) -> None:
        self._target = target
        self._build_named = build or build_named
        self._threads = threads
        self._math = math
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
        self._limit = len(self._cores) if workers is None else workers
        self._idle: list[ProcessWorker] = []
        self._busy: dict[int, ProcessWorker] = {}

    def build(self, requests: Sequence[BuildRequest]) -> list[BuildResult]:
        """The kernel of each request, or what went wrong with it; a request that kills its worker fails alone."""
        if self._limit == 0:
            return [_result(perform_build(self._job(request), request.dag)) for request in requests]
        results: dict[int, BuildResult] = {}
        waiting = list(range(len(requests)))[::-1]
        while waiting or self._busy:
            while waiting and len(self._busy) < min(self._limit, len(requests)):
                index = waiting.pop()
                worker = self._idle.pop() if self._idle else self._started()
                worker.send(self._job(requests[index]), requests[index].dag)
                self._busy[index] = worker
            for index, result in self._finished():
                results[index] = result
        return [results[index] for index in range(len(requests))]

    def close(self) -> None:
        """End the child processes; calling it again does nothing."""
        for worker in (*self._idle, *self._busy.values()):
            worker.kill()
        self._idle.clear()
        self._busy.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _job(self, request: BuildRequest) -> BuildJob:
        if request.steps is None:
            builder = partial(build_default, request.symbol, math=self._math)
        else:
            builder = partial(self._build_named, request.symbol)
        return BuildJob(request.dag.workload_key, request.steps or (), self._target, self._threads, builder)

    def _started(self) -> ProcessWorker:
        worker = ProcessWorker("builder", self._cores, RunSettings(), ())
        said = "it did not answer"
        for _ in range(_START_ATTEMPTS):
            worker.start()
            wait([connection for connection in [worker.waitable] if connection], BUILD_TIMEOUT)
            message = worker.receive()
            if isinstance(message, Ready):
                return worker
            said = message.text if isinstance(message, Died) else said
        worker.kill()
        raise MeasureError(f"a process that compiles kernels cannot be started: {said}")

    def _finished(self) -> list[tuple[int, BuildResult]]:
        """What has been answered, after waiting for at least one answer; a silent worker is replaced."""
        connections = [worker.waitable for worker in self._busy.values() if worker.waitable]
        answered = bool(wait(connections, BUILD_TIMEOUT))
        done: list[tuple[int, BuildResult]] = []
        for index, worker in list(self._busy.items()):
            message = worker.receive()
            if isinstance(message, BuildReply):
                done.append((index, _result(message)))
                self._idle.append(worker)
            elif isinstance(message, Died) or not answered:
                worker.kill()
                said = message.text if isinstance(message, Died) else f"took longer than {BUILD_TIMEOUT:.0f} s"
                done.append((index, f"the process that compiled it {said}"))
            else:
                continue
            del self._busy[index]
        return done


def _result(reply: BuildReply) -> BuildResult:
    return reply.kernel if reply.kernel is not None else reply.result.error_text
