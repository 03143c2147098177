"""Storing a finished tile along another loop than the one in lanes, by a transposition in registers.

A convolution whose output channels run in lanes (its weights are packed for that) has its results one channel a lane, but
memory wants neighbouring pixels next to each other. Scattering lanes one by one costs a store an element; interleaving the
vectors of a row of pixels costs `log2(rows)` shuffles a vector, and then each lane's results are one vector to store.

    rows   a0 a1 a2 a3 | b0 b1 b2 b3      (lanes 0-3 of rows a and b)
    ->     a0 b0 a1 b1 | a2 b2 a3 b3      (columns 0 1 | 2 3, ready to be stored)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansor_py.codegen.addresses import REGISTER_TYPES, Coordinate, Value
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.lower.ir import Tile
from ansor_py.te.expr import Var, variables_of

# With fewer rows than this the vectors to store are too short to be worth the shuffles.
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Point:
    """One accumulator of a tile: where its loops stand and, in lanes, how many and which of them exist."""

    coordinates: tuple[tuple[str, Coordinate], ...]
    lanes: int
    mask: Value | None


def transposed_loop(expressions: ExpressionEmitter, tile: Tile, points: Sequence[Point]) -> str | None:
    """The tile's loop along which its results lie next to each other in memory, if that is not the loop in lanes.

    None if there is no such loop, it is short, or part of the tile does not exist (an edge).
    """
    if tile.vector is None or tile.predicates or tile.buffer.dtype == "bool" or any(point.mask for point in points):
        return None
    strides: dict[str, int] = {}
    for atom, coefficient in expressions.flat_index(tile.buffer, tile.indices).terms:
        if isinstance(atom, Var):
            strides[atom.name] = coefficient
        elif variables_of(atom) & {loop.variable for loop in tile.loops}:
            return None
    if strides.get(tile.vector) in (None, 1):
        return None
    for loop in tile.loops:
        fixed = all(dict(point.coordinates)[loop.variable].name is None for point in points)
        if strides.get(loop.variable) == 1 and loop.extent >= FEWEST_ROWS and fixed:
            return loop.variable
    return None


def store_transposed(
    expressions: ExpressionEmitter, tile: Tile, row: str, points: Sequence[Point], results: Sequence[str]
) -> None:
    """Store the results of all points with vectors that run along the loop `row`."""
    blocks: dict[tuple[tuple[str, Coordinate], ...], list[tuple[Point, str]]] = {}
    for point, result in zip(points, results, strict=True):
        key = tuple(item for item in point.coordinates if item[0] != row)
        blocks.setdefault(key, []).append((point, result))
    for block in blocks.values():
        lanes = block[0][0].lanes
        for first in range(0, len(block), lanes):
            _store_block(expressions, tile, row, block[first : first + lanes])


def _store_block(expressions: ExpressionEmitter, tile: Tile, row: str, block: list[tuple[Point, str]]) -> None:
    assert tile.vector is not None
    point = block[0][0]
    width = 1 << (len(block) - 1).bit_length()
    columns = _transposed(expressions, tile, [result for _, result in block], point.lanes, width)
    expressions.coordinates.update(point.coordinates)
    expressions.lane_variable, expressions.lanes = None, 0
    start = dict(point.coordinates)[tile.vector].offset
    for lane, column in enumerate(columns):
        expressions.coordinates[tile.vector] = Coordinate(None, start + lane)
        expressions.store_run(tile.buffer, tile.indices, column, width, len(block))


def _transposed(expressions: ExpressionEmitter, tile: Tile, rows: list[str], lanes: int, width: int) -> list[str]:
    """One vector of `width` elements for each lane; those past the number of rows are undefined.

    Rows seen as one long vector, each round interleaves its halves: that rotates the bits of an element's number by one, and
    after log2(width) rounds the row's bits stand where the lane's were.
    """
    text = expressions.text
    kind = f"<{lanes} x {REGISTER_TYPES[tile.buffer.dtype]}>"
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
