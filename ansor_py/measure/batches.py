"""The batch measurer: which job goes to which worker and when, for every backend.

A batch is built by all builders and run by the runners. Where cores are scarce the phases alternate: first all builds of a
batch, then its runs, then the next batch; otherwise a program runs while the next ones are built. A worker that dies or
exceeds its time is replaced, its program becomes a result with an error, and everything else goes on.

What is the same is done once. Equal steps are built once, as long as their code is remembered. Programs of different steps may
have the same code (a third of those of a convolution, two thirds of a softmax's): a candidate whose code ran before has the
costs of that run. Programs that are to have all their samples are run whatever is known.

There is no thread: work is handed out and collected while `poll` is called. A worker that finishes between two polls waits.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ansor_py.errors import MeasureError
from ansor_py.measure.build import BuildJob, BuildReply
from ansor_py.measure.interface import MeasureInput, MeasureOptions, Measurer
from ansor_py.measure.result import ErrorKind, MeasureResult, Span
from ansor_py.measure.run import PrepareJob, PrepareReply, RunJob
from ansor_py.measure.workers import Died, Job, Message, Pool, Ready, Worker

if TYPE_CHECKING:
    import numpy as np

    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.schedule.dag import ComputeDAG

MAX_START_FAILURES = 3
REMEMBERED_BUILDS = 256


@dataclass(eq=False)
class _Program:
    """A submitted program on its way. Without an id it is the reference of its task."""

    id: int | None
    input: MeasureInput
    built: BuildReply | None = None


@dataclass(eq=False)
class _Task:
    """What is known about the reference of a workload."""

    dag: ComputeDAG
    kernel: CompiledKernel | None = None
    tolerance: float = 0.0
    outputs: tuple[np.ndarray, ...] | None = None
    failure: tuple[ErrorKind, str] | None = None


@dataclass(eq=False)
class _Slot:
    """A worker and what it is doing; `deadline` is on the monotonic clock."""

    worker: Worker
    state: str = "starting"  # starting, idle, busy
    program: _Program | None = None
    preparing: bool = False
    deadline: float = 0.0
    began: float = 0.0  # seconds since the epoch
    start_failures: int = 0
    prepared: set[str] = field(default_factory=set)


class BatchMeasurer(Measurer):
    """A measurer over the workers of a pool."""

    def __init__(self, pool: Pool, options: MeasureOptions) -> None:
        self.pool = pool
        self._options = options
        self._builders = [_Slot(worker) for worker in pool.builders]
        self._runners = [_Slot(worker) for worker in pool.runners]
        self._tasks: dict[str, _Task] = {}
        self._builds: OrderedDict[object, BuildReply] = OrderedDict()
        self._results: dict[object, MeasureResult] = {}  # of candidates, by their code
        self._batches: deque[list[_Program]] = deque()
        self._to_build: deque[_Program] = deque()
        self._to_run: deque[_Program] = deque()
        self._finished: list[tuple[int, MeasureResult]] = []
        self._next_id = 0
        self._outstanding = 0
        self._closed = False
        try:
            for slot in self._slots:
                self._start(slot)
        except BaseException:
            self.close()
            raise

    # --- the interface

    @property
    def outstanding(self) -> int:
        return self._outstanding

    def submit(self, batch: Sequence[MeasureInput]) -> list[int]:
        if self._closed:
            raise MeasureError("programs were submitted to a measurer that is closed")
        programs: list[_Program] = []
        ids: list[int] = []
        for item in batch:
            if item.workload_key not in self._tasks:
                self._tasks[item.workload_key] = _Task(item.dag)
                if self._options.check_outputs:
                    programs.append(_Program(None, item))
            programs.append(_Program(self._next_id, item))
            ids.append(self._next_id)
            self._next_id += 1
        self._batches.append(programs)
        self._outstanding += len(ids)
        return ids

    def poll(self, timeout: float | None = None) -> list[tuple[int, MeasureResult]]:
        limit = None if timeout is None else time.monotonic() + timeout
        while not self._closed:
            self._collect()
            self._hand_out()
            if self._finished or not self._outstanding:
                break
            active = [slot for slot in self._slots if slot.state != "idle"]
            now = time.monotonic()
            if limit is not None and now >= limit:
                break
            until = min([slot.deadline for slot in active] + ([] if limit is None else [limit]))
            self.pool.wait([slot.worker for slot in active], max(until - now, 0.0))
        results, self._finished = self._finished, []
        self._outstanding -= len(results)
        return results

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.pool.close()

    # --- workers

    @property
    def _slots(self) -> list[_Slot]:
        return self._builders + self._runners

    def _start(self, slot: _Slot) -> None:
        slot.state, slot.program, slot.preparing = "starting", None, False
        slot.prepared.clear()
        slot.deadline = time.monotonic() + self._options.start_timeout
        slot.worker.start()

    def _collect(self) -> None:
        """Take what workers have to say; replace the dead and those that exceed their time."""
        for slot in self._slots:
            message = slot.worker.receive()  # of an idle one too: it may have been killed by somebody
            if message is not None:
                self._take(slot, message)
            elif slot.state != "idle" and time.monotonic() > slot.deadline:
                self._time_out(slot)

    def _take(self, slot: _Slot, message: Message) -> None:
        if isinstance(message, Died):
            if slot.state == "starting":
                self._start_failed(slot, message.text)
            else:
                self._fail_current(slot, "crash", message.text)
                self._start(slot)
            return
        program, preparing = slot.program, slot.preparing
        slot.state, slot.program, slot.preparing = "idle", None, False
        match message:
            case Ready():
                slot.start_failures = 0
            case BuildReply() if program is not None:
                self._take_build(program, message)
            case PrepareReply() if program is not None and preparing:
                self._take_reference(slot, program, message)
            case MeasureResult() if program is not None:
                if message.valid or message.error == "cut":
                    self._results.setdefault(_code_key(program), message)
                self._finish(program, message)

    def _time_out(self, slot: _Slot) -> None:
        slot.worker.kill()
        if slot.state == "starting":
            self._start_failed(slot, f"it was not ready after {self._options.start_timeout:g} s")
            return
        building = slot in self._builders
        seconds = self._limit_of(slot.program, building, slot.preparing)
        kind: ErrorKind = "build-timeout" if building else "run-timeout"
        self._fail_current(slot, kind, f"killed after {seconds:g} s")
        self._start(slot)

    def _start_failed(self, slot: _Slot, text: str) -> None:
        slot.start_failures += 1
        if slot.start_failures >= MAX_START_FAILURES:
            self.close()
            raise MeasureError(f"a measuring worker cannot be started ({slot.start_failures} attempts): {text}")
        self._start(slot)

    # --- handing out work

    def _hand_out(self) -> None:
        alternating = self.pool.alternating
        runs_pending = bool(self._to_run) or any(slot.state == "busy" for slot in self._runners)
        if not self._to_build and self._batches and not (alternating and runs_pending):
            self._to_build.extend(self._batches.popleft())
        if not (alternating and any(slot.state == "busy" for slot in self._runners)):
            for slot in self._builders:
                self._pass_known_builds()
                if slot.state == "idle" and self._to_build:
                    self._hand_build(slot, self._to_build.popleft())
            self._pass_known_builds()
        if alternating and (self._to_build or any(slot.state != "idle" for slot in self._builders)):
            return
        if alternating:  # as they were submitted, whichever was built first: re-timing wants programs in turns
            self._to_run = deque(sorted(self._to_run, key=lambda program: program.id or 0))
        for slot in self._runners:
            if slot.state == "idle":
                self._hand_run(slot)

    def _pass_known_builds(self) -> None:
        """The programs that come next and were built before need no builder."""
        while self._to_build and (known := self._builds.get(_steps_key(self._to_build[0]))) is not None:
            program = self._to_build.popleft()
            program.built = BuildReply(known.kernel, MeasureResult(), known.tolerance)
            self._to_run.append(program)

    def _hand_build(self, slot: _Slot, program: _Program) -> None:
        item, options = program.input, self._options
        reference = program.id is None
        job = BuildJob(
            item.workload_key,
            () if reference else item.steps,
            item.target,
            item.threads,
            options.reference_builder if reference else options.builder,
        )
        self._give(slot, job, program)

    def _hand_run(self, slot: _Slot) -> None:
        """Give the runner its next program, or first the reference of that program's task."""
        waiting = len(self._to_run)
        for _ in range(waiting):
            program = self._to_run.popleft()
            item, task = program.input, self._tasks[program.input.workload_key]
            assert program.built is not None
            assert program.built.kernel is not None
            if self._options.check_outputs and item.workload_key not in slot.prepared:
                if task.failure is not None:
                    kind, text = task.failure
                    self._finish(program, MeasureResult(error=kind, error_text=text, error_stage="reference"))
                elif task.kernel is None:
                    self._to_run.append(program)  # the reference is still being built
                else:
                    self._to_run.appendleft(program)
                    job = PrepareJob(item.workload_key, task.kernel, task.outputs, task.tolerance)
                    self._give(slot, job, program)
                    return
                continue
            known = self._results.get(_code_key(program))
            if known is not None and item.best_seconds is not None:
                self._finish(program, replace(known, run=None, same_code=True))
                continue
            check, limits = self._options.check_outputs, (item.cut_seconds, item.best_seconds)
            run = RunJob(item.workload_key, program.built.kernel, item.threads, *limits, check)
            self._give(slot, run, program)
            return

    def _give(self, slot: _Slot, job: Job, program: _Program) -> None:
        slot.state, slot.program, slot.preparing = "busy", program, isinstance(job, PrepareJob)
        slot.began = time.time()
        slot.deadline = time.monotonic() + self._limit_of(program, isinstance(job, BuildJob), slot.preparing)
        slot.worker.send(job, self._tasks[program.input.workload_key].dag)

    def _limit_of(self, program: _Program | None, building: bool, preparing: bool) -> float:
        if preparing or (program is not None and program.id is None):
            return self._options.reference_timeout
        return self._options.build_timeout if building else self._options.run_timeout

    # --- what comes back

    def _take_build(self, program: _Program, reply: BuildReply) -> None:
        task = self._tasks[program.input.workload_key]
        if program.id is None:
            task.kernel, task.tolerance = reply.kernel, reply.tolerance
            if reply.kernel is None:
                task.failure = (reply.result.error, f"the naive program that checks outputs: {reply.result.error_text}")
            return
        program.built = reply
        if reply.kernel is None:
            self._finish(program, reply.result)
        else:
            self._builds[_steps_key(program)] = reply
            if len(self._builds) > REMEMBERED_BUILDS:
                self._builds.popitem(last=False)
            self._to_run.append(program)

    def _take_reference(self, slot: _Slot, program: _Program, reply: PrepareReply) -> None:
        task = self._tasks[program.input.workload_key]
        if reply.error == "none":
            task.outputs = reply.reference
            slot.prepared.add(program.input.workload_key)
        else:
            task.failure = (reply.error, f"the naive program that checks outputs: {reply.error_text}")

    def _fail_current(self, slot: _Slot, kind: ErrorKind, text: str) -> None:
        """The worker died or was killed over its job: the program, or the task's reference, has failed."""
        program = slot.program
        if program is None:
            return
        span = Span(slot.began, time.time())
        if program.id is None or slot.preparing:
            self._tasks[program.input.workload_key].failure = (kind, f"the naive program that checks outputs: {text}")
            return
        if slot in self._builders:
            self._finish(program, MeasureResult(error=kind, error_text=text, error_stage="build", build=span))
        else:
            self._finish(program, MeasureResult(error=kind, error_text=text, error_stage="run", run=span))

    def _finish(self, program: _Program, result: MeasureResult) -> None:
        assert program.id is not None
        self._finished.append((program.id, replace(result, build=program.built.result.build) if program.built else result))


def _steps_key(program: _Program) -> object:
    """What has the same code if it is equal; None for the reference of a task."""
    item = program.input
    return None if program.id is None else (item.workload_key, item.steps, item.target, item.threads)


def _code_key(program: _Program) -> object:
    """What takes the same time if it is equal: the code, the buffers it works on, and the number of threads."""
    assert program.built is not None
    assert program.built.kernel is not None
    kernel = program.built.kernel
    code = hashlib.sha256(kernel.object_code).digest()
    return program.input.workload_key, program.input.threads, kernel.workspace_bytes, kernel.buffers, kernel.prepacked, code
