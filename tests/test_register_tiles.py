"""The innermost loop of a tiled product, disassembled: accumulators stay in registers, whatever the machine."""

from __future__ import annotations

import re

import pytest

from ansor_py import te
from ansor_py.codegen.kernel import kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels.outer_products import FLOAT32
from ansor_py.schedule.steps import RegisterTile, Reorder, Split, Vectorize
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.sketch_rules.register_tile import register_tiles
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


@pytest.mark.parametrize("target", structure_targets())
def test_a_tile_and_its_edge_do_not_take_registers_from_each_other(target: Target) -> None:
    lanes = target.lanes("float32")
    rows, width = (6, 2 * lanes) if target.vector_registers == 16 else (12, 2 * lanes)
    dag = ComputeDAG.from_outputs(te.matmul(4 * rows - 2, 4 * width, 256))
    order = Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1"))
    tile = (RegisterTile("C", ("i.1", "j.1"), FLOAT32.name), Vectorize("C", "j.1"))
    steps = (Split("C", "i", (rows,)), Split("C", "j", (width,)), order, *tile)
    tiles = [loop for loop in loops_of(emit_assembly(kernel_text(dag, steps, target, 1), target)) if multiplications(loop) > 2]
    assert len(tiles) >= 2
    assert not any(STACK.search(line) for loop in tiles for line in loop)


@pytest.mark.parametrize("target", structure_targets())
def test_a_tile_that_fits_by_count_fits_the_registers(target: Target) -> None:
    """No accumulator in memory; of 32 registers' largest tiles LLVM gives up one in seven, which loads of a broadcast take."""
    lanes = target.lanes("float32")
    order = Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1"))
    for rows, width in register_tiles((512, 512), 1, lanes, FLOAT32, target):
        if rows * width < 8 * lanes:
            continue
        dag = ComputeDAG.from_outputs(te.matmul(4 * rows, 4 * width, 64))
        tile = (RegisterTile("C", ("i.1", "j.1"), FLOAT32.name), Vectorize("C", "j.1"))
        steps = (Split("C", "i", (rows,)), Split("C", "j", (width,)), order, *tile)
        loops = loops_of(emit_assembly(kernel_text(dag, steps, target, 1), target))
        tiles = [loop for loop in loops if multiplications(loop) >= rows * width // lanes]
        assert tiles, (rows, width)
        for loop in tiles:
            accesses = sum(bool(STACK.search(line)) for line in loop)
            assert accesses <= (multiplications(loop) // 7 if target.vector_registers == 32 else 0), (rows, width)
