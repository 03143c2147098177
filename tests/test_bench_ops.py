"""The benchmark of operators: means, tables, page and chart from made-up rows; contenders that die or are wrong.

And what it shares with the benchmark of networks: turns, and busy processes beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ansor_py.target import Target
from graph_interpreter import floats, make_model

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


@pytest.mark.parametrize(("text", "isa"), [("x86-64 cpu=haswell", "AVX2"), ("x86-64", "SSE41")])
def test_libraries_are_held_to_the_vectors_of_a_cut_down_target(text: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import turns

    target = Target.parse(text)
    leftover = {"ONEDNN_MAX_CPU_ISA": "AVX", "ATEN_CPU_CAPABILITY": "avx", "OV_CPU_MAX_ISA": "AVX", "MKL_CBWR": "AVX"}
    leftover |= {"ANSOR_PY_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for name, value in leftover.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(turns, "is_cut_down", lambda target: False)
    assert not leftover.keys() & turns.environment_of(target).keys()
    monkeypatch.setattr(turns, "is_cut_down", lambda target: True)
    found = turns.environment_of(target)
    assert found["ONEDNN_MAX_CPU_ISA"] == isa
    assert turns.CAPS[target.vector_bytes].items() <= found.items()


def test_kernels_that_take_wider_vectors_all_the_same_are_known_by_their_names() -> None:
    from contenders import CAPS, WIDER, Opened

    assert CAPS.keys() == WIDER.keys()
    keeping = {16: [], 32: []}
    for name in ("AVX512", "AVX2", "DEFAULT", "mlas", "brgemm_avx2_f32", "jit_sse42_f32", "jit_avx512_f32", "ref_f32"):
        for vector_bytes, names in keeping.items():
            if Opened(lambda: np.zeros(1), lambda: None, lambda: np.zeros(1), ("unknown_f32", name)).keeps_to(vector_bytes):
                names.append(name)
    assert keeping[32] == ["AVX2", "DEFAULT", "brgemm_avx2_f32", "jit_sse42_f32", "ref_f32"]
    assert keeping[16] == ["DEFAULT", "jit_sse42_f32", "ref_f32"]


# Saves results of plain calls and of calls in place, says that it is ready, and answers as often as it is told to; then it dies
# with a word of its own.
CONTENDER = """
import json, os, sys
import numpy
path, value, in_place, answers = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
numpy.save(path + "-time.npy", numpy.full((2, 2), value, numpy.float32))
numpy.save(path + "-place.npy", numpy.full((2, 2), in_place, numpy.float32))
print(json.dumps({"threads": 1, "cap": os.environ.get("ONEDNN_MAX_CPU_ISA")}), flush=True)
for line in sys.stdin:
    if not answers:
        sys.exit("out of memory")
    answers -= 1
    print({"time": 5.0, "place": 4.0, "native": 3.0, "peak": 50.0}[line.split()[0]], flush=True)
"""


def contest(folder: Path, **plans: tuple[float, float, int]) -> Any:
    """What three rounds give of contenders with a plain value, one in place, and some answers; the right value is 1."""
    from turns import Rules, Timed, started, take_turns

    script = folder / "contender.py"
    script.write_text(CONTENDER)
    timed = Timed()
    commands = {name: [sys.executable, str(script), str(folder / name), *map(str, plan)] for name, plan in plans.items()}
    with started(commands, HASWELL, folder, timed, np.ones((2, 2), np.float32)) as found:
        take_turns(found, timed, Rules(rounds=3, seconds=0.01))
    return timed


def test_a_contender_counts_only_if_it_lives_and_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import turns

    monkeypatch.setattr(turns, "is_cut_down", lambda target: True)
    row = contest(tmp_path, ansor=(1.0, 1.0, 99), torch=(1.0005, 1.0, 3), ort=(1.5, 1.0, 99), openvino=(1.0, 2.0, 99))
    assert (row.ms, row.place_ms, row.native_ms) == ({"ansor": 5.0}, {"ansor": 4.0}, 3.0)
    assert row.plain_over_place == 1.25
    assert row.fma_gflops == 50.0
    assert row.notes["torch"] == "torch: out of memory"
    assert row.notes["ort"].startswith("WRONG: ort, largest difference 5.00e-01")
    assert row.notes["openvino"].startswith("WRONG: openvino, largest difference 1.00e+00")  # in place
    assert row.settings["ansor"] == row.settings["ort"] == {"threads": 1, "cap": "AVX2"}


def test_without_ours_there_is_no_ratio(tmp_path: Path) -> None:
    row = contest(tmp_path, ansor=(1.0, 1.0, 1), ort=(1.0, 1.0, 99))
    assert row.notes == {"ansor": "ansor: out of memory"}
    assert (row.native_ms, row.ms, row.place_ms, row.ratio(["ort"])) == (None, {"ort": 5.0}, {"ort": 4.0}, None)


def children(of: int) -> set[int]:
    """The processes that a process has started and that are still there."""
    return {int(number) for number in Path(f"/proc/{of}/task/{of}/children").read_text().split()}


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_busy_processes_are_there_for_the_block_however_it_ends(ending: type[BaseException] | None) -> None:
    from neighbours import busy_processes

    before = children(os.getpid())
    with pytest.raises(ending) if ending else nullcontext(), busy_processes(2):
        spinning = children(os.getpid()) - before
        assert len(spinning) == 2
        for process in spinning:  # not pinned: the system may put them on every core that we may use
            assert os.sched_getaffinity(process) == os.sched_getaffinity(0)
        if ending:
            raise ending
    assert children(os.getpid()) == before
    with busy_processes(0):
        assert children(os.getpid()) == before


def test_no_busy_process_outlives_the_study() -> None:
    folder = str(Path(__file__).parent.parent / "experiments")
    program = f"""
import sys, time
sys.path.insert(0, {folder!r})
from neighbours import busy_processes
with busy_processes(1):
    print(flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as study:
        assert study.stdout is not None
        study.stdout.readline()
        [spinning] = children(study.pid)
        study.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{spinning}").exists() and state_of(spinning) != "Z":  # nobody may be there to reap it
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state_of(process: int) -> str:
    """The letter by which the system calls the state of a process; Z is one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_turns_and_nothing_else_are_beside_busy_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import turns

    busy: list[int] = []
    asked: list[tuple[str, str, int]] = []

    @contextmanager
    def noted(count: int) -> Iterator[None]:
        busy.append(count)
        yield
        busy.pop()

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, question: str) -> float:
            asked.append((self.name, question.split()[0], sum(busy)))
            return 2.0

    monkeypatch.setattr(turns, "busy_processes", noted)
    timed = turns.Timed()
    turns.take_turns([Fake("ansor"), Fake("ort")], timed, turns.Rules(rounds=1, busy=2))
    turn = [("ansor", "time", 2), ("ansor", "place", 2), ("ansor", "native", 2), ("ort", "time", 2), ("ort", "place", 2)]
    assert asked == [*turn, ("ansor", "peak", 0)]


def test_every_engine_gives_the_first_output_of_a_network_plain_and_in_place(tmp_path: Path) -> None:
    """Of a model whose output is not called `y` and which has several kernels; peers that are missing are noted."""
    import onnx

    import ansor_py
    from ansor_py.graph.reference import reference_outputs
    from turns import NOT_INSTALLED, Rules, Timed, contest

    nodes = [
        onnx.helper.make_node("Conv", ["image", "w"], ["c"], kernel_shape=[3, 3]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        onnx.helper.make_node("Flatten", ["g"], ["label"]),
    ]
    feed = {"image": floats(1, 3, 9, 9)}
    model = make_model(nodes, feed, ["label"], {"w": floats(4, 3, 3, 3)})
    target = Target.detect(cores=1)
    onnx.save(model, tmp_path / "model.onnx")
    ansor_py.compile(model, threads=1, target=target).save(tmp_path / "model.ansor")
    expected = reference_outputs(model, dict[str, Any](feed))["label"]
    timed, rules = Timed(), Rules(["ort", "openvino"], rounds=1, seconds=0.001)
    contest(timed, tmp_path / "model.ansor", tmp_path / "model.onnx", feed, expected, target, rules)
    missing = {name for name, note in timed.notes.items() if note == NOT_INSTALLED}
    assert set(timed.notes) == missing, timed.notes
    assert set(timed.ms) == set(timed.place_ms) == {"ansor", "ort", "openvino"} - missing
    assert timed.native_ms is not None
    assert max(timed.differences.values()) < 1e-5


def test_a_contender_that_cannot_start_is_reported(tmp_path: Path) -> None:
    from ansor_py.errors import MeasureError
    from turns import Contender

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
        return contenders.Opened(lambda: np.array(setting["slow"]), unwanted, unwanted)

    def unwanted() -> Any:
        raise AssertionError("settings are chosen by plain calls")

    import onnx

    onnx.save(model, tmp_path / "model.onnx")
    peer = contenders.Peer("json", lambda model, threads: iter([{"slow": 3.0}, {"slow": 1.0}, {"slow": 2.0}]), open_fake)
    monkeypatch.setattr(contenders, "threads_keep_to", lambda cores: True)
    times = iter([3.0, 1.0, 2.0] * contenders.SETTING_TURNS)
    monkeypatch.setattr(contenders, "timed_calls", lambda call, calls: [1.0] if calls == 3 else [next(times)])
    setting, opened = contenders.fastest(peer, tmp_path / "model.onnx", {}, [0])
    assert setting == {"slow": 1.0}
    assert opened.plain() == 1.0
    monkeypatch.setattr(contenders, "threads_keep_to", lambda cores: False)
    times = iter([1.0] * 9)
    with pytest.raises(SystemExit, match="no setting keeps to the cores 0, 1"):
        contenders.fastest(peer, tmp_path / "model.onnx", {}, [0, 1])


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
