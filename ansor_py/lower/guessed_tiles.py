"""Register tiles of programs that were recorded before schedules stated them (record schema 1).

Until then lowering guessed a stage's tile from its loops: the vectorised one, and outwards from it all spatial loops inside the
innermost reduction (of other stages the unrolled ones) while their accumulators were few enough. Read again, such a program
gets the steps that say what was guessed, and is the same program.

    steps = with_register_tiles(dag, steps, target)
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.lower.ir import Chain, For, Node, nested, rewritten
from ansor_py.lower.lower import scheduled_program
from ansor_py.lower.passes.parallel_loops import outline_parallel_loops
from ansor_py.lower.passes.register_tiles import STEP_VECTORS
from ansor_py.lower.passes.unit_loops import remove_unit_loops
from ansor_py.lower.register_tile import MAX_TILE_VECTORS
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import micro_kernel_for
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import RegisterTile, Step
from ansor_py.target import Target


def with_register_tiles(dag: ComputeDAG, steps: Sequence[Step], target: Target) -> tuple[Step, ...]:
    """The steps with a `RegisterTile` for every stage whose guessed tile is more than its vectorised loop.

    Raises ScheduleError or LoweringError as lowering does.
    """
    state = State.initial(dag).replay(steps)
    if any(stage.register_tile is not None for stage in state.stages):
        return tuple(steps)
    found: list[Step] = []

    def note(chain: Chain) -> Sequence[Node]:
        stage = chain.statement.stage
        tile = _guessed(chain)
        if len(tile) > 1 or (tile and tile[0].annotation != "vectorize"):
            names = tuple(loop.variable.removeprefix(f"{stage}/") for loop in tile)
            found.append(RegisterTile(stage, names, micro_kernel_for(state.body(stage), target).name))
        return nested(chain.loops, [chain.statement])

    rewritten(outline_parallel_loops(remove_unit_loops(scheduled_program(state, target))), note)
    return (*steps, *found)


def _guessed(chain: Chain) -> tuple[For, ...]:
    """The loops that made the tile by the rule of schema 1."""
    loops, statement = chain.loops, chain.statement
    assert statement.tile is not None
    reduces = statement.combiner is not None
    start, vectors = len(loops), 1
    if start and loops[-1].annotation == "vectorize":
        start -= 1
        vectors = -(-loops[-1].trips // statement.tile.lanes)
        in_lanes = loops[-1].kind == "reduction"
        stepped = not reduces or in_lanes or not any(loop.kind == "reduction" for loop in loops) or vectors > MAX_TILE_VECTORS
        if vectors > STEP_VECTORS and stepped and not in_lanes:
            return loops[start:]
        vectors = min(vectors, STEP_VECTORS) if stepped else vectors
    while start > 0:
        loop = loops[start - 1]
        wanted = reduces or loop.annotation == "unroll"
        if loop.attached or loop.kind == "reduction" or not wanted or vectors * loop.trips > MAX_TILE_VECTORS:
            break
        vectors *= loop.trips
        start -= 1
    return loops[start:]
