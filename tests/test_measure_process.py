"""The process backend: its workers never outlive it, and never import what they do not need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from ansor_py.errors import MeasureError, OptionError
from ansor_py.measure import MeasureOptions, child_process, create_measurer
from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.child_process import ChildProcess, child_environment
from ansor_py.measure.process import ProcessPool
from ansor_py.measure.workers import Died
from measure_faults import build_crashing_reference
from process_tree import descendants, wait_until_gone
from test_measure_backends import OPTIONS, TARGET, errors, programs


def create(options: MeasureOptions = OPTIONS) -> tuple[BatchMeasurer, ProcessPool]:
    measurer = create_measurer("process", target=TARGET, threads=1, options=options)
    assert isinstance(measurer, BatchMeasurer)
    assert isinstance(measurer.pool, ProcessPool)
    return measurer, measurer.pool


def test_close_ends_all_workers_even_busy_ones() -> None:
    measurer, pool = create(replace(OPTIONS, builders=1))
    measurer.measure(programs("good"))
    measurer.submit(programs("hang"))
    measurer.poll(timeout=0.5)
    pids = pool.pids
    assert len(pids) == 2
    started = time.monotonic()
    measurer.close()
    measurer.close()
    assert time.monotonic() - started < 3
    wait_until_gone(pids)
    with pytest.raises(MeasureError, match="closed"):
        measurer.submit(programs("good"))


def test_interrupt_keeps_results_and_closes() -> None:
    measurer, pool = create(replace(OPTIONS, builders=1))
    pids: list[int] = []
    finished: list[Any] = []
    previous = signal.signal(signal.SIGALRM, _interrupt)
    try:
        with measurer:
            measurer.measure(programs("good"))
            pids = pool.pids
            measurer.submit(programs("build-error", "hang"))
            signal.setitimer(signal.ITIMER_REAL, 1.0)
            while True:
                finished += measurer.poll()
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert [result.error for _, result in finished] == ["build"]
    wait_until_gone(pids)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def test_workers_end_when_the_search_is_killed() -> None:
    code = (
        "import time; from test_measure_process import *\n"
        "measurer, pool = create(); measurer.measure(programs('good')); measurer.submit(programs('hang'))\n"
        "measurer.poll(timeout=0.3); print(*pool.pids, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as search:
        assert search.stdout is not None
        pids = [int(word) for word in search.stdout.readline().split()]
        assert len(pids) == 3
        search.kill()
    wait_until_gone(pids)


def test_idle_worker_that_is_killed_is_replaced() -> None:
    measurer, pool = create()
    with measurer:
        measurer.measure(programs("good"))
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        assert errors(measurer.measure(programs("good"))) == [("none", "")]


def test_crashing_reference_fails_its_task() -> None:
    measurer, _ = create(replace(OPTIONS, reference_builder=build_crashing_reference))
    with measurer:
        results = measurer.measure(programs("good", "good"))
    assert errors(results) == [("crash", "reference"), ("crash", "reference")]


def test_crash_text_names_the_signal() -> None:
    measurer, _ = create()
    with measurer:
        crash, abort = measurer.measure(programs("crash", "build-crash"))
    assert "SIGSEGV" in crash.error_text
    assert "guard pages" in crash.error_text
    assert "SIGABRT" in abort.error_text


def test_builder_must_be_importable() -> None:
    with pytest.raises(OptionError, match="top of a module"):
        create(replace(OPTIONS, builder=lambda dag, steps, target, threads: None))  # type: ignore[arg-type, return-value]


def test_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansor_py.measure import process

    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit('no such luck {descriptor}')")
    measurer, _ = create()
    with measurer, pytest.raises(MeasureError, match="no such luck"):
        measurer.measure(programs("good"))


def test_system_that_starts_no_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(MeasureError, match="No such file"):
        create()


def test_child_that_does_not_read_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "STUCK_SECONDS", 1)
    child = ChildProcess("import time; time.sleep({descriptor} + 3600)", child_environment({}))
    child.start()
    pid = child.pid
    assert pid is not None
    assert child.receive() is None
    child.send(b"more than a socket holds" * 1_000_000)
    assert child.receive() == Died("it took no message for 1 s")
    wait_until_gone([pid])


def test_child_that_stops_within_a_message_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "STUCK_SECONDS", 1)
    program = "import os, time; os.write({descriptor}, bytes([0, 0, 1, 0, 1, 2, 3])); time.sleep(3600)"  # 256 bytes are to come
    child = ChildProcess(program, child_environment({}))
    child.start()
    pid = child.pid
    assert pid is not None
    while (message := child.receive()) is None:
        time.sleep(0.01)
    assert message == Died("it stopped in the middle of a message, for 1 s")
    wait_until_gone([pid])


def test_a_child_ends_with_the_processes_that_it_started() -> None:
    program = "import os, subprocess, sys; subprocess.Popen(['sleep', '3600']); os.write({descriptor}, b'x'); sys.stdin.read()"
    child = ChildProcess(program, child_environment({}))
    child.start()
    assert child.pid is not None
    assert child.waitable is not None
    assert child.waitable.poll(60)
    pids = [child.pid, *descendants(child.pid)]
    assert len(pids) == 2
    child.kill()
    wait_until_gone(pids)


def test_workers_import_little() -> None:
    code = (
        "import sys, ansor_py.measure, ansor_py.measure.child as c; c.warm_up()\n"
        "import ansor_py.measure.build, ansor_py.measure.run\n"
        "heavy = {'onnx', 'lightgbm', 'numba', 'ray', 'networkx', 'scipy'}\n"
        "heavy |= {'ansor_py.graph', 'ansor_py.search', 'ansor_py.cost_model'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
