"""`compiled.profile`: every kernel's time inside the model, beside the roofline; and `--profile` of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import ansor_py
from ansor_py.graph import CompiledModel
from ansor_py.graph.profiling import Rates, profile_of
from ansor_py.search.__main__ import main
from graph_interpreter import floats, make_model


def layers(evaluated: bool = False) -> CompiledModel:
    """Two products of one workload, a softmax between them, and at the end a node that is not compiled."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"]),
        helper.make_node("Softmax", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "b"], ["r" if evaluated else "y"]),
        *([helper.make_node("Det", ["r"], ["y"], name="determinant")] if evaluated else []),
    ]
    constants = {"a": floats(48, 48, seed=1), "b": floats(48, 48, seed=2)}
    return ansor_py.compile(make_model(nodes, {"x": floats(48, 48)}, ["y"], constants), threads=2, workers=0, fusion="narrow")


def test_every_call_and_every_kernel_is_there() -> None:
    profile = layers().profile({"x": floats(48, 48)}, repeats=3)
    assert [call.name for call in profile.calls] == ["matmul_48x48", "softmax_48x48", "matmul_48x48"]
    assert all(call.milliseconds > 0 for call in profile.calls)
    assert {(row.name, row.calls, row.schedule) for row in profile.kernels} == {
        ("matmul_48x48", 2, "default"),
        ("softmax_48x48", 1, "default"),
    }
    assert profile.milliseconds == pytest.approx(sum(row.milliseconds for row in profile.kernels))
    assert sum(row.share for row in profile.kernels) == pytest.approx(1)
    assert [row.milliseconds for row in profile.kernels] == sorted((r.milliseconds for r in profile.kernels), reverse=True)
    text = str(profile)
    assert "matmul_48x48" in text
    assert max(map(len, text.splitlines())) <= 120


def test_nodes_that_are_not_compiled_have_their_time() -> None:
    profile = layers(evaluated=True).profile(repeats=2)
    assert [call.name for call in profile.calls][-1] == "determinant"
    (row,) = [row for row in profile.kernels if row.name == "determinant"]
    assert row.schedule == "not compiled"
    assert row.milliseconds > 0
    assert (row.gflops, row.gbytes, row.roofline_share) == (0, 0, 0)


def test_rates_and_shares_are_those_of_the_work() -> None:
    compiled = layers()
    nanoseconds = [4e-6, 1e-6, 6e-6]
    rates = Rates(flops=1e11, copy=lambda size: 1e9 if size < 1 << 20 else 1.0)
    import numpy as np

    profile = profile_of(compiled.plan, np.array(nanoseconds), rates)
    product, softmax = profile.kernels
    size, flops = 3 * 4 * 48 * 48, 2 * 48**3
    assert product.milliseconds == pytest.approx(10e-3)
    assert product.gflops == pytest.approx(flops / 5e-6 / 1e9)
    assert product.gbytes == pytest.approx(size / 5e-6 / 1e9)
    assert product.roofline_share == pytest.approx(max(flops / 1e11, size / 1e9) / 5e-6)
    assert softmax.roofline_share == pytest.approx(2 * 4 * 48 * 48 / 1e9 / 1e-6)
    assert [call.milliseconds for call in profile.calls] == pytest.approx([4e-3, 1e-3, 6e-3])


def test_a_saved_model_and_that_of_a_task_have_a_profile(tmp_path: Path) -> None:
    compiled = layers()
    compiled.save(tmp_path / "m.ansor")
    loaded = ansor_py.load(tmp_path / "m.ansor")
    assert loaded.plan == compiled.plan
    assert len(loaded.profile(repeats=1).calls) == 3


def test_the_command_line_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main(["--op", "matmul:32,32,32", "--trials", "0", "--runner", "inline", "--out", out, "--profile"]) == 0
    shown = capsys.readouterr().out
    assert "GFLOP/s" in shown
    assert "default" in shown
    assert main(["--op", "matmul:32,32,32", "--runner", "simulated", "--out", out + "2", "--profile"]) == 2
    assert "--profile runs the model, and --runner simulated runs nothing" in capsys.readouterr().err
