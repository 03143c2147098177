"""Loops that Numba compiles: when, of which arguments, and what code that was kept on disk must not depend on."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.native_loops import Floats, Native, native
from ansor_py.cost_model.roofline_model import estimated_cycles
from ansor_py.schedule.sketch import Population
from ansor_py.target import Target
from sketch_examples import EXAMPLES, legal_population

FOLDER = Path(__file__).parent.parent / "cost_model"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if "\n@native\n" in path.read_text())


def natives(module: str) -> dict[str, Native[..., object]]:
    """The native functions of a module of the cost model by name."""
    members = vars(importlib.import_module(f"ansor_py.cost_model.{module}"))
    return {name: value for name, value in members.items() if isinstance(value, Native)}


def test_native_loops_are_found() -> None:
    assert {"index_table", "shared_buffers", "feature_roofline"} <= set(MODULES)
    assert all(natives(module) for module in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_constant_of_another_module_is_in_native_code(module: str) -> None:
    """Numba compiles again when the file of a function has changed, and does not look at others."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ansor_py")
    ]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in natives(module)]
    assert functions
    for function in functions:
        used = {node.id for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
        assert not used & imported, function.name


def test_native_loops_are_compiled_for_one_type_of_each_argument() -> None:
    """For one program or many, for all groups or some: a second type would compile all of a function again."""
    target, rng = Target.parse("x86-64 cpu=haswell cores=2"), np.random.default_rng(0)
    for make in EXAMPLES.values():
        sketch = make()
        population = legal_population(sketch, 8, rng)
        for few in (population, Population(sketch, population.genes[:1])):
            extract_features(few, target)
            estimated_cycles(few, target)
    for module in MODULES:
        for name, function in natives(module).items():
            assert len(function.compiled.signatures) == 1, name


def test_numba_is_loaded_by_the_first_call() -> None:
    code = "import sys, ansor_py.graph, ansor_py.search.loop.loop, ansor_py.cost_model; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_code_that_cannot_be_kept_is_compiled_all_the_same() -> None:
    source = "def doubled(values, out):\n    for i in range(len(values)):\n        out[i] = 2.0 * values[i] / 0.0\n"
    space: dict[str, object] = {}
    exec(compile(source, "<no file>", "exec"), space)  # Numba has no folder for functions without a file
    doubled: Native[[Floats, Floats], None] = native(space["doubled"])  # type: ignore[arg-type]
    out = np.zeros(2)
    doubled(np.array([1.0, 0.0]), out)
    assert out[0] == np.inf
    assert np.isnan(out[1])
