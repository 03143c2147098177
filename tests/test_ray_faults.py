"""Ray that is killed or stopped: one error that says so, nothing of Ray left, everything measured kept.

The processes that are killed are found below the one that the test has started: there may be other Rays on this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import faults
from ansor_py.errors import MeasureError
from ansor_py.graph import load
from ansor_py.measure import MeasureResult, create_measurer, read_records
from ansor_py.measure.ray_backend import RayMeasurer
from ansor_py.measure.ray_driver import Doing
from ansor_py.search.__main__ import main
from ansor_py.search.loop.run_directory import read_curve
from process_tree import descendants, wait_until_gone
from test_command_line import summary_of
from test_measure_backends import OPTIONS, TARGET, errors, programs
from test_run_faults import FINISHED, LONG, OPERATOR, finished_run, started, wait_for_trials

RAY = [word if word != "process" else "ray" for word in LONG]


def struck_by(victim: str, number: str) -> tuple[str, list[MeasureResult], list[int]]:
    """What a measurer says whose Ray is struck while a program hangs, its results, and the processes that there were.

    More threads than cores, which a local Ray has to do with.
    """
    measurer = create_measurer("ray", target=TARGET, threads=64, options=replace(OPTIONS, run_timeout=600, build_timeout=600))
    assert isinstance(measurer, RayMeasurer)
    with measurer:
        results = measurer.measure(programs("good", "wrong"))
        measurer.submit(programs("hang", "good"))
        measurer.poll(timeout=1)
        assert measurer.pid is not None
        processes = descendants(measurer.pid)
        [struck] = [pid for pid, name in {**processes, measurer.pid: "driver"}.items() if name == victim]
        everything = [measurer.pid, *processes]
        os.kill(struck, signal.Signals[number])
        said = ""
        while not said:
            try:
                results += [result for _, result in measurer.poll()]
            except MeasureError as error:
                said = str(error)
        assert measurer.poll(0) == []
        with pytest.raises(MeasureError, match="closed"):
            measurer.submit(programs("good"))
    return said, results, everything


def test_ray_that_is_killed_or_stopped_is_an_error_and_leaves_nothing() -> None:
    """All faults at once, each with a Ray of its own: starting one takes seconds. Searches further down lose Ray otherwise."""
    with ThreadPoolExecutor(len(faults.STRUCK)) as pool:
        struck = {place: pool.submit(struck_by, *place) for place in faults.STRUCK}
        for place, fault in faults.STRUCK.items():
            said, results, processes = struck[place].result(timeout=200)
            assert fault.is_read_in(said), said
            assert errors(results) == [("none", ""), ("wrong-result", "check")]
            assert len(processes) > 5
            wait_until_gone(processes)


def test_a_driver_that_is_stopped_while_it_asks_is_not_taken_for_a_stopped_raylet() -> None:
    measurer = create_measurer("ray", target=TARGET, threads=1, options=replace(OPTIONS, run_timeout=600))
    assert isinstance(measurer, RayMeasurer)
    with measurer:
        measurer.submit(programs("hang"))
        measurer.poll(timeout=1)
        assert measurer.pid is not None
        os.kill(measurer.pid, signal.SIGSTOP)
        measurer.poll(timeout=1)
        measurer._doing = Doing("asking Ray's raylet", 1.0, time.monotonic(), "it is stopped or gone")
        with pytest.raises(MeasureError) as raised:
            measurer.poll()
    assert "waiting for Ray takes longer than" in str(raised.value)
    assert "raylet" not in str(raised.value)


def test_ray_ends_when_the_search_is_killed() -> None:
    code = (
        "import time; from test_ray_faults import *\n"
        "measurer = create_measurer('ray', target=TARGET, threads=1, options=OPTIONS); measurer.measure(programs('good'))\n"
        "measurer.submit(programs('hang')); measurer.poll(timeout=0.5)\n"
        "assert 'ray' not in sys.modules; print('ready', flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as search:
        assert search.stdout is not None
        assert search.stdout.readline() == "ready\n"
        processes = descendants(search.pid)
        assert {"raylet", "gcs_server"} <= set(processes.values())
        search.kill()
        assert faults.KILLED_WITH_RAY.is_read_in(search.stdout.read())
    wait_until_gone(processes)


def test_a_search_that_loses_ray_keeps_everything(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started([*RAY, "--out", str(run)]) as process:
        wait_for_trials(process, run, 5)
        before = read_records(run / "records.jsonl")[0]
        processes = descendants(process.pid)
        os.kill(next(pid for pid, name in processes.items() if name == "raylet"), signal.SIGKILL)
        out, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert faults.RAYLET_KILLED.is_read_in(said), said
    assert said.count("\n") == 1, said
    assert f"run directory: {run}" in out
    wait_until_gone(processes)
    assert {item.name for item in run.iterdir()} == FINISHED
    records, lost = read_records(run / "records.jsonl")
    assert not lost
    assert records[: len(before)] == before
    assert [point.trial for point in read_curve(run)] == [record.trial for record in records] == list(range(len(records)))
    summary = summary_of(run)
    assert (summary["trials"], summary["interrupted"]) == (len(records), True)
    assert summary["stopped"].startswith("error: the process that uses Ray is gone")
    load(run / "model.ansor")
    words = [*LONG[:3], str(len(records) + 2), *LONG[4:]]
    assert main([*words, "--out", str(run), "--resume"]) == 0
    assert [record.trial for record in read_records(run / "records.jsonl")[0]] == list(range(len(records) + 2))


def test_a_search_that_loses_ray_goes_on_with_another_runner(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*RAY[:3], "24", *RAY[4:], "--fallback-runner", "process", "--out", str(run)]
    with started(words) as process:
        wait_for_trials(process, run, 1)
        processes = descendants(process.pid)
        os.kill(next(pid for pid, name in processes.items() if name == "gcs_server"), signal.SIGSTOP)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    wait_until_gone(processes)
    assert faults.GCS_STOPPED.is_read_in(said), said
    assert said.count("\n") == 1
    assert {item.name for item in run.iterdir()} == FINISHED
    assert [record.trial for record in read_records(run / "records.jsonl")[0]] == list(range(24))
    summary = summary_of(run)
    assert (summary["trials"], summary["stopped"]) == (24, "24 trials")
    assert any(note and note in said for note in summary["notes"]), summary["notes"]


def test_a_resume_that_finds_no_ray_leaves_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    before = finished_run(run)
    capsys.readouterr()
    words = [*OPERATOR, "--runner", "ray", "--ray-address", "127.0.0.1", "--trials", "12", "--out", str(run), "--resume"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert faults.RESUME_WITHOUT_RAY.is_read_in(said), said
    assert said.count("\n") == 1
    after = {item.name: item.read_bytes() for item in run.iterdir()}
    assert set(after) == FINISHED
    for name in ("model.ansor", "summary.json", "records.jsonl", "curve.csv"):
        assert after[name] == before[name]


def test_a_search_that_finds_no_ray_uses_another_runner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = [*OPERATOR, "--runner", "ray", "--ray-address", "127.0.0.1:1", "--fallback-runner", "inline", "--trials", "8"]
    assert main([*words, "--out", str(run)]) == 0
    said = capsys.readouterr().err
    assert faults.RAY_REPLACED.is_read_in(said), said
    assert said.count("\n") == 1
    assert len(read_records(run / "records.jsonl")[0]) == 8
