"""Timing kernels inside native code, and cutting them off.

A kernel has the ABI `int32 f(void** buffers, void* workspace, int32 threads, volatile int32* abort)`. The timer calls it
`number` times between two readings of the monotonic clock, all in compiled code, so that neither Python nor ctypes
is in the measured interval. An `AbortFlag` with a deadline makes a slow kernel return early with status 1.

    flag = AbortFlag()
    with flag.deadline(0.5):
        timing = measure_kernel(address, buffers, workspace, threads=2, abort=flag.pointer)
    min(timing.seconds) if not timing.aborted else timing.lower_bound
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ansor_py.codegen.jit import LoadedObject, load_object
from ansor_py.codegen.llvm import compile_module
from ansor_py.target import Target

MIN_BLOCK_SECONDS = 5e-3  # shorter blocks are dominated by interrupts and clock resolution
MAX_REPEATS = 5
_SHORT = 0.9  # a block of this part of the wanted length is long enough
_MAX_NUMBER = 1 << 30
_STREAM_BYTES = 64 << 20

# `timespec` is two 64-bit words on every 64-bit Linux; clock 1 is CLOCK_MONOTONIC.
_TIMER_IR = """
declare i32 @clock_gettime(i32, ptr)

define i32 @ansor_time_kernel(ptr %kernel, ptr %buffers, ptr %workspace, i32 %threads, ptr %abort,
                              i64 %number, ptr %seconds, ptr %completed) {
entry:
  %begin = alloca [2 x i64], align 16
  %end = alloca [2 x i64], align 16
  %r0 = call i32 @clock_gettime(i32 1, ptr %begin)
  %begin_nano_at = getelementptr [2 x i64], ptr %begin, i64 0, i64 1
  %begin_whole = load i64, ptr %begin
  %begin_nano = load i64, ptr %begin_nano_at
  %whole_nano = mul i64 %begin_whole, 1000000000
  %now = add i64 %whole_nano, %begin_nano
  %first_at = getelementptr i64, ptr %abort, i64 1
  %first = load i64, ptr %first_at
  %is_first = icmp eq i64 %first, 0
  %first_now = select i1 %is_first, i64 %now, i64 %first
  store atomic i64 %first_now, ptr %first_at release, align 8
  %any = icmp sgt i64 %number, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %continue ]
  %status = call i32 %kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %done, label %continue
continue:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %number
  br i1 %more, label %loop, label %done
done:
  %code = phi i32 [ 0, %entry ], [ %status, %loop ], [ 0, %continue ]
  %count = phi i64 [ 0, %entry ], [ %i, %loop ], [ %next, %continue ]
  %r1 = call i32 @clock_gettime(i32 1, ptr %end)
  %end_nano_at = getelementptr [2 x i64], ptr %end, i64 0, i64 1
  %end_whole = load i64, ptr %end
  %end_nano = load i64, ptr %end_nano_at
  %whole = sub i64 %end_whole, %begin_whole
  %nano = sub i64 %end_nano, %begin_nano
  %whole_float = sitofp i64 %whole to double
  %nano_float = sitofp i64 %nano to double
  %nano_seconds = fdiv double %nano_float, 1.0e9
  %elapsed = fadd double %whole_float, %nano_seconds
  store double %elapsed, ptr %seconds
  store i64 %count, ptr %completed
  ret i32 %code
}
"""

_EVICT_IR = """
define void @ansor_evict(ptr %begin, i64 %bytes) {{
entry:
  br label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %next, %loop ]
  %line = getelementptr i8, ptr %begin, i64 %at
  {line}
  %next = add i64 %at, 64
  %more = icmp slt i64 %next, %bytes
  br i1 %more, label %loop, label %done
done:
  fence seq_cst
  ret void
}}
"""
# One cache line written back and dropped from all caches of all cores; elsewhere a big buffer is streamed instead.
_EVICT_LINE = {
    "x86-64": 'call void asm sideeffect "clflush ($0)", "r,~{memory}"(ptr %line)',
    "aarch64": 'call void asm sideeffect "dc civac, $0", "r,~{memory}"(ptr %line)',
}
_STREAM_LINE = "store volatile i64 %at, ptr %line"


@dataclass(frozen=True)
class Timing:
    """Samples of one kernel: `seconds` per call, one value a timed block of `number` calls.

    `status` is the kernel's last return code; when it is not 0 the measurement stopped there, and a call takes at
    least `lower_bound` seconds (the mean over the aborted block). `elapsed` seconds were spent in all.
    """

    seconds: tuple[float, ...]
    number: int
    status: int
    lower_bound: float
    elapsed: float

    @property
    def aborted(self) -> bool:
        """Whether a call was cut by the abort flag."""
        return self.status != 0


@dataclass(frozen=True)
class Block:
    """One timed block: seconds for `completed` calls (and, if `status` is not 0, the part of one more that ran)."""

    seconds: float
    status: int
    completed: int


class AbortFlag:
    """An int32 in shared memory that kernels read once per outer chunk; not zero means: return 1 now.

    Eight bytes behind it the timer notes when the first call began (monotonic clock, nanoseconds; 0: none yet).
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._word = ctypes.c_int32.from_buffer(self._memory)
        self._began = ctypes.c_int64.from_buffer(self._memory, 8)
        self.pointer = ctypes.addressof(self._word)

    @property
    def raised(self) -> bool:
        """Whether the flag is up."""
        return self._word.value != 0

    def set(self) -> None:
        """Raise the flag."""
        self._word.value = 1

    def clear(self) -> None:
        """Lower the flag."""
        self._word.value = 0

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[AbortFlag]:
        """Raise the flag `seconds` after the timer's first call has begun, unless the block has ended by then.

        It is lowered at both ends. The watcher is a thread of this process; ctypes releases the interpreter lock while a
        kernel runs. Its clock starts with the call, so that a busy machine does not cut a kernel that has hardly begun.
        """
        self.clear()
        self._began.value = 0
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(max(seconds, 0.0), over), daemon=True)
        watcher.start()
        try:
            yield self
        finally:
            over.set()
            watcher.join()
            self.clear()

    def _watch(self, seconds: float, over: threading.Event) -> None:
        left = seconds
        while not over.wait(left):
            began = self._began.value
            left = seconds - (time.monotonic_ns() - began) / 1e9 if began else seconds
            if left <= 0:
                self.set()
                return


def time_kernel(address: int, buffers: int, workspace: int, threads: int = 1, abort: int = 0, number: int = 1) -> Block:
    """Call a kernel `number` times and time the calls with the monotonic clock, all in native code.

    All pointers are integers: `buffers` points to an array of pointers, `abort` is that of an `AbortFlag` (0: one that is
    never raised). Stops at the first call that returns a non-zero status.
    """
    seconds, completed = ctypes.c_double(), ctypes.c_int64()
    flag = abort or _never_raised().pointer
    status = _timer()(
        address, buffers, workspace, threads, flag, number, ctypes.addressof(seconds), ctypes.addressof(completed)
    )
    return Block(seconds.value, int(status), completed.value)


def measure_kernel(
    address: int,
    buffers: int,
    workspace: int,
    threads: int = 1,
    abort: int = 0,
    *,
    min_block_seconds: float = MIN_BLOCK_SECONDS,
    budget_seconds: float = 0.06,
    max_repeats: int = MAX_REPEATS,
    cold_regions: Sequence[tuple[int, int]] | None = None,
) -> Timing:
    """Measure the seconds of one call of a kernel.

    After one warm-up call the number of calls grows until a block of them lasts `min_block_seconds`; such blocks are
    the samples. At least one is taken, then more, up to `max_repeats`, while `budget_seconds` (everything included) allow.
    With the default numbers a call of less than 10 ms gets its 4 or 5 samples.

    With `cold_regions` (address and bytes of the kernel's buffers) every block is a single call before which those
    regions are evicted from all caches, and up to ten times `max_repeats` samples are taken.
    """
    started = time.perf_counter()
    hot = cold_regions is None
    limit = max_repeats if hot else 10 * max_repeats
    samples: list[float] = []
    number = 1
    block = _timed(address, buffers, workspace, threads, abort, number, cold_regions)
    while block.status == 0:
        block = _timed(address, buffers, workspace, threads, abort, number, cold_regions)
        if block.status != 0:
            break
        if hot and block.seconds < _SHORT * min_block_seconds and number < _MAX_NUMBER:
            samples.clear()  # an interrupt made an earlier block of this size look long enough
            number = _next_number(block.seconds, number, min_block_seconds)
            continue
        samples.append(block.seconds / number)
        if len(samples) >= limit or time.perf_counter() - started + block.seconds > budget_seconds:
            break
    bound = block.seconds / (block.completed + 1) if block.status else 0.0
    return Timing(tuple(samples), number, block.status, bound, time.perf_counter() - started)


def evict(regions: Sequence[tuple[int, int]]) -> None:
    """Drop memory regions (address, bytes) from the caches of all cores, or push everything out by streaming."""
    function, by_line = _evictor()
    if by_line:
        for address, size in regions:
            first = address & ~63
            function(first, address + size - first)
    else:
        buffer = _stream_buffer()
        function(buffer.ctypes.data, buffer.nbytes)


def _timed(
    address: int,
    buffers: int,
    workspace: int,
    threads: int,
    abort: int,
    number: int,
    cold_regions: Sequence[tuple[int, int]] | None,
) -> Block:
    if cold_regions is not None:
        evict(cold_regions)
    return time_kernel(address, buffers, workspace, threads, abort, number)


def _next_number(block_seconds: float, number: int, min_block_seconds: float) -> int:
    """More calls than before, enough for a block of the wanted length and a fifth if calls go on as they did."""
    per_call = max(block_seconds / number, 1e-9)
    return min(max(2 * number, math.ceil(1.2 * min_block_seconds / per_call)), _MAX_NUMBER)


@functools.cache
def _never_raised() -> AbortFlag:
    return AbortFlag()


@functools.cache
def _library() -> LoadedObject:
    """The timer and the cache eviction, compiled once per process for any CPU of this machine's kind."""
    target = Target.baseline()
    line = _EVICT_LINE.get(target.architecture, _STREAM_LINE)
    code = compile_module(_TIMER_IR + _EVICT_IR.format(line=line), target)
    return load_object([code.code], ["ansor_time_kernel", "ansor_evict"])


@functools.cache
def _timer() -> Callable[..., int]:
    pointer, word = ctypes.c_void_p, ctypes.c_int32
    kind = ctypes.CFUNCTYPE(word, pointer, pointer, pointer, word, pointer, ctypes.c_int64, pointer, pointer)
    return kind(_library().address("ansor_time_kernel"))


@functools.cache
def _evictor() -> tuple[Callable[[int, int], None], bool]:
    """The eviction function, and whether it works line by line on the region that it is given."""
    by_line = Target.baseline().architecture in _EVICT_LINE
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    return kind(_library().address("ansor_evict")), by_line


@functools.cache
def _stream_buffer() -> np.ndarray:
    return np.zeros(_STREAM_BYTES, np.uint8)
