"""Rule: multi-level tiling of a stage with data reuse, structure SSRSRS (paper, Table 1, rule 3).

Every spatial axis is split into four levels and every reduction axis into two, in the order
`i.0 j.0 | i.1 j.1 | k.0 | i.2 j.2 | k.1 | i.3 j.3`. The innermost spatial level is the register tile, one joint hole; its
vector axis is computed in lanes. Where the reduction runs along memory and the output does not (a transposed operand), the
reduction axis has a third level inside the register tile, which is the vector loop. Axes of extent 1 are not split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.hole_kinds import RegisterTileHole, TileHole
from ansor_py.schedule.micro_kernels import micro_kernel_for
from ansor_py.schedule.state import At, Gene, Stage
from ansor_py.schedule.steps import RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.sketch_rules.fusible import batch_axes, reuses_data
from ansor_py.sketch_rules.notes import MadeByAlgorithm, PackedOperand, TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.register_tile import register_tiles
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.sketch_rules.tile_sizes import reduction_lengths, tile_pairs
from ansor_py.sketch_rules.vector_axis import vector_axis
from ansor_py.te.expr import Axis


@rule("multi_level_tiling")
class MultiLevelTiling(Rule):
    """For every stage with data reuse that is not tiled yet.

    Before, and after on stage `C`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        tile(C)
        for i.0 in rest:
          for j.0 in rest:
            for i.1 in gene1.1:
              for j.1 in gene2.1:
                for k.0 in rest:
                  for i.2 in gene1.0:
                    for j.2 in gene2.0:
                      for k.1 in gene3.0:
                        register tile by float32 outer product:
                          for i.3 in gene0.0:
                            vectorize j.3 in gene0.1:
                              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        return "apply_and_stop" if reuses_data(stage) and stage.is_unscheduled else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        name = sketch.stage(number).name
        return [(tile(sketch, name).with_label(f"tile({name})"), number - 1)]


@dataclass(frozen=True)
class TiledAxes:
    """The axes of a stage by how they are tiled: split ones, those of extent 1, and the vector axis among the split ones."""

    spatial: tuple[Axis, ...]
    reduction: tuple[Axis, ...]
    unit_spatial: tuple[Axis, ...]
    unit_reduction: tuple[Axis, ...]
    vector: Axis | None

    @property
    def register_axes(self) -> tuple[Axis, ...]:
        """The axes with a length in the register tile: the spatial ones, then the reduction axis if that is vectorised."""
        return self.spatial if self.vector not in self.reduction else (*self.spatial, self.vector)


def tiled_axes(sketch: PartialSketch, stage: Stage) -> TiledAxes:
    """How the axes of a stage are tiled. Raises nothing: a stage with data reuse has a spatial axis longer than 1.

    Of a stage that is computed inside a loop it is the part computed there that counts.
    """
    long = [axis for axis, extent in zip(stage.op.axes, computed_extents(sketch, stage), strict=True) if extent > 1]
    return TiledAxes(
        tuple(long),
        tuple(axis for axis in stage.op.reduce_axes if axis.extent > 1),
        tuple(axis for axis in stage.op.axes if axis not in long),
        tuple(axis for axis in stage.op.reduce_axes if axis.extent == 1),
        _vector_axis(sketch, stage),
    )


def computed_extents(sketch: PartialSketch, stage: Stage) -> tuple[int, ...]:
    """How much of every spatial axis is computed at a time: the whole axis, or the largest part inside an enclosing loop."""
    if not isinstance(stage.location, At):
        return tuple(axis.extent for axis in stage.op.axes)
    largest = np.array([[len(hole.choices) - 1 for hole in sketch.holes]], dtype=np.int32)  # choices ascend
    region = infer_bounds(sketch.state, sketch.holes, largest)[stage.name].region
    return tuple(int(np.max(extent)) for extent in region)


def _vector_axis(sketch: PartialSketch, stage: Stage) -> Axis | None:
    """The axis of an operand's panels, if it has any."""
    packed = sketch.note(stage.name, PackedOperand)
    if packed is not None:
        return next(axis for axis in stage.op.axes if axis.name == packed.axis)
    return vector_axis(stage, sketch.state.body(stage.name), sketch.target.lanes(*sketch.state.dtypes(stage.name)))


def tile(sketch: PartialSketch, name: str) -> PartialSketch:
    """The sketch with one stage tiled as SSRSRS: register tile, cache tile and reduction holes, splits, order, vector loop."""
    stage = sketch.state.stage(name)
    axes = tiled_axes(sketch, stage)
    kernel = micro_kernel_for(sketch.state.body(name), sketch.target)
    register = axes.register_axes
    extents = {axis: axis.extent for axis in axes.reduction}
    extents |= dict(zip(stage.op.axes, computed_extents(sketch, stage), strict=True))
    packed = sketch.note(name, PackedOperand)
    tiles = register_tiles(
        tuple(extents[axis] for axis in register),
        register.index(axes.vector) if axes.vector is not None else None,
        sketch.target.lanes(*sketch.state.dtypes(name)),
        kernel,
        sketch.target,
        packed.width if packed is not None else None,  # a row of the register tile is a row of the panel
        sketch.options,
    )
    if sketch.note(name, MadeByAlgorithm):
        tiles = _without_batches(tiles, register, stage)
    sketch, register_hole = sketch.with_hole(RegisterTileHole(f"register tile {name}", name, tiles))
    splits: list[Step] = []
    for position, axis in enumerate(axes.spatial):
        smallest = min(choice[position] for choice in tiles)
        hole = TileHole(f"tile {name}.{axis.name}", name, tile_pairs(extents[axis], smallest, sketch.options))
        sketch, number = sketch.with_hole(hole)
        splits.append(Split(name, axis.name, (Gene(register_hole, position), Gene(number, 0), Gene(number, 1))))
    for axis in axes.reduction:
        inner = reduction_lengths(axis.extent, sketch.options)
        sketch, number = sketch.with_hole(TileHole(f"tile {name}.{axis.name}", name, inner))
        lengths = (Gene(register_hole, len(axes.spatial)), Gene(number)) if axis is axes.vector else (Gene(number),)
        splits.append(Split(name, axis.name, lengths))
    levels = _levels(axes)
    tile = RegisterTile(name, levels.loops[-1], kernel.name)
    sketch = sketch.apply(*splits, Reorder(name, levels.order), tile).with_note(name, levels)
    return sketch.apply(Vectorize(name, levels.order[-1])) if axes.vector is not None else sketch


def _without_batches(tiles: tuple[tuple[int, ...], ...], axes: tuple[Axis, ...], stage: Stage) -> tuple[tuple[int, ...], ...]:
    """The register tiles of one element along axes that all operands move along, as a batch does: nothing is reused there."""
    moving = batch_axes(stage)
    batches = [position for position, axis in enumerate(axes) if axis.name in moving]
    return tuple(tile for tile in tiles if all(tile[position] == 1 for position in batches)) or tiles


def _levels(axes: TiledAxes) -> TileLevels:
    def parts(group: tuple[Axis, ...], part: int) -> tuple[str, ...]:
        return tuple(f"{axis.name}.{part}" for axis in group)

    innermost = [axis for axis in axes.spatial if axis is not axes.vector]
    vector: tuple[str, ...] = ()
    if axes.vector is not None:
        vector = (f"{axes.vector.name}.{3 if axes.vector in axes.spatial else 2}",)
    return TileLevels(
        (
            (*(axis.name for axis in axes.unit_spatial), *parts(axes.spatial, 0)),
            parts(axes.spatial, 1),
            (*(axis.name for axis in axes.unit_reduction), *parts(axes.reduction, 0)),
            parts(axes.spatial, 2),
            parts(axes.reduction, 1),
            (*parts(tuple(innermost), 3), *vector),
        )
    )
