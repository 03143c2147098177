"""Plug-ins that are wrong: one line that names the plug-in and its fault, exit status 2, and nothing lost that was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ansor_py.graph
import ansor_py.search.policies  # registers the built-in ones, which a test then puts back
from ansor_py.cost_model.checked_model import checked_model
from ansor_py.cost_model.interface import cost_model, create_cost_model
from ansor_py.errors import OptionError, PlugInError
from ansor_py.graph import compile_task
from ansor_py.measure import read_records
from ansor_py.schedule.task import Task
from ansor_py.search import TuningOptions, tune
from ansor_py.search.__main__ import main
from ansor_py.search.evolution.evolution_options import EvolutionOptions
from ansor_py.search.evolution.mutation import MUTATIONS, WeightedMutation
from ansor_py.search.loop.run_directory import read_curve
from ansor_py.search.options import SearchOptions
from ansor_py.search.scheduler.objectives import OBJECTIVES
from ansor_py.search.scheduler.strategies import STRATEGIES
from ansor_py.search.user_code import load_plug_ins
from ansor_py.sketch_rules import RULES, generate_sketches
from ansor_py.target import Target
from bad_input import says
from function_faults import FAULTS
from plug_in_faults import PlugInFault, later, model_with, policy_with, raises
from search_fakes import CountingPolicy, EvenModel, FakeMeasurer

# Two tasks as one search; the second has few programs, so that it ends.
WORDS = ["--op", "matmul:32,32,32", "--op", "relu:8", "--together", "--runner", "simulated", "--threads", "1"]
WORDS += ["--batch", "4", "--search", "population=32", "--search", "iterations=1", "--cost-model", "random"]


pytestmark = pytest.mark.usefixtures("registries_as_before")


@pytest.fixture(autouse=True)
def compiled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started to compile what was found."""
    monkeypatch.setattr(
        ansor_py.graph, "compile_task", lambda *values, **options: compile_task(*values, **options | {"workers": 0})
    )


def words_of(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}: {fault.title}")
def test_one_line_status_two_and_nothing_lost(fault: PlugInFault, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search that had begun keeps its records and leaves its models."""
    run = tmp_path / "run"
    options = words_of(fault.install(tmp_path))
    assert main([*WORDS, "--trials", "24", "--out", str(run), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert says(f"{fault.say}{'; what was measured is kept, continue by --resume' * fault.begun}", said[7:], tmp_path), said
    records = read_records(run / "records.jsonl")[0] if (run / "records.jsonl").exists() else []
    assert bool(records) == fault.begun
    if not fault.begun:
        return
    assert [point.trial for point in read_curve(run)] == [record.trial for record in records] == list(range(len(records)))
    assert (run / "summary.json").exists()
    assert (run / "model.ansor").exists() or sorted(run.glob("*.ansor"))


@pytest.mark.parametrize(
    "fault", {f.kind: f for f in FAULTS if f.begun}.values(), ids=lambda fault: f"{fault.kind}: {fault.title}"
)
def test_a_search_is_continued_when_the_plug_in_is_mended(fault: PlugInFault, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = words_of(fault.install(tmp_path))
    assert main([*WORDS, "--trials", "24", "--out", str(run), *options]) == 2
    kept = (run / "records.jsonl").read_bytes()
    trials = kept.count(b"\n") + 4
    MUTATIONS.pop("mine", None)  # one that is registered is used
    assert main([*WORDS, "--trials", str(trials), "--out", str(run), "--resume"]) == 0
    assert (run / "records.jsonl").read_bytes().startswith(kept)
    assert [record.trial for record in read_records(run / "records.jsonl")[0]] == list(range(trials))


SLIPS = {
    "--cost-model": model_with(predict=later(EvenModel.predict, raises(KeyboardInterrupt()))),
    "--policy": policy_with(propose=later(CountingPolicy.propose, raises(KeyboardInterrupt()))),
    "--scheduler": lambda folder: STRATEGIES.update(mine=raises(KeyboardInterrupt())),
    "--objective": lambda folder: OBJECTIVES.update(
        mine=lambda latencies, networks: 1.0 if (latencies == 1).all() else raises(KeyboardInterrupt())()
    ),
    "--search": lambda folder: MUTATIONS.update(mine=WeightedMutation(raises(KeyboardInterrupt()), 0.1)),
}


@pytest.mark.parametrize("option", SLIPS)
def test_ctrl_c_in_a_plug_in_is_ctrl_c(option: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    SLIPS[option](tmp_path)
    name = "evolution.mutation_weights.mine=9" if option == "--search" else "mine"
    assert main([*WORDS, "--trials", "24", "--out", str(run), option, name]) == 130
    records, _ = read_records(run / "records.jsonl")
    assert records
    assert [point.trial for point in read_curve(run)] == [record.trial for record in records]


def test_ctrl_c_while_a_file_is_loaded_is_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt")
    assert main([*WORDS, "--trials", "4", "--out", str(tmp_path / "run"), "--import", str(tmp_path / "mine.py")]) == 130
    assert not (tmp_path / "run").exists()


IN_PYTHON = [f for f in FAULTS if f.begun and f.kind not in ("runner", "task scheduler") and not f.title.startswith("save ")]


@pytest.mark.parametrize("fault", IN_PYTHON, ids=lambda fault: f"{fault.kind}: {fault.title}")
def test_in_python_the_error_has_all_that_was_measured(fault: PlugInFault, tmp_path: Path) -> None:
    measurer = FakeMeasurer()
    [(option, name)] = fault.install(tmp_path).items()
    search = SearchOptions(population=32, iterations=1)
    if option == "--search":
        search = search.with_own(EvolutionOptions(mutation_weights={"mine": 9}))
    chosen = {} if option == "--search" else {option.removeprefix("--").replace("-", "_"): name}
    options = TuningOptions(batch=4, search=search, **{"cost_model": "random", **chosen})
    task = Task.from_operator("matmul", (32, 32, 32), Target.detect().with_cores(1))
    with pytest.raises(PlugInError) as caught:
        tune(task, trials=12, options=options, measurer=measurer)
    assert says(fault.say, str(caught.value), tmp_path), str(caught.value)
    assert "\n" not in str(caught.value)
    programs = {json.dumps([step.to_json() for step in program.steps]) for program in measurer.inputs}
    assert {json.dumps(record.steps) for record in caught.value.result.records} == programs


def test_a_policy_without_proposals_ends_its_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is no fault: a space may be exhausted."""
    policy_with(propose=lambda self, count: [])(tmp_path)
    assert main([*WORDS, "--trials", "24", "--out", str(tmp_path / "run"), "--policy", "mine"]) == 0
    assert "no more trials, all candidates measured" in capsys.readouterr().out


def test_a_model_without_save_has_nothing_to_save(tmp_path: Path) -> None:
    model_with(save=None)(tmp_path)
    assert main([*WORDS, "--trials", "6", "--out", str(tmp_path / "run"), "--cost-model", "mine"]) == 0
    assert not (tmp_path / "run" / "cost_model.npz").exists()


@pytest.mark.parametrize(
    ("load", "words"), [(None, "Mine has no method 'load'"), (raises(ValueError("no idea")), "load failed")]
)
def test_a_model_that_cannot_load_names_itself(load: object, words: str, tmp_path: Path) -> None:
    model_with(load=load)(tmp_path)
    with pytest.raises(PlugInError, match=f"cost model 'mine': {words}"):
        checked_model("mine", create_cost_model("mine")).load(tmp_path / "none")


def test_a_cost_model_that_takes_nothing_is_refused_where_it_is_defined() -> None:
    with pytest.raises(OptionError, match=r"cost model 'mine' must be made of \(rng, options\): too many positional arguments"):
        cost_model("mine")(object)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((None,), "sketch rules hold None; a rule is the name of one or an object of a class that extends Rule"),
        ((5, "skip"), "sketch rules hold 5; a rule is"),
        (5, "sketch rules are 5; give a preset's name, or a sequence"),
        ((RULES["skip"],), "sketch rules hold <class .*Skip'>; a rule is"),
        (("nonsense",), "there is no sketch rule 'nonsense'; known are"),
    ],
)
def test_what_is_no_rule_is_refused(rules: Any, words: str) -> None:
    task = Task.from_operator("relu", (64,))
    with pytest.raises(OptionError, match=words):
        generate_sketches(task.dag, task.target, rules)


def test_a_class_that_is_no_rule_is_refused_where_it_is_defined(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from ansor_py.sketch_rules import rule\n@rule('mine')\ndef mine(sketch, number): pass\n")
    with pytest.raises(
        OptionError, match=r"line 2, cannot be loaded: sketch rule 'mine': write @rule\(\"name\"\) above a class"
    ):
        load_plug_ins([str(path)])
