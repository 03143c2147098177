"""Passes: long vector loops are cut into steps, and the loops that form a register tile become one.

The accumulators of a tile stay in registers through the reduction loops right around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansor_py.errors import LoweringError
from ansor_py.lower.ir import Chain, For, Node, Program, ReductionLoop, Tile, TileLoop, nested, rewritten
from ansor_py.lower.nest import Statement
from ansor_py.lower.passes.tails import is_sum_of_loops
from ansor_py.target import Target
from ansor_py.te.expr import (
    DTYPE_BYTES,
    INDEX,
    Const,
    Expr,
    Var,
    compare,
    equal,
    logical_and,
    minimum,
    reads_of,
    reduction_identity,
    select,
    substitute,
    variables_of,
)
from ansor_py.te.simplify import Simplifier

# More accumulators than this (in vectors) do not stay in registers on any machine; the tile is made smaller instead.
MAX_TILE_VECTORS = 64
# A vectorised loop of an element-wise stage, or of a reduction over lanes, is emitted in steps of this many vectors.
STEP_VECTORS = 4


@dataclass(frozen=True)
class _Parts:
    """The loops of a stage, outermost first: serial ones, the reduction loops around the tile, the tile itself."""

    serial: tuple[For, ...]
    reduction: tuple[For, ...]
    tile: tuple[For, ...]
    vector: For | None


def step_vector_loops(program: Program) -> Program:
    """The program whose vector loops outside of register tiles have a few vectors at most."""
    ranges = dict(program.ranges)

    def rewrite(chain: Chain) -> Sequence[Node]:
        parts = _parts(chain, program.target)
        width = STEP_VECTORS * lanes_of(chain.statement, program.target)
        vector = parts.vector
        if vector is None or vector.trips <= width:
            return nested(chain.loops, [chain.statement])
        fits = -(-vector.trips // lanes_of(chain.statement, program.target)) <= MAX_TILE_VECTORS
        if not (_is_stepped(chain) or not fits):
            return nested(chain.loops, [chain.statement])
        steps, lanes, statement = _stepped(vector, chain.statement, width, ranges)
        tile = [*parts.tile[:-1], lanes]
        loops = (
            [*parts.serial, *parts.reduction, steps] if vector.kind == "reduction" else [*parts.serial, steps, *parts.reduction]
        )
        return nested([*loops, *tile], [statement])

    regions = rewritten(program, rewrite).regions
    return replace(program, regions=regions, ranges=ranges)


def form_tiles(program: Program) -> Program:
    """The program with every statement, and the loops right around it, as a tile."""

    def rewrite(chain: Chain) -> Sequence[Node]:
        parts = _parts(chain, program.target)
        outer = [loop.variable for loop in parts.serial if loop.kind == "reduction"]
        value, predicates = _predicated(chain, program)
        statement = chain.statement
        tile = Tile(
            statement.stage,
            statement.buffer,
            statement.indices,
            value,
            statement.combiner,
            tuple(TileLoop(loop.variable, loop.trips, None if _is_full(loop) else loop.extent) for loop in parts.tile),
            parts.vector.variable if parts.vector is not None else None,
            lanes_of(statement, program.target),
            parts.vector is not None and parts.vector.kind == "reduction",
            tuple(ReductionLoop(loop.variable, loop.extent, loop.trips, 1, loop.attached) for loop in parts.reduction),
            logical_and(*(equal(Var(name), 0) for name in outer)) if outer else None,
            predicates,
            statement.unroll_limit,
        )
        return nested(parts.serial, [tile])

    return rewritten(program, rewrite)


def lanes_of(statement: Statement, target: Target) -> int:
    """Lanes of a vector loop around the statement: as many as there are of its widest numbers."""
    dtypes = {statement.value.dtype, statement.buffer.dtype, *(read.dtype for read in reads_of(statement.value))}
    return max(2, target.vector_bytes // max(DTYPE_BYTES[dtype] for dtype in dtypes))


def _parts(chain: Chain, target: Target) -> _Parts:
    start = _tile_start(chain, target)
    first_reduction = start
    while first_reduction > 0 and chain.loops[first_reduction - 1].kind == "reduction":
        first_reduction -= 1
    tile = chain.loops[start:]
    vector = tile[-1] if tile and tile[-1].annotation == "vectorize" else None
    return _Parts(chain.loops[:first_reduction], chain.loops[first_reduction:start], tile, vector)


def _tile_start(chain: Chain, target: Target) -> int:
    """The position from which on the loops form the tile."""
    loops, statement = chain.loops, chain.statement
    start = len(loops)
    vectors = 1
    if start and loops[-1].annotation == "vectorize" and not loops[-1].attached:
        start -= 1
        vectors = -(-loops[-1].trips // lanes_of(statement, target))
        stepped = _is_stepped(chain) or vectors > MAX_TILE_VECTORS
        if vectors > STEP_VECTORS and stepped and loops[-1].kind == "spatial":
            return start  # the loop over steps stands right outside the tile
        vectors = min(vectors, STEP_VECTORS) if stepped else vectors
    while start > 0:
        loop = loops[start - 1]
        wanted = loop.annotation == "unroll" or statement.combiner is not None
        if loop.attached or loop.kind == "reduction" or not wanted or vectors * loop.trips > MAX_TILE_VECTORS:
            break
        vectors *= loop.trips
        start -= 1
    return start


def _is_stepped(chain: Chain) -> bool:
    """Whether the vector loop may be cut into steps: not where it belongs to a register tile inside a reduction."""
    if chain.statement.combiner is None or chain.loops[-1].kind == "reduction":
        return True
    return not any(loop.kind == "reduction" for loop in chain.loops)


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
    every = {name for name in program.ranges if name.startswith(f"{statement.stage}/")}
    value = statement.value
    predicates: list[Expr] = []
    for guard, limit in statement.guards:
        if is_sum_of_loops(guard, every, simplifier):
            continue
        condition = simplifier.simplify(compare("lt", guard, limit))
        if variables_of(guard) & reductions:
            if statement.combiner is None:
                raise LoweringError(f"stage '{statement.stage}' has a reduction loop but no combiner")
            value = select(condition, value, reduction_identity(statement.combiner, value.dtype))
        else:
            predicates.append(condition)
    return value, tuple(predicates)
