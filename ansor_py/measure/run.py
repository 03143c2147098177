"""What a runner does with one compiled program: load it, run it on seeded inputs, time it, check what it wrote.

A `Runner` lives in one worker and keeps, per task, the reference output and (for the tasks used last) the buffers. All buffers
and the workspace lie between guard pages; outputs are filled with NaN beforehand and compared after the last timed call.

    runner = Runner(RunSettings())
    runner.prepare(PrepareJob(key, naive_kernel, None, tolerance))
    result = runner.run(RunJob(key, kernel, threads=2, cut_seconds=3 * best))
    result.costs, result.error
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from ansor_py.measure.reference import INEXACT_TOLERANCE, difference, fill_input, largest_error, poison
from ansor_py.measure.result import ErrorKind, MeasureResult, Span
from ansor_py.measure.sequential import Noises, SequentialTimer, seconds_without_core

if TYPE_CHECKING:
    from ansor_py.codegen.jit import LoadedObject
    from ansor_py.codegen.kernel import BufferSpec, CompiledKernel
    from ansor_py.codegen.memory import GuardedBuffer
    from ansor_py.codegen.timing import Block

BUFFER_CACHE_BYTES = 512 << 20
_POISON_BYTE = 0xFF  # four of them are a float NaN


@dataclass(frozen=True)
class RunSettings:
    """How a program is timed: blocks of `min_block_seconds` or more, up to `max_repeats` of them within `budget_seconds`.

    Before them come two looks of `look_seconds`, and that is all where it is slower than the best one with this `confidence`.
    With `cold`, caches are flushed before every call. `seed` makes the inputs.
    """

    min_block_seconds: float = 3e-3
    look_seconds: float = 1e-3
    confidence: float = 0.999
    max_repeats: int = 5
    budget_seconds: float = 0.06
    cold: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PrepareJob:
    """Make a task's reference known to a runner: by running its naive program, or as arrays computed before."""

    workload_key: str
    kernel: CompiledKernel
    reference: tuple[np.ndarray, ...] | None
    tolerance: float


@dataclass(frozen=True)
class PrepareReply:
    """The reference outputs in ABI order, or why there are none."""

    reference: tuple[np.ndarray, ...]
    error: ErrorKind = "none"
    error_text: str = ""


@dataclass(frozen=True)
class RunJob:
    """A compiled program to time. Without `check` the task needs no reference; for the seconds see `MeasureInput`."""

    workload_key: str
    kernel: CompiledKernel
    threads: int
    cut_seconds: float | None = None
    best_seconds: float | None = None
    check: bool = True


@dataclass
class _Buffers:
    """The arrays of one task, in ABI order, each in a guarded buffer."""

    specs: tuple[BufferSpec, ...]
    guards: list[GuardedBuffer]
    arrays: list[np.ndarray] = field(default_factory=list)

    @property
    def outputs(self) -> list[tuple[BufferSpec, np.ndarray]]:
        return [(spec, array) for spec, array in zip(self.specs, self.arrays, strict=True) if spec.role == "output"]

    @property
    def bytes(self) -> int:
        return sum(guard.size for guard in self.guards)

    def damage(self) -> str | None:
        """A sentence about the first buffer outside of which something was written."""
        for spec, guard in zip(self.specs, self.guards, strict=True):
            sentence = guard.check()
            if sentence:
                return f"{spec.role} '{spec.name}': {sentence}"
        return None


class Runner:
    """Runs compiled programs one after another in this process; a crash of a program is a crash of the process."""

    def __init__(self, settings: RunSettings) -> None:
        from ansor_py.codegen.timing import AbortFlag

        self._settings = settings
        self._abort = AbortFlag()
        self._noises = Noises()
        self._references: dict[str, tuple[tuple[np.ndarray, ...], float]] = {}
        self._best: dict[str, float] = {}  # seconds of the fastest program of each task that was right
        self._buffers: OrderedDict[str, _Buffers] = OrderedDict()

    def prepare(self, job: PrepareJob) -> PrepareReply:
        """Learn the reference of a task; runs the naive program unless the job brings the arrays."""
        reference = job.reference
        if reference is None:
            try:
                reference = self._naive_outputs(job)
            except Exception as error:
                return PrepareReply((), "run", f"{type(error).__name__}: {error}")
        self._references[job.workload_key] = (reference, job.tolerance)
        return PrepareReply(reference)

    def run(self, job: RunJob) -> MeasureResult:
        """Time one program. Every exception becomes a result with error `run`."""
        started = time.time()
        try:
            result = self._run(job)
        except Exception as error:
            result = MeasureResult(error="run", error_text=f"{type(error).__name__}: {error}", error_stage="load")
        if result.valid and result.early_end is None:
            self._best[job.workload_key] = min(result.cost, self._best.get(job.workload_key, math.inf))
        if result.error in ("wrong-result", "out-of-bounds", "run"):
            self._buffers.pop(job.workload_key, None)  # inputs may be damaged: the next program gets fresh ones
        return replace(result, run=Span(started, time.time()))

    def _run(self, job: RunJob) -> MeasureResult:
        from ansor_py.codegen.memory import GuardedBuffer, buffer_table
        from ansor_py.codegen.thread_pool import load_kernels

        loaded = load_kernels([job.kernel.object_code], job.kernel.symbols)
        try:
            buffers = self._buffers_of(job.workload_key, job.kernel)
            for _, array in buffers.outputs:
                poison(array)
            prepacked = _allocate(job.kernel.prepacked, self._settings.seed)
            workspace = GuardedBuffer(job.kernel.workspace_bytes)
            workspace.array((job.kernel.workspace_bytes,), "uint8").fill(_POISON_BYTE)
            table = buffer_table([*buffers.arrays, *prepacked.arrays])
            _prepack_constants(loaded, job.kernel, table, workspace, job.threads)
            call = _Call(loaded.address(job.kernel.symbol), table.ctypes.data, workspace.address, job.threads)
            timed = self._time(call, job, buffers)
            overrun = workspace.check()
            damage = f"workspace: {overrun}" if overrun else buffers.damage() or prepacked.damage()
        finally:
            loaded.close()
        if damage:
            return MeasureResult(error="out-of-bounds", error_text=damage, error_stage="check")
        if timed.error != "none" or not job.check:
            return timed
        return self._checked(job, timed, buffers)

    def _time(self, call: _Call, job: RunJob, buffers: _Buffers) -> MeasureResult:
        """Warm up with one call, then time blocks of calls.

        A cold call takes longer than a warm one, so the first is cut only after a whole block's time.
        """
        from ansor_py.codegen.timing import measure_kernel

        settings, flag = self._settings, self._abort
        limit = float("inf") if job.cut_seconds is None else max(job.cut_seconds, settings.min_block_seconds)
        first = self._single(call, limit)
        if first.status:
            return _stopped(first.status, first.seconds, "warm-up")
        if not settings.cold:
            return self._time_in_blocks(call, job, limit, first.seconds)
        timing = measure_kernel(
            *call.arguments,
            flag.pointer,
            budget_seconds=max(settings.budget_seconds - first.seconds, settings.min_block_seconds),
            max_repeats=settings.max_repeats,
            cold_regions=[(guard.address, guard.size) for guard in buffers.guards],
        )
        return _stopped(timing.status, timing.lower_bound, "time") if timing.status else MeasureResult(timing.seconds)

    def _time_in_blocks(self, call: _Call, job: RunJob, limit: float, first: float) -> MeasureResult:
        """Looks and samples; of calls that fill a block each may be the cut one."""
        from ansor_py.codegen.timing import time_kernel

        def block(number: int) -> Block:
            return self._single(call, limit) if number == 1 else time_kernel(*call.arguments, self._abort.pointer, number)

        best = None if job.best_seconds is None else min(job.best_seconds, self._best.get(job.workload_key, math.inf))
        timed = SequentialTimer(self._settings, self._noises, block, seconds_without_core).time(first, best)
        if timed.stopped is not None:
            return _stopped(timed.stopped.status, timed.stopped.seconds / (timed.stopped.completed + 1), "time")
        return MeasureResult(timed.costs, early_end=timed.early_end, disturbed=timed.disturbed)

    def _single(self, call: _Call, limit: float) -> Block:
        """One call that is cut after `limit` seconds of its own."""
        from ansor_py.codegen.timing import time_kernel

        with self._abort.deadline(min(limit, _FOREVER)):
            return time_kernel(*call.arguments, self._abort.pointer, 1)

    def _checked(self, job: RunJob, timed: MeasureResult, buffers: _Buffers) -> MeasureResult:
        from ansor_py.schedule.algorithms import are_exact

        if job.workload_key not in self._references:
            return MeasureResult(
                error="run", error_text="the task was not prepared: there is no reference output", error_stage="check"
            )
        reference, tolerance = self._references[job.workload_key]
        exact = are_exact(job.kernel.algorithms)
        worst: float | None = None
        for (spec, output), expected in zip(buffers.outputs, reference, strict=True):
            sentence = difference(output, expected, tolerance if exact else INEXACT_TOLERANCE, of_largest=not exact)
            worst = worst if exact else max(worst or 0.0, largest_error(output, expected))
            if sentence:
                text = f"output '{spec.name}': {sentence}"
                return MeasureResult(error="wrong-result", error_text=text, error_stage="check", output_checked=True)
        return replace(timed, output_checked=True, output_error=worst)

    def _naive_outputs(self, job: PrepareJob) -> tuple[np.ndarray, ...]:
        from ansor_py.codegen.memory import GuardedBuffer, buffer_table
        from ansor_py.codegen.thread_pool import load_kernels
        from ansor_py.codegen.timing import time_kernel

        buffers = self._buffers_of(job.workload_key, job.kernel)
        workspace = GuardedBuffer(job.kernel.workspace_bytes)
        prepacked = _allocate(job.kernel.prepacked, self._settings.seed)
        loaded = load_kernels([job.kernel.object_code], job.kernel.symbols)
        try:
            table = buffer_table([*buffers.arrays, *prepacked.arrays])
            _prepack_constants(loaded, job.kernel, table, workspace, 1)
            time_kernel(loaded.address(job.kernel.symbol), table.ctypes.data, workspace.address, 1, 0, 1)
        finally:
            loaded.close()
        return tuple(array.copy() for _, array in buffers.outputs)

    def _buffers_of(self, key: str, kernel: CompiledKernel) -> _Buffers:
        """The task's buffers with its inputs filled; those used least recently are forgotten when there are too many."""
        known = self._buffers.get(key)
        if known is not None and known.specs == kernel.buffers:
            self._buffers.move_to_end(key)
            return known
        self._buffers[key] = made = _allocate(kernel.buffers, self._settings.seed)
        while len(self._buffers) > 1 and sum(item.bytes for item in self._buffers.values()) > BUFFER_CACHE_BYTES:
            self._buffers.popitem(last=False)
        return made


_ABORTED = 1  # a kernel's status when the abort flag was up
_FOREVER = 1e6  # seconds; a watcher thread cannot wait for infinity


@dataclass(frozen=True)
class _Call:
    address: int
    buffers: int
    workspace: int
    threads: int

    @property
    def arguments(self) -> tuple[int, int, int, int]:
        return self.address, self.buffers, self.workspace, self.threads


def _prepack_constants(
    loaded: LoadedObject, kernel: CompiledKernel, table: np.ndarray, workspace: GuardedBuffer, threads: int
) -> None:
    """Let the program pack its constants, which is not timed: a compiled model does it once."""
    from ansor_py.codegen.timing import time_kernel

    if kernel.prepack_symbol:
        time_kernel(loaded.address(kernel.prepack_symbol), table.ctypes.data, workspace.address, threads)


def _allocate(specs: tuple[BufferSpec, ...], seed: int) -> _Buffers:
    from ansor_py.codegen.memory import GuardedBuffer

    buffers = _Buffers(specs, [])
    for position, spec in enumerate(specs):
        guard = GuardedBuffer(int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize)
        array = guard.array(spec.shape, spec.dtype)
        if spec.role in ("input", "constant"):
            fill_input(array, seed, position)
        buffers.guards.append(guard)
        buffers.arrays.append(array)
    return buffers


def _stopped(status: int, seconds: float, stage: str) -> MeasureResult:
    """The kernel returned early: cut by the abort flag (status 1), or with a status that the ABI does not know."""
    if status == _ABORTED:
        text = f"stopped by the abort flag after {seconds * 1e3:.3g} ms of one call"
        return MeasureResult((seconds,), "cut", text, stage)
    return MeasureResult(error="run", error_text=f"the kernel returned status {status}", error_stage=stage)
