"""What compiled kernels call: the parallel runtime, and libm only where a function has no vector code. Nothing is executed."""

from __future__ import annotations

import re

import pytest

from ansor_py import te
from ansor_py.codegen.kernel import kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.codegen.parallel_runtime import PARALLEL
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from targets import structure_targets

CALL = re.compile(r"^\s(?:callq?|bl|jmp|b)\s+(\w+)(?:@PLT)?$", re.MULTILINE)
RUNTIME = {PARALLEL, "memcpy"}  # LLVM makes one call of a loop that copies a row
FLOAT32_FUNCTIONS = "exp log sqrt tanh erf sigmoid abs floor ceil round sin cos atan power fmod".split()
FOR_LARGE_OPERANDS = {"sin": {"sinf"}, "cos": {"cosf"}, "fmod": {"fmodf"}}


def calls(dag: ComputeDAG, target: Target) -> set[str]:
    """Functions that the kernel calls and does not define."""
    assembly = emit_assembly(kernel_text(dag, default_steps(dag, target, 2), target, 2), target)
    defined = set(re.findall(r"^(\w+):", assembly, re.MULTILINE))
    return set(CALL.findall(assembly)) - defined


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("name", te.operators())
def test_operators_call_nothing_but_the_parallel_runtime(name: str, target: Target) -> None:
    """Not `fmaf` where the CPU has no multiply-add, not `roundevenf` where it does not round: hundreds of calls a kernel."""
    dag = ComputeDAG.from_outputs(te.from_spec(te.operators()[name].example))
    assert calls(dag, target) <= RUNTIME


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("name", FLOAT32_FUNCTIONS)
def test_functions_of_float32_are_vector_code(name: str, target: Target) -> None:
    x = te.placeholder((6, 50), name="x")
    dag = ComputeDAG.from_outputs(getattr(te, name)(x, x) if name in ("power", "fmod") else getattr(te, name)(x))
    assert calls(dag, target) - RUNTIME == FOR_LARGE_OPERANDS.get(name, set())


@pytest.mark.parametrize("target", structure_targets())
def test_a_call_is_seen(target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.sin(te.placeholder((6, 50), "float64", name="x")))
    assert "sin" in calls(dag, target)
