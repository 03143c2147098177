"""The command line: complete run directories for models and operators, one-line errors, batch files, Ctrl-C, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ansor_py
from ansor_py.cost_model import ModelOptions
from ansor_py.errors import OptionError
from ansor_py.measure import read_records
from ansor_py.search.__main__ import main
from ansor_py.search.command_line.settings import (
    BatchKey,
    folder_names,
    free_folder,
    parse_search_options,
    parse_shapes,
    read_batch_file,
)
from ansor_py.search.evolution.mutation import mutation_weights
from ansor_py.search.loop.run_directory import read_curve
from graph_interpreter import make_model, reference

CHEAP = ["--threads", "1", "--cost-model", "random", "--policy", "random"]
FILES = [
    "accuracy.csv",
    "config.json",
    "cost_model.npz",
    "curve.csv",
    "model.ansor",
    "records.jsonl",
    "rounds.csv",
    "summary.json",
    "tasks.jsonl",
]
INPUT = np.random.default_rng(0).standard_normal((1, 4, 10, 10), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small convolutional network with a dynamic batch dimension."""
    rng = np.random.default_rng(1)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    weights = {"w": rng.standard_normal((8, 4, 3, 3), dtype=np.float32)}
    path = tmp_path / "small.onnx"
    onnx.save(make_model(nodes, {"x": ("batch", 4, 10, 10)}, ["y"], weights), path)
    return path


def summary_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


def one_line_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()  # what was said before, such as a warning that this machine is busy
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    return captured.err


def test_a_model_is_tuned_into_a_complete_run_directory(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [str(model), "--trials", "7", "--shape", "batch=1", "--runner", "process", "--out", str(run), *CHEAP]
    assert main(words) == 0
    assert sorted(path.name for path in run.iterdir()) == FILES
    summary, config = summary_of(run), json.loads((run / "config.json").read_text())
    assert summary["trials"] == 7 == len(read_records(run / "records.jsonl")[0])
    assert summary["tuned_latency_ms"] <= summary["untuned_latency_ms"]
    assert {"import", "compile", "build", "run"} <= set(summary["phases"])
    assert (config["trials"], config["threads"], config["policy"]) == (7, 1, "random")
    assert [task["key"] for task in config["tasks"]] == [task["key"] for task in summary["tasks"]]
    assert [point.trial for point in read_curve(run)] == list(range(7))
    output = ansor_py.load(run / "model.ansor").run({"x": INPUT})
    np.testing.assert_allclose(
        np.asarray(output["y"], np.float32), reference(onnx.load(model), {"x": INPUT})["y"], rtol=1e-4, atol=1e-5
    )


def test_without_trials_default_schedules_are_benchmarked_and_no_ray_is_started(model: Path, tmp_path: Path) -> None:
    """In a new process with the default runner, which is Ray."""
    run = tmp_path / "run"
    program = (
        "import sys\nfrom ansor_py.search.__main__ import main\n"
        "if __name__ == '__main__':\n    status = main(sys.argv[1:])\n"
        "    assert 'ray' not in sys.modules\n    sys.exit(status)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    words = [str(model), "--trials", "0", "--threads", "1", "--shape", "batch=1", "--out", str(run)]
    result = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in run.iterdir()) == [name for name in FILES if name != "cost_model.npz"]
    summary = summary_of(run)
    assert summary["trials"] == 0
    assert summary["untuned_latency_ms"] == summary["tuned_latency_ms"] > 0
    assert "untuned" in result.stdout


def test_operators_are_runs_of_their_own(tmp_path: Path) -> None:
    words = ["--op", "matmul:32,32,32", "--op", "relu:64,8", "--trials", "4", "--runner", "inline", "--out", str(tmp_path)]
    assert main([*words, *CHEAP]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matmul_32_32_32", "relu_64_8"]
    for run in tmp_path.iterdir():
        assert sorted(path.name for path in run.iterdir()) == FILES
        summary = summary_of(run)
        assert 1 <= summary["trials"] <= 4
        assert summary["tuned_latency_ms"] <= summary["untuned_latency_ms"]
    assert main(["--op", "relu:64", "--trials", "0", "--runner", "inline", "--out", str(tmp_path / "none"), *CHEAP]) == 0
    assert summary_of(tmp_path / "none")["untuned_latency_ms"] > 0


WORST = """
from ansor_py.search import objective

@objective("worst")
def worst(latencies, networks):
    return networks.seconds(latencies).max()
"""


@pytest.mark.usefixtures("registries_as_before")
def test_models_and_operators_may_be_tuned_together(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, objectives = tmp_path / "run", tmp_path / "objectives.py"
    objectives.write_text(WORST)
    words = [str(model), "--op", "relu:64,8", "--op", "matmul:16,16,16", "--together", "--shape", "batch=1"]
    words += [
        "--import",
        str(objectives),
        "--objective",
        "worst",
        "--trials",
        "9",
        "--batch",
        "2",
        "--runner",
        "inline",
        "--out",
        str(run),
    ]
    assert main([*words, *CHEAP, "--fusion", "narrow"]) == 0
    models = ["matmul_16_16_16.ansor", "relu_64_8.ansor", "small.ansor"]
    assert sorted(path.name for path in run.iterdir()) == sorted([name for name in FILES if name != "model.ansor"] + models)
    summary = summary_of(run)
    assert (summary["trials"], summary["stopped"]) == (9, "9 trials")
    assert [network["name"] for network in summary["networks"]] == [str(model), "relu:64,8", "matmul:16,16,16"]
    assert summary["tuned_latency_ms"] == pytest.approx(sum(n["tuned_latency_ms"] for n in summary["networks"]), abs=1e-5)
    keys = {key for network in summary["networks"] for key in network["weights"]}
    assert keys == {task["key"] for task in summary["tasks"]}
    for name in models:
        assert ansor_py.load(run / name)
    assert "stopped after: 9 trials" in capsys.readouterr().out


def test_a_run_may_be_limited_by_time_and_by_latency(tmp_path: Path) -> None:
    words = ["--op", "matmul:32,32,32", "--runner", "simulated", *CHEAP]
    assert main([*words, "--time-budget", "3s", "--out", str(tmp_path / "time")]) == 0
    summary = summary_of(tmp_path / "time")
    assert summary["stopped"] == "time budget"
    assert summary["trials"] > 0
    assert json.loads((tmp_path / "time" / "config.json").read_text())["trials"] is None
    assert main([*words, "--target-latency", "1s", "--out", str(tmp_path / "latency")]) == 0
    assert summary_of(tmp_path / "latency")["stopped"] == "target latency of 1000 ms reached"
    assert summary_of(tmp_path / "latency")["trials"] == 1
    batch = tmp_path / "batch.toml"
    batch.write_text('target-latency = ["1s"]\ntime-budget = "1h"\ntrials = 4\n[search.scheduler]\nearly_stopping = 50\n')
    assert main([*words, "--config", str(batch), "--out", str(tmp_path / "batch")]) == 0
    config = json.loads((tmp_path / "batch" / "config.json").read_text())
    assert (config["time_budget"], config["search"]) == ("1h", ["scheduler.early_stopping=50"])


def test_an_operator_run_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["--op", "matmul:32,32,32", "--runner", "inline", "--out", str(run), *CHEAP]
    assert main([*words, "--trials", "4"]) == 0
    assert "holds the records of a run already" in one_line_error(capsys, *words, "--trials", "6")
    content = (run / "records.jsonl").read_bytes()
    (run / "records.jsonl").write_bytes(content[:-20])
    assert main([*words, "--trials", "6", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "line 4 (the last one, cut short)" in said
    assert "continuing after 3 trials" in said
    assert [record.trial for record in read_records(run / "records.jsonl")[0]] == list(range(6))
    assert summary_of(run)["trials"] == 6


def test_ctrl_c_keeps_everything_measured(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--op", "matmul:64,64,64", "--trials", "5000", "--batch", "4", "--runner", "process", "--out", str(run), *CHEAP]
    process = subprocess.Popen(
        [sys.executable, "-m", "ansor_py.search", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (run / "records.jsonl").exists() and (run / "records.jsonl").read_bytes().count(b"\n") > 8:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        out, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in out
    summary = summary_of(run)
    assert summary["interrupted"]
    assert summary["trials"] == len(read_records(run / "records.jsonl")[0]) > 8
    assert [point.trial for point in read_curve(run)] == list(range(summary["trials"]))


def test_what_the_user_got_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nonsense")
    out = ["--out", str(tmp_path / "run")]
    operator = ["--op", "relu:8", *out]
    assert "nothing to tune" in one_line_error(capsys)
    assert "unknown operator 'sort'" in one_line_error(capsys, "--op", "sort:8", *out)
    assert "none.onnx" in one_line_error(capsys, str(tmp_path / "none.onnx"), *out)
    assert "broken.onnx" in one_line_error(capsys, str(tmp_path / "broken.onnx"), *out)
    assert "no runner 'magic'; known are inline" in one_line_error(capsys, *operator, "--runner", "magic")
    assert "there is no policy 'hope'" in one_line_error(capsys, *operator, "--policy", "hope")
    assert "there is no cost model 'oracle'" in one_line_error(capsys, *operator, "--cost-model", "oracle")
    assert "no objective 'fame'" in one_line_error(capsys, *operator, "--objective", "fame")
    assert "there is no such file" in one_line_error(capsys, *operator, "--import", str(tmp_path / "none.py"))
    assert "needs the latency that every network is to reach" in one_line_error(
        capsys, *operator, "--objective", "latency-targets"
    )
    assert "--time-budget is '10'" in one_line_error(capsys, *operator, "--time-budget", "10")
    assert "--target-latency is 'soon'" in one_line_error(capsys, *operator, "--target-latency", "soon")
    two = [*operator, "--target-latency", "1ms", "--target-latency", "2ms"]
    assert "2 target latencies are given for 1 networks" in one_line_error(capsys, *two)
    assert "no search option 'scheduler.gamma'; known are scheduler.alpha" in one_line_error(
        capsys, *operator, "--search", "scheduler.gamma=1"
    )
    assert "search option 'scheduler.beta' must be a number" in one_line_error(
        capsys, *operator, "--search", "scheduler.beta=x"
    )
    assert "no task scheduler 'none'" in one_line_error(capsys, *operator, "--scheduler", "none")
    assert "--threads is 0" in one_line_error(capsys, *operator, "--threads", "0")
    assert "trials is -1" in one_line_error(capsys, *operator, "--trials", "-1")
    assert "--ray-address needs --runner ray" in one_line_error(capsys, *operator, "--runner", "inline", "--ray-address", "x")
    assert "'x' is not a valid integer" in one_line_error(capsys, *operator, "--trials", "x")
    assert "--resume needs --out" in one_line_error(capsys, "--op", "relu:8", "--resume")
    assert "--trails" in one_line_error(capsys, *operator, "--trails", "4")
    assert not (tmp_path / "run").exists()


def test_help_lists_the_operators_with_their_syntax(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "matmul:n,m,k" in said
    assert "conv2d:n,c,h,w,f,k[,stride=1]" in said
    assert "--ray-address" in said


def test_a_batch_file_gives_options_and_the_command_line_goes_first(tmp_path: Path) -> None:
    batch = tmp_path / "batch.toml"
    batch.write_text(
        f'op = ["matmul:16,16,16"]\ntrials = 9\nthreads = 1\nrunner = "inline"\npolicy = "random"\ncost-model = "random"\n'
        f'out = "{tmp_path / "run"}"\n[search]\npopulation = 64\n'
    )
    assert main(["--config", str(batch), "--trials", "3"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["trials"], config["runner"], config["search"]) == (3, "inline", ["population=64"])
    assert summary_of(tmp_path / "run")["trials"] == 3


def test_models_may_come_from_a_batch_file(model: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch.toml"
    lines = [f'models = ["{model}"]', "trials = 0", "threads = 1", f'out = "{tmp_path / "run"}"', "[shape]", "batch = 1"]
    batch.write_text("\n".join(lines))
    assert main(["--config", str(batch)]) == 0
    assert (tmp_path / "run" / "model.ansor").exists()


def test_mistakes_in_a_batch_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = tmp_path / "batch.toml"
    for text, words in (
        ("trails = 3", "there is no option 'trails'; known are batch, cost-model"),
        ("trials = ", "is not valid TOML"),
        ('trials = "many"', "option 'trials' must be a whole number, not 'many'"),
        ("[trials]\nn = 3", "option 'trials' is not a table"),
        ('op = ["relu:8"]\n[search]\npopulace = 3', "no search option 'populace'; known are rules, space.NAME"),
    ):
        batch.write_text(text)
        assert words in one_line_error(capsys, "--config", str(batch))
    assert "cannot read" in one_line_error(capsys, "--config", str(tmp_path / "none.toml"))


def test_shapes_and_search_options_are_parsed() -> None:
    assert parse_shapes(["batch=4", "x=1x3x224x224", "a=b=1,2"]) == {"batch": 4, "x": [1, 3, 224, 224], "a=b": [1, 2]}
    for text in ("batch", "batch=", "=4", "x=1xx2", "x=-1"):
        with pytest.raises(OptionError, match="--shape"):
            parse_shapes([text])
    options = parse_search_options(
        ["population=64", "eps-greedy=0.5", "rules=ansor", "evolution.mutation_weights.parallel=0.5"]
    )
    assert (options.population, options.eps_greedy, options.rules) == (64, 0.5, "ansor")
    weights = mutation_weights(options)
    assert (weights["parallel"], weights["location"]) == (0.5, 0.06)
    options = parse_search_options(["space.unroll-limits=0,32", "space.near_sizes=1.5", "model.trees=7", "space.vectors=1x2"])
    assert (options.space.unroll_limits, options.space.near_sizes, options.space.vectors) == ((0, 32), 1.5, (1, 2))
    texts = [f"model.random_thresholds={word}" for word in ("False", "true")]
    assert [parse_search_options([text]).of(ModelOptions).random_thresholds for text in texts] == [False, True]
    assert (options.of(ModelOptions).trees, options.of(ModelOptions).leaves) == (7, ModelOptions().leaves)
    for text, words in (
        ("population=many", "must be a whole number, not 'many'"),
        ("mutation_weights=3", "there is no search option 'mutation_weights'"),
        ("population=0", "at least 1"),
        ("space=3", "no search option 'space'; known are rules, space.NAME, population"),
        ("space.unrol=3", "no search option 'space.unrol'; known are space.round_sizes"),
        ("space.vectors=1,many", "'space.vectors' must be a whole number, not 'many'"),
        ("model.roofline_power=nan", "'model.roofline_power' must be a number, not 'nan'"),
        ("max_padding=inf", "'max_padding' must be a number, not 'inf'"),
        ("model.random_thresholds=2", "'model.random_thresholds' must be true or false, not '2'"),
        ("model.leaves=1", "'model.leaves' must be 2 to 32"),
        ("droplet.after=3", "no search option 'droplet.after'; known are those of space.NAME, annealing.NAME, beam.NAME"),
        ("beam.depth=3", "no search option 'beam.depth'; known are beam.width"),
        ("own=3", "no search option 'own'"),
        ("evolution.mutation_weights.parallel=-1", "'evolution.mutation_weights.parallel' must be 0 to 1e\\+09, not -1"),
    ):
        with pytest.raises(OptionError, match=words):
            parse_search_options([text])


def test_folders_of_several_runs_are_distinct(tmp_path: Path) -> None:
    assert folder_names(["matmul:1,2", "matmul:1;2", "../x", ""]) == ["matmul_1_2", "matmul_1_2-2", "x", "run"]
    (tmp_path / "a").mkdir()
    assert free_folder(tmp_path, "a") == tmp_path / "a-2"
    assert free_folder(tmp_path, "b") == tmp_path / "b"


def test_batch_file_keys_may_be_written_with_underscores(tmp_path: Path) -> None:
    batch = tmp_path / "batch.toml"
    tables = "[search.evolution.mutation_weights]\nparallel = 0.5\n[search.space]\nunroll_limits = [0, 8]\n"
    batch.write_text(f'cost_model = "random"\n{tables}')
    read = read_batch_file(
        batch, {name: BatchKey(name.replace("-", "_"), str, several=False) for name in ("cost-model", "search")}
    )
    assert read == {"cost_model": "random", "search": ["evolution.mutation_weights.parallel=0.5", "space.unroll_limits=0x8"]}
    assert parse_search_options(read["search"]).space.unroll_limits == (0, 8)


def test_fast_math_is_asked_for_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--op", "conv2d:1,64,28,28,64,3,pad=1", "--runner", "inline", *CHEAP, "--out", str(tmp_path / "run")]
    assert main([*out, "--math", "fast", "--trials", "2"]) == 0
    [task] = json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["math"] == "fast"
    assert len(task["algorithms"]) == 1
    assert "winograd" in task["algorithms"][0]
    assert 0 < task["output_error"] < 1e-4
    assert list(ansor_py.load(tmp_path / "run" / "model.ansor").algorithms.values()) == [tuple(task["algorithms"])]
    assert main([*out, "--resume", "--trials", "3"]) == 2
    assert "was tuned with --math fast" in capsys.readouterr().err
    assert main([*out[:-1], str(tmp_path / "other"), "--math", "wild"]) == 2
    assert "math is one of exact, fast, not 'wild'" in capsys.readouterr().err
