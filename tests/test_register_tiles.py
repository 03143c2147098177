"""The innermost loop of a tiled product, disassembled: accumulators stay in registers, whatever the machine."""

from __future__ import annotations

import re

import pytest

from ansor_py import te
from ansor_py.codegen.kernel import kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from targets import structure_targets

MULTIPLICATION = re.compile(r"vfmadd\w+ps|fmla|\bmulps")
STACK = re.compile(r"\(%rsp|\[sp")
LEAST = 24  # multiplications that a loop around a register tile has at least
# A multiplication may have this many instructions and accesses to the stack. Fused with the addition it needs little else.
# SSE2 multiplies, adds and copies, and the product needs a register of its own, for which LLVM gives up one accumulator in
# six; in memory, each would be loaded and stored at every multiplication.
FUSED, APART = (2.0, 0.0), (4.5, 0.34)


def loops_of(assembly: str) -> list[list[str]]:
    """The innermost loops: instructions from a label to a branch back to it, without another label or branch between."""
    found: list[list[str]] = []
    label, body = "", list[str]()
    for line in map(str.strip, assembly.splitlines()):
        if start := re.match(r"(\.\w+):", line):
            label, body = start[1], []
        elif line and not line.startswith((".", "#", "//")):
            body.append(line)
            if re.match(r"(j\w+|b\.\w+|b|cbn?z)\s", line):
                if line.split()[-1] == label:
                    found.append(body)
                label, body = "", []
    return found


def multiplications(loop: list[str]) -> int:
    return sum(bool(MULTIPLICATION.search(line)) for line in loop)


@pytest.mark.parametrize("target", structure_targets())
def test_the_inner_loop_keeps_its_accumulators_in_registers(target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.matmul(480, 576, 512))  # every default tile divides these
    assembly = emit_assembly(kernel_text(dag, default_steps(dag, target, 1), target, 1), target)
    instructions, accesses = APART if target.architecture == "x86-64" and target.vector_bytes == 16 else FUSED
    tiles = [loop for loop in loops_of(assembly) if multiplications(loop) >= LEAST]
    assert tiles
    for loop in tiles:
        assert sum(bool(STACK.search(line)) for line in loop) <= accesses * multiplications(loop)
        assert len(loop) < instructions * multiplications(loop)
