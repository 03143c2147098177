"""Lowering: from a state to the loop IR, in four passes over the scheduled nest.

1. simplify: indices become sums over loop variables, loops of extent 1 disappear;
2. tails: loops whose tile lengths do not divide get the extent that is left (no condition in any body), or, inside the
   tile, a limit that code generation turns into masks;
3. register promotion: the spatial loops inside the innermost reduction become a tile whose accumulators stay in
   registers through those reduction loops;
4. unrolling: how many iterations of them are emitted at a time, within the stage's limit.

    program = lower(state, target)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansor_py.errors import LoweringError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.ir import For, If, Node, Program, ReductionLoop, Region, Tile, TileLoop
from ansor_py.lower.nest import Loop, Nest, Statement, build_nest
from ansor_py.lower.nest import Node as NestNode
from ansor_py.lower.storage import shared_storage
from ansor_py.schedule.state import Annotation, State
from ansor_py.target import Target
from ansor_py.te.expr import (
    DTYPE_BYTES,
    INDEX,
    AxisKind,
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
# Loops marked for unrolling are emitted as loops beyond this many iterations.
MAX_UNROLLED = 16


@dataclass(frozen=True)
class ChainLoop:
    """One loop of a stage with what is attached to it; `extent` is the constant one, `bound` what is left at run time."""

    variable: str
    extent: int
    kind: AxisKind
    annotation: Annotation
    attached: tuple[NestNode, ...]
    bound: Expr


def lower(state: State, target: Target) -> Program:
    """Lower a concrete state; raises ScheduleError or LoweringError if that is impossible."""
    bounds = infer_bounds(state)
    nest = build_nest(state, bounds, shared_storage(state, bounds))
    lowering = _Lowering(nest, target)
    regions = tuple(lowering.region(node) for node in nest.body if not _never_runs(node))
    return Program(regions, nest.buffers, dict(lowering.ranges))


def _never_runs(node: NestNode) -> bool:
    """Whether a stage's loops have no iteration, because its tensor has no elements."""
    while isinstance(node, Loop):
        if node.extent == 0:
            return True
        node = node.body[-1]
    return False


class _Lowering:
    """The passes, with the ranges of all loop variables and the simplifier that uses them."""

    def __init__(self, nest: Nest, target: Target) -> None:
        self.target = target
        self.ranges: dict[str, tuple[int, int]] = {}
        pending: list[NestNode] = list(nest.body)
        while pending:
            node = pending.pop()
            if isinstance(node, Loop):
                self.ranges[node.variable] = (0, node.extent - 1)
                pending.extend(node.body)
        self.simplifier = Simplifier(self.ranges)

    def region(self, node: NestNode) -> Region:
        prelude, chain, statement = self._chain(node, at_root=True)
        count = sum(loop.annotation == "parallel" for loop in chain)
        parallel = tuple((loop.variable, loop.extent) for loop in chain[:count])
        inner = self._nodes(chain[count:], statement, chain[:count])
        attached = self._attached(chain[count - 1].attached) if count else ()
        body = (*self._attached(prelude), *self._guarded_parallel(chain[:count], statement, (*attached, *inner)))
        return Region(statement.stage, parallel, body)

    def _attached(self, nodes: Sequence[NestNode]) -> tuple[Node, ...]:
        lowered: list[Node] = []
        for node in nodes:
            if _never_runs(node):
                continue
            prelude, chain, statement = self._chain(node, at_root=False)
            lowered.extend(self._attached(prelude))
            lowered.extend(self._nodes(chain, statement, ()))
        return tuple(lowered)

    # Pass 1: simplify.

    def _chain(self, node: NestNode, at_root: bool) -> tuple[tuple[NestNode, ...], list[ChainLoop], Statement]:
        """The loops of one stage without those of extent 1, whose attachments move outwards; and the simplified statement.

        Only the outermost loops of a stage at root run in parallel; the annotation is dropped everywhere else.
        """
        prelude: tuple[NestNode, ...] = ()
        chain: list[ChainLoop] = []
        while isinstance(node, Loop):
            attached = node.body[:-1]
            if node.extent > 1:
                bound = Const(node.extent, INDEX)
                chain.append(ChainLoop(node.variable, node.extent, node.kind, node.annotation, attached, bound))
            elif chain:
                chain[-1] = replace(chain[-1], attached=(*chain[-1].attached, *attached))
            else:
                prelude = (*prelude, *attached)
            node = node.body[-1]
        leading = at_root and not prelude
        for position, loop in enumerate(chain):
            leading = leading and loop.annotation == "parallel" and not (position and chain[position - 1].attached)
            if loop.annotation == "parallel" and not leading:
                chain[position] = replace(loop, annotation="none")
        simplify = self.simplifier.simplify
        statement = replace(
            node,
            indices=tuple(simplify(index) for index in node.indices),
            value=simplify(node.value),
            guards=tuple(
                (simplify(value), limit) for value, limit in node.guards if self.simplifier.interval(value)[1] >= limit
            ),
        )
        return prelude, self._with_tails(chain, statement), statement

    # Pass 2: tails.

    def _with_tails(self, chain: list[ChainLoop], statement: Statement) -> list[ChainLoop]:
        """Loops with the number of iterations that are left, from the guards; parallel loops stay rectangular."""
        position = {loop.variable: index for index, loop in enumerate(chain)}
        narrowed = list(chain)
        for value, limit in statement.guards:
            if not self._is_plain(value, position):
                continue
            terms = {atom.name: c for atom, c in self.simplifier.linear(value).terms if isinstance(atom, Var)}
            for name, coefficient in terms.items():
                loop = narrowed[position[name]]
                if loop.annotation == "parallel":
                    continue
                outer: Expr = Const(0, INDEX)
                for other, c in terms.items():
                    if position[other] < position[name]:
                        outer = outer + Var(other) * c
                left = (Const(limit + coefficient - 1, INDEX) - outer) // coefficient
                bound = self.simplifier.simplify(minimum(loop.bound, left))
                narrowed[position[name]] = replace(loop, bound=bound)
        return narrowed

    def _is_plain(self, value: Expr, position: dict[str, int]) -> bool:
        """Whether a guard is a sum of own loop variables with positive factors, so that loop extents can express it."""
        linear = self.simplifier.linear(value)
        return linear.constant == 0 and all(
            isinstance(atom, Var) and atom.name in position and c > 0 for atom, c in linear.terms
        )

    def _guarded_parallel(
        self, parallel: Sequence[ChainLoop], statement: Statement, body: tuple[Node, ...]
    ) -> tuple[Node, ...]:
        """Skip iterations of the (rectangular) parallel loops that lie past an end."""
        names = {loop.variable for loop in parallel}
        conditions: list[Expr] = []
        for value, limit in statement.guards:
            linear = self.simplifier.linear(value)
            start: Expr = Const(linear.constant, INDEX)
            for atom, c in linear.terms:
                if isinstance(atom, Var) and atom.name in names:
                    start = start + atom * c
            condition = self.simplifier.simplify(compare("lt", start, limit))
            if not isinstance(condition, Const):
                conditions.append(condition)
        return (If(logical_and(*conditions), body),) if conditions else body

    # Pass 3: register promotion.

    def _nodes(self, chain: Sequence[ChainLoop], statement: Statement, outside: Sequence[ChainLoop]) -> tuple[Node, ...]:
        """The IR of a stage's remaining loops; `outside` are its parallel loops."""
        first_tile = self._tile_start(chain, statement)
        first_reduction = first_tile
        if self._is_innermost_reduction(chain, first_tile):
            while first_reduction > 0 and chain[first_reduction - 1].kind == "reduction":
                first_reduction -= 1
        node: tuple[Node, ...] = self._tile(chain, first_reduction, first_tile, statement, outside)
        for loop in reversed(chain[:first_reduction]):
            unrolled = loop.annotation == "unroll" and isinstance(loop.bound, Const) and loop.extent <= MAX_UNROLLED
            node = (For(loop.variable, loop.bound, (*self._attached(loop.attached), *node), unrolled),)
        return node

    def _is_innermost_reduction(self, chain: Sequence[ChainLoop], first_tile: int) -> bool:
        """Whether no reduction loop lies inside the tile, except one that runs in lanes."""
        return all(loop.kind == "spatial" or loop.annotation == "vectorize" for loop in chain[first_tile:])

    def _tile_start(self, chain: Sequence[ChainLoop], statement: Statement) -> int:
        """The position from which on the loops form the tile."""
        start = len(chain)
        vectors = 1
        if start and chain[-1].annotation == "vectorize" and not chain[-1].attached:
            start -= 1
            lanes = self._lanes(statement)
            vectors = -(-chain[-1].extent // lanes)
            stepped = self._is_stepped(chain, statement) or vectors > MAX_TILE_VECTORS
            if vectors > STEP_VECTORS and stepped and chain[-1].kind == "spatial":
                return start  # the loop over steps stands right outside the tile
            vectors = min(vectors, STEP_VECTORS) if stepped else vectors
        while start > 0:
            loop = chain[start - 1]
            wanted = loop.annotation == "unroll" or statement.combiner is not None
            if loop.attached or loop.kind == "reduction" or not wanted or vectors * loop.extent > MAX_TILE_VECTORS:
                break
            vectors *= loop.extent
            start -= 1
        return start

    def _is_stepped(self, chain: Sequence[ChainLoop], statement: Statement) -> bool:
        """Whether the vector loop may be cut into steps: not where it belongs to a register tile inside a reduction."""
        if statement.combiner is None or chain[-1].kind == "reduction":
            return True
        return not any(loop.kind == "reduction" for loop in chain)

    def _lanes(self, statement: Statement) -> int:
        dtypes = {statement.value.dtype, statement.buffer.dtype, *(read.dtype for read in reads_of(statement.value))}
        return max(1, self.target.vector_bytes // max(DTYPE_BYTES[dtype] for dtype in dtypes))

    def _tile(
        self,
        chain: Sequence[ChainLoop],
        first_reduction: int,
        first_tile: int,
        statement: Statement,
        outside: Sequence[ChainLoop],
    ) -> tuple[Node, ...]:
        tiled = list(chain[first_tile:])
        promoted = list(chain[first_reduction:first_tile])
        vector = tiled[-1] if tiled and tiled[-1].annotation == "vectorize" else None
        step_loop: ChainLoop | None = None
        if vector is not None and vector.extent > STEP_VECTORS * self._lanes(statement):
            fits = -(-vector.extent // self._lanes(statement)) <= MAX_TILE_VECTORS
            if self._is_stepped(chain, statement) or not fits:
                step_loop, vector, statement = self._stepped(vector, statement)
                tiled[-1] = vector
                if vector.kind == "reduction":
                    promoted.append(step_loop)
        loops = tuple(TileLoop(loop.variable, loop.extent, None if self._is_full(loop) else loop.bound) for loop in tiled)
        value, predicates = self._predicated(chain, statement)
        outer_reductions = [loop.variable for loop in (*outside, *chain[:first_reduction]) if loop.kind == "reduction"]
        first: Expr | None = None
        if outer_reductions:
            first = logical_and(*(equal(Var(name), 0) for name in outer_reductions))
        tile = Tile(
            statement.stage,
            statement.buffer,
            statement.indices,
            value,
            statement.combiner,
            loops,
            vector.variable if vector is not None else None,
            vector is not None and vector.kind == "reduction",
            self._unrolled(promoted, tiled, statement),
            first,
            predicates,
        )
        if step_loop is not None and step_loop not in promoted:
            return (For(step_loop.variable, step_loop.bound, (tile,)),)
        return (tile,)

    @staticmethod
    def _is_full(loop: ChainLoop) -> bool:
        return isinstance(loop.bound, Const) and loop.bound.value == loop.extent

    def _stepped(self, loop: ChainLoop, statement: Statement) -> tuple[ChainLoop, ChainLoop, Statement]:
        """Cut a long vector loop into steps of a few vectors: loop over steps, loop in lanes, rewritten statement."""
        width = STEP_VECTORS * self._lanes(statement)
        outer, inner = f"{loop.variable}.step", f"{loop.variable}.lane"
        steps = -(-loop.extent // width)
        self.ranges[outer], self.ranges[inner] = (0, steps - 1), (0, width - 1)
        self.simplifier = Simplifier(self.ranges)
        value = {loop.variable: Var(outer) * width + Var(inner)}
        simplify = self.simplifier.simplify
        count = simplify((loop.bound + (width - 1)) // width)
        left = simplify(minimum(Const(width, INDEX), loop.bound - Var(outer) * width))
        step_loop = ChainLoop(outer, steps, loop.kind, "none", (), count)
        lane_loop = replace(loop, variable=inner, extent=width, bound=left)
        rewritten = replace(
            statement,
            indices=tuple(simplify(substitute(index, value)) for index in statement.indices),
            value=simplify(substitute(statement.value, value)),
            guards=tuple((simplify(substitute(v, value)), limit) for v, limit in statement.guards),
        )
        return step_loop, lane_loop, rewritten

    def _predicated(self, chain: Sequence[ChainLoop], statement: Statement) -> tuple[Expr, tuple[Expr, ...]]:
        """Guards that loop extents cannot express: a reduction's become part of the value, others predicates of the store."""
        reductions = {loop.variable for loop in chain if loop.kind == "reduction"}
        every = {name: 0 for name in self.ranges if name.startswith(f"{statement.stage}/")}
        value = statement.value
        predicates: list[Expr] = []
        for guard, limit in statement.guards:
            if self._is_plain(guard, every):
                continue
            condition = self.simplifier.simplify(compare("lt", guard, limit))
            if variables_of(guard) & reductions:
                if statement.combiner is None:
                    raise LoweringError(f"stage '{statement.stage}' has a reduction loop but no combiner")
                value = select(condition, value, reduction_identity(statement.combiner, value.dtype))
            else:
                predicates.append(condition)
        return value, tuple(predicates)

    # Pass 4: unrolling.

    def _unrolled(
        self, promoted: Sequence[ChainLoop], tiled: Sequence[ChainLoop], statement: Statement
    ) -> tuple[ReductionLoop, ...]:
        """Reduction loops with the number of iterations emitted at a time, innermost first, within the unroll limit."""
        instructions = 1
        for loop in tiled:
            lanes = self._lanes(statement) if loop.annotation == "vectorize" else 1
            instructions *= -(-loop.extent // lanes)
        result: list[ReductionLoop] = []
        may_unroll = True
        for loop in reversed(promoted):
            unroll = 1
            if may_unroll and not loop.attached:
                room = max(1, statement.unroll_limit // instructions)
                if isinstance(loop.bound, Const):
                    count = int(loop.bound.value)
                    unroll = max(d for d in range(1, min(room, count) + 1) if count % d == 0)
                    if unroll * 2 <= min(room, count):  # no good divisor: a remainder loop costs less
                        unroll = min(room, count)
                else:
                    unroll = min(room, loop.extent, 8)
            may_unroll = may_unroll and isinstance(loop.bound, Const) and unroll == loop.bound.value
            instructions *= unroll
            result.append(ReductionLoop(loop.variable, loop.bound, unroll, self._attached(loop.attached)))
        return tuple(reversed(result))
