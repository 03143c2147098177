"""The loop IR: what lowering starts from, what its passes leave, and what code is generated from.

A `Program` is a list of regions, one for each stage at root, whose outermost loops may run in parallel. It begins as the
scheduled nest: `For` loops that say how the schedule wants them to run, with a `Statement` innermost. The passes
(`ansor_py.lower.lower.PASSES`) turn every statement and the loops right around it into a `Tile`: a handful of constant loops
that are emitted as vectors and repeated instructions, around them the reduction loops through which the accumulators stay in
registers (design, Idea 3). All other loops are left as `For`.

    print(lower(state, target))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Union

from ansor_py.lower.nest import BufferPlace, Statement
from ansor_py.schedule.micro_kernels import MicroKernel
from ansor_py.schedule.state import Annotation
from ansor_py.target import Target
from ansor_py.te.expr import AxisKind, Expr
from ansor_py.te.simplify import Ranges, Simplifier
from ansor_py.te.tensor import Tensor


@dataclass(frozen=True)
class For:
    """A loop over `0 <= variable < extent`, of `trips` iterations at most.

    What is computed inside it comes first in its body, its stage's own inner loops last. Iterations of an `unroll` one are
    emitted in a row; `vectorize` is gone once there are tiles.
    """

    variable: str
    extent: Expr
    body: tuple[Node, ...]
    trips: int
    kind: AxisKind = "spatial"
    annotation: Annotation = "none"

    @property
    def attached(self) -> tuple[Node, ...]:
        """What is computed inside the loop before the stage's own inner loops."""
        return self.body[:-1]


@dataclass(frozen=True)
class If:
    """`body` where the condition holds."""

    condition: Expr
    body: tuple[Node, ...]


@dataclass(frozen=True)
class TileLoop:
    """A loop of a tile. `limit`: only iterations below it exist (None: all of them).

    `rest`: how many exist where not all do, if that is always the same number.
    """

    variable: str
    extent: int
    limit: Expr | None = None
    rest: int | None = None


@dataclass(frozen=True)
class ReductionLoop:
    """A reduction loop around a tile through which accumulators stay in registers.

    `unroll` iterations are emitted one after the other per round; `prologue` runs at the start of each iteration.
    """

    variable: str
    extent: Expr
    trips: int
    unroll: int
    prologue: tuple[Node, ...]


# The name under which an epilogue speaks of the accumulators.
REGISTERS = "registers"


@dataclass(frozen=True)
class Tile:
    """`buffer[indices] = value` for every point of `loops`, reduced over `reduction` with `combiner` if there is one.

    `vector` names the loop that runs in lanes, `lanes` at a time, always the last of `loops`; with `reduces_lanes` it is a
    reduction loop whose partial results are combined at the end. `kernel` brings accumulators up to date. `first`: they start
    from the identity where it holds (None: always) and from the buffer's contents elsewhere. Iterations where a predicate is
    false neither read nor store. What is stored of a reduction is its `epilogue`, a formula of the variable `REGISTERS`; None:
    the accumulators as they are.
    """

    stage: str
    buffer: Tensor
    indices: tuple[Expr, ...]
    value: Expr
    combiner: str | None
    loops: tuple[TileLoop, ...]
    vector: str | None
    lanes: int
    reduces_lanes: bool
    kernel: MicroKernel
    reduction: tuple[ReductionLoop, ...]
    first: Expr | None
    predicates: tuple[Expr, ...]
    unroll_limit: int
    epilogue: Expr | None = None


Node = Union[For, If, Statement, Tile]


@dataclass(frozen=True)
class Region:
    """The nest of one stage at root: `parallel` (variable, extent) loops, collapsed into one, around `body`.

    A `prepacked` one depends on constants alone and runs once, before any call.
    """

    stage: str
    parallel: tuple[tuple[str, int], ...]
    body: tuple[Node, ...]
    prepacked: bool


@dataclass(frozen=True)
class Program:
    """A program between two passes or after all of them. `ranges` are the inclusive ranges of all loop variables."""

    regions: tuple[Region, ...]
    buffers: dict[str, BufferPlace]
    ranges: Ranges
    target: Target

    @cached_property
    def simplifier(self) -> Simplifier:
        """Simplifies index expressions of the program's loops."""
        return Simplifier(self.ranges)

    def __str__(self) -> str:
        return "\n".join(line for region in self.regions for line in _region_lines(region))


@dataclass(frozen=True)
class Chain:
    """The loops of one stage, outermost first, down to its statement. `outside` are the variables of the loops around them."""

    loops: tuple[For, ...]
    statement: Statement
    outside: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """Of all loops around the statement, outermost first."""
        return (*self.outside, *(loop.variable for loop in self.loops))


def rewritten(program: Program, rewrite: Callable[[Chain], Sequence[Node]]) -> Program:
    """The program with every stage's loops and statement replaced, innermost stages first.

    What `rewrite` gets has its attached stages rewritten already.
    """

    def nodes(items: Sequence[Node], outside: tuple[str, ...]) -> tuple[Node, ...]:
        return tuple(new for item in items for new in one(item, outside))

    def one(item: Node, outside: tuple[str, ...]) -> Sequence[Node]:
        if isinstance(item, If):
            return [replace(item, body=nodes(item.body, outside))]
        loops: list[For] = []
        around = outside
        while isinstance(item, For):
            around = (*around, item.variable)
            loops.append(replace(item, body=(*nodes(item.attached, around), *item.body[-1:])))
            item = item.body[-1]
        assert isinstance(item, Statement), "a pass that rewrites statements comes after they have become tiles"
        return rewrite(Chain(tuple(loops), item, outside))

    def region(item: Region) -> Region:
        return replace(item, body=nodes(item.body, tuple(name for name, _ in item.parallel)))

    return replace(program, regions=tuple(region(item) for item in program.regions))


def nested(loops: Sequence[For], inner: Sequence[Node]) -> tuple[Node, ...]:
    """The loops around the nodes in the place of their innermost bodies."""
    found = tuple(inner)
    for loop in reversed(loops):
        found = (replace(loop, body=(*loop.attached, *found)),)
    return found


def tiles_of(nodes: Sequence[Node]) -> Iterator[Tile]:
    """All tiles below the nodes in program order, those attached to reduction loops included."""
    for node in nodes:
        if isinstance(node, Tile):
            for loop in node.reduction:
                yield from tiles_of(loop.prologue)
            yield node
        elif not isinstance(node, Statement):
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
            yield f"{indent}{'for' if node.annotation == 'none' else node.annotation} {node.variable} in {node.extent}:"
        case If():
            yield f"{indent}if {node.condition}:"
        case Tile():
            yield from _tile_lines(node, indent)
            return
        case Statement():
            yield f"{indent}{node}"
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
