"""One compiled model used by several threads, by forked processes and by processes that it is sent to."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

import ansor_py
import faults
from ansor_py.errors import TargetError
from ansor_py.graph import CompiledModel
from ansor_py.graph.compiled import load
from graph_interpreter import floats, make_model

Array = NDArray[Any]
RUNS, THREADS = faults.RUNS, faults.THREADS


def layers() -> CompiledModel:
    """Several kernels on two threads with values in the arena between them."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"]),
        helper.make_node("Softmax", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "b"], ["r"]),
        helper.make_node("Tanh", ["r"], ["t"]),
        helper.make_node("Softmax", ["t"], ["y"], axis=0),
    ]
    constants = {"a": floats(24, 48, seed=1), "b": floats(48, 40, seed=2)}
    return ansor_py.compile(make_model(nodes, {"x": floats(32, 24)}, ["y"], constants), threads=2, workers=0)


def partly_evaluated() -> CompiledModel:
    """A kernel, a node of the fallback, and a kernel again."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Det", ["t"], ["d"]),
        helper.make_node("Exp", ["d"], ["y"]),
    ]
    return ansor_py.compile(make_model(nodes, {"x": floats(32, 3, 3)}, ["y"]), threads=2, workers=0)


def feeds_and_results(model: CompiledModel, count: int = 8) -> tuple[list[dict[str, Array]], list[Array]]:
    shape = model.inputs[0].shape
    feeds = [{"x": floats(*shape, seed=seed)} for seed in range(count)]
    return feeds, [model.run(feed)["y"] for feed in feeds]


def wrong_results(model: CompiledModel, feeds: list[dict[str, Array]], results: list[Array], runs: int) -> int:
    """How many of the runs that four threads make at once are wrong."""
    wrong = [0] * THREADS
    begin = threading.Barrier(THREADS)

    def work(number: int) -> None:
        begin.wait()
        for index in range(runs):
            chosen = (index + number) % len(feeds)
            wrong[number] += not np.array_equal(model.run(feeds[chosen])["y"], results[chosen])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(wrong)


@pytest.mark.parametrize(("make", "runs"), [(layers, RUNS), (partly_evaluated, 100)])
def test_four_threads_run_one_model(make: Callable[[], CompiledModel], runs: int, capfd: pytest.CaptureFixture[str]) -> None:
    model = make()
    feeds, results = feeds_and_results(model)
    assert wrong_results(model, feeds, results, runs) == 0
    assert faults.SHARED.is_read_in(capfd.readouterr().err)


def test_threads_may_be_the_first_to_run_a_model(tmp_path: Path) -> None:
    """Nothing is loaded before they start."""
    model = layers()
    feeds, results = feeds_and_results(model)
    model.save(tmp_path / "m.ansor")
    for _ in range(5):
        assert wrong_results(load(tmp_path / "m.ansor"), feeds, results, 2) == 0


def in_fork(work: Callable[[], bool]) -> int:
    """The exit status of a forked child: 0 if `work` says so; a signal's negative number if it hung for a minute."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import signal

            signal.alarm(60)
            status = 0 if work() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("make", "runs"), [(layers, RUNS), (partly_evaluated, 50)])
def test_a_forked_process_runs_the_model(
    make: Callable[[], CompiledModel], runs: int, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make()
    feeds, results = feeds_and_results(model)
    assert in_fork(lambda: all(np.array_equal(model.run(f)["y"], r) for f, r in zip(feeds, results, strict=True))) == 0
    assert in_fork(lambda: wrong_results(model, feeds, results, runs) == 0) == 0
    assert in_fork(lambda: len(model.benchmark(repeats=3).samples) == 3) == 0
    call, outputs = model.bind(feeds[0])

    def bound() -> bool:
        call()
        return np.array_equal(outputs["y"], results[0])

    assert in_fork(bound) == 0
    assert np.array_equal(model.run(feeds[0])["y"], results[0])  # the parent goes on
    assert faults.FORKED.is_read_in(capfd.readouterr().err)


def test_a_process_forked_while_another_thread_runs_the_model_does_not_wait_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    model = layers()
    feeds, results = feeds_and_results(model)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            model.run(feeds[0])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(10):
            assert in_fork(lambda: np.array_equal(model.run(feeds[1])["y"], results[1])) == 0
    finally:
        stop.set()
        thread.join()
    assert faults.FORKED_MEANWHILE.is_read_in(capfd.readouterr().err)


@pytest.mark.parametrize("make", [layers, partly_evaluated])
def test_a_model_is_pickled_and_copied(
    make: Callable[[], CompiledModel], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make()
    feeds, results = feeds_and_results(model)
    model.save(tmp_path / "m.ansor")
    for original in (model, load(tmp_path / "m.ansor")):
        for again in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
            assert all(np.array_equal(again.run(f)["y"], r) for f, r in zip(feeds, results, strict=True))
    assert faults.PICKLED.is_read_in(capfd.readouterr().err)


def test_a_pickled_model_runs_in_another_process(tmp_path: Path) -> None:
    model = layers()
    feeds, results = feeds_and_results(model)
    (tmp_path / "m.pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "x.npy", feeds[0]["x"])
    program = (
        "import pickle, numpy as np\n"
        "model = pickle.load(open('m.pickle', 'rb'))\n"
        "np.save('y.npy', model.run({'x': np.load('x.npy')})['y'])\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), results[0])


def test_a_pickled_model_for_another_cpu_is_refused() -> None:
    model = layers()
    foreign = "aarch64" if model.target.architecture == "x86-64" else "x86-64"
    target = ansor_py.Target.parse(foreign).to_json()
    rebuild, arguments = model.__reduce__()
    other = type(model.plan)(**{**vars(model.plan), "target": target})
    with pytest.raises(TargetError) as caught:
        rebuild(other, *arguments[1:])
    assert faults.PICKLED_ELSEWHERE.is_read_in(str(caught.value)), caught.value
