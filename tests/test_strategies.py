"""Strategies of a user's own: one way in, options beside them, what they are told, and what is said of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

import ansor_py.search.user_code
from ansor_py.cost_model import cost_model, create_cost_model, feature_group
from ansor_py.errors import OptionError, PlugInError
from ansor_py.measure import read_records
from ansor_py.registry import Registry, all_registered
from ansor_py.schedule.task import Task
from ansor_py.search import (
    EvolutionOptions,
    OptionSet,
    ProgramSampler,
    RoundState,
    SearchOptions,
    StrategyOptions,
    TuningOptions,
    mutation,
    option,
    policy,
    tune,
)
from ansor_py.search.__main__ import main
from ansor_py.search.command_line.settings import parse_search_options
from ansor_py.search.user_code import load_plug_ins
from ansor_py.strategy_options import OPTION_CLASSES, described
from search_fakes import FakeMeasurer

pytestmark = pytest.mark.usefixtures("registries_as_before")
WORDS = ["--op", "matmul:32,32,32", "--runner", "simulated", "--threads", "1", "--batch", "4", "--cost-model", "random"]

IDEA = """
from dataclasses import dataclass
from ansor_py.search import OptionSet, ProgramSampler, StrategyOptions, TrialsMeasured, mutation, observer, option, policy
from ansor_py.search import objective, task_scheduler

@dataclass(frozen=True)
class OwnOptions(StrategyOptions, name="droplet"):
    after: int = option(5, "trials before it begins", least=0)

@policy("droplet", options=OwnOptions)
class Droplet(ProgramSampler):
    \"\"\"Random programs, and a note of what it was told.\"\"\"
    def begin_round(self, state):
        with open(FILE, "a") as file:
            print(self.options.of(OwnOptions).after, state.trials, state.trials_left, state.default_seconds > 0, file=file)

    def propose(self, count):
        return self.draw_random(count)

@observer("counter", options=OwnOptions)
class Counter:
    def __init__(self, options, folder):
        self.file = folder / "counted.txt"

    def __call__(self, event):
        if isinstance(event, TrialsMeasured):
            with self.file.open("a") as file:
                print(len(event.records), file=file)

@task_scheduler("last")
def last(tasks, value, options, rng):
    return max(n for n, task in enumerate(tasks) if not task.dead)

@objective("one")
def one(latencies, networks):
    return 1.0
"""


def idea(folder: Path, name: str = "idea.py", text: str = IDEA) -> str:
    path = folder / name
    path.write_text(f"FILE = {str(folder / 'told.txt')!r}\n{text}")
    return str(path)


def test_one_file_brings_everything_and_each_option_is_set_by_its_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--import", idea(tmp_path), "--policy", "droplet", "--observer", "counter", "--scheduler", "last"]
    words += ["--objective", "one", "--search", "droplet.after=7"]
    assert main([*WORDS, *words, "--trials", "9", "--out", str(run)]) == 0
    assert (tmp_path / "told.txt").read_text().splitlines() == ["7 1 8 True", "7 5 4 True"]
    assert (run / "counted.txt").read_text().split() == ["1", "4", "4"]
    batch = tmp_path / "batch.toml"
    batch.write_text(f"import = ['{tmp_path / 'idea.py'}']\npolicy = 'droplet'\n[search.droplet]\nafter = 3\n")
    assert main([*WORDS, "--config", str(batch), "--trials", "5", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "told.txt").read_text().splitlines()[-1] == "3 1 4 True"


def test_what_is_installed_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idea(tmp_path, "installed_idea.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = EntryPoints([EntryPoint("droplet", "installed_idea", "ansor_py.plug_ins")])
    monkeypatch.setattr(ansor_py.search.user_code, "entry_points", lambda group: points.select(group=group))
    assert main([*WORDS, "--policy", "droplet", "--trials", "3", "--out", str(tmp_path / "run")]) == 0
    broken = EntryPoints([EntryPoint("broken", "no_such_idea", "ansor_py.plug_ins")])
    monkeypatch.setattr(ansor_py.search.user_code, "entry_points", lambda group: broken)
    with pytest.raises(PlugInError, match="the installed plug-in 'broken': 'no_such_idea' cannot be loaded: ModuleNotFound"):
        load_plug_ins([])


def test_the_help_of_a_strategy_says_what_it_is_and_what_its_options_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--import", idea(tmp_path), "--help-strategy", "droplet"]) == 0
    said = capsys.readouterr().out
    for words in ("policy droplet", "Random programs, and a note", "after", "5", "0 or more", "trials before it begins"):
        assert words in said
    assert main(["--help-strategy", "dropplet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: there is no strategy 'dropplet'; known are cost model: ")
    assert said.count("\n") == 1


def test_everything_that_is_built_in_says_what_it_does_and_has_options_that_are_checked() -> None:
    for item in all_registered():
        if item.module.startswith("ansor_py."):
            assert item.text, f"{item.kind} {item.name}"
    for options in OPTION_CLASSES.values():
        for field, meaning in described(options):
            assert meaning.text, field.name
            assert not isinstance(getattr(options(), field.name), list)


def test_a_registered_mutation_runs_with_the_weight_it_was_given() -> None:
    @mutation("two_tiles", weight=5.0)
    def two_tiles(space: object, genes: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        return np.zeros_like(genes)

    search = SearchOptions(population=64, iterations=2)
    task = Task.from_operator("matmul", (64, 64, 64))

    def made(search: SearchOptions) -> set[str]:
        options = TuningOptions(cost_model="random", batch=24, search=search)
        result = tune(task, trials=72, options=options, measurer=FakeMeasurer())
        return {record.origin.operator for record in result.records}

    assert "two_tiles" in made(search)
    assert "two_tiles" not in made(search.with_own(EvolutionOptions(mutation_weights={"two_tiles": 0.0})))
    for wrong in (search.with_own(EvolutionOptions(mutation_weights={"two_tile": 1.0})),):
        with pytest.raises(OptionError, match="there is no mutation 'two_tile'; known are location, nearest_choice"):
            made(wrong)
    with pytest.raises(OptionError, match="mutation 'mine': its weight is -1"):
        mutation("mine", weight=-1)(two_tiles)


def test_a_name_belongs_to_who_came_first() -> None:
    for decorator, words in (
        (policy("beam"), "policy 'beam' is there already, in ansor_py.search.policies.beam; choose another name"),
        (mutation("parallel"), "mutation 'parallel' is there already, in ansor_py.search.evolution.mutation"),
        (cost_model("roofline"), "cost model 'roofline' is there already"),
        (feature_group("mine", ["iterations"]), "feature group 'mine': group 'outer_scope' has a field 'iterations' already"),
        (feature_group("mine", []), "feature group 'mine': its fields are none"),
        (policy(""), "policy '': its name must be a text"),
    ):
        with pytest.raises(OptionError, match=words):
            decorator(lambda rng, options: None)  # type: ignore[operator]


def test_the_same_thing_defined_again_takes_its_own_place() -> None:
    registry: Registry[object] = Registry("thing")

    def defined(number: int) -> object:
        def thing() -> int:
            return number

        return thing

    registry.add("one", defined(1))
    registry.add("one", defined(2))
    assert registry.find("one")() == 2  # type: ignore[operator]
    with pytest.raises(OptionError, match="thing 'one' is there already"):
        registry.add("one", np.sum)


def test_options_are_found_by_their_class_and_checked() -> None:
    @dataclass(frozen=True)
    class Own(StrategyOptions, name="mine"):
        count: int = option(3, "things", least=1)
        share: float = option(0.5, "of them", above=0, most=1)
        way: str = option("up", "direction", choices=("up", "down"))
        sizes: tuple[int, ...] = option((1, 2), "sizes", least=1)
        weights: Mapping[str, float] = option({"a": 1.0}, "weights", least=0)  # kept as a Table

    options = OptionSet().with_own(Own(count=4))
    assert (options.of(Own).count, OptionSet().of(Own).count) == (4, 3)
    assert options.with_own(Own(count=5)).of(Own).count == 5
    assert hash(options) == hash(OptionSet().with_own(Own(count=4)))
    texts = ["mine.count=7", "mine.share=0.25", "mine.way=down", "mine.sizes=4,8", "mine.weights.b=2"]
    assert parse_search_options(texts).of(Own) == Own(7, 0.25, "down", (4, 8), {"a": 1.0, "b": 2.0})
    for text, words in (
        ("mine.count=0", "search option 'mine.count' must be 1 or more, not 0"),
        ("mine.share=0", "search option 'mine.share' must be above 0 and at most 1, not 0.0"),
        ("mine.way=left", "search option 'mine.way' is one of up, down, not 'left'"),
        ("mine.sizes=4,0", "search option 'mine.sizes' must be 1 or more, not 0"),
        ("mine.weights.b=-2", r"search option 'mine.weights.b' must be 0 or more, not -2"),
        ("mine.counts=1", "there is no search option 'mine.counts'; known are mine.count, mine.share"),
    ):
        with pytest.raises(OptionError, match=words):
            parse_search_options([text])
    with pytest.raises(OptionError, match="are no options of a strategy"):
        OptionSet().with_own(3)  # type: ignore[arg-type]


def test_a_model_and_a_policy_take_their_own_options_from_the_set() -> None:
    @dataclass(frozen=True)
    class Own(StrategyOptions, name="mine"):
        offset: float = option(0.0, "added to every score")

    @cost_model("mine", options=Own)
    class Model:
        def __init__(self, rng: np.random.Generator, options: OptionSet) -> None:
            self.offset = options.of(Own).offset

        def predict(self, batch: object) -> None: ...
        def update(self, *_: object) -> None: ...

    assert create_cost_model("mine", 0, SearchOptions().with_own(Own(offset=2.0))).offset == 2.0  # type: ignore[attr-defined]


def test_a_policy_is_told_how_the_search_stands() -> None:
    told: list[RoundState] = []

    @policy("curious")
    class Curious(ProgramSampler):
        """It listens."""

        def begin_round(self, state: RoundState) -> None:
            told.append(state)

        def propose(self, count: int) -> list[object]:
            return list(self.draw_random(count))

    options = TuningOptions(policy="curious", cost_model="random", batch=4)
    result = tune(Task.from_operator("matmul", (64, 64, 64)), trials=13, options=options, measurer=FakeMeasurer())
    assert [(state.round, state.trials, state.trials_left) for state in told] == [(1, 1, 12), (2, 5, 8), (3, 9, 4)]
    default = result.records[0].cost
    assert {state.default_seconds for state in told} == {default}
    for state in told:
        assert state.best_seconds == min(record.cost for record in result.records[: state.trials] if record.valid)
        assert state.seconds_left is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def __init__(self, options, folder): 1 / 0", "its construction failed"),
        ("def __init__(self, options, folder): pass", "it is <.*which cannot be called with an event"),
        (
            "def __init__(self, *_): pass\n    def __call__(self, event): hasattr(event, 'records') and event.nothing",
            "failed in .*AttributeError: .*; what was measured is kept",
        ),
    ],
)
def test_an_observer_that_is_wrong_is_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"from ansor_py.search import observer\n@observer('mine')\nclass Mine:\n    {text}\n"
    run = tmp_path / "run"
    arguments = ["--import", idea(tmp_path, text=code), "--observer", "mine", "--trials", "5", "--out", str(run)]
    assert main([*WORDS, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert "error: observer 'mine'" in said
    assert re.search(words, said), said
    if "kept" in words:
        assert read_records(run / "records.jsonl")[0]
        assert (run / "summary.json").exists()
