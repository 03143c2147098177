"""The arrays of all statements of the programs of a template: what these have in common is worked out once.

template = TemplateArrays(sketch, state, bounds, genes, target)
[statement, *others] = template.statements(slice(0, 100))        # producers first
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ansor_py.cost_model.index_table import AccessKind, BufferUse, IndexTable, ProgramNumbers
from ansor_py.cost_model.native_loops import Flags, Floats, Integers
from ansor_py.cost_model.operation_counts import count_operations
from ansor_py.cost_model.shared_buffers import shared_buffers
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.lower.affine import Affine, Number, from_expr
from ansor_py.lower.bounds import Bounds, LoopBounds, StageBounds
from ansor_py.lower.register_tile import register_tile
from ansor_py.schedule.sketch import Genes, Sketch
from ansor_py.schedule.state import State
from ansor_py.target import Target
from ansor_py.te.expr import DTYPE_BYTES, Reduce
from ansor_py.te.tensor import Tensor


class TemplateArrays:
    """Programs of one template, from any slice of which the arrays of its statements are made."""

    def __init__(self, sketch: Sketch, state: State, bounds: Bounds, genes: Genes, target: Target) -> None:
        self._state, self._bounds = state, bounds
        self._parallel = sketch.stage_values("parallel_loops", genes)
        self._numbers = ProgramNumbers()
        limits = sketch.stage_values("unroll_limit", genes)
        self._limits = {name: self._numbers.row(limits.get(name, b.stage.unroll_limit)) for name, b in bounds.items()}
        self._tiles = {name: register_tile(b, target) for name, b in bounds.items()}
        shapes = buffer_shapes(state, bounds)
        self._uses = {name: buffer_uses(bounds, shapes, b) for name, b in bounds.items()}
        self._loops = {name: (*b.enclosing, *b.loops) for name, b in bounds.items()}
        self._tables = {name: IndexTable(self._uses[name], self._loops[name], self._numbers) for name in bounds}
        statements = (
            (name, tuple(loop.variable for loop in self._loops[name]), tuple((use.name, use.element_bytes) for use in uses))
            for name, uses in self._uses.items()
        )
        self._shared = shared_buffers(tuple(statements))

    def statements(self, chunk: slice) -> list[StatementArrays]:
        """The arrays of each statement for the programs of a slice, producers first."""
        numbers = self._numbers.array(chunk)
        footprint, touched_bytes = self._shared.arrays(numbers.shape[1])
        statements = [self._statement(name, chunk, numbers, footprint, touched_bytes) for name in self._bounds]
        body_bytes, least = self._shared.link(footprint, touched_bytes)
        for name, statement in zip(self._bounds, statements, strict=True):
            statement.body_bytes = self._shared.by_depth(body_bytes, name)
            statement.shared_footprint = self._shared.by_buffer(least, name)
        return statements

    def _statement(
        self, name: str, chunk: slice, numbers: Floats, all_footprints: Floats, all_bytes: Floats
    ) -> StatementArrays:
        b, loops = self._bounds[name], self._loops[name]
        footprint, touched_bytes = self._shared.by_buffer(all_footprints, name), self._shared.by_depth(all_bytes, name)
        touched = self._tables[name].touched(numbers, footprint, touched_bytes)
        return StatementArrays(
            bounds=b,
            tile=self._tiles[name],
            loops=loops,
            programs=numbers.shape[1],
            chunk=chunk,
            extents=touched.extents,
            inner=touched.inner,
            buffers=self._uses[name],
            strides=touched.strides,
            footprint=footprint,
            runs=touched.runs,
            neighbours=touched.neighbours,
            pitches=touched.pitches,
            touched_bytes=touched_bytes,
            parallel=parallel_flags(loops, self._parallel, chunk),
            unroll_limit=numbers[self._limits[name]],
            operations=count_operations(b.body),
            allocated=None if self._state.is_output(name) else touched.stored,
            allocation_depth=len(b.enclosing),
            work=math.prod(axis.extent for axis in (*b.stage.op.axes, *b.stage.op.reduce_axes)),
            prepacked=name in self._state.prepacked,
            sharers=np.broadcast_to(self._shared.sharers[name][:, :, None], footprint.shape),
            company=self._shared.company[name],
        )


def buffer_shapes(state: State, bounds: Bounds) -> dict[str, tuple[Number, ...]]:
    """Sizes of all stored buffers: the region of their stage, rows padded where the schedule asks for it."""
    shapes: dict[str, tuple[Number, ...]] = {}
    for name, b in bounds.items():
        shape = b.region
        if b.stage.storage_align and shape and not state.is_output(name):
            factor, offset = b.stage.storage_align
            shape = (*shape[:-1], shape[-1] + (offset - shape[-1]) % factor)
        shapes[name] = shape
    return shapes


def buffer_uses(bounds: Bounds, shapes: Mapping[str, tuple[Number, ...]], b: StageBounds) -> tuple[BufferUse, ...]:
    """The buffers of a statement: the stored one, then those read in order of first read."""
    reduces = isinstance(b.body, Reduce)
    store = tuple(b.values[axis.name] for axis in b.stage.op.axes)
    accesses: dict[str, list[tuple[Affine | None, ...]]] = {b.stage.name: [store]}
    tensors: dict[str, Tensor] = {b.stage.name: b.stage.tensor}
    for read in b.reads:
        name = read.tensor.name
        accesses.setdefault(name, []).append(tuple(from_expr(index, b.values) for index in read.indices))
        tensors.setdefault(name, read.tensor)
    uses: list[BufferUse] = []
    for name, indices in accesses.items():
        kind: AccessKind = "read" if name != b.stage.name else "read-write" if reduces else "write"
        around = bounds[name].enclosing if name in bounds else ()
        shape = shapes.get(name, tensors[name].shape)
        fixed = frozenset(loop.variable for loop in around)
        uses.append(BufferUse(name, DTYPE_BYTES[tensors[name].dtype], kind, tuple(indices), shape, fixed))
    return tuple(uses)


def parallel_flags(loops: tuple[LoopBounds, ...], parallel: Mapping[str, Integers], chunk: slice) -> Flags:
    """bool[L, n]: which of the loops around a statement run in parallel."""
    flags = np.zeros((len(loops), chunk.stop - chunk.start), dtype=np.bool_)
    before: dict[str, int] = {}
    most = {stage: int(numbers.max(initial=0)) for stage, numbers in parallel.items()}
    for position, loop in enumerate(loops):
        stage = loop.variable[: -len(loop.name) - 1]  # whose loop it is
        number = before.get(stage, 0)
        if loop.annotation == "parallel":
            flags[position] = True
        elif number < most.get(stage, 0):
            flags[position] = parallel[stage][chunk] > number
        before[stage] = number + (loop.iterator is not None)
    return flags
