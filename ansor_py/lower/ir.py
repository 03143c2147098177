"""The loop IR that code is generated from: loops, conditions, and tiles.

A `Tile` is the innermost piece of every stage: a handful of constant loops that are emitted as vectors and repeated
instructions, around them the reduction loops through which the accumulators stay in registers (design, Idea 3). All other
loops are `For`. A `Program` is a list of regions, one for each stage at root, whose outermost loops may run in parallel.

    print(lower(state, target))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from ansor_py.lower.nest import BufferPlace
from ansor_py.te.expr import Expr
from ansor_py.te.simplify import Ranges
from ansor_py.te.tensor import Tensor


@dataclass(frozen=True)
class For:
    """A serial loop over `0 <= variable < extent`. Iterations of an `unrolled` one (constant extent) are emitted in a row."""

    variable: str
    extent: Expr
    body: tuple[Node, ...]
    unrolled: bool = False


@dataclass(frozen=True)
class If:
    """`body` where the condition holds."""

    condition: Expr
    body: tuple[Node, ...]


@dataclass(frozen=True)
class TileLoop:
    """A loop of a tile. `limit`: only iterations below it exist (None: all of them)."""

    variable: str
    extent: int
    limit: Expr | None = None


@dataclass(frozen=True)
class ReductionLoop:
    """A reduction loop around a tile through which accumulators stay in registers.

    `unroll` iterations are emitted one after the other per round; `prologue` runs at the start of each iteration.
    """

    variable: str
    extent: Expr
    unroll: int
    prologue: tuple[Node, ...]


# The name under which an epilogue speaks of the accumulators.
REGISTERS = "registers"


@dataclass(frozen=True)
class Tile:
    """`buffer[indices] = value` for every point of `loops`, reduced over `reduction` with `combiner` if there is one.

    `vector` names the loop that runs in lanes, always the last of `loops`; with `reduces_lanes` it is a reduction loop
    whose partial results are combined at the end. `first`: the accumulators start from the identity where it holds (None:
    always) and from the buffer's contents elsewhere. Iterations where a predicate is false neither read nor store. What is
    stored of a reduction is its `epilogue`, a formula of the variable `REGISTERS`; None: the accumulators as they are.
    """

    stage: str
    buffer: Tensor
    indices: tuple[Expr, ...]
    value: Expr
    combiner: str | None
    loops: tuple[TileLoop, ...]
    vector: str | None
    reduces_lanes: bool
    reduction: tuple[ReductionLoop, ...]
    first: Expr | None
    predicates: tuple[Expr, ...]
    epilogue: Expr | None = None


Node = Union[For, If, Tile]


@dataclass(frozen=True)
class Region:
    """The nest of one stage at root: `parallel` (variable, extent) loops, collapsed into one, around `body`."""

    stage: str
    parallel: tuple[tuple[str, int], ...]
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Program:
    """A lowered state. `ranges` are the inclusive ranges of all loop variables."""

    regions: tuple[Region, ...]
    buffers: dict[str, BufferPlace]
    ranges: Ranges

    def __str__(self) -> str:
        return "\n".join(line for region in self.regions for line in _region_lines(region))


def tiles_of(nodes: Sequence[Node]) -> Iterator[Tile]:
    """All tiles below the nodes in program order, those attached to reduction loops included."""
    for node in nodes:
        if isinstance(node, Tile):
            for loop in node.reduction:
                yield from tiles_of(loop.prologue)
            yield node
        else:
            yield from tiles_of(node.body)


def _region_lines(region: Region) -> Iterator[str]:
    indent = ""
    if region.parallel:
        yield f"parallel {', '.join(f'{name} in {extent}' for name, extent in region.parallel)}:"
        indent = "  "
    for node in region.body:
        yield from _lines(node, indent)


def _lines(node: Node, indent: str) -> Iterator[str]:
    match node:
        case For():
            yield f"{indent}{'unrolled' if node.unrolled else 'for'} {node.variable} in {node.extent}:"
        case If():
            yield f"{indent}if {node.condition}:"
        case Tile():
            yield from _tile_lines(node, indent)
            return
    for child in node.body:
        yield from _lines(child, indent + "  ")


def _tile_lines(tile: Tile, indent: str) -> Iterator[str]:
    target = f"{tile.buffer.name}[{', '.join(map(str, tile.indices))}]"
    loops = ", ".join(
        f"{'vector ' if loop.variable == tile.vector else ''}{loop.variable} in {loop.extent}"
        + (f" limit {loop.limit}" if loop.limit is not None else "")
        for loop in tile.loops
    )
    yield f"{indent}tile {tile.stage}: {loops or 'one element'}"
    indent += "  "
    if tile.combiner is None:
        yield f"{indent}{target} = {tile.value}"
        return
    start = "identity" if tile.first is None else f"identity if {tile.first} else {target}"
    yield f"{indent}registers = {start}"
    inner = indent
    for loop in tile.reduction:
        yield f"{inner}for {loop.variable} in {loop.extent}:" + (f"  # unroll {loop.unroll}" if loop.unroll > 1 else "")
        inner += "  "
        for node in loop.prologue:
            yield from _lines(node, inner)
    yield f"{inner}registers = {tile.combiner}(registers, {tile.value})"
    yield f"{indent}{target} = {REGISTERS if tile.epilogue is None else tile.epilogue}"
