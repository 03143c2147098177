"""Lowering: from a state to the program that code is generated from, by passes over the loop IR.

    program = lower(state, target)
    for name, program in lowering(state, target):      # the scheduled nest, then what each pass makes of it
        print(name, program, sep="\\n")

`experiments/show_lowering.py` prints every pass's program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.ir import For, Node, Program, Region
from ansor_py.lower.nest import Loop, build_nest
from ansor_py.lower.nest import Node as NestNode
from ansor_py.lower.passes.epilogues import fuse_epilogues
from ansor_py.lower.passes.parallel_loops import outline_parallel_loops
from ansor_py.lower.passes.register_tiles import form_tiles, step_vector_loops
from ansor_py.lower.passes.tails import cut_tails
from ansor_py.lower.passes.unit_loops import remove_unit_loops
from ansor_py.lower.passes.unrolling import unroll_loops
from ansor_py.lower.storage import shared_storage
from ansor_py.schedule.state import State
from ansor_py.target import Target
from ansor_py.te.expr import INDEX, Const

Pass = Callable[[Program], Program]

# In this order. A pass may rely on what those before it have established (see their modules).
PASSES: tuple[Pass, ...] = (
    remove_unit_loops,
    outline_parallel_loops,
    cut_tails,
    step_vector_loops,
    form_tiles,
    unroll_loops,
    fuse_epilogues,
)


def lower(state: State, target: Target) -> Program:
    """Lower a concrete state; raises ScheduleError or LoweringError if that is impossible."""
    program = scheduled_program(state, target)
    for transform in PASSES:
        program = transform(program)
    return program


def lowering(state: State, target: Target) -> Iterator[tuple[str, Program]]:
    """The program before the first pass and after each of them, with names."""
    program = scheduled_program(state, target)
    yield "scheduled", program
    for transform in PASSES:
        program = transform(program)
        yield transform.__name__, program


def scheduled_program(state: State, target: Target) -> Program:
    """The scheduled nest as a program, without stages whose loops never run."""
    bounds = infer_bounds(state)
    nest = build_nest(state, bounds, shared_storage(state, bounds), target)
    ranges: dict[str, tuple[int, int]] = {}
    pending: list[NestNode] = list(nest.body)
    while pending:
        node = pending.pop()
        if isinstance(node, Loop):
            ranges[node.variable] = (0, node.extent - 1)
            pending.extend(node.body)
    running = [(_stage(node), node) for node in nest.body if _runs(node)]
    regions = tuple(Region(name, (), _loops(node), name in state.prepacked) for name, node in running)
    return Program(regions, nest.buffers, ranges, target)


def _loops(node: NestNode) -> tuple[Node, ...]:
    """A nest as loops of the IR."""
    loops: list[Loop] = []
    while isinstance(node, Loop):
        loops.append(node)
        node = node.body[-1]
    found: tuple[Node, ...] = (node,)
    for loop in reversed(loops):
        attached = tuple(new for item in loop.body[:-1] if _runs(item) for new in _loops(item))
        body = (*attached, *found)
        found = (For(loop.variable, Const(loop.extent, INDEX), body, loop.extent, loop.kind, loop.annotation),)
    return found


def _stage(node: NestNode) -> str:
    while isinstance(node, Loop):
        node = node.body[-1]
    return node.stage


def _runs(node: NestNode) -> bool:
    """Whether a stage's loops have any iteration: those of a tensor without elements have none."""
    while isinstance(node, Loop):
        if node.extent == 0:
            return False
        node = node.body[-1]
    return True
