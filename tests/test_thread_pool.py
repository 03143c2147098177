"""The parallel runtime: every iteration once, whoever calls and whichever workers come; threads that sleep, end, fork."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.memory import buffer_table
from ansor_py.codegen.parallel_runtime import CHUNKS_PER_THREAD, PARALLEL, REGIONS, WORKER_NAME
from ansor_py.codegen.thread_pool import load_kernels, thread_pool
from ansor_py.codegen.timing import time_kernel
from ansor_py.target import Target

Body = Callable[[int, int, int], None]
_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_PARALLEL = ctypes.CFUNCTYPE(None, _BODY, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32)
# Adds 1 to buffers[0][i] for every iteration, and the number of iterations to buffers[1][8 * participant], not atomically:
# what ran twice, or for two threads as one participant, is seen in the counts.
COUNT = """
declare void @ansor_parallel(ptr, ptr, i64, i32)
define internal void @body(ptr %buffers, i64 %low, i64 %high, i64 %participant) {
entry:
  %counts = load ptr, ptr %buffers
  %parts.at = getelementptr ptr, ptr %buffers, i64 1
  %parts = load ptr, ptr %parts.at
  %column = mul i64 %participant, 8
  %part = getelementptr i64, ptr %parts, i64 %column
  br label %loop
loop:
  %i = phi i64 [ %low, %entry ], [ %next, %loop ]
  %count.at = getelementptr i64, ptr %counts, i64 %i
  %count = load i64, ptr %count.at
  %count.more = add i64 %count, 1
  store i64 %count.more, ptr %count.at
  %done = load i64, ptr %part
  %done.more = add i64 %done, 1
  store i64 %done.more, ptr %part
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %high
  br i1 %more, label %loop, label %left
left:
  ret void
}
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {
  %size.at = getelementptr ptr, ptr %buffers, i64 2
  %size = load ptr, ptr %size.at
  %iterations = load i64, ptr %size
  call void @ansor_parallel(ptr @body, ptr %buffers, i64 %iterations, i32 %threads)
  ret i32 0
}
"""


def parallel(body: Body, iterations: int, threads: int) -> None:
    """A region whose body is Python."""
    call = _PARALLEL(thread_pool().code.address(PARALLEL))
    call(_BODY(lambda _, low, high, participant: body(low, high, participant)), None, iterations, threads)


def workers() -> list[str]:
    """The worker threads of this process, as numbers of the system."""
    tasks = Path("/proc/self/task")
    return [task.name for task in tasks.iterdir() if (task / "comm").read_text().strip() == WORKER_NAME]


def workers_when_there(count: int) -> list[str]:
    """The worker threads once there are so many: one that the system has not run yet has no name."""
    deadline = time.monotonic() + 60
    while len(found := workers()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.001)
    return found


def count_with(address: int, iterations: int, threads: int, runs: int) -> None:
    """Run the counting kernel and check its counts."""
    counts, parts = np.zeros(iterations, np.int64), np.zeros((64, 8), np.int64)
    size = np.array([iterations], np.int64)
    table = buffer_table([counts, parts, size])
    time_kernel(address, table.ctypes.data, 0, threads, number=runs)
    assert (counts == runs).all()
    assert parts[:threads].sum() == parts.sum() == runs * iterations


@pytest.fixture(scope="module")
def counting() -> Iterator[int]:
    """Where the counting kernel starts."""
    loaded = load_kernels([compile_module(COUNT, Target.baseline()).code], ["kernel"])
    yield loaded.address("kernel")
    loaded.close()


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("iterations", [1, 2, 7, 8, 9, 1000, 3_000_000_000_000_000_000])
def test_chunks_are_all_iterations_once(iterations: int, threads: int) -> None:
    found: list[tuple[int, int, int]] = []
    parallel(lambda low, high, participant: found.append((low, high, participant)), iterations, threads)
    found.sort()
    assert [low for low, _, _ in found] == [0, *(high for _, high, _ in found)][:-1]
    assert found[-1][1] == iterations
    sizes = [high - low for low, high, _ in found]
    assert max(sizes) - min(sizes) <= 1
    several = min(threads, iterations) > 1
    assert len(found) == (min(iterations, CHUNKS_PER_THREAD * threads) if several else 1)
    assert {participant for _, _, participant in found} <= set(range(max(threads, 1)))


def test_all_threads_take_part_and_none_is_waited_for() -> None:
    together = threading.Barrier(3, timeout=60)
    parallel(lambda low, high, participant: together.wait() and None, 3, 3)  # a chunk for each, which waits for the others
    alone = threading.get_ident()
    ran: list[int] = []

    def body(low: int, high: int, participant: int) -> None:
        ran.append(threading.get_ident())
        if threading.get_ident() != alone:
            while len(ran) < 2 * CHUNKS_PER_THREAD:  # a worker that has a chunk and gets no further: the caller does all others
                time.sleep(0.001)

    parallel(body, 100, 2)
    assert len(ran) == 2 * CHUNKS_PER_THREAD
    assert ran.count(alone) >= len(ran) - 1


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_regions_without_pause_lose_and_repeat_nothing(counting: int, threads: int) -> None:
    for iterations in (2, 3, 64):
        count_with(counting, iterations, threads, 20_000)


@pytest.mark.parametrize("callers", [2, 4, REGIONS + 3])
def test_several_threads_call_at_once(counting: int, callers: int) -> None:
    with ThreadPoolExecutor(callers) as executor:
        jobs = [executor.submit(count_with, counting, 40 + caller, 2 + caller % 3, 5_000) for caller in range(callers)]
        for job in jobs:
            job.result()


def test_callers_come_and_go_with_workers_asleep(counting: int) -> None:
    for pause in (0.0, 0.0002, 0.0005, 0.002):
        for _ in range(50):
            count_with(counting, 16, 3, 3)
            time.sleep(pause)


def test_a_region_of_fewer_threads_leaves_the_other_workers_out() -> None:
    parallel(lambda low, high, participant: None, 100, 6)
    assert len(workers_when_there(5)) >= 5
    for _ in range(20):
        found: set[int] = set()
        parallel(lambda low, high, participant: found.add(participant), 100, 2)  # noqa: B023  (called before the next round)
        assert found <= {0, 1}


def test_idle_workers_sleep() -> None:
    parallel(lambda low, high, participant: None, 8, 3)
    found = workers_when_there(2)

    def used() -> list[int]:
        return [int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[0]) for task in found]

    deadline = time.monotonic() + 60
    before = used()
    while True:  # a worker that spins or polls would use time in every interval
        time.sleep(0.1)
        after = used()
        if after == before:
            return
        assert time.monotonic() < deadline
        before = after


def test_workers_block_signals() -> None:
    parallel(lambda low, high, participant: None, 8, 3)
    for task in workers_when_there(2):
        status = Path(f"/proc/self/task/{task}/status").read_text()
        blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk:")).split()[1], 16)
        for number in (1, 2, 10, 14, 15, 17):
            assert blocked >> (number - 1) & 1
    mine = Path("/proc/thread-self/status").read_text()
    assert int(next(line for line in mine.splitlines() if line.startswith("SigBlk:")).split()[1], 16) >> 1 & 1 == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_workers_of_its_own(counting: int) -> None:
    count_with(counting, 50, 3, 10)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = len(workers())
            count_with(counting, 50, 3, 1000)
            status = 0 if (before, len(workers_when_there(2))) == (0, 2) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    count_with(counting, 50, 3, 1000)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_a_region_waits_for_nothing(counting: int) -> None:
    for _ in range(10):
        caller = threading.Thread(target=count_with, args=(counting, 100_000, 3, 200))
        caller.start()
        time.sleep(0.002)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                count_with(counting, 50, 3, 100)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        caller.join()


EXITS = {
    "with workers that spin": "parallel(nothing, 100, 3)",
    "with workers that sleep": "parallel(nothing, 100, 3); time.sleep(0.05)",
    "without workers": "thread_pool()",
    "by an exception": "parallel(nothing, 100, 3); sys.exit(0)",
    "after the pool was stopped": "parallel(nothing, 100, 3); thread_pool().stop(); parallel(nothing, 100, 3)",
    "after a stop, with none of the workers left": (
        "parallel(nothing, 100, 3); thread_pool().stop(); assert not workers(); ran = []; "
        "parallel(lambda *chunk: ran.append(chunk), 100, 3); assert ran == [(0, 100, 0)], ran"
    ),
}


@pytest.mark.parametrize("how", EXITS)
def test_the_process_ends_quietly(how: str) -> None:
    program = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_thread_pool import parallel, thread_pool, workers
        def nothing(low, high, participant): pass
        {EXITS[how]}
    """
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
