"""Passes: long vector loops are cut into steps, and the loops of a register tile become one piece.

What the tile of a stage is says its schedule (`ansor_py.lower.register_tile`). The accumulators of a tile stay in registers
through the reduction loops right around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ansor_py.errors import LoweringError
from ansor_py.lower.ir import Chain, For, Node, Program, ReductionLoop, Tile, TileLoop, nested, rewritten
from ansor_py.lower.nest import Statement
from ansor_py.lower.passes.tails import is_sum_of_loops
from ansor_py.lower.register_tile import MAX_TILE_VECTORS, StageTile
from ansor_py.te.expr import (
    INDEX,
    Binary,
    Const,
    Expr,
    Var,
    compare,
    equal,
    logical_and,
    minimum,
    reduction_identity,
    select,
    substitute,
    variables_of,
)
from ansor_py.te.simplify import Simplifier

# A vectorised loop of an element-wise stage, or of a reduction over lanes, is emitted in steps of this many vectors.
STEP_VECTORS = 4


@dataclass(frozen=True)
class _Parts:
    """The loops of a stage, outermost first: serial ones, the reduction loops around the tile, the tile itself."""

    serial: tuple[For, ...]
    reduction: tuple[For, ...]
    tile: tuple[For, ...]

    @property
    def vector(self) -> For | None:
        """The loop in lanes."""
        return self.tile[-1] if self.tile and self.tile[-1].annotation == "vectorize" else None


def step_vector_loops(program: Program) -> Program:
    """The program whose vector loops have a few vectors at most where the schedule does not state a register tile."""
    ranges = dict(program.ranges)

    def rewrite(chain: Chain) -> Sequence[Node]:
        tile, parts = _tile_of(chain), _parts(chain)
        width, vector = STEP_VECTORS * tile.lanes, parts.vector
        if tile.stated or vector is None or vector.trips <= width or not _may_step(vector, parts, tile):
            return nested(chain.loops, [chain.statement])
        steps, lanes, statement = _stepped(vector, chain.statement, width, ranges)
        inside = [*parts.reduction, steps] if vector.kind == "reduction" else [steps, *parts.reduction]
        return nested([*parts.serial, *inside, lanes], [statement])

    regions = rewritten(program, rewrite).regions
    return replace(program, regions=regions, ranges=ranges)


def form_tiles(program: Program) -> Program:
    """The program with every statement, and the loops of its register tile, as a tile."""

    def rewrite(chain: Chain) -> Sequence[Node]:
        parts, tile, statement = _parts(chain), _tile_of(chain), chain.statement
        outer = [loop.variable for loop in parts.serial if loop.kind == "reduction"]
        value, predicates = _predicated(chain, program)
        formed = Tile(
            statement.stage,
            statement.buffer,
            statement.indices,
            value,
            statement.combiner,
            tuple(_tile_loop(loop, {loop.variable for loop in parts.tile}, program.simplifier) for loop in parts.tile),
            parts.vector.variable if parts.vector is not None else None,
            tile.lanes,
            parts.vector is not None and parts.vector.kind == "reduction",
            tile.kernel,
            tuple(ReductionLoop(loop.variable, loop.extent, loop.trips, 1, loop.attached) for loop in parts.reduction),
            logical_and(*(equal(Var(name), 0) for name in outer)) if outer else None,
            predicates,
            statement.unroll_limit,
        )
        return nested(parts.serial, [formed])

    return rewritten(program, rewrite)


def _tile_of(chain: Chain) -> StageTile:
    assert chain.statement.tile is not None, "programs are made with a target"
    return chain.statement.tile


def _parts(chain: Chain) -> _Parts:
    """The loops of a stage by what they become. Raises LoweringError for a tile with loops between, or too large a one."""
    tile, stage, loops = _tile_of(chain), chain.statement.stage, chain.loops
    named = {f"{stage}/{name}" for name in tile.loops}
    # A vector loop that was cut into steps has another name.
    is_inside = [loop.variable in named or (loop is loops[-1] and loop.annotation == "vectorize") for loop in loops]
    start = is_inside.index(True) if any(is_inside) else len(loops)
    for loop, inside in zip(loops[start:], is_inside[start:], strict=True):
        if not inside:
            raise LoweringError(
                f"register tile of stage '{stage}': loop '{loop.variable}' of {loop.trips} iterations lies inside it; "
                "name it, too, or reorder"
            )
    first = start
    while first > 0 and loops[first - 1].kind == "reduction":
        first -= 1
    parts = _Parts(loops[:first], loops[first:start], loops[start:])
    accumulators = prod(-(-loop.trips // (tile.lanes if loop is parts.vector else 1)) for loop in parts.tile)
    if tile.stated and chain.statement.combiner is not None and accumulators > MAX_TILE_VECTORS:
        raise LoweringError(
            f"register tile of stage '{stage}': it has {accumulators} accumulators, and {MAX_TILE_VECTORS} are the most; "
            "take shorter lengths"
        )
    return parts


def _may_step(vector: For, parts: _Parts, tile: StageTile) -> bool:
    """Whether a vector loop may be cut into steps: not where vectors side by side share a pass through a reduction."""
    reduces = any(loop.kind == "reduction" for loop in (*parts.serial, *parts.reduction))
    return vector.kind == "reduction" or not reduces or -(-vector.trips // tile.lanes) > MAX_TILE_VECTORS


def _tile_loop(loop: For, inside: set[str], simplifier: Simplifier) -> TileLoop:
    """A loop of a tile whose loops are `inside`."""
    if _is_full(loop):
        return TileLoop(loop.variable, loop.trips)
    rests = _rests(loop.extent, loop.trips, simplifier) if not inside & variables_of(loop.extent) else None
    return TileLoop(loop.variable, loop.trips, loop.extent, rests.pop() if rests is not None and len(rests) == 1 else None)


def _rests(extent: Expr, trips: int, simplifier: Simplifier) -> set[int] | None:
    """How many of its iterations a loop may have where it has not all of them; None if that cannot be told.

    What is left of an axis, `13 - 4 * i`, is the same number below 4 wherever it is below 4.
    """
    if isinstance(extent, Binary) and extent.op == "min":
        sides = [_rests(side, trips, simplifier) for side in extent.operands]
        return None if None in sides else set[int]().union(*(side for side in sides if side is not None))
    left = simplifier.linear(extent)
    if any(coefficient % trips for _, coefficient in left.terms):
        return None
    return {left.constant % trips} - {0}


def _is_full(loop: For) -> bool:
    return isinstance(loop.extent, Const) and loop.extent.value == loop.trips


def _stepped(loop: For, statement: Statement, width: int, ranges: dict[str, tuple[int, int]]) -> tuple[For, For, Statement]:
    """A long vector loop cut into steps of `width`: loop over steps, loop in lanes, rewritten statement."""
    outer, inner = f"{loop.variable}.step", f"{loop.variable}.lane"
    steps = -(-loop.trips // width)
    ranges[outer], ranges[inner] = (0, steps - 1), (0, width - 1)
    simplify = Simplifier(ranges).simplify
    value = {loop.variable: Var(outer) * width + Var(inner)}
    count = simplify((loop.extent + (width - 1)) // width)
    left = simplify(minimum(Const(width, INDEX), loop.extent - Var(outer) * width))
    step_loop = For(outer, count, loop.body, steps, loop.kind)
    lane_loop = replace(loop, variable=inner, extent=left, trips=width)
    rewritten_statement = replace(
        statement,
        indices=tuple(simplify(substitute(index, value)) for index in statement.indices),
        value=simplify(substitute(statement.value, value)),
        guards=tuple((simplify(substitute(v, value)), limit) for v, limit in statement.guards),
    )
    return step_loop, lane_loop, rewritten_statement


def _predicated(chain: Chain, program: Program) -> tuple[Expr, tuple[Expr, ...]]:
    """Guards that loop extents cannot express: a reduction's become part of the value, others predicates of the store."""
    statement, simplifier = chain.statement, program.simplifier
    reductions = {loop.variable for loop in chain.loops if loop.kind == "reduction"}
    value = statement.value
    predicates: list[Expr] = []
    for guard, limit in statement.guards:
        if is_sum_of_loops(guard, chain.variables, simplifier):
            continue
        condition = simplifier.simplify(compare("lt", guard, limit))
        if variables_of(guard) & reductions:
            if statement.combiner is None:
                raise LoweringError(f"stage '{statement.stage}' has a reduction loop but no combiner")
            value = select(condition, value, reduction_identity(statement.combiner, value.dtype))
        else:
            predicates.append(condition)
    return value, tuple(predicates)
