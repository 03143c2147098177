"""What a run keeps when something goes wrong: failing and stopped resumes, two searches on one folder, a full disk."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import faults
from ansor_py.graph import load
from ansor_py.measure import read_records
from ansor_py.search.__main__ import main
from ansor_py.search.loop.run_directory import read_curve
from process_tree import descendants

CHEAP = ["--threads", "1", "--policy", "random", "--cost-model", "lightgbm", "--search", "population=32", "--batch", "4"]
OPERATOR = ["--op", "matmul:32,32,32", *CHEAP]
LONG = ["--op", "matmul:64,64,64", "--trials", "5000", "--runner", "process", *CHEAP]
FINISHED = {"config.json", "tasks.jsonl", "records.jsonl", "curve.csv", "rounds.csv", "accuracy.csv", "summary.json"}
FINISHED |= {"cost_model.npz", "model.ansor"}


def finished_run(path: Path, trials: int = 8) -> dict[str, bytes]:
    """The files of a small finished run."""
    assert main([*OPERATOR, "--runner", "inline", "--trials", str(trials), "--out", str(path)]) == 0
    files = {item.name: item.read_bytes() for item in path.iterdir()}
    assert set(files) == FINISHED
    return files


@contextmanager
def started(words: Sequence[str], **more: object) -> Iterator[subprocess.Popen[str]]:
    """A search in a process group of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ansor_py.search", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_trials(process: subprocess.Popen[str], run: Path, trials: int) -> None:
    """Until so many are recorded."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (run / "records.jsonl").exists() and (run / "records.jsonl").read_bytes().count(b"\n") >= trials:
            return
        time.sleep(0.1)
    pytest.fail(f"the search recorded no {trials} trials; it ended with {process.poll()}")


BAD_RULES = {
    "rule": """
from ansor_py.sketch_rules import Rule, rule

@rule("bad")
class Bad(Rule):
    def condition(self, sketch, number):
        raise ValueError("no")
    def apply(self, sketch, number):
        raise ValueError("no")
""",
    "rules": "import nothing_of_this_name",
}


@pytest.mark.usefixtures("registries_as_before")
@pytest.mark.parametrize("fault", faults.FAILED_RESUMES)
def test_a_resume_that_fails_changes_nothing(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    before = finished_run(run)
    capsys.readouterr()
    words = [*OPERATOR, "--runner", "inline", "--trials", "12", "--out", str(run), "--resume"]
    if fault in BAD_RULES:
        (tmp_path / "bad.py").write_text(BAD_RULES[fault])
        words += ["--import", str(tmp_path / "bad.py"), "--rules", "bad"]
    elif fault == "records":
        (run / "records.jsonl").unlink()
        (run / "records.jsonl").mkdir()
    elif fault == "operator":
        words[1] = "matmul:16,16,16"
    else:
        words += ["--cost-model-from", str(tmp_path / "none")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert faults.FAILED_RESUMES[fault].is_read_in(said.err, tmp_path), said.err
    assert said.err.count("\n") == 1
    after = {item.name: item.read_bytes() for item in run.iterdir() if item.is_file()}
    if fault == "records":
        before.pop("records.jsonl")
    assert after == before


def test_a_resume_goes_on_with_what_was_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = finished_run(run)
    assert main([*OPERATOR, "--runner", "inline", "--trials", "12", "--out", str(run), "--resume"]) == 0
    assert (run / "records.jsonl").read_bytes().startswith(before["records.jsonl"])
    assert {item.name for item in run.iterdir()} == FINISHED
    assert [point.trial for point in read_curve(run)] == list(range(12))


@pytest.mark.parametrize(
    ("number", "status", "fault"),
    [
        (signal.SIGINT, 130, faults.CTRL_C),
        (signal.SIGTERM, 143, faults.TERMINATED),
        (signal.SIGHUP, 129, faults.HUNG_UP),
    ],
)
def test_a_search_that_is_told_to_end_keeps_everything(
    number: signal.Signals, status: int, fault: faults.Fault, tmp_path: Path
) -> None:
    """In a run that is continued; until the end its earlier model is there, and afterwards a newer one."""
    run = tmp_path / "run"
    assert main([*LONG[:3], "8", *LONG[4:], "--out", str(run)]) == 0
    with started([*LONG, "--out", str(run), "--resume"]) as process:
        wait_for_trials(process, run, 20)
        assert {item.name for item in run.iterdir()} >= FINISHED
        load(run / "model.ansor")
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in out + errors
    assert not errors
    assert fault.is_read_in(out) or not fault.say
    assert {item.name for item in run.iterdir()} == FINISHED
    records, lost = read_records(run / "records.jsonl")
    assert not lost
    assert len(records) >= 20
    assert [point.trial for point in read_curve(run)] == [record.trial for record in records] == list(range(len(records)))
    load(run / "model.ansor")


def test_two_searches_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lock ends with its process, so a run whose search was killed is continued."""
    run = tmp_path / "run"
    with started([*LONG, "--out", str(run)]) as process:
        wait_for_trials(process, run, 1)
        before = (run / "config.json").read_bytes()
        assert main([*LONG, "--out", str(run), "--resume"]) == 2
        said = capsys.readouterr().err
        assert faults.SECOND_SEARCH.is_read_in(said, tmp_path), said
        assert said.count("\n") == 1
        assert process.poll() is None
        assert (run / "config.json").read_bytes() == before
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    measured = len(read_records(run / "records.jsonl")[0])
    words = [*LONG[:3], str(measured + 2), *LONG[4:]]
    capsys.readouterr()
    assert main([*words, "--out", str(run), "--resume"]) == 0
    assert faults.KILLED.is_read_in(capsys.readouterr().err)
    assert [record.trial for record in read_records(run / "records.jsonl")[0]] == list(range(measured + 2))


def test_searches_that_begin_together_do_not_share_a_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*OPERATOR, "--runner", "inline", "--trials", "24", "--out", str(run)]
    with started(words) as first, started(words) as second:
        results = [(process.communicate(timeout=120), process.returncode) for process in (first, second)]
    assert sorted(status for _, status in results) == [0, 2]
    [refused] = [errors for (_, errors), status in results if status]
    assert refused.startswith("error: ")
    assert refused.count("\n") == 1
    assert [record.trial for record in read_records(run / "records.jsonl")[0]] == list(range(24))


@pytest.mark.parametrize("limit", [0, 6_000, 40_000])
def test_a_full_disk_is_one_line_and_loses_nothing(limit: int, tmp_path: Path) -> None:
    """No file may grow beyond a limit, which fails a write as a full disk does."""
    run = tmp_path / "run"
    words = [*OPERATOR, "--runner", "inline", "--trials", "400", "--out", str(run)]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with started(words, preexec_fn=limited) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert (faults.FULL_LATER if limit else faults.FULL_AT_ONCE).is_read_in(errors, tmp_path), errors
    assert errors.count("\n") == 1, errors
    measured = len(read_records(run / "records.jsonl")[0])
    assert (measured > 0) == (limit > 0)
    words[words.index("400")] = str(measured + 3)
    assert main([*words, "--resume"]) == 0
    records, lost = read_records(run / "records.jsonl")
    assert not lost
    assert [record.trial for record in records] == list(range(measured + 3))


def test_a_search_whose_workers_cannot_be_started_any_more_keeps_everything(tmp_path: Path) -> None:
    """Every worker is killed while it starts, until the search has said that it cannot go on."""
    run = tmp_path / "run"
    with started([*LONG, "--out", str(run)]) as process:
        wait_for_trials(process, run, 5)
        assert process.stderr is not None
        while not select.select([process.stderr], [], [], 0.02)[0]:
            for pid in descendants(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        out, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert faults.NO_WORKERS.is_read_in(said), said
    assert said.count("\n") == 1, said
    assert f"run directory: {run}" in out
    assert {item.name for item in run.iterdir()} == FINISHED
    records, lost = read_records(run / "records.jsonl")
    assert not lost
    assert len(records) >= 5
    assert [point.trial for point in read_curve(run)] == [record.trial for record in records] == list(range(len(records)))
    load(run / "model.ansor")
