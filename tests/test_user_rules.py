"""Rules of a user's own: the example of docs/rules.md in a file, on the command line, in workers; errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansor_py.errors import OptionError, PlugInError
from ansor_py.measure.records import read_records
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.command_line.rule_names import chosen_rules
from ansor_py.search.user_code import load_plug_ins
from ansor_py.sketch_rules import PRESETS, RULES, generate_sketches
from ansor_py.sketch_rules.derivation import find_rules
from ansor_py.target import Target
from doc_examples import examples

PAGE = (Path(__file__).parent.parent / "docs" / "rules.md").read_text(encoding="utf-8")
TARGET = Target.parse("x86-64 cpu=skylake-avx512 cores=2")
TASK = Task.from_spec("reduce_sum:24,600,axis=0", TARGET)

RULE = """
from dataclasses import dataclass, replace
from ansor_py import te; from ansor_py.schedule.dag import ComputeDAG; from ansor_py.schedule.hole import Hole
from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.sketch_rules import Rule, rule; from ansor_py.sketch_rules.notes import TileLevels

@rule("{name}")
class Own(Rule):
    def condition(self, sketch, number):
        return {verdict}

    def apply(self, sketch, number):
        return {derived}
"""


pytestmark = pytest.mark.usefixtures("registries_as_before")


def rule_file(
    folder: Path, name: str = "own", verdict: str = "'apply_and_stop'", derived: str = "[(sketch, number - 1)]"
) -> str:
    path = folder / "own_rules.py"
    path.write_text(RULE.format(name=name, verdict=verdict, derived=derived))
    return str(path)


@pytest.fixture
def worked_example(tmp_path: Path) -> str:
    """The file that the page shows."""
    path = tmp_path / "my_rules.py"
    path.write_text(next(example.code for example in examples(PAGE) if "@rule(" in example.code))
    return str(path)


def test_the_worked_example_runs_in_a_search_whose_workers_have_no_rules(
    worked_example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    words = ["--trials", "9", "--threads", "2", "--runner", "process", "--cost-model", "random", "--out", str(out)]
    monkeypatch.chdir(tmp_path.parent)
    assert main(["--op", "reduce_sum:24,600,axis=0", *words, "--import", worked_example, "--rules", "block_columns"]) == 0
    records, _ = read_records(out / "records.jsonl")
    mine = [record for record in records if record.origin.sketch is not None and record.origin.sketch.startswith("block(")]
    assert mine
    assert all(record.valid or record.result.error == "cut" for record in mine)
    assert all(record.steps for record in mine)


def test_rules_that_are_named_go_first_and_presets_can_be_chosen(worked_example: str) -> None:
    load_plug_ins([worked_example])
    assert chosen_rules([]) == "default"
    assert chosen_rules(["ansor"]) == "ansor"
    assert chosen_rules(["block_columns"]) == ("block_columns", *PRESETS["default"])
    assert chosen_rules(["ansor", "block_columns"]) == ("block_columns", *PRESETS["ansor"])
    assert chosen_rules(["block_columns"], "ansor") == ("block_columns", *PRESETS["ansor"])
    assert [s.name for s in generate_sketches(TASK.dag, TARGET, chosen_rules(["block_columns"]))] == [
        "block(reduce_sum)",
        "untransformed",
    ]


def test_a_rule_takes_the_place_of_a_built_in_one_on_purpose_only(tmp_path: Path) -> None:
    path = rule_file(tmp_path, name="skip")
    with pytest.raises(PlugInError, match=r"sketch rule 'skip' is there already, in ansor_py.sketch_rules.skip;"):
        load_plug_ins([path])
    Path(path).write_text(Path(path).read_text().replace('@rule("skip")', '@rule("skip", replace=True)'))
    load_plug_ins([path])
    assert chosen_rules(["skip", "ansor"]) == PRESETS["ansor"]
    assert RULES["skip"].__name__ == "Own"


def test_a_file_may_add_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "order.py"
    path.write_text("from ansor_py.sketch_rules import PRESETS\nPRESETS['mine'] = ('skip',)\n")
    for _ in range(2):  # also when it is loaded again
        load_plug_ins([str(path)])
        assert chosen_rules(["mine"]) == "mine"


def load_and_find(path: Path) -> None:
    load_plug_ins([str(path)])
    find_rules(chosen_rules(["bad"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no such file"),
        ("x = 1\n", r"--rules 'bad': there is no such preset or rule; presets are default, ansor, rules "),
        ("x = 1\nraise ValueError('oh')\n", "line 2, cannot be loaded: ValueError: oh"),
        ("x = 1\n\nif:\n", "line 3, cannot be loaded: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(0)\n", "line 2, cannot be loaded: SystemExit: 0"),
        ("from ansor_py.sketch_rules import PRESETS\nPRESETS['bad'] = ('nonsense',)\n", "there is no sketch rule 'nonsense'"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match=words) as caught:
        load_and_find(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(OptionError, match="no such preset or rule; presets are default, ansor, rules "):
        chosen_rules(["nonsense"])


@pytest.mark.parametrize(
    ("verdict", "derived", "words"),
    [
        ("1 / 0", "[]", r"own_rules.py, line 10: sketch rule 'own' failed on stage 'reduce_sum': ZeroDivisionError"),
        ("'perhaps'", "[]", r"own_rules.py: sketch rule 'own' failed .* condition gave 'perhaps'"),
        ("'apply'", "[sketch.nothing]", r"own_rules.py, line 13: .*AttributeError"),
        ("'apply'", "None", r"own_rules.py: .*TypeError"),
        ("__import__('sys').exit(0)", "[]", r"own_rules.py, line 10: sketch rule 'own' failed .* SystemExit: 0"),
        ("'apply'", "[(sketch, 99)]", r"own_rules.py: .*apply gave 99 as the stage to go on with; there are stages 0 to 0"),
        ("'apply'", "[(sketch, -99)]", r"own_rules.py: .*apply gave -99 .* and -1 says that the sketch is complete"),
        ("'apply'", "[(sketch, 0.0)]", r"own_rules.py: .*it must give pairs of a PartialSketch and the number of the stage"),
        ("'apply'", "[(None, 0)]", r"own_rules.py: .*apply gave \(None, 0\); it must give pairs"),
        ("'apply'", "[sketch]", r"own_rules.py: .*it must give pairs"),
        (
            "'apply'",
            "[(type(sketch).initial(ComputeDAG.from_outputs(te.matmul(4, 4, 4)), sketch.target), -1)]",
            "another compute DAG",
        ),
        (
            "'apply'",
            "[(sketch.with_note('reduce_sum', TileLevels(())), -1)]",
            r"completion of sketch '' of sketch rules 'own' .*own_rules.py",
        ),
        (
            "'apply'",
            "[(sketch.with_hole(TileHole('h', 'reduce_sum', ()))[0], -1)]",
            r"line 13: .* hole 'h' has the choices \(\)",
        ),
        (
            "'apply'",
            "[(sketch.with_hole(Hole('h', 'reduce_sum', (1,)))[0], -1)]",
            r"line 13: .* hole 'h': write @hole_kind",
        ),
        ("'apply'", "[(sketch, number)]", r"own.* come to no end at stage 'reduce_sum'"),
    ],
)
def test_errors_of_a_rule_are_one_line(verdict: str, derived: str, words: str, tmp_path: Path) -> None:
    load_plug_ins([rule_file(tmp_path, verdict=verdict, derived=derived)])
    rules = chosen_rules(["own"])
    with pytest.raises(OptionError, match=words) as caught:
        generate_sketches(TASK.dag, TARGET, rules)
    assert "\n" not in str(caught.value)
