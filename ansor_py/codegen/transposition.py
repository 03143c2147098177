"""Transpositions in registers: storing a finished tile along another loop than the one in lanes, and loading one so.

A convolution whose output channels run in lanes (its weights are packed for that) has its results one channel a lane, but
memory wants neighbouring pixels next to each other. Scattering lanes one by one costs a store an element; interleaving the
vectors of a row of pixels costs `log2(rows)` shuffles a vector, and then each lane's results are one vector to store.

    rows   a0 a1 a2 a3 | b0 b1 b2 b3      (lanes 0-3 of rows a and b)
    ->     a0 b0 a1 b1 | a2 b2 a3 b3      (columns 0 1 | 2 3, ready to be stored)

The other way round, a permuted copy reads an input whose elements are neighbours along a row of the tile, not along its lanes.
Gathering costs a load an element; a vector for each lane, along the rows, and the same shuffles give a vector for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ansor_py.codegen.addresses import REGISTER_TYPES, Coordinate, Value, memory_type
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.codegen.stores import store_first, store_run
from ansor_py.codegen.vector_operations import intrinsic_suffix
from ansor_py.lower.ir import Tile, TileLoop
from ansor_py.te.expr import DTYPE_BYTES, Expr, Read, reads_of
from ansor_py.te.tensor import Tensor

# With fewer rows than this the vectors to store are too short to be worth the shuffles.
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Point:
    """One accumulator of a tile: where its loops stand and, in lanes, how many and which of them exist."""

    coordinates: tuple[tuple[str, Coordinate], ...]
    lanes: int
    mask: Value | None


def transposed_loop(expressions: ExpressionEmitter, tile: Tile, fewest: int = FEWEST_ROWS) -> TileLoop | None:
    """The tile's loop along which its results lie next to each other in memory, if that is not the loop in lanes.

    None if there is no such loop, or it has less than `fewest` rows.
    """
    if tile.vector is None or tile.predicates or tile.buffer.dtype == "bool":
        return None
    rows = _rows(expressions, tile, tile.buffer, tile.indices, fewest)
    return next((loop for loop in tile.loops if loop.variable in rows), None)


def _rows(expressions: ExpressionEmitter, tile: Tile, tensor: Tensor, indices: Sequence[Expr], fewest: int) -> list[str]:
    """Loops of the tile, long enough, along which elements are neighbours in memory that are far apart along the lanes."""
    flat = expressions.flat_index(tensor, indices)
    strides = {loop.variable: flat.stride(loop.variable) for loop in tile.loops}
    if None in strides.values() or strides.get(tile.vector or "") in (0, 1):
        return []
    return [loop.variable for loop in tile.loops if strides[loop.variable] == 1 and loop.extent >= fewest]


def store_transposed(
    expressions: ExpressionEmitter, tile: Tile, row: TileLoop, points: Sequence[Point], results: Sequence[str], edge: bool
) -> None:
    """Store the results of all points with vectors that run along the loop `row`; at an edge those that exist."""
    for block in _blocks(row, points):
        lanes = points[block[0]].lanes
        for first in range(0, len(block), lanes):
            here = block[first : first + lanes]
            _store_block(expressions, tile, row, points[block[0]], first, [results[number] for number in here], edge)


def load_accumulators(
    expressions: ExpressionEmitter, tile: Tile, row: TileLoop, points: Sequence[Point], edge: bool
) -> list[str]:
    """What `store_transposed` stored, a vector for each point; anything for points that do not exist."""
    plan = TransposedReads(row, (Read(tile.buffer, tuple(tile.indices)),))
    loaded = [""] * len(points)
    for block in _blocks(row, points):
        lanes = points[block[0]].lanes
        for first in range(0, len(block), lanes):
            here = block[first : first + lanes]
            expressions.coordinates.update(points[block[0]].coordinates)
            vectors = _block(expressions, tile, plan, plan.reads[0], points[block[0]], first, len(here), edge)
            for number, vector in zip(here, vectors, strict=True):
                loaded[number] = vector
    return loaded


def _blocks(row: TileLoop, points: Sequence[Point]) -> list[list[int]]:
    """The numbers of the points that differ in `row` alone, in its order."""
    found: dict[tuple[tuple[str, Coordinate], ...], list[int]] = {}
    for number, point in enumerate(points):
        found.setdefault(tuple(item for item in point.coordinates if item[0] != row.variable), []).append(number)
    return list(found.values())


def _store_block(
    expressions: ExpressionEmitter, tile: Tile, row: TileLoop, point: Point, first: int, results: list[str], edge: bool
) -> None:
    """Store the rows from `first` on, of the vector at `point`."""
    assert tile.vector is not None
    vector = tile.loops[-1]
    width = 1 << (len(results) - 1).bit_length()
    columns = _transposed(expressions, REGISTER_TYPES[tile.buffer.dtype], results, point.lanes, width)
    expressions.coordinates.update(point.coordinates)
    expressions.coordinates[row.variable] = Coordinate(None, first)
    expressions.lane_variable, expressions.lanes = None, 0
    start = dict(point.coordinates)[tile.vector].offset
    limit = expressions.index(vector.limit) if edge and vector.limit is not None else None
    rows: Value | None = None
    if edge and row.limit is not None:
        rows = expressions.lanes_below(expressions.index(row.limit), first, width)
    elif len(results) < width:
        rows = expressions.lanes_below(str(len(results)), 0, width)
    for lane, column in enumerate(columns[: vector.extent - start]):
        expressions.coordinates[tile.vector] = Coordinate(None, start + lane)
        mask = rows
        if limit is not None:
            exists = Value(expressions.text.emit(f"icmp slt i64 {start + lane}, {limit}"), "bool")
            both = expressions.both(rows, exists)
            mask = expressions.broadcast(both, width) if both is not None else None
        if limit is None and not (edge and row.limit is not None):
            store_first(expressions, tile.buffer, tile.indices, column, width, len(results))
        else:
            store_run(expressions, tile.buffer, tile.indices, column, width, mask)


def _transposed(expressions: ExpressionEmitter, element: str, rows: list[str], lanes: int, width: int) -> list[str]:
    """One vector of `width` elements for each lane; those past the number of rows are undefined.

    Rows seen as one long vector, each round interleaves its halves: that rotates the bits of an element's number by one, and
    after log2(width) rounds the row's bits stand where the lane's were.
    """
    text = expressions.text
    kind = f"<{lanes} x {element}>"
    vectors = rows + ["poison"] * (width - len(rows))
    low = ", ".join(f"i32 {index}, i32 {index + lanes}" for index in range(lanes // 2))
    high = ", ".join(f"i32 {index}, i32 {index + lanes}" for index in range(lanes // 2, lanes))
    for _ in range(width.bit_length() - 1):
        interleaved: list[str] = []
        for a, b in zip(vectors[: width // 2], vectors[width // 2 :], strict=True):
            for order in (low, high):
                empty = a == b == "poison"
                shuffle = f"shufflevector {kind} {a}, {kind} {b}, <{lanes} x i32> <{order}>"
                interleaved.append("poison" if empty else text.emit(shuffle))
        vectors = interleaved
    per_vector = lanes // width
    if per_vector == 1:
        return vectors
    columns: list[str] = []
    for lane in range(lanes):
        begin = lane % per_vector * width
        order = ", ".join(f"i32 {begin + element}" for element in range(width))
        source = vectors[lane // per_vector]
        columns.append(text.emit(f"shufflevector {kind} {source}, {kind} poison, <{width} x i32> <{order}>"))
    return columns


@dataclass(frozen=True)
class TransposedReads:
    """The loop of a tile along which some of its reads are contiguous, which are far apart along the lanes."""

    row: TileLoop
    reads: tuple[Read, ...]


def transposed_reads(expressions: ExpressionEmitter, tile: Tile, fewest: int = FEWEST_ROWS) -> TransposedReads | None:
    """What a tile without reduction can load as vectors along another loop than the one in lanes; None if nothing."""
    if tile.vector is None or tile.predicates:
        return None
    found: dict[str, list[Read]] = {}
    for read in reads_of(tile.value):
        for variable in _rows(expressions, tile, read.tensor, read.indices, fewest) if read.dtype != "bool" else ():
            found.setdefault(variable, []).append(read)
    if not found:
        return None
    variable = max(found, key=lambda name: len(found[name]))
    row = next(loop for loop in tile.loops if loop.variable == variable)
    return TransposedReads(row, tuple(found[variable]))


def load_transposed(
    expressions: ExpressionEmitter, tile: Tile, plan: TransposedReads, points: Sequence[Point], edge: bool
) -> Iterator[Point]:
    """The points of a tile, each placed, with its transposed reads in the emitter's memory and its mask.

    `points` are those of the tile without the loop `plan.row`. Iterations past a limit (at an edge) are masked: of the lanes
    that do not exist the last one that does is read instead, of the rows only those that exist are.
    """
    assert tile.vector is not None
    row_limit = expressions.index(plan.row.limit) if edge and plan.row.limit is not None else None
    for point in points:
        for first in range(0, plan.row.extent, point.lanes):
            rows = min(point.lanes, plan.row.extent - first)
            expressions.coordinates.update(point.coordinates)
            columns = {id(read): _block(expressions, tile, plan, read, point, first, rows, edge) for read in plan.reads}
            for number in range(rows):
                at = (plan.row.variable, Coordinate(None, first + number))
                mask = point.mask
                if row_limit is not None:
                    exists = expressions.text.emit(f"icmp slt i64 {first + number}, {row_limit}")
                    mask = expressions.both(mask, Value(exists, "bool"))
                    mask = expressions.broadcast(mask, point.lanes) if mask is not None else None
                expressions.coordinates.update((*point.coordinates, at))
                expressions.lane_variable, expressions.lanes = tile.vector, point.lanes
                for read in plan.reads:
                    expressions.remember(read, mask, Value(columns[id(read)][number], read.dtype, point.lanes))
                yield Point((*point.coordinates, at), point.lanes, mask)


def _block(
    expressions: ExpressionEmitter,
    tile: Tile,
    plan: TransposedReads,
    read: Read,
    point: Point,
    first: int,
    rows: int,
    edge: bool,
) -> list[str]:
    """A vector in lanes for each of `rows` rows from `first` on, from one vector along the rows for each lane."""
    assert tile.vector is not None
    vector = tile.loops[-1]
    start, width = dict(point.coordinates)[tile.vector].offset, point.lanes
    last: str | None = None
    if edge and vector.limit is not None:
        last = expressions.text.emit(f"sub i64 {expressions.index(vector.limit)}, 1")
    expressions.lane_variable, expressions.lanes = None, 0
    expressions.coordinates[plan.row.variable] = Coordinate(None, first)
    mask: Value | None = None
    if edge and plan.row.limit is not None:
        mask = expressions.lanes_below(expressions.index(plan.row.limit), first, width)
    if rows < width:
        mask = expressions.both(mask, expressions.lanes_below(str(rows), 0, width))
    loaded: list[str] = []
    for lane in range(start, start + width):
        if lane >= vector.extent:
            loaded.append("poison")
            continue
        at = Coordinate(None, lane)
        if last is not None and lane:
            at = Coordinate(expressions.text.call("i64", "llvm.smin.i64", f"i64 {lane}, i64 {last}", "i64, i64"))
        expressions.coordinates[tile.vector] = at
        loaded.append(_load_run(expressions, read.tensor, read.indices, width, mask))
    return _transposed(expressions, REGISTER_TYPES[read.dtype], loaded, width, width)[:rows]


def _load_run(at: ExpressionEmitter, tensor: Tensor, indices: Sequence[Expr], width: int, mask: Value | None) -> str:
    """A vector of `width` consecutive elements from the current position on, those of the mask if there is one."""
    kind, size = memory_type(tensor.dtype), DTYPE_BYTES[tensor.dtype]
    vector = f"<{width} x {kind}>"
    address = at.address(tensor, at.flat_index(tensor, indices))
    if mask is None:
        return at.text.emit(f"load {vector}, ptr {address}, align {size}")
    return at.text.call(
        vector,
        f"llvm.masked.load.{intrinsic_suffix(vector)}.p0",
        f"ptr align {size} {address}, {mask.type} {mask.name}, {vector} zeroinitializer",
        f"ptr, {mask.type}, {vector}",
    )
