"""The documentation: examples run and print what the pages say, commands parse, links and named files exist."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import onnx
import pytest

from ansor_py.cost_model.interface import COST_MODELS
from ansor_py.schedule.algorithms import ALGORITHMS
from ansor_py.search.__main__ import command, main
from doc_examples import run_examples
from graph_interpreter import floats, make_model

pytestmark = pytest.mark.usefixtures("registries_as_before")
ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
SELF_CONTAINED = ["docs/architecture.md", "docs/rules.md", "docs/running.md", "docs/schedules.md", "docs/search.md"]


@pytest.fixture(autouse=True)
def _algorithms() -> Iterator[None]:
    """What the pages register is in no other test's search space."""
    before = dict(ALGORITHMS)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_examples_print_what_the_page_says(name: str) -> None:
    results = run_examples(TEXTS[name], name)
    assert results
    for example, printed in results:
        assert printed == (example.expected or ""), f"{name}:{example.line}; see tests/doc_examples.py"


def test_the_examples_of_cost_models_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example, printed in run_examples(TEXTS["docs/cost_models.md"], "docs/cost_models.md"):
        assert printed == (example.expected or ""), f"docs/cost_models.md:{example.line}"


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small model, with small sizes and few trials."""
    monkeypatch.chdir(tmp_path)
    array = floats(1, 3, 8, 8)
    nodes = [
        onnx.helper.make_node("Conv", ["input", "w"], ["c"], kernel_shape=[3, 3]),
        onnx.helper.make_node("Relu", ["c"], ["y"]),
    ]
    onnx.save(make_model(nodes, {"input": array}, ["y"], {"w": floats(4, 3, 3, 3)}), "model.onnx")
    words = "model.onnx --trials 2 --threads 2 --runner inline --policy random --cost-model random --out runs/model"
    assert main(words.split()) == 0
    page = TEXTS["README.md"]
    for old, new in (("512", "32"), ("256", "8"), ("trials=64", "trials=20"), ("repeats=50", "repeats=2")):
        page = page.replace(old, new)
    names: dict[str, object] = {"array": array}
    results = run_examples(page, "README.md", names)
    printed = "".join(text for _, text in results)
    assert re.search(r"^\d+\.\d{3} ms, \d+ GFLOP/s, 8 records$", printed, re.MULTILINE)
    assert COST_MODELS.pop("fewest-bytes").__doc__


def commands(pattern: str) -> list[list[str]]:
    """The commands of all pages that begin with a pattern, as words after it; comments are left out."""
    found = re.findall(rf"^ +{pattern}(.*)$", "\n".join(TEXTS.values()), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def test_commands_of_the_documentation_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands(r"python -m ansor_py\.search")
    assert len(lines) > 4
    for words in lines:
        for option, value in itertools.pairwise(words):
            if option == "--import":
                Path(value).parent.mkdir(parents=True, exist_ok=True)
                Path(value).touch()  # what it holds, the page shows
        if "--help" not in words and "--help-strategy" not in words:
            context = command.make_context("search", list(words))
            assert context.params["models"] or context.params["op"]


def test_commands_of_studies_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    lines = commands("python experiments/")
    assert lines
    for script, *words in lines:
        study = importlib.import_module(Path(script).stem)
        if isinstance(study.main, click.Command):
            study.main.make_context(script, list(words))
        else:
            assert study.parse(words)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXTS[name]):
        assert link.startswith("https://") or ((ROOT / name).parent / link).exists(), link


@pytest.mark.parametrize("name", PAGES)
def test_named_files_exist(name: str) -> None:
    """What looks like a path of the repository is one."""
    tops = "ansor_py search sketch_rules cost_model experiments tests docs".split()
    for path in re.findall(rf"`((?:{'|'.join(tops)})/[\w/.]*)`", TEXTS[name]):
        assert (ROOT / path).exists(), path


def test_decorators_are_where_the_architecture_says() -> None:
    rows = [line for line in TEXTS["docs/architecture.md"].splitlines() if line.startswith("| ") and "`@" in line]
    assert len(rows) > 8
    for row in rows:
        files = [(ROOT / path).read_text() for path in re.findall(r"`([\w/]+\.py)`", row)]
        for decorator in re.findall(r"`@(\w+)`", row):
            assert any(f"def {decorator}(" in text for text in files), f"{decorator}: {row}"
            assert any(f"@{decorator}(" in text for text in files), f"no example of {decorator}: {row}"
