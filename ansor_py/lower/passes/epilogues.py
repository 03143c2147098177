"""Epilogues: what an elementwise consumer makes of a finished register tile is computed in the registers.

A reduction computed inside its consumer stores a tile, and the consumer reads it back, adds a bias, clips it and stores it in
the output. Where that tile is one register tile and nobody else reads it, the consumer's formula is applied to the
accumulators and they are stored where the consumer would, so that the buffer between the two disappears.

    tile C: registers = sum(registers, a * b); C.tile[i, j] = registers
    tile relu: relu[i0 + i, j0 + j] = max(C.tile[i, j], 0)
    ->
    tile relu: registers = sum(registers, a * b); relu[i0 + i, j0 + j] = max(registers, 0)

"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ansor_py.lower.ir import REGISTERS, For, If, Node, Program, Tile, tiles_of
from ansor_py.schedule.access import element_stride
from ansor_py.te.expr import DTYPE_BYTES, INDEX, Const, Expr, Read, Var, reads_of, substitute, transform, variables_of
from ansor_py.te.simplify import Ranges, Simplifier
from ansor_py.te.tensor import Tensor


def fuse_epilogues(program: Program) -> Program:
    """The program with consumers fused into register tiles wherever that is possible, without the buffers nobody uses then."""
    tiles = [tile for region in program.regions for tile in tiles_of(region.body)]
    readers = Counter(name for tile in tiles for name in _names_read(tile))
    alone = {
        tile.buffer.name
        for tile in tiles
        if readers[tile.buffer.name] == 1 and program.buffers[tile.buffer.name].scope == "workspace"
    }
    fusion = _Fusion(alone, program.ranges)
    regions = tuple(replace(region, body=fusion.nodes(region.body)) for region in program.regions)
    left = [tile for region in regions for tile in tiles_of(region.body)]
    used = {tile.buffer.name for tile in left}.union(*(_names_read(tile) for tile in left))
    dropped = {tile.buffer.name for tile in tiles} - used
    return replace(program, regions=regions, buffers={n: place for n, place in program.buffers.items() if n not in dropped})


def _names_read(tile: Tile) -> set[str]:
    formulas = [tile.value] if tile.epilogue is None else [tile.value, tile.epilogue]
    return {read.tensor.name for formula in formulas for read in reads_of(formula)}


class _Fusion:
    """Fuses tiles; `alone` are the buffers that a single tile reads."""

    def __init__(self, alone: set[str], ranges: Ranges) -> None:
        self.alone = alone
        self.ranges = ranges
        self.simplifier = Simplifier(ranges)

    def nodes(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """The nodes with every consumer that follows its tile fused into that."""
        result: list[Node] = []
        for node in nodes:
            if isinstance(node, For | If):
                node = replace(node, body=self.nodes(node.body))
            elif isinstance(node, Tile):
                loops = tuple(replace(loop, prologue=self.nodes(loop.prologue)) for loop in node.reduction)
                node = replace(node, reduction=loops)
            producer = result[-1] if result else None
            fused = self._fused(producer, node) if isinstance(producer, Tile) else None
            if fused is None:
                result.append(node)
            else:
                result[-1] = fused
        return tuple(result)

    def _fused(self, producer: Tile, node: Node) -> Tile | None:
        """The producer with the consumer's formula on its accumulators; None if the two do not fit together."""
        if producer.buffer.name not in self.alone or producer.combiner is None or producer.epilogue is not None:
            return None
        if producer.first is not None or producer.reduces_lanes or producer.predicates:
            return None
        limits: dict[str, Expr | None] = {}
        while isinstance(node, For) and len(node.body) == 1:
            limits[node.variable] = None if isinstance(node.extent, Const) else node.extent
            node = node.body[0]
        if not isinstance(node, Tile) or node.combiner is not None or node.predicates:
            return None
        limits.update((loop.variable, loop.limit) for loop in node.loops)
        reads = [read for read in reads_of(node.value) if read.tensor.name == producer.buffer.name]
        if not reads or any(read != reads[0] for read in reads):
            return None
        values = self._values(producer, reads[0], limits)
        if values is None:
            return None
        registers = Var(REGISTERS, producer.value.dtype)
        formula = transform(node.value, lambda part: registers if part == reads[0] else None)
        formula = self.simplifier.simplify(substitute(formula, values))
        indices = tuple(self.simplifier.simplify(substitute(index, values)) for index in node.indices)
        shifted = {name for name, value in values.items() if not isinstance(value, Var)}
        if shifted and not self._may_repeat(formula, node, indices, shifted):
            return None
        if not _runs_in_lanes(producer, formula, node.buffer):
            return None
        return replace(producer, stage=node.stage, buffer=node.buffer, indices=indices, epilogue=formula)

    def _values(self, producer: Tile, read: Read, limits: dict[str, Expr | None]) -> dict[str, Expr] | None:
        """The consumer's loop variables in terms of the producer's; None unless they go through the same elements.

        A tile at a border may begin earlier than its consumer's, `origin` below: then it repeats elements of its neighbour.

            C.tile[i], read as C.tile[x + x0 - origin]   ->   x = i - x0 + origin
        """
        own = {loop.variable: loop for loop in producer.loops}
        values: dict[str, Expr] = {}
        taken: set[str] = set()
        for written, index in zip(producer.indices, read.indices, strict=True):
            variables = variables_of(index) & set(limits)
            if not variables and written == index:
                continue
            if not (isinstance(written, Var) and written.name in own and len(variables) == 1) or written.name in taken:
                return None
            [name] = variables
            mine = own[written.name]
            rest = self.simplifier.simplify(index - Var(name))
            shifted = rest != Const(0, INDEX)
            if name in values or self.ranges[name] != (0, mine.extent - 1) or name in variables_of(rest):
                return None
            if mine.limit is not None if shifted else mine.limit != limits[name]:
                return None
            values[name] = written - rest if shifted else written
            taken.add(written.name)
        return values if set(values) == set(limits) and taken == set(own) else None

    def _may_repeat(self, formula: Expr, consumer: Tile, indices: Sequence[Expr], shifted: set[str]) -> bool:
        """Whether storing elements of a neighbouring tile again is harmless: they exist, and the formula does not read them.

        Along loops that are not shifted the tile and its consumer end at the same limits.
        """
        if any(read.tensor.name == consumer.buffer.name for read in reads_of(formula)):
            return False
        places = zip(consumer.indices, indices, consumer.buffer.shape, strict=True)
        moved = ((self.simplifier.interval(index), extent) for old, index, extent in places if shifted & variables_of(old))
        return all(low >= 0 and high < extent for (low, high), extent in moved)


def _runs_in_lanes(producer: Tile, formula: Expr, buffer: Tensor) -> bool:
    """Whether the formula has the lanes of the tile, and finds what else it reads in neighbouring elements."""
    reads = reads_of(formula)
    width = DTYPE_BYTES[producer.value.dtype]
    if any(DTYPE_BYTES[dtype] != width for dtype in (formula.dtype, buffer.dtype, *(read.dtype for read in reads))):
        return False
    return producer.vector is None or all(element_stride(read, producer.vector) in (0, 1) for read in reads)
