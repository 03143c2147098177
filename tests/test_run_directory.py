"""The run directory: its files, refusing and resuming, the curve's round trip, the summary; how progress looks."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ansor_py import te
from ansor_py.errors import OptionError
from ansor_py.measure import read_records
from ansor_py.schedule.task import Task
from ansor_py.search.command_line.progress import duration, milliseconds, show_progress
from ansor_py.search.loop.events import Subscriber
from ansor_py.search.loop.results import CurvePoint, TuningResult
from ansor_py.search.loop.run_directory import RunDirectory, read_curve, summarise
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.target import Target
from search_fakes import FakeMeasurer

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
TASKS = [replace(Task.from_compute(te.matmul(n, n, n), TARGET, name=f"matmul {n}"), weight=w) for n, w in ((32, 2), (48, 1))]
OPTIONS = TuningOptions(policy="counting", cost_model="even", batch=6, trials=20)


def run_into(path: Path, *subscribers: Subscriber, trials: int = 20, resume: bool = False) -> TuningResult:
    with RunDirectory.create(path, {"seed": 0}, resume) as run:
        options = replace(OPTIONS, trials=trials)
        result = tune_tasks(
            TASKS, options, measurer=FakeMeasurer(), subscribers=[run.take, *subscribers], restored=run.restored
        )
        run.write_summary(summarise(result, "model", str(TARGET), 2, 3e-3, 2e-3))
    return result


def test_a_run_leaves_config_records_curve_and_summary(tmp_path: Path) -> None:
    result = run_into(tmp_path / "deep" / "run")
    run = tmp_path / "deep" / "run"
    assert sorted(path.name for path in run.iterdir()) == sorted(
        ["accuracy.csv", "config.json", "curve.csv", "records.jsonl", "rounds.csv", "summary.json", "tasks.jsonl"]
    )
    assert json.loads((run / "config.json").read_text()) == {"seed": 0}
    records, lost = read_records(run / "records.jsonl")
    assert not lost
    assert len(records) == 20
    assert [record.genes for record in records] == [record.genes for record in result.records]
    assert [record.trial for record in records] == [record.trial for record in result.records]
    with (run / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["trial", "elapsed_s", "task", "latency_ms", "best_ms", "estimated_total_ms"]
    curve = read_curve(run)
    assert [point.trial for point in curve] == list(range(20))
    assert [p.best_ms for p in curve] == pytest.approx([p.best_ms for p in result.curve], abs=1e-5)


def test_the_summary_has_what_the_design_asks_for(tmp_path: Path) -> None:
    result = run_into(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    expected = {"model", "target", "tasks", "untuned_latency_ms", "tuned_latency_ms", "search_seconds", "trials", "errors"}
    assert expected <= set(summary)
    assert {"key", "name", "flops", "weight", "trials", "best_ms", "gflops"} <= set(summary["tasks"][0])
    assert summary["untuned_latency_ms"] == 3.0
    assert summary["tuned_latency_ms"] == 2.0
    assert summary["trials"] == sum(task["trials"] for task in summary["tasks"]) == 20
    assert sum(summary["phases"].values()) == pytest.approx(result.search_seconds, abs=1e-2)
    assert summary["tasks"][0]["gflops"] == pytest.approx(2 * 32**3 / summary["tasks"][0]["best_ms"] / 1e6, rel=1e-2)


def test_a_failed_trial_leaves_its_latency_empty(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        run.add_points([CurvePoint(0, 0.5, 'a,"b"', None, 1.5, None), CurvePoint(1, 1.0, "c", 2.0, 1.5, 4.0)])
    assert (tmp_path / "curve.csv").read_text().splitlines()[1] == '0,0.5000,"a,""b""",,1.500000,'
    assert read_curve(tmp_path)[0] == CurvePoint(0, 0.5, 'a,"b"', None, 1.5, None)


def test_a_used_folder_is_refused_unless_resumed(tmp_path: Path) -> None:
    run_into(tmp_path)
    with pytest.raises(OptionError, match="holds the records of a run already; continue it by --resume"):
        run_into(tmp_path)
    assert len(read_records(tmp_path / "records.jsonl")[0]) == 20


def test_resuming_completes_the_files_even_after_a_torn_last_line(tmp_path: Path) -> None:
    run_into(tmp_path)
    content = (tmp_path / "records.jsonl").read_bytes()
    (tmp_path / "records.jsonl").write_bytes(content[:-100])
    with RunDirectory.create(tmp_path, {}, resume=True) as run:
        assert len(run.restored) == 19
        assert [(line.number, line.last) for line in run.lost] == [(20, True)]
    run_into(tmp_path, trials=30, resume=True)
    records, lost = read_records(tmp_path / "records.jsonl")
    assert not lost
    assert [record.trial for record in records] == list(range(30))
    assert [point.trial for point in read_curve(tmp_path)] == list(range(30))
    assert json.loads((tmp_path / "summary.json").read_text())["trials"] == 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OptionError, match=r"cannot write to '.*/run': Permission denied; choose another --out"):
        RunDirectory.create(tmp_path / "run", {})


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match=r"cannot write to '.*/file'"):
        RunDirectory.create(tmp_path / "file", {})
    with pytest.raises(OptionError, match="choose another --out"):
        RunDirectory.create(tmp_path / "file" / "run", {})


def test_reading_something_else_as_a_curve_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OptionError, match="is not a search curve"):
        read_curve(tmp_path / "table.csv")
    with pytest.raises(OptionError, match="cannot read the curve"):
        read_curve(tmp_path / "none.csv")


def test_without_a_terminal_progress_is_one_plain_line_a_round(tmp_path: Path) -> None:
    stream = io.StringIO()
    with show_progress(Console(file=stream, width=40)) as progress:
        run_into(tmp_path, progress)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("round 3; matmul ")
    assert "20/20 trials, total " in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_the_task_table(tmp_path: Path) -> None:
    stream = io.StringIO()
    with show_progress(Console(file=stream, force_terminal=True, width=120)) as progress:
        run_into(tmp_path, progress)
    text = stream.getvalue()
    for words in ("matmul 32", "weight", "GFLOP/s", "default ms", "20/20 trials", "trials/s"):
        assert words in text


def test_times_are_written_for_people() -> None:
    assert [duration(s) for s in (0.4, 59, 200, 3900)] == ["0 s", "59 s", "3 min 20 s", "1 h 05 min"]
    assert [milliseconds(s) for s in (None, 1.23456e-3)] == ["none", "1.235 ms"]
