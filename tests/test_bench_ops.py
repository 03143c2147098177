"""The benchmark of operators: means, tables, page and chart from made-up rows, and its options."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

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

    times, place = {"ansor": 1.0, "torch": 4.0, "ort": 2.0}, {"ansor": 0.8, "torch": 4.0, "ort": 1.0}
    settings = {"ort": {"threads": 1, "version": "1.2"}}
    return [
        Row("a", 1, flops=2_000_000, bytes=8, ms=times, place_ms=place, native_ms=0.7, fma_gflops=1.5, settings=settings),
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
    means = {best: 1.0, f"{best}, no vendor kernel": 0.5, "torch": 4.0, "ort": 1.0, f"in place: {best}": 1.25}
    assert geometric_means(rows, PEERS) == pytest.approx(means)
    assert geometric_means(rows[2:], PEERS) == {}


def test_tables_say_what_is_missing_and_what_failed() -> None:
    from operator_report import header, terminal_table

    columns = [list(column.cells) for column in terminal_table(made_up_rows(), PEERS).columns]
    table = dict(zip(header(PEERS), columns, strict=True))
    assert table["workload"] == ["a", "b *", "c"]
    assert table["ms"] == ["1", "2", "failed"]
    assert table["in place"] == ["0.8", "–", "–"]
    assert table["native"] == ["0.7", "–", "–"]
    assert table["of peak"] == ["100 %", "25 %", "–"]
    assert table["torch / ours"] == ["4.00", "not installed", "–"]
    assert table["ort / ours"] == ["2.00", "0.50", "failed"]
    assert table["best / ours"] == ["2.00", "0.50", "–"]
    assert table["in place: best / ours"] == ["1.25", "–", "–"]
    assert table["errors"] == ["0", "1.0 %: 2 build", "0"]  # programs that were cut are not errors


def test_page_has_a_table_for_each_number_of_threads() -> None:
    from machine import cpu_line
    from operator_report import page

    text = page(made_up_rows(), PEERS, Target.detect(), note="A remark.")
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| b * | 1 | 2 | – | – | 0.5 | 25 % | not installed | 0.50 | 0.50 | – | 0 | 200 | 1.0 %: 2 build |" in tables
    assert "## 1 thread\n" in text
    assert "## 2 threads\n" in text
    assert "| 1 | 2 | 1.00 | 0.50 | 4.00 | 1.00 | 1.25 | 0.50 | 1.25 | 2 of 200 trials |" in tables
    assert "A remark." in text
    assert "(ort 1.2)" in text
    assert f"\n{cpu_line(Target.detect(), [1, 2])}; float32, batch 1; " in text
    assert "the\n  faster one of torch and ort;" in text
    assert "not capped" not in text
    assert "busy" not in text
    busy_text = page(made_up_rows(), PEERS, Target.detect(), busy=2)
    assert f"\n{cpu_line(Target.detect(), [1, 2])}, beside 2 busy processes; float32" in busy_text


def test_document_is_json_with_ratios() -> None:
    from machine import cpu_line
    from operator_report import document

    target = Target.detect()
    written = json.loads(json.dumps(document(made_up_rows(), PEERS, target, busy=1), allow_nan=False))
    assert written["machine"] == f"{cpu_line(target, [1, 2])}, beside 1 busy process"
    assert written["busy"] == 1
    assert written["plain_over_place"] == {"1": pytest.approx(1.25), "2": None}
    assert [row["plain_over_place"] for row in written["rows"]] == [1.25, None, None]
    assert [row["place_ratio"] for row in written["rows"]] == [1.25, None, None]
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
    import turns
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
    monkeypatch.setattr(turns, "is_cut_down", lambda target: True)
    text = page(rows, PEERS, HASWELL)
    assert "| a | 1 | 2 | – | – | 1 | 67 % | 1.50 | 0.50 (not capped) | 1.50 | – |" in text
    assert "held to them by `ONEDNN_MAX_CPU_ISA=AVX2`, " in text
    assert "*not capped*: " in text
    assert "*best / ours*: the\n  faster one of torch;" in text
    assert geometric_means([replace(rows[0], ms={"ansor": 1.0, "ort": 1.0})], ["ort"]) == {}


def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_ops import parse

    assert parse(["--names", "grp", "--threads", "1"]).names == ["grp"]
    assert parse([]).threads == [Target.detect().cores]
    assert parse(["--target", "host cores=1"]).threads == [1]
    assert (parse([]).busy, parse(["--busy", "3"]).busy) == (0, 3)
    with pytest.raises(SystemExit):
        parse(["--threads", "0"])
    assert "give counts from 1 to" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--busy", "-1"])
    assert "'-1' is no count" in capsys.readouterr().err


def test_workloads_without_vendor_kernel() -> None:
    from workloads import WORKLOADS, workload

    found = [name for name in WORKLOADS if not workload(name).has_vendor_kernel]
    assert found == "c3d dil grp t2d cap nrm tbg".split()
