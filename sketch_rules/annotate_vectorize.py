"""Annotation: the vector loop of every stage that has none yet (paper, section 4.2).

The innermost part of the vector axis is split by a hole's choice of lengths, moved innermost and computed in lanes. A length
beyond the loop's extent covers all of it.

A stage without reduction that reads along another axis than it writes (a permuted copy) gets a register tile of both axes,
which the code generator transposes in registers, and blocks of such tiles along the axis that is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.lower.register_tile import MAX_TILE_VECTORS
from ansor_py.schedule.access import element_stride, tabulated_axes
from ansor_py.schedule.hole_kinds import RegisterTileHole, TileHole, VectorHole
from ansor_py.schedule.micro_kernels import micro_kernel_for
from ansor_py.schedule.state import Gene, Inlined, Stage
from ansor_py.schedule.steps import RegisterTile, Reorder, Split, Unroll, Vectorize
from ansor_py.sketch_rules.notes import MadeByAlgorithm, TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch, innermost_part, moved_last
from ansor_py.sketch_rules.tile_sizes import level_sizes
from ansor_py.sketch_rules.vector_axis import NEAR_STRIDE, transposed_row, vector_axis
from ansor_py.te.expr import Axis, Expr, reads_of


def annotate_vectorize(sketch: PartialSketch) -> PartialSketch:
    """The sketch with a vector loop in every stage that is computed and has an axis longer than 1."""
    for stage in sketch.state.stages:
        if stage.is_unscheduled and not isinstance(stage.location, Inlined):
            sketch = _unrolled_tables(sketch, stage)
        vectorised = any(item.annotation == "vectorize" for item in stage.iterators)
        if not vectorised and not isinstance(stage.location, Inlined) and stage.name not in sketch.state.prepacked:
            sketch = _vectorise(sketch, stage)
    return sketch


def _unrolled_tables(sketch: PartialSketch, stage: Stage) -> PartialSketch:
    """With the loops by which the stage selects its formula innermost and unrolled: each iteration is one formula."""
    tables = [axis.name for axis in tabulated_axes(stage.tensor)]
    if not tables:
        return sketch
    order = tuple(sorted((item.name for item in stage.iterators), key=tables.__contains__))
    return sketch.apply(Reorder(stage.name, order), *(Unroll(stage.name, name) for name in tables))


def _vectorise(sketch: PartialSketch, stage: Stage) -> PartialSketch:
    stage = sketch.state.stage(stage.name)
    body = sketch.state.body(stage.name)
    lanes = sketch.target.lanes(*sketch.state.dtypes(stage.name))
    axis = vector_axis(stage, body, lanes)
    if axis is None:
        return sketch
    levels = sketch.note(stage.name, TileLevels)
    is_whole = not stage.relations or sketch.note(stage.name, MadeByAlgorithm) is not None
    row = transposed_row(reads_of(body), stage) if is_whole and levels is None else None
    last = next(other for other in reversed((*stage.op.axes, *stage.op.reduce_axes)) if other.extent > 1)
    if row is not None and not any(sketch.state.attached_to(stage.name, loop) for loop in _loops(stage, row, last)):
        return _transposed(sketch, stage, row, last)  # along which it stores, short as it may be
    loop = innermost_part(stage, axis.name)
    if sketch.state.attached_to(stage.name, loop):
        return sketch
    sums_rows = stage.op.reduce_axes and axis in stage.op.axes and levels is None
    vectors = sketch.options.wide_vectors if sums_rows else sketch.options.vectors
    choices = vector_choices(axis.extent, lanes, _is_contiguous(body, axis), vectors)
    sketch, hole = sketch.with_hole(VectorHole(f"vectorize {stage.name}", stage.name, choices))
    sketch = sketch.apply(Split(stage.name, loop, (Gene(hole),)))
    inner = f"{loop}.1"
    order = moved_last(sketch.state.stage(stage.name), inner)
    if order[-2:] != (f"{loop}.0", inner):
        sketch = sketch.apply(Reorder(stage.name, order))
    if levels is not None:
        parts = tuple(tuple(f"{item}.0" if item == loop else item for item in level) for level in levels.loops)
        sketch = sketch.with_note(stage.name, TileLevels((*parts, (inner,))))
    return sketch.apply(Vectorize(stage.name, inner))


def _transposed(sketch: PartialSketch, stage: Stage, row: Axis, axis: Axis) -> PartialSketch:
    """Tiles of rows and lanes, and blocks of them: one tile's row after the other, or columns of several tiles."""
    lanes = sketch.target.lanes(*sketch.state.dtypes(stage.name))
    tiles = transposed_tiles(row.extent, axis.extent, lanes, sketch.options.vectors)
    name = stage.name
    sketch, tile = sketch.with_hole(RegisterTileHole(f"register tile {name}", name, tiles))
    most = -(-row.extent // min(rows for rows, _ in tiles))
    blocks = tuple((size,) for size in level_sizes(most, row.extent, sketch.options))
    sketch, block = sketch.with_hole(TileHole(f"tile {name}.{row.name}", name, blocks))
    down, along = _loops(stage, row, axis)
    outer = [item.name for item in stage.iterators if item.name not in (down, along)]
    order = (*outer, f"{down}.0", f"{along}.0", f"{down}.1", f"{down}.2", f"{along}.1")
    return sketch.apply(
        Split(name, down, (Gene(tile, 0), Gene(block))),
        Split(name, along, (Gene(tile, 1),)),
        Reorder(name, order),
        RegisterTile(name, (f"{down}.2", f"{along}.1"), micro_kernel_for(sketch.state.body(name), sketch.target).name),
        Vectorize(name, f"{along}.1"),
    )


def _loops(stage: Stage, *axes: Axis) -> list[str]:
    """The innermost loops over axes, of which blocks may have been made."""
    return [innermost_part(stage, axis.name) for axis in axes]


def transposed_tiles(rows: int, columns: int, lanes: int, vectors: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(rows, lanes) of tiles that are transposed in registers: up to 64 vectors, runs of a quarter of a vector to several."""
    sizes = [lanes // 4, lanes // 2, *(lanes * count for count in vectors)]
    lengths = [sorted({min(size, extent) for size in sizes if size > 1}) for extent in (rows, columns)]
    return tuple((r, c) for r in lengths[0] for c in lengths[1] if r * -(-c // lanes) <= MAX_TILE_VECTORS)


def vector_choices(extent: int, lanes: int, contiguous: bool, vectors: Sequence[int]) -> tuple[int, ...]:
    """Lengths of a vector loop: half a vector to several, the whole axis if shorter, 1 where elements are not neighbours."""
    found = {min(extent, lanes * count) for count in vectors}
    if lanes // 2 > 1:
        found.add(min(extent, lanes // 2))
    return tuple(sorted(found if contiguous else found | {1}))


def _is_contiguous(body: Expr, axis: Axis) -> bool:
    """Whether the lanes of every load are the same element or near ones."""
    strides = [element_stride(read, axis.name) for read in reads_of(body)]
    return all(stride is not None and abs(stride) <= NEAR_STRIDE for stride in strides)
