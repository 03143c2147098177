"""Engines timed in turns: contenders that die or are wrong, what each is asked when, and busy processes beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ansor_py.target import Target
from graph_interpreter import floats, make_model

HASWELL = Target.parse("x86-64 cpu=haswell")


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


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
    monkeypatch.setattr(contenders, "timed_calls", lambda call, calls: [1.0] if calls in (1, 3) else [next(times)])
    setting, opened = contenders.fastest(peer, tmp_path / "model.onnx", {}, [0])
    assert setting == {"slow": 1.0}
    assert opened.plain() == 1.0
    monkeypatch.setattr(contenders, "threads_keep_to", lambda cores: False)
    times = iter([1.0] * 9)
    with pytest.raises(SystemExit, match="no setting keeps to the cores 0, 1"):
        contenders.fastest(peer, tmp_path / "model.onnx", {}, [0, 1])


def test_long_calls_are_timed_once_and_without_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import contenders

    calls: list[int] = []
    for limit, expected in ((1e9, 1 + 2 * (contenders.WARM_UP + contenders.FEWEST_CALLS)), (-1.0, 2)):
        monkeypatch.setattr(contenders, "LONG_CALL_MS", limit)
        calls.clear()
        assert contenders.median_ms(lambda: calls.append(1), 0.0) >= 0
        assert len(calls) == expected
