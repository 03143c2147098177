"""The layers: a module imports only from layers above its own, nothing in a circle, nothing bare; no package is forgotten.

The table is the design's. Imports are read from the source, so that those inside functions count as well.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"ansor_py.search": "search", "ansor_py.cost_model": "cost_model", "ansor_py.sketch_rules": "sketch_rules"}
MOVED = tuple(FOLDERS.values())

BASE = {"errors", "registry", "strategy_options", "target"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "strategy_options": {"errors"},
    "registry": {"errors", "strategy_options"},
    "target": {"errors"},
    "te": BASE,
    "schedule": BASE | {"te"},
    "lower": BASE | {"te", "schedule"},
    "codegen": BASE | {"te", "schedule", "lower"},
    "measure": BASE | {"te", "schedule", "lower", "codegen"},
    "sketch_rules": BASE | {"te", "schedule", "lower", "codegen", "measure"},
    "cost_model": BASE | {"te", "schedule", "lower", "codegen", "measure"},
    "search": BASE | {"te", "schedule", "lower", "codegen", "measure", "sketch_rules", "cost_model"},
    "testing": BASE | {"te", "schedule", "lower", "codegen", "measure", "sketch_rules", "cost_model", "search"},
    "graph": BASE | {"te", "schedule", "lower", "codegen", "measure", "sketch_rules", "cost_model", "search"},
}
COMMAND_LINE = ("ansor_py.search.__main__", "ansor_py.search.command_line")  # a package stands for its modules too
SEARCH_LAYERS = (
    "options",
    "user_code",
    "sampling",
    "evolution",
    "policies",
    "scheduler",
    "loop",
    "ask_and_tell",
    "data_set",
    "command_line",
    "__main__",
)


@dataclass(frozen=True)
class Import:
    """One imported module name, and whether it runs when the importing module is loaded."""

    target: str
    line: int
    on_load: bool


def source_modules() -> dict[str, Path]:
    """Every module of the package by its import name."""
    folders = {"ansor_py": ROOT / "ansor_py"} | {name: ROOT / folder for name, folder in FOLDERS.items()}
    modules = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            modules[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return modules


MODULES = source_modules()
TOP = (
    "ansor_py",
    *(module for module in MODULES if ".".join(module.split(".")[:3]) in COMMAND_LINE),
)  # and re-exports


def imports_of(path: Path, module: str) -> Iterator[Import]:
    """All imports of a file, relative ones resolved, `from package import module` resolved to the module."""

    def visit(node: ast.AST, on_load: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, on_load) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                for _ in range(child.level - 1):
                    package = package.rpartition(".")[0]
                base = ".".join(filter(None, [package if child.level else "", child.module or ""]))
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    yield Import(full if full in MODULES or base == "ansor_py" else base, child.lineno, on_load)
            else:
                yield from visit(child, on_load and not lazy)

    yield from visit(ast.parse(path.read_text(), str(path)), True)


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", [name for name in MODULES if name not in TOP])
def test_a_module_imports_only_from_layers_above(module: str) -> None:
    layer = layer_of(module)
    assert layer in MAY_IMPORT, f"{module} belongs to no layer of the table"
    for imported in imports_of(MODULES[module], module):
        first, _, rest = imported.target.partition(".")
        if first == "ansor_py" and rest != "__version__":
            other = layer_of(imported.target)
            allowed = MAY_IMPORT[layer] | {layer}
            where = f"{MODULES[module].relative_to(ROOT)}:{imported.line}"
            assert other in allowed, f"{where}: layer '{layer}' imports '{imported.target}'"
            assert imported.target not in TOP, f"{where}: nothing may import '{imported.target}'"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("ansor_py.search.")])
def test_the_folders_of_the_search_are_layers_as_well(module: str) -> None:
    own = SEARCH_LAYERS.index(module.split(".")[2])
    for imported in imports_of(MODULES[module], module):
        if imported.target.startswith("ansor_py.search."):
            where = f"{MODULES[module].relative_to(ROOT)}:{imported.line}"
            assert SEARCH_LAYERS.index(imported.target.split(".")[2]) <= own, f"{where}: imports '{imported.target}'"


def test_nothing_imports_the_root_folders_bare() -> None:
    python = [path for folder in ("ansor_py", *MOVED, "experiments", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in python:
        for imported in imports_of(path, path.stem):
            first = imported.target.partition(".")[0]
            assert first not in MOVED, f"{path.relative_to(ROOT)}:{imported.line} imports '{imported.target}' bare"


def test_nothing_imports_in_a_circle() -> None:
    graph = nx.DiGraph()
    for module, path in MODULES.items():
        targets = {imported.target for imported in imports_of(path, module) if imported.on_load}
        graph.add_edges_from((module, target) for target in targets if target in MODULES)
    circles = [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]
    assert not circles, f"modules import each other: {circles}"


def test_the_wheel_holds_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    existing = [name for name, path in MODULES.items() if path.name == "__init__.py"]
    assert sorted(listed) == sorted(existing)
    for folder in {path.parent for path in MODULES.values()}:
        assert (folder / "__init__.py").exists(), f"{folder.relative_to(ROOT)} has modules but no __init__.py"


def test_the_root_holds_exactly_what_the_design_says() -> None:
    expected = {"pyproject.toml", "README.md", "LICENSE", "Makefile", "ansor_py", *MOVED, "experiments", "tests", "docs"}
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git working copy")
    tracked = {name.split("/")[0] for name in listing.stdout.splitlines()}
    assert {name for name in tracked if not name.startswith(".")} <= expected


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("numpy", "llvmlite", "ray", "lightgbm", "numba", "onnx", "networkx")
    program = f"import sys, ansor_py; print([name for name in {heavy!r} if name in sys.modules], ansor_py.__version__)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("[] ")


def test_top_level_names_are_resolved_on_first_use() -> None:
    import ansor_py

    assert ansor_py.te.matmul(2, 2, 2).shape == (2, 2)
    assert ansor_py.Target is importlib.import_module("ansor_py.target").Target
    assert {"compile", "load", "Task", "Target", "te", "search"} <= set(dir(ansor_py))
    with pytest.raises(AttributeError, match="no attribute 'tune_everything'"):
        ansor_py.tune_everything  # noqa: B018
