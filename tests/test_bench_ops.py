"""The benchmark of operators: means, tables, page and chart from made-up rows; contenders that die or are wrong."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ansor_py.target import Target

PEERS = ["torch", "ort"]
HASWELL = Target.parse("x86-64 cpu=haswell")


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def made_up_rows() -> list[Any]:
    from operator_report import Row

    times = {"ansor": 1.0, "torch": 4.0, "ort": 2.0}
    return [
        Row("a", 1, flops=2_000_000, bytes=8, ms=times, fma_gflops=1.5, settings={"ort": {"threads": 1, "version": "1.2"}}),
        Row(
            "b",
            1,
            1_000_000,
            8,
            False,
            200,
            {"cut": 9, "build": 2},
            ms={"ansor": 2.0, "ort": 1.0},
            notes={"torch": "not installed"},
        ),
        Row("c", 2, flops=1, bytes=8, notes={"ansor": "no schedule", "ort": "ort: Killed"}),
    ]


def test_means_and_peaks() -> None:
    from operator_report import geometric_means, peaks

    rows = made_up_rows()
    assert peaks(rows) == {1: 2.0, 2: 0.0}  # a kernel was faster than the FMA loop
    best = "best of torch and ort"
    means = {best: 1.0, f"{best}, no vendor kernel": 0.5, "torch": 4.0, "ort": 1.0}
    assert geometric_means(rows, PEERS) == pytest.approx(means)
    assert geometric_means(rows[2:], PEERS) == {}


def test_tables_say_what_is_missing_and_what_failed() -> None:
    from operator_report import header, terminal_table

    columns = [list(column.cells) for column in terminal_table(made_up_rows(), PEERS).columns]
    table = dict(zip(header(PEERS), columns, strict=True))
    assert table["workload"] == ["a", "b *", "c"]
    assert table["ms"] == ["1", "2", "failed"]
    assert table["of peak"] == ["100 %", "25 %", "–"]
    assert table["torch / ours"] == ["4.00", "not installed", "–"]
    assert table["ort / ours"] == ["2.00", "0.50", "failed"]
    assert table["best / ours"] == ["2.00", "0.50", "–"]
    assert table["errors"] == ["0", "1.0 %: 2 build", "0"]  # programs that were cut are not errors


def test_page_has_a_table_for_each_number_of_threads() -> None:
    from machine import cpu_line
    from operator_report import page

    text = page(made_up_rows(), PEERS, Target.detect(), "A remark.")
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| b * | 1 | 2 | – | 0.5 | 25 % | not installed | 0.50 | 0.50 | 0 | 200 | 1.0 %: 2 build |" in tables
    assert "## 1 thread\n" in text
    assert "## 2 threads\n" in text
    assert "| 1 | 2 | 1.00 | 0.50 | 4.00 | 1.00 | 0.50 | 2 of 200 trials |" in tables
    assert "A remark." in text
    assert "(ort 1.2)" in text
    assert f"\n{cpu_line(Target.detect(), [1, 2])}; float32, batch 1; " in text
    assert "the faster one of\n  torch and ort." in text
    assert "not capped" not in text


def test_document_is_json_with_ratios() -> None:
    from machine import cpu_line
    from operator_report import document

    target = Target.detect()
    written = json.loads(json.dumps(document(made_up_rows(), PEERS, target), allow_nan=False))
    assert written["machine"] == cpu_line(target, [1, 2])
    assert Target.parse(written["target"]) == target
    assert [row["ratio"] for row in written["rows"]] == [2.0, 0.5, None]
    assert [row["error_share"] for row in written["rows"]] == [0.0, 0.01, 0.0]
    assert written["rows"][0]["settings"] == {"ort": {"threads": 1, "version": "1.2"}}


def test_chart_is_drawn_into_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from operator_report import draw

    draw(made_up_rows(), Target.detect(), tmp_path / "ops.png")
    assert (tmp_path / "ops.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_took_wider_vectors_is_marked_and_counts_in_no_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    import operator_report
    from operator_report import Row, document, geometric_means, header, page, peaks, summaries, terminal_table

    settings = {
        "ansor": {"threads": 1, "version": "0", "capped": True},
        "torch": {"threads": 1, "version": "2", "capped": True},
        "ort": {"threads": 1, "version": "1", "capped": False},
    }
    times = {"ansor": 2.0, "torch": 3.0, "ort": 1.0}
    rows = [
        Row("a", 1, flops=2_000_000, bytes=8, ms=times, settings=settings, fma_gflops=1.5),
        Row("b", 1, flops=2_000_000, bytes=8, ms=times | {"torch": 12.0}, settings=settings),
    ]
    assert rows[0].ratio(PEERS) == 1.5
    assert geometric_means(rows, PEERS) == pytest.approx({"best of torch": 3.0, "torch": 3.0})
    assert peaks(rows) == {1: 1.5}  # not the 2 GFLOP/s of the peer that is not capped
    table = terminal_table(rows, PEERS)
    columns = dict(zip(header(PEERS), [list(column.cells) for column in table.columns], strict=True))
    assert columns["ort / ours"] == ["0.50 (not capped)"] * 2
    assert columns["best / ours"] == ["1.50", "6.00"]
    assert "counts in no mean" in str(table.caption)
    assert dict(summaries(rows, PEERS))["least best / ours"] == "1.50"
    assert [row["not_capped"] for row in document(rows, PEERS, HASWELL)["rows"]] == [["ort"]] * 2
    monkeypatch.setattr(operator_report, "is_cut_down", lambda target: True)
    text = page(rows, PEERS, HASWELL)
    assert "| a | 1 | 2 | – | 1 | 67 % | 1.50 | 0.50 (not capped) | 1.50 |" in text
    assert "held to them by `ONEDNN_MAX_CPU_ISA=AVX2`, " in text
    assert "*not capped*: " in text
    assert "*best / ours*: the faster one of\n  torch." in text
    assert geometric_means([replace(rows[0], ms={"ansor": 1.0, "ort": 1.0})], ["ort"]) == {}


@pytest.mark.parametrize(("text", "isa"), [("x86-64 cpu=haswell", "AVX2"), ("x86-64", "SSE41")])
def test_libraries_are_held_to_the_vectors_of_a_cut_down_target(text: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_ops

    target = Target.parse(text)
    leftover = {"ONEDNN_MAX_CPU_ISA": "AVX", "ATEN_CPU_CAPABILITY": "avx", "OV_CPU_MAX_ISA": "AVX", "MKL_CBWR": "AVX"}
    for name, value in leftover.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bench_ops, "is_cut_down", lambda target: False)
    assert not leftover.keys() & bench_ops.environment_of(target).keys()
    monkeypatch.setattr(bench_ops, "is_cut_down", lambda target: True)
    found = bench_ops.environment_of(target)
    assert found["ONEDNN_MAX_CPU_ISA"] == isa
    assert bench_ops.CAPS[target.vector_bytes].items() <= found.items()


def test_kernels_that_take_wider_vectors_all_the_same_are_known_by_their_names() -> None:
    from contenders import CAPS, WIDER, Opened

    assert CAPS.keys() == WIDER.keys()
    keeping = {16: [], 32: []}
    for name in ("AVX512", "AVX2", "DEFAULT", "mlas", "brgemm_avx2_f32", "jit_sse42_f32", "jit_avx512_f32", "ref_f32"):
        for vector_bytes, names in keeping.items():
            if Opened(lambda: None, lambda: np.zeros(1), ("unknown_f32", name)).keeps_to(vector_bytes):
                names.append(name)
    assert keeping[32] == ["AVX2", "DEFAULT", "brgemm_avx2_f32", "jit_sse42_f32", "ref_f32"]
    assert keeping[16] == ["DEFAULT", "jit_sse42_f32", "ref_f32"]


# Saves a result, says that it is ready, and answers as often as it is told to; then it dies with a word of its own.
CONTENDER = """
import json, os, sys
import numpy
path, value, answers = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
numpy.save(path, numpy.full((2, 2), value, numpy.float32))
print(json.dumps({"threads": 1, "cap": os.environ.get("ONEDNN_MAX_CPU_ISA")}), flush=True)
for line in sys.stdin:
    if not answers:
        sys.exit("out of memory")
    answers -= 1
    print({"time": 4.0, "native": 3.0, "peak": 50.0}[line.split()[0]], flush=True)
"""


def contest(folder: Path, **plans: tuple[float, int]) -> Any:
    """The row after three rounds of contenders that give a value and some answers; the right value is 1."""
    from bench_ops import started, take_turns
    from operator_report import Row

    script, cores = folder / "contender.py", sorted(os.sched_getaffinity(0))[:1]
    script.write_text(CONTENDER)
    row = Row("a", 1, flops=1, bytes=1)
    commands = {
        name: [sys.executable, str(script), str(folder / f"{name}.npy"), str(value), str(answers)]
        for name, (value, answers) in plans.items()
    }
    with started(commands, cores, HASWELL, folder, row, np.ones((2, 2), np.float32)) as found:
        take_turns(found, row, rounds=3, seconds=0.01)
    return row


def test_a_contender_counts_only_if_it_lives_and_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_ops

    monkeypatch.setattr(bench_ops, "is_cut_down", lambda target: True)
    row = contest(tmp_path, ansor=(1.0, 9), torch=(1.0005, 1), ort=(1.5, 9))
    assert row.ms == {"ansor": 4.0}
    assert row.native_ms == 3.0
    assert row.fma_gflops == 50.0
    assert row.notes["torch"] == "torch: out of memory"
    assert row.notes["ort"].startswith("WRONG: ort, largest difference 5.00e-01")
    assert row.settings["ansor"] == row.settings["ort"] == {"threads": 1, "cap": "AVX2"}


def test_without_ours_there_is_no_ratio(tmp_path: Path) -> None:
    row = contest(tmp_path, ansor=(1.0, 1), ort=(1.0, 9))
    assert row.notes == {"ansor": "ansor: out of memory"}
    assert (row.native_ms, row.ms, row.ratio(["ort"])) == (None, {"ort": 4.0}, None)


def test_a_contender_that_cannot_start_is_reported(tmp_path: Path) -> None:
    from ansor_py.errors import MeasureError
    from bench_ops import Contender

    with pytest.raises(MeasureError, match="torch: no such engine"):
        Contender("torch", [sys.executable, "-c", "raise SystemExit('no such engine')"], dict(os.environ), tmp_path / "log")


def test_peers_try_every_number_of_threads_and_keep_the_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import contenders
    from workloads import workload

    assert contenders.thread_counts(1) == [1]
    assert contenders.thread_counts(6) == [1, 2, 4, 6]
    model = workload("c2d_56", scale=8).model()
    assert len(list(contenders.torch_settings(model, 2))) == 8
    assert {setting["threads"] for setting in contenders.onnxruntime_settings(model, 2)} == {1, 2}

    def open_fake(path: Path, feed: Any, setting: Any) -> contenders.Opened:
        return contenders.Opened(lambda: None, lambda: np.array(setting["slow"]))

    import onnx

    onnx.save(model, tmp_path / "model.onnx")
    peer = contenders.Peer("json", lambda model, threads: iter([{"slow": 3.0}, {"slow": 1.0}, {"slow": 2.0}]), open_fake)
    monkeypatch.setattr(contenders, "threads_keep_to", lambda cores: True)
    times = iter([3.0, 1.0, 2.0] * contenders.SETTING_TURNS)
    monkeypatch.setattr(contenders, "timed_calls", lambda call, calls: [1.0] if calls == 3 else [next(times)])
    setting, opened = contenders.fastest(peer, tmp_path / "model.onnx", {}, [0])
    assert setting == {"slow": 1.0}
    assert opened.result() == 1.0
    monkeypatch.setattr(contenders, "threads_keep_to", lambda cores: False)
    times = iter([1.0] * 9)
    with pytest.raises(SystemExit, match="no setting keeps to the cores 0, 1"):
        contenders.fastest(peer, tmp_path / "model.onnx", {}, [0, 1])


def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_ops import parse

    assert parse(["--names", "grp", "--threads", "1"]).names == ["grp"]
    assert parse([]).threads == [Target.detect().cores]
    assert parse(["--target", "host cores=1"]).threads == [1]
    with pytest.raises(SystemExit):
        parse(["--threads", "0"])
    assert "give counts from 1 to" in capsys.readouterr().err


def test_workloads_without_vendor_kernel() -> None:
    from workloads import WORKLOADS, workload

    found = [name for name in WORKLOADS if not workload(name).has_vendor_kernel]
    assert found == "c3d dil grp t2d cap nrm tbg".split()
