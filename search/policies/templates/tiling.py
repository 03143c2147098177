"""The steps that templates are written in: tiles with knobs, packed operands, fusion into the consumer.

partial = tiled(partial, "C", split=("k",))
partial = with_epilogue(partial, "C")
"""

from __future__ import annotations

from collections.abc import Collection

from ansor_py.schedule.hole_kinds import RegisterTileHole, TileHole
from ansor_py.schedule.micro_kernels import micro_kernel_for
from ansor_py.schedule.state import Gene, Root
from ansor_py.schedule.steps import ComputeAt, FollowSplit, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.sketch_rules.add_packing import AddPacking
from ansor_py.sketch_rules.fusible import fusible_consumer
from ansor_py.sketch_rules.multi_level_tiling import TiledAxes, tiled_axes
from ansor_py.sketch_rules.notes import PackedOperand, TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.register_tile import register_tiles
from ansor_py.sketch_rules.tile_sizes import level_sizes, reduction_lengths
from ansor_py.te.expr import Axis


def packings(partial: PartialSketch, name: str) -> list[PartialSketch]:
    """The schedule as it is, and with each operand packed that the sketch rules would pack."""
    number = [stage.name for stage in partial.state.stages].index(name)
    rule = AddPacking()
    packed = [] if rule.condition(partial, number) == "skip" else rule.apply(partial, number)
    return [partial, *(variant for variant, _ in packed)]


def tiled(partial: PartialSketch, name: str, split: Collection[str]) -> PartialSketch:
    """A reduction tiled as spatial, reduction, spatial, reduction, register tile (AutoTVM's structure for CPUs).

    Every output axis is split twice and every reduction axis of `split` once: `i.0 j.0 | k.0 | i.1 j.1 | r k.1 | i.2 j.2`,
    with the reduction axes `r` that are not split inside. Knobs are the register tile, which is that of the sketch rules, the
    length of every second part, and the length of every inner part of a reduction.
    """
    stage = partial.state.stage(name)
    axes = tiled_axes(partial, stage)
    kernel = micro_kernel_for(partial.state.body(name), partial.target)
    register = axes.register_axes
    packed = partial.note(name, PackedOperand)
    tiles = register_tiles(
        tuple(axis.extent for axis in register),
        register.index(axes.vector) if axes.vector is not None else None,
        partial.target.lanes(*partial.state.dtypes(name)),
        kernel,
        partial.target,
        packed.width if packed is not None else None,
        partial.options,
    )
    partial, register_hole = partial.with_hole(RegisterTileHole(f"register tile {name}", name, tiles))
    splits: list[Step] = []
    for position, axis in enumerate(axes.spatial):
        smallest = min(choice[position] for choice in tiles)
        most = partial.options.round_sizes[-1]
        sizes = tuple((size,) for size in level_sizes(-(-axis.extent // smallest), most, partial.options))
        partial, hole = partial.with_hole(TileHole(f"tile {name}.{axis.name}", name, sizes))
        splits.append(Split(name, axis.name, (Gene(register_hole, position), Gene(hole))))
    parts = [axis for axis in axes.reduction if axis.name in split or axis is axes.vector]
    for axis in parts:
        inner = reduction_lengths(axis.extent, partial.options)
        partial, hole = partial.with_hole(TileHole(f"tile {name}.{axis.name}", name, inner))
        lengths = (Gene(register_hole, len(axes.spatial)), Gene(hole)) if axis is axes.vector else (Gene(hole),)
        splits.append(Split(name, axis.name, lengths))
    levels = _levels(axes, parts)
    tile = RegisterTile(name, levels.loops[-1], kernel.name)
    partial = partial.apply(*splits, Reorder(name, levels.order), tile).with_note(name, levels)
    return partial.apply(Vectorize(name, levels.order[-1])) if axes.vector is not None else partial


def _levels(axes: TiledAxes, split: Collection[Axis]) -> TileLevels:
    def parts(group: Collection[Axis], part: int) -> tuple[str, ...]:
        return tuple(f"{axis.name}.{part}" for axis in group)

    whole = tuple(axis.name for axis in axes.reduction if axis not in split)
    vector: tuple[str, ...] = () if axes.vector is None else (f"{axes.vector.name}.2",)
    return TileLevels(
        (
            (*(axis.name for axis in axes.unit_spatial), *parts(axes.spatial, 0)),
            (*(axis.name for axis in axes.unit_reduction), *parts(split, 0)),
            parts(axes.spatial, 1),
            (*whole, *parts(split, 1)),
            (*parts([axis for axis in axes.spatial if axis is not axes.vector], 2), *vector),
        )
    )


def with_epilogue(partial: PartialSketch, name: str) -> PartialSketch:
    """A tiled stage computed inside the outermost tiles of its elementwise consumer, if it has one; else as it is."""
    consumer = fusible_consumer(partial, name)
    if consumer is None:
        return partial
    axes = partial.state.stage(name).op.axes
    pairs = list(zip(consumer.op.axes, axes, strict=True))
    split = [(mine, theirs) for mine, theirs in pairs if theirs.extent > 1]
    outer = (*(mine.name for mine, theirs in pairs if theirs.extent == 1), *(f"{mine.name}.0" for mine, _ in split))
    inner = tuple(f"{mine.name}.1" for mine, _ in split)
    return partial.apply(
        *(FollowSplit(consumer.name, mine.name, name, theirs.name, 2) for mine, theirs in split),
        Reorder(consumer.name, (*outer, *inner)),
        ComputeAt(name, consumer.name, outer[-1]),
    ).with_note(consumer.name, TileLevels((outer, inner)))


def with_inputs_in_tiles(partial: PartialSketch, name: str) -> PartialSketch:
    """What a tiled stage alone reads (a padded input) computed inside its outermost tiles, just the part that is needed."""
    levels = partial.note(name, TileLevels)
    assert levels is not None
    for stage in partial.state.stages:
        readers = [consumer.name for consumer in partial.state.consumers(stage.name)]
        free = isinstance(stage.location, Root) and not partial.state.is_output(stage.name)
        if free and readers == [name] and stage.name not in partial.state.prepacked:
            partial = partial.apply(ComputeAt(stage.name, name, levels.loops[0][-1]))
    return partial
