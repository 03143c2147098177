"""The ideas in `experiments/ideas/`: plug-ins of one file each, of public names, that pass the suites and run by `--import`."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from ansor_py.measure import read_records
from ansor_py.search.__main__ import main
from ansor_py.search.user_code import load_plug_ins
from ansor_py.testing import (
    CostModelConformance,
    FeatureGroupConformance,
    HoleKindConformance,
    MutationConformance,
    ObjectiveConformance,
    ObserverConformance,
    PolicyConformance,
    RuleConformance,
    TaskSchedulerConformance,
)

IDEAS = Path(__file__).parent.parent / "experiments" / "ideas"
FILES = sorted(IDEAS.glob("*.py"))
MOST_LINES = 150
PUBLIC = ("ansor_py", "ansor_py.search", "ansor_py.cost_model", "ansor_py.sketch_rules", "ansor_py.measure", "ansor_py.te")
COLUMNS = "reduce_sum:24,600,axis=0"
# Of every file: the words that use it on the command line, and the suites of what it registers.
USES: dict[str, tuple[list[str], list[tuple[type[Any], dict[str, Any]]]]] = {
    "draft_then_verify": (["--policy", "draft-then-verify"], [(PolicyConformance, {"name": "draft-then-verify"})]),
    "droplet": (["--policy", "droplet", "--search", "droplet.after=8"], [(PolicyConformance, {"name": "droplet"})]),
    "tree_search": (["--policy", "tree-search"], [(PolicyConformance, {"name": "tree-search"})]),
    "ranking_network": (
        ["--cost-model", "ranking-network"],
        [(CostModelConformance, {"name": "ranking-network", "learns": True})],
    ),
    "step_reader": (["--cost-model", "step-reader"], [(CostModelConformance, {"name": "step-reader", "learns": True})]),
    "confidence_scheduler": (["--scheduler", "confidence"], [(TaskSchedulerConformance, {"name": "confidence"})]),
    "column_blocks": (
        ["--rules", "block_columns", "--op", COLUMNS],
        [
            (RuleConformance, {"name": "block_columns", "specs": (COLUMNS,)}),
            (HoleKindConformance, {"name": "block_of_columns", "rules": ("block_columns", "skip"), "specs": (COLUMNS,)}),
            (MutationConformance, {"name": "wider_block", "rules": ("block_columns", "skip"), "specs": (COLUMNS,)}),
            (FeatureGroupConformance, {"name": "column_blocks"}),
        ],
    ),
    "slowest_network": (["--objective", "slowest-network"], [(ObjectiveConformance, {"name": "slowest-network"})]),
    "plateau_log": (["--observer", "plateau-log"], [(ObserverConformance, {"name": "plateau-log"})]),
}

pytestmark = pytest.mark.usefixtures("registries_as_before")


def test_every_idea_is_tested() -> None:
    assert {path.stem for path in FILES} == set(USES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_idea_is_one_short_file_of_public_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("ansor_py") for alias in node.names)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ansor_py"):
            assert node.module in PUBLIC
            public = importlib.import_module(str(node.module)).__all__
            assert {alias.name for alias in node.names} <= set(public)


@pytest.mark.parametrize("name", USES)
def test_an_idea_runs_from_the_command_line(name: str, tmp_path: Path) -> None:
    words, _ = USES[name]
    run = tmp_path / "run"
    common = ["--op", "matmul:32,32,32", "--together", "--runner", "simulated", "--threads", "1", "--batch", "4"]
    common += ["--search", "population=64", "--search", "iterations=1", "--trials", "25", "--out", str(run)]
    assert main(["--import", str(IDEAS / f"{name}.py"), *common, *words]) == 0
    records, _ = read_records(run / "records.jsonl")
    assert len(records) == 25


@pytest.mark.parametrize(
    ("name", "suite", "attributes"),
    [pytest.param(name, *item, id=f"{name}-{item[0].__name__}") for name, (_, items) in USES.items() for item in items],
)
def test_an_idea_passes_the_suite(name: str, suite: type[Any], attributes: dict[str, Any]) -> None:
    load_plug_ins([str(IDEAS / f"{name}.py")])
    tests = type("Suite", (suite,), attributes)()
    for title in dir(tests):
        if title.startswith("test_"):
            getattr(tests, title)()
