"""The innermost loop of a tiled product, disassembled: accumulators stay in registers, whatever the machine."""

from __future__ import annotations

import re

import pytest

from ansor_py import te
from ansor_py.codegen.default_schedule import default_steps
from ansor_py.codegen.kernel import kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.target import Target

FUSED_MULTIPLY_ADD = re.compile(r"vfmadd\w+ps|fmla")
STACK = re.compile(r"\(%rsp|\[sp")
LEAST = 24  # fused multiply-adds that a loop around a register tile has at least


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


@pytest.mark.parametrize("text", ["x86-64 cpu=skylake-avx512", "x86-64 cpu=haswell", "aarch64 cpu=neoverse-n1"])
def test_the_inner_loop_does_not_touch_the_stack(text: str) -> None:
    target = Target.parse(text)
    dag = ComputeDAG.from_outputs(te.matmul(480, 576, 512))  # every default tile divides these
    assembly = emit_assembly(kernel_text(dag, default_steps(dag, target, 1), target, 1), target)
    tiles = [loop for loop in loops_of(assembly) if sum(bool(FUSED_MULTIPLY_ADD.search(line)) for line in loop) >= LEAST]
    assert tiles
    for loop in tiles:
        assert not [line for line in loop if STACK.search(line)]
        assert 2 * sum(bool(FUSED_MULTIPLY_ADD.search(line)) for line in loop) > len(loop)  # little else
