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
from ansor_py.measure import MeasureOptions, create_measurer
from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.process import ProcessPool
from measure_faults import build_crashing_reference
from test_measure_backends import OPTIONS, TARGET, errors, programs


def create(options: MeasureOptions = OPTIONS) -> tuple[BatchMeasurer, ProcessPool]:
    measurer = create_measurer("process", target=TARGET, threads=1, options=options)
    assert isinstance(measurer, BatchMeasurer)
    assert isinstance(measurer.pool, ProcessPool)
    return measurer, measurer.pool


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until_gone(pids: list[int]) -> None:
    limit = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < limit, "a worker outlives its measurer"
        time.sleep(0.05)


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
    assert [result.error for result in finished] == ["build"]
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


def test_workers_import_little() -> None:
    code = (
        "import sys, ansor_py.measure, ansor_py.measure.child as c; c.warm_up()\n"
        "import ansor_py.measure.build, ansor_py.measure.run\n"
        "heavy = {'onnx', 'lightgbm', 'ray', 'networkx', 'scipy', 'ansor_py.graph', 'ansor_py.search', 'ansor_py.cost_model'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
