"""The studies: what their scripts share, and the pages they generate. The scripts are siblings that import each other."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from ansor_py import te
from ansor_py.errors import ModelError, OptionError
from ansor_py.measure import Record
from ansor_py.schedule.task import Task
from ansor_py.search.loop.run_directory import RunDirectory, config_of_tasks, summarise
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.target import Target
from graph_interpreter import floats, make_model
from search_fakes import FakeMeasurer

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run directory of a search with made-up latencies."""
    folder = tmp_path / "run"
    config = {"trials": 20, "threads": 2, "seed": 0, "runner": "process"}
    with RunDirectory.create(folder, config) as directory:
        options = TuningOptions(policy="counting", cost_model="even", batch=6, trials=20)
        target = Target.parse("x86-64 cpu=haswell cores=2")
        tasks = [Task.from_compute(te.matmul(n, n, n), target, name=f"matmul {n}") for n in (32, 48)]
        result = tune_tasks(tasks, options, measurer=FakeMeasurer(), subscribers=[directory.take])
        phases = {"import": 0.5, **result.phases}
        directory.write_summary(summarise(replace(result, phases=phases), "m.onnx", str(target), 2, 3e-3, 2e-3))
    return folder


STUDIES = {  # scripts with the option, and the words with which they would execute kernels
    "ablation": "",
    "bench_build": None,
    "bench_defaults": "",
    "bench_evolution": None,
    "bench_scoring": None,
    "bench_memory": "",
    "bench_networks": "",
    "bench_ops": "",
    "bench_peak": "",
    "bench_regions": "",
    "bench_search": "--runner process",
    "bench_trials": "",
    "demo": "",
    "real_models": "",
    "roofline_accuracy": "",
    "scheduler_study": "--runner process",
    "seed_agreement": "--runner process",
    "show_lowering": None,
    "simulated_correlation": "",
}


def refusal(script: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a script says to options that it refuses with exit status 2."""
    study = importlib.import_module(script)
    if isinstance(study.main, click.Command):
        result = CliRunner().invoke(study.main, words)
        assert result.exit_code == 2, result.output
        return result.output
    with pytest.raises(SystemExit) as ended:
        study.parse(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_no_study_takes_the_host_without_asking() -> None:
    """A script that needs a target has the option `--target`, or takes the one of a run."""
    for path in EXPERIMENTS.glob("*.py"):
        code = path.read_text(encoding="utf-8").partition('"""\n\n')[2]
        assert path.stem == "machine" or "Target.detect" not in code, path
        assert ("target_option(" in code) == (path.stem in STUDIES or path.stem == "machine"), path


@pytest.mark.parametrize("script", STUDIES)
def test_a_target_that_cannot_be_executed_or_parsed_is_refused(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = "aarch64" if Target.detect().architecture == "x86-64" else "x86-64"
    said = refusal(script, ["--target", f"{foreign} cpu=unheard-of"], capsys)
    assert f"unknown {foreign} CPU 'unheard-of'" in said
    words = STUDIES[script]
    if words is not None:
        said = refusal(script, ["--target", foreign, *words.split()], capsys)
        assert f"this machine is {Target.detect().architecture}; name this host or less of it" in " ".join(said.split())
    assert not list(tmp_path.iterdir())


def test_the_line_of_the_cpu_tells_what_is_less_than_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import machine

    host = Target.parse("x86-64 cpu=skylake-avx512 features=+sse2,+avx,+avx2,+fma,+avx512f cores=4 l3=16MiB")
    monkeypatch.setattr(Target, "detect", staticmethod(lambda: host))
    monkeypatch.setattr(machine, "cpu_name", lambda: "A CPU")
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    begin = "A CPU (skylake-avx512, 8 cores), target"
    assert machine.cpu_line(host) == f"{begin} 'host', 512-bit vectors, 4 threads"
    less = Target.parse("host cpu=haswell cores=1")
    assert machine.cpu_line(less) == f"{begin} 'host cpu=haswell', 256-bit vectors, 1 thread"
    assert (
        machine.cpu_line(Target.parse("host cpu=x86-64"), [1, 2])
        == f"{begin} 'host cpu=x86-64', 128-bit vectors, 1 and 2 threads"
    )
    assert machine.origin(less)["target"] == str(less)
    assert machine.is_cut_down(less)
    assert not machine.is_cut_down(host)
    texts = [
        "host vector_bytes=32",
        "host cpu=haswell features=+bmi l3=0",
        "aarch64 cpu=neoverse-n1",
        "x86-64 cpu=skylake-avx512",
    ]
    assert [machine.short_text(Target.parse(text)) for text in texts] == texts
    odd = replace(host, triple="x86_64-pc-linux-gnu", features="")
    assert Target.parse(machine.short_text(odd)) == odd


def test_a_checker_finds_every_kernel_and_the_tensor_before_the_softmax(tmp_path: Path) -> None:
    from light_models import Checker, compare, worst

    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        onnx.helper.make_node("Flatten", ["g"], ["f"]),
        onnx.helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]
    model = make_model(nodes, {"x": (1, 3, 6, 6)}, ["y"], {"w": floats(4, 3, 3, 3)})
    checker = Checker(model)
    checks = checker.check_tasks(None, Target.detect(cores=1))
    assert [check.name for check in checks] == ["r", "g", "y", "f", *("g", "y", "f")]  # then with one kernel up to the mean
    assert all(check.passed for check in checks)
    assert worst(checks).relative < 1e-5
    wrong = compare("r", checker.expected["r"] + 1, checker.expected["r"])
    assert not wrong.passed
    assert worst([*checks, wrong]) is wrong
    assert str(wrong).startswith("WRONG: r, largest difference 1.00e+00")
    assert not compare("r", np.full((1, 4, 4, 4), np.nan), checker.expected["r"]).passed


def test_a_light_model_has_random_weights() -> None:
    from light_models import before_softmax, input_of, light_model

    light = light_model("squeezenet")
    assert input_of(light.model) == ("data_0", (1, 3, 224, 224))
    assert before_softmax(light.model) == "r65"
    assert not any(node.op_type == "ConstantOfShape" for node in light.model.graph.node)
    assert [info.name for info in light.model.graph.input] == ["data_0"]  # no weight, or engines could not fold them
    with pytest.raises(ModelError, match="no light model 'lenet'; it has alexnet"):
        light_model("lenet")


def test_the_page_of_a_search_has_its_phases(run: Path) -> None:
    from bench_phases import page
    from machine import cpu_line, short_text

    text = page(run)
    target = Target.parse("x86-64 cpu=haswell cores=2")
    assert f"\n{cpu_line(target)}; " in text
    summary = json.loads((run / "summary.json").read_text())
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    seconds = {
        name.strip(): float(value) for name, value, *more in rows if len(more) == 2 and name.strip() in summary["phases"]
    }
    assert set(seconds) == set(summary["phases"])
    assert seconds["import"] == 0.5
    assert list(seconds) == "import sketch evolve features predict train build run other".split()
    assert "| trials a second |" in text
    options = f"--trials 20 --threads 2 --seed 0 --runner process --target {shlex.quote(short_text(target))}"
    assert f"python -m ansor_py.search m.onnx {options}\n" in text
    with pytest.raises(OptionError, match="name the directory of a finished run"):
        page(run / "none")


def test_tables_and_numbers() -> None:
    from markdown_page import markdown_table, number

    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
    assert [number(v) for v in (None, 0.0, 1.23456, 123.6, 1234.5, 1e-4)] == ["–", "0", "1.23", "124", "1,234", "0.0001"]


def test_sections_of_a_page_are_replaced_or_added() -> None:
    from markdown_page import split_sections, with_section

    page = with_section("# Title\n\nText.\n", "## One\n\n1\n")
    assert page == "# Title\n\nText.\n\n## One\n\n1\n"
    page = with_section(with_section(page, "## Two\n\n2\n"), "## One\n\nother\n")
    assert page == "# Title\n\nText.\n\n## Two\n\n2\n\n## One\n\nother\n"
    assert split_sections(page)[1:] == ["## Two\n\n2\n", "## One\n\nother\n"]
    assert with_section("", "## One\n") == "## One\n"


def test_the_notebook_runs_on_a_run_directory(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    import matplotlib

    monkeypatch.setenv("MPLBACKEND", "Agg")
    matplotlib.use("Agg")
    notebook = json.loads((EXPERIMENTS / "search_curves.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            if cell["metadata"].get("tags") == ["parameters"]:
                names["runs"] = [str(run)]
    said = capsys.readouterr().out
    assert "in 20 trials; within {'10%':" in said
    assert "x matmul 48" in said or "1 x matmul" in said
    assert "default" in said


def test_curves_are_drawn_into_a_file(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from plot_curve import curve_of, draw

    curve = curve_of(run)
    assert (curve.trials[-1], curve.untuned_ms, curve.tuned_ms) == (20, 3.0, 2.0)
    for against in ("trials", "seconds"):
        draw([curve], tmp_path / "curve.png", against)
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_builds_are_counted_by_workload_and_part(tmp_path: Path) -> None:
    from bench_build import PHASES, main
    from machine import cpu_line

    path = tmp_path / "build.json"
    target = Target.parse("x86-64 cpu=haswell cores=2")
    words = ["--names", "nrm", "--programs", "2", "--target", "x86-64 cpu=haswell cores=2", "--json", str(path)]
    outcome = CliRunner().invoke(main, words)
    assert outcome.exit_code == 0, outcome.output
    assert "0 of" in outcome.output
    assert f"{cpu_line(target)}\n" in outcome.output
    found = json.loads(path.read_text())
    assert (found["machine"], found["target"]) == (cpu_line(target), str(target))
    assert [row["name"] for row in found["rows"]] == ["nrm", "all"]
    for item in found["builds"]:
        assert set(item["phases"]) == set(PHASES)
        assert sum(item["phases"].values()) <= item["milliseconds"]
        assert item["instructions"] > 0
        assert item["object_bytes"] > 0


def test_builds_that_fail_or_take_too_long_are_failures() -> None:
    from bench_build import Build, summary

    builds = [Build("w", "s", (), 5.0), Build("w", "s", (), 90.0), Build("w", "s", (), 1.0, error="LoweringError: why")]
    row = summary("w", builds, [0.1], timeout=50.0)
    assert row.failures == {"LoweringError": 1, "timeout": 1}
    assert row.programs == 3
    assert row.maximum == 90.0


def test_the_study_of_the_schedulers_compares_median_curves(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from machine import cpu_line
    from scheduler_study import Outcome, compare, main

    def outcome(scheduler: str, seed: int, *totals: float) -> Outcome:
        return Outcome(scheduler, seed, totals, {"a": len(totals)})

    base = [outcome("round-robin", seed, 9, 8, 7, 6, luck) for seed, luck in enumerate((4, 5, 6))]
    other = [outcome("gradient", seed, 9, luck, 4, 4, 4) for seed, luck in enumerate((3, 5, 9))]
    report = compare(base + other)
    assert report["round-robin"]["goal_ms"] == 5
    assert (report["round-robin"]["trials_to_goal"], report["gradient"]["trials_to_goal"]) == (5, 2)
    assert report["gradient"]["saved"] == pytest.approx(0.6)
    assert [run["trials_to_goal"] for run in report["gradient"]["runs"]] == [2, 2, 3]
    assert [run["trials_to_goal"] for run in report["round-robin"]["runs"]] == [5, 5, None]

    words = "--runner simulated --trials 8 --batch 2 --seeds 0 --scale 8 --policy random --target".split()
    words += ["x86-64 cpu=haswell cores=2", "--task", "gmm_512=2", "--task", "softmax=1", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "| **gradient** | median |" in result.output
    assert {"study.json", "study.png", "gradient-0", "round-robin-0", "random-0"} <= {path.name for path in tmp_path.iterdir()}
    assert "| **random** | median |" in result.output
    assert "gradient, seed 0" not in CliRunner().invoke(main, words).output  # what is there is not repeated
    line = cpu_line(Target.parse("x86-64 cpu=haswell cores=2"))
    assert f"{line}\n\n| scheduler |" in result.output
    assert json.loads((tmp_path / "study.json").read_text())["machine"] == line
    other = CliRunner().invoke(main, [*words, "--threads", "1"])
    assert other.exit_code == 2
    assert "holds a search for target 'x86-64 cpu=haswell" in other.output


def test_the_roofline_is_judged_on_measured_programs(tmp_path: Path) -> None:
    import numpy as np

    from ansor_py.measure import RecordWriter
    from ansor_py.schedule.task import Task
    from ansor_py.target import Target
    from roofline_accuracy import judge
    from simulated_correlation import measured, random_programs
    from workloads import workload

    target = Target.parse("x86-64 cpu=skylake-avx512 cores=2")
    task = Task.from_compute(workload("gmm_512", 4).tensor(), target, "gmm")
    with RecordWriter(tmp_path / "gmm.jsonl") as writer:
        writer.write(measured(task, random_programs(task, 40, 0), "simulated"))
    programs, pairwise, liked, every = judge(task, "gmm", 40, 0, tmp_path)
    assert programs == 40
    assert pairwise > 0.6
    assert np.all(np.array([liked, every]) <= 1)
    assert liked > every


def test_timings_of_another_target_are_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import simulated_correlation
    from workloads import workload

    made: list[str] = []
    simulate = simulated_correlation.measured

    def measured(task: Task, records: Sequence[Record], runner: str) -> list[Record]:
        made.append(str(task.target))
        return simulate(task, records, "simulated")

    monkeypatch.setattr(simulated_correlation, "measured", measured)
    targets = [Target.parse(f"x86-64 cpu={cpu} cores=2") for cpu in ("haswell", "skylake-avx512")]
    for target in [*targets, *targets]:
        task = Task.from_compute(workload("nrm", 4).tensor(), target, "nrm")
        found = simulated_correlation.real_records("nrm", task, 5, 0, tmp_path)
        assert {record.target for record in found} == {str(target)}
    assert made == list(map(str, targets))


def test_models_are_judged_on_programs_of_other_searches(tmp_path: Path) -> None:
    from machine import cpu_line
    from model_accuracy import COLUMNS, main

    options = TuningOptions(policy="random", trials=60, batch=20)
    task = Task.from_spec("matmul:64,64,64", Target.parse("x86-64 cpu=skylake-avx512 cores=2"))
    for seed in range(2):
        config = {"model": "matmul:64,64,64", "target": str(task.target)}
        with RunDirectory.create(tmp_path / str(seed), {**config, "tasks": config_of_tasks([task])}) as directory:
            result = tune_tasks([task], replace(options, seed=seed), "simulated", subscribers=[directory.take])
            directory.write_summary(summarise(result, "m", str(task.target), 2, None, None))
    out = tmp_path / "accuracy.csv"
    words = [str(tmp_path / "0"), "--unseen", str(tmp_path / "1"), "--trials", "60", "--seeds", "1", "--out", str(out)]
    asked = ["--model", "lightgbm-roofline", "--model", "random", "--search", "model.trees=20"]
    result_of_script = CliRunner().invoke(main, [*words, *asked])
    assert result_of_script.exit_code == 0, result_of_script.output
    assert result_of_script.output.startswith(f"{cpu_line(task.target)}\n")
    header, *lines = (line.split(",") for line in out.read_text().splitlines())
    assert tuple(header) == COLUMNS
    figures = {line[0]: dict(zip(header, line, strict=True)) for line in lines if line[2] == "all"}
    assert float(figures["lightgbm-roofline"]["pairwise"]) > 0.6 > float(figures["random"]["pairwise"])
    assert 1 >= float(figures["lightgbm-roofline"]["liked_30"]) > float(figures["random"]["liked_30"]) > 0
