"""Tiles to LLVM instructions: accumulators in registers, vector lanes, masks at the edges.

A tile with limits is emitted twice: whole, without any condition in its body, and as an edge. Where it is known how many
iterations are left at an edge, that version is a tile of so many. In other edge versions iterations past the limit repeat the
last valid one (they compute and store the same value again), and lanes past it are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle

from ansor_py.codegen.accumulator_writer import AccumulatorWriter
from ansor_py.codegen.addresses import REGISTER_TYPES, Coordinate, Value
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.codegen.lane_reductions import across_lanes
from ansor_py.codegen.panel_prefetch import prefetch_panels
from ansor_py.codegen.stores import store
from ansor_py.codegen.tile_sums import Sums, sums_side_by_side
from ansor_py.codegen.transposition import (
    FEWEST_ROWS,
    Point,
    load_accumulators,
    load_transposed,
    store_transposed,
    transposed_loop,
    transposed_reads,
)
from ansor_py.codegen.vector_operations import constant, shaped
from ansor_py.lower.ir import REGISTERS, Node, ReductionLoop, Tile, TileLoop
from ansor_py.te.expr import COMBINERS, Binary, Const, Expr, reads_of, reduction_identity


def _with_extent(tile: Tile, loop: TileLoop, extent: int) -> Tile:
    """The tile with all of so many iterations of one of its loops."""
    return replace(tile, loops=tuple(TileLoop(o.variable, extent) if o is loop else o for o in tile.loops))


class TileEmitter:
    """Emits tiles with an expression emitter; `emit_nodes` is called for what is attached to a reduction loop."""

    def __init__(
        self,
        expressions: ExpressionEmitter,
        constants: frozenset[str],
        emit_nodes: Callable[[Sequence[Node]], None],
    ) -> None:
        self.expressions = expressions
        self.constants = constants
        self.around: list[str] = []  # variables of the loops around the next tile, outermost first
        self.text = expressions.text
        self.target = expressions.target
        self.emit_nodes = emit_nodes

    def emit(self, tile: Tile, fewest_rows: int = FEWEST_ROWS) -> None:
        """Emit a tile: whole where all its iterations exist, else as an edge. `fewest_rows` are transposed in registers."""
        known = next((loop for loop in tile.loops if loop.limit is not None and loop.rest is not None), None)
        if known is not None and not (tile.reduces_lanes and known.variable == tile.vector):
            assert known.limit is not None
            assert known.rest is not None
            whole = self.text.emit(f"icmp sge i64 {self.expressions.index(known.limit)}, {known.extent}")
            fewest_left = 1 if known.extent >= fewest_rows else fewest_rows  # of what is transposed elsewhere
            versions = ((known.extent, fewest_rows), (known.rest, fewest_left))
            self._either(whole, *(partial(self.emit, _with_extent(tile, known, rows), fewest) for rows, fewest in versions))
            return
        condition = self._whole(tile)
        if condition is None:
            self._version(tile, False, fewest_rows)
        else:
            self._either(condition, *(partial(self._version, tile, edge, fewest_rows) for edge in (False, True)))

    def _either(self, condition: str, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Emit two versions, of which the condition chooses one."""
        full, edge, after = self.text.name("full"), self.text.name("edge"), self.text.name("after")
        self.text.do(f"br i1 {condition}, label %{full}, label %{edge}")
        for label, version in ((full, then), (edge, otherwise)):
            self.text.start(label)
            self.expressions.enter()
            version()
            self.expressions.leave()
            self.text.do(f"br label %{after}")
        self.text.start(after)

    def _whole(self, tile: Tile) -> str | None:
        """The condition that every point exists; None if nothing limits the tile. (Lanes of a reduction are masked anyway.)"""
        outside = dict(self.expressions.coordinates)
        self.expressions.coordinates.update((loop.variable, Coordinate(None, loop.extent - 1)) for loop in tile.loops)
        whole: str | None = None
        for loop in tile.loops:
            if loop.limit is None or (tile.reduces_lanes and loop.variable == tile.vector):
                continue
            reached = self.text.emit(f"icmp sge i64 {self.expressions.index(loop.limit)}, {loop.extent}")
            whole = reached if whole is None else self.text.emit(f"and i1 {whole}, {reached}")
        self.expressions.coordinates = outside
        return whole

    def _version(self, tile: Tile, edge: bool, fewest_rows: int) -> None:
        self.expressions.forget_values()
        outside, pointers = dict(self.expressions.coordinates), dict(self.expressions.pointers)
        transposed = transposed_reads(self.expressions, tile, fewest_rows) if tile.combiner is None else None
        if tile.combiner is not None:
            self._reduction(tile, tile.combiner, self._points(tile, edge), edge, fewest_rows)
        elif transposed is not None:
            others = replace(tile, loops=tuple(loop for loop in tile.loops if loop is not transposed.row))
            for point in load_transposed(self.expressions, tile, transposed, self._points(others, edge), edge):
                self._store(tile, point.mask)
        else:
            for point in self._points(tile, edge):
                self._place(tile, point)
                self._store(tile, self._predicate(tile, point))
        self.expressions.coordinates, self.expressions.pointers = outside, pointers
        self.expressions.lane_variable, self.expressions.lanes = None, 0
        self.expressions.forget_values()

    def _store(self, tile: Tile, predicate: Value | None) -> None:
        """Compute and store the point where everything stands."""
        value = self.expressions.value(tile.value, predicate)
        store(self.expressions, tile.buffer, tile.indices, value, predicate)

    # Points.

    def _points(self, tile: Tile, edge: bool) -> list[Point]:
        """All points, the vectors of a row next to each other. Limits may depend on the loops further out."""
        scalar = [loop for loop in tile.loops if loop.variable != tile.vector]
        points: list[Point] = []

        def visit(position: int, at: tuple[tuple[str, Coordinate], ...]) -> None:
            if position == len(scalar):
                points.extend(self._vectors(tile, at, edge))
                return
            loop = scalar[position]
            for row in range(loop.extent):
                coordinate = self._row(loop, row, edge)
                self.expressions.coordinates[loop.variable] = coordinate
                visit(position + 1, (*at, (loop.variable, coordinate)))

        visit(0, ())
        return points

    def _row(self, loop: TileLoop, row: int, edge: bool) -> Coordinate:
        """Where iteration `row` stands: at an edge, on the last one that exists if it does not."""
        if loop.limit is None or row == 0 or not edge:
            return Coordinate(None, row)
        last = self.text.emit(f"sub i64 {self.expressions.index(loop.limit)}, 1")
        return Coordinate(self.text.call("i64", "llvm.smin.i64", f"i64 {row}, i64 {last}", "i64, i64"))

    def _vectors(self, tile: Tile, row: tuple[tuple[str, Coordinate], ...], edge: bool) -> list[Point]:
        """The vectors that the lane loop consists of, the last one perhaps shorter."""
        if tile.vector is None:
            return [Point(row, 0, None)]
        loop = tile.loops[-1]
        widest = tile.lanes
        points: list[Point] = []
        start = 0
        while start < loop.extent:
            left = loop.extent - start
            lanes = widest if left >= widest else max(2, 1 << (left - 1).bit_length())
            mask: Value | None = None
            if loop.limit is not None and edge and not tile.reduces_lanes:
                mask = self.expressions.lanes_below(self.expressions.index(loop.limit), start, lanes)
            elif left < lanes:
                mask = self.expressions.lanes_below(str(loop.extent), start, lanes)
            points.append(Point((*row, (tile.vector, Coordinate(None, start))), lanes, mask))
            start += lanes
        return points

    def _place(self, tile: Tile, point: Point) -> None:
        self.expressions.coordinates.update(point.coordinates)
        self.expressions.lane_variable, self.expressions.lanes = (tile.vector, point.lanes) if point.lanes else (None, 0)

    def _predicate(self, tile: Tile, point: Point) -> Value | None:
        predicate = point.mask
        if tile.reduces_lanes and point.lanes and tile.loops[-1].limit is not None:
            start = self.expressions.coordinates[tile.loops[-1].variable].offset
            limit = self.expressions.index(tile.loops[-1].limit)
            predicate = self.expressions.both(predicate, self.expressions.lanes_below(limit, start, point.lanes))
        for condition in tile.predicates:
            predicate = self.expressions.both(predicate, self.expressions.value(condition, None))
        return predicate

    # Reductions.

    def _reduction(self, tile: Tile, combiner: str, points: list[Point], edge: bool, fewest_rows: int) -> None:
        types = [shaped(REGISTER_TYPES[tile.value.dtype], point.lanes) for point in points]
        identity = [constant(reduction_identity(combiner, tile.value.dtype).value, kind) for kind in types]
        start = identity
        row = None if tile.reduces_lanes else transposed_loop(self.expressions, tile, fewest_rows)
        if tile.first is not None and not tile.reduces_lanes:
            start = self._initial(tile, tile.first, points, types, start, row, edge)
        count = sums_side_by_side(tile, len(points), self.target)
        sums = Sums(points, types * count, cycle(range(count)))
        results = self._together(tile, combiner, points, self._loops(tile, combiner, sums, start + identity * (count - 1), 0))
        self.expressions.forget_values()
        if tile.reduces_lanes:
            self._store_lane_results(tile, combiner, points, results)
            return
        if tile.epilogue is not None:
            results = self._after(tile, tile.epilogue, points, results)
        if row is not None:
            store_transposed(self.expressions, tile, row, points, results, edge)
            return
        stored = tile.value if tile.epilogue is None else tile.epilogue
        for point, result in zip(points, results, strict=True):
            self._place(tile, point)
            value = Value(result, stored.dtype, point.lanes)
            store(self.expressions, tile.buffer, tile.indices, value, self._predicate(tile, point))

    def _together(self, tile: Tile, combiner: str, points: list[Point], results: list[str]) -> list[str]:
        """The accumulators of all points from those of several sums side by side."""
        found = [Value(result, tile.value.dtype, points[number % len(points)].lanes) for number, result in enumerate(results)]
        while len(found) > len(points):
            last = found.pop()
            found[-len(points)] = self._merge(combiner, found[-len(points)], last)
        return [value.name for value in found]

    def _after(self, tile: Tile, epilogue: Expr, points: list[Point], results: list[str]) -> list[str]:
        """What the epilogue makes of the accumulators; all is read before the first result is stored."""
        values: list[str] = []
        for point, result in zip(points, results, strict=True):
            self._place(tile, point)
            registers = Value(result, tile.value.dtype, point.lanes)
            value = self.expressions.value_of_registers(epilogue, REGISTERS, registers, self._predicate(tile, point))
            values.append(self.expressions.broadcast(value, point.lanes).name)
        return values

    def _initial(
        self,
        tile: Tile,
        first: Expr,
        points: list[Point],
        types: list[str],
        identity: list[str],
        row: TileLoop | None,
        edge: bool,
    ) -> list[str]:
        """The accumulators at the start of the promoted loops: the identity in the first round, else what is in memory."""
        loading, ready = self.text.name("load"), self.text.name("ready")
        is_first = self.expressions.value(first, None)
        before = self.text.block
        self.text.do(f"br i1 {is_first.name}, label %{ready}, label %{loading}")
        self.text.start(loading)
        self.expressions.enter()
        if row is not None:
            loaded = load_accumulators(self.expressions, tile, row, points, edge)
        else:
            loaded = [self._load(tile, point).name for point in points]
        self.expressions.leave()
        inside = self.text.block
        self.text.do(f"br label %{ready}")
        self.text.start(ready)
        return [
            self.text.emit(f"phi {kind} [ {start}, %{before} ], [ {value}, %{inside} ]")
            for kind, start, value in zip(types, identity, loaded, strict=True)
        ]

    def _load(self, tile: Tile, point: Point) -> Value:
        self._place(tile, point)
        return self.expressions.load(tile.buffer, tile.indices, self._predicate(tile, point))

    def _loops(self, tile: Tile, combiner: str, sums: Sums, accumulators: list[str], level: int) -> list[str]:
        """Emit the reduction loops from `level` on; returns the accumulators after them."""
        points = sums.points
        if level == len(tile.reduction):
            first = next(sums.turns) * len(points)
            mine = slice(first, first + len(points))
            return [
                *accumulators[:first],
                *self._update(tile, combiner, points, accumulators[mine]),
                *accumulators[mine.stop :],
            ]
        loop = tile.reduction[level]
        count = loop.extent.value if isinstance(loop.extent, Const) else None
        if count is not None and loop.unroll == count and not loop.prologue:
            for step in range(int(count)):
                self._between_steps(step, tile, sums)
                self.expressions.coordinates[loop.variable] = Coordinate(None, step)
                accumulators = self._loops(tile, combiner, sums, accumulators, level + 1)
            return accumulators
        end = self.expressions.index(loop.extent)
        if loop.unroll == 1:
            return self._rounds(tile, combiner, sums, accumulators, level, "0", end, 1, count is not None)
        if count is not None:
            whole = str(int(count) // loop.unroll * loop.unroll)
        else:
            rest = self.text.emit(f"urem i64 {end}, {loop.unroll}")
            whole = self.text.emit(f"sub i64 {end}, {rest}")
        accumulators = self._rounds(tile, combiner, sums, accumulators, level, "0", whole, loop.unroll, count is not None)
        if whole != end:
            accumulators = self._rounds(tile, combiner, sums, accumulators, level, whole, end, 1, count is not None)
        return accumulators

    def _rounds(
        self,
        tile: Tile,
        combiner: str,
        sums: Sums,
        accumulators: list[str],
        level: int,
        begin: str,
        end: str,
        unroll: int,
        certain: bool,
    ) -> list[str]:
        """One loop of a reduction, `unroll` iterations a round."""
        loop: ReductionLoop = tile.reduction[level]
        with self.text.loop(begin, end, list(zip(sums.types, accumulators, strict=True)), unroll, certain) as opened:
            self.expressions.enter(opened.index)
            pointers = dict(self.expressions.pointers)
            current = opened.carried
            for step in range(unroll):
                self._between_steps(step, tile, sums)
                self.expressions.coordinates[loop.variable] = Coordinate(opened.index, step)
                if loop.prologue:
                    self._attached(loop.prologue)
                current = self._loops(tile, combiner, sums, current, level + 1)
            opened.updated = current
            self.expressions.pointers = pointers
            self.expressions.leave()
        return opened.results

    def _between_steps(self, step: int, tile: Tile, sums: Sums) -> None:
        """Keep LLVM from moving loads across unrolled steps where accumulators fill the registers, which would spill."""
        if step and 2 * len(sums.types) > self.target.vector_registers:
            self.expressions.hide_pointers(sorted({read.tensor.name for read in reads_of(tile.value)}))
            self.expressions.forget_values()

    def _attached(self, nodes: Sequence[Node]) -> None:
        """What is computed inside a reduction loop uses the same emitter; the tile's own position is restored after it."""
        coordinates = dict(self.expressions.coordinates)
        lane_variable, lanes = self.expressions.lane_variable, self.expressions.lanes
        self.expressions.lane_variable, self.expressions.lanes = None, 0
        self.emit_nodes(nodes)
        self.expressions.coordinates = coordinates
        self.expressions.lane_variable, self.expressions.lanes = lane_variable, lanes
        self.expressions.forget_values()

    def _update(self, tile: Tile, combiner: str, points: list[Point], accumulators: list[str]) -> list[str]:
        vectors = -(-tile.loops[-1].extent // tile.lanes) if tile.vector is not None else 1
        order = list(range(len(points)))
        columns = tile.kernel.goes_by_columns(len(points) // vectors, vectors, self.target)
        if columns:
            order.sort(key=lambda number: number % vectors)
        self._place(tile, points[0])
        prefetch_panels(self.expressions, tile, self.constants, self.around)
        updated = list(accumulators)
        for number in order:
            self._place(tile, points[number])
            if columns and number and number < vectors:  # or LLVM loads the vectors of all columns first
                flat = ((read, self.expressions.flat_index(read.tensor, read.indices)) for read in reads_of(tile.value))
                self.expressions.hide_pointers(sorted({r.tensor.name for r, index in flat if index.stride(tile.vector)}))
            old = Value(accumulators[number], tile.value.dtype, points[number].lanes)
            updated[number] = self._combined(tile, combiner, old, points[number]).name
        return updated

    def _combined(self, tile: Tile, combiner: str, old: Value, point: Point) -> Value:
        predicate = self._predicate(tile, point)
        value = tile.value
        masked = tile.reduces_lanes and predicate is not None
        if tile.kernel.update is not None and isinstance(value, Binary) and value.op == "mul" and not masked:
            writer = AccumulatorWriter(self.expressions, value.operands, predicate, old)
            return Value(tile.kernel.update(writer, old.name), old.dtype, old.lanes)
        new = self.expressions.broadcast(self.expressions.value(value, predicate), old.lanes)
        if masked and predicate is not None:
            mask = self.expressions.broadcast(predicate, old.lanes)
            neutral = constant(reduction_identity(combiner, old.dtype).value, old.type)
            chosen = self.text.emit(f"select {mask.type} {mask.name}, {new.type} {new.name}, {new.type} {neutral}")
            new = Value(chosen, old.dtype, old.lanes)
        # The new value first: of a maximum's operands the first is tested for NaN, which the accumulator need not wait for.
        return self._merge(combiner, new, old)

    def _merge(self, combiner: str, a: Value, b: Value) -> Value:
        one = Const(1, a.dtype)
        return self.expressions.binary(Binary(COMBINERS[combiner], one, one), a, b)

    def _store_lane_results(self, tile: Tile, combiner: str, points: list[Point], results: list[str]) -> None:
        """Combine the partial results of all lanes and chunks of each row, and what is in memory, into one element.

        All loads come before the first store, because rows past an edge repeat the last one.
        """
        totals: list[tuple[Point, Value]] = []
        rows: dict[tuple[tuple[str, Coordinate], ...], list[Value]] = {}
        for point, result in zip(points, results, strict=True):
            rows.setdefault(point.coordinates[:-1], []).append(Value(result, tile.value.dtype, point.lanes))
        for row, parts in rows.items():
            by_lanes: dict[int, Value] = {}
            for part in parts:
                by_lanes[part.lanes] = self._merge(combiner, by_lanes[part.lanes], part) if part.lanes in by_lanes else part
            scalars = [across_lanes(combiner, value, self.text) for value in by_lanes.values()]
            total = scalars[0]
            for scalar in scalars[1:]:
                total = self._merge(combiner, total, scalar)
            self._place(tile, Point(row, 0, None))
            if tile.first is not None:
                is_first = self.expressions.value(tile.first, None)
                old = self.expressions.load(tile.buffer, tile.indices, None)
                merged = self._merge(combiner, old, total)
                chosen = self.text.emit(f"select i1 {is_first.name}, {total.type} {total.name}, {total.type} {merged.name}")
                total = Value(chosen, total.dtype)
            totals.append((Point(row, 0, None), total))
        for point, total in totals:
            self._place(tile, point)
            store(self.expressions, tile.buffer, tile.indices, total, self._predicate(tile, point))
