"""Rule: compute everything from a product to the result in blocks of rows, so that the rows stay in the cache between the
stages: attention scores, their softmax, and the product of these with the values.

Ansor tiles each product by itself and sends its whole result through memory once for each stage behind it. Here the result's
row axis is split by a hole, and the products and all stages between and behind them are computed inside the loop over blocks.
The products are then tiled within a block by the rules that come later. The variant without blocks stays, but for several
products with a row-wise reduction between: without blocks these are kernels of their own, for which a graph has another
partition, and their variants would multiply.

Which axes are rows is read off the accesses: every stage inside is read by them alone, as they are, in whatever order of
dimensions (the result of attention is often transposed), and an axis along which all operands of a product move, such as
batch and heads, is a loop around the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.schedule.state import Gene, Inlined, Root, Stage, State
from ansor_py.schedule.steps import CacheWrite, ComputeAt, Reorder, Split
from ansor_py.sketch_rules.fusible import batch_axes, reuses_data
from ansor_py.sketch_rules.notes import PackedOperand
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.sketch_rules.tile_sizes import level_sizes
from ansor_py.te.expr import Axis, Var


@rule("add_row_blocks")
class AddRowBlocks(Rule):
    """For an output behind reductions of a product whose rows are its own rows. If it is a product itself, its result is
    copied out of the block.

    Before, and after on stage `D`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for m in 12:
            S[i] = sum(C[i, m], axes=[m])
        for i in 20:
          for j in 12:
            D[i, j] = (C[i, j] / S[i])

        rows(D)
        for i.0 in rest:
          for i in needed:
            for j in needed:
              for k in 16:
                C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
          for i in needed:
            for m in 12:
              S[i] = sum(C[i, m], axes=[m])
          for i.1 in gene0.0:
            for j in 12:
              D[i, j] = (C[i, j] / S[i])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        untouched = stage.is_unscheduled and isinstance(stage.location, Root) and not sketch.note(stage.name, PackedOperand)
        if not (sketch.state.is_output(stage.name) and untouched and (reuses_data(stage) or not stage.op.reduce_axes)):
            return "skip"
        rows = rows_of(_copied_out(sketch, stage).state, stage.name)
        return "skip" if rows is None else "apply_and_stop" if rows.products > 1 and rows.reductions else "apply"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        name = sketch.stage(number).name
        sketch = _copied_out(sketch, sketch.stage(number))
        rows = rows_of(sketch.state, name)
        assert rows is not None
        sizes = tuple((size,) for size in level_sizes(rows.split.extent, sketch.options.largest_block, sketch.options))
        sketch, hole = sketch.with_hole(TileHole(f"rows {name}.{rows.split.name}", name, sizes))
        sketch = sketch.apply(Split(name, rows.split.name, (Gene(hole),)))
        order = _order(sketch.state.stage(name), rows)
        if order != tuple(item.name for item in sketch.state.stage(name).iterators):
            sketch = sketch.apply(Reorder(name, order))
        placed = [ComputeAt(inside, name, f"{rows.split.name}.0") for inside in rows.inside]
        sketch = sketch.apply(*placed).with_label(f"rows({name})")
        return [(sketch, [stage.name for stage in sketch.state.stages].index(name) - 1)]


def _copied_out(sketch: PartialSketch, stage: Stage) -> PartialSketch:
    """A product that is the result gets a stage that copies it, so that it can be tiled in a block like the others."""
    return sketch.apply(CacheWrite(stage.name)) if stage.op.reduce_axes else sketch


@dataclass(frozen=True)
class Rows:
    """What is computed in blocks of rows: the stages, consumers first, and how many of them are products and other reductions;
    the result's axis to split; those that go around it."""

    inside: tuple[str, ...]
    products: int
    reductions: int
    split: Axis
    around: tuple[Axis, ...]


def rows_of(state: State, output: str) -> Rows | None:
    """The stages from products to the output and the rows that they share; None without a product with a reduction behind it.

    Nothing outside reads any of them.
    """
    inside = _from_products(state, output)
    if not inside:
        return None
    found = _output_axes(state, output, inside)
    shared = [
        axis
        for axis in state.stage(output).op.axes
        if axis.extent > 1 and all(axis.name in found[name].values() for name in inside)
    ]
    products = [name for name in inside if reuses_data(state.stage(name))]
    batches = {found[name].get(axis) for name in products for axis in batch_axes(state.stage(name))}
    rows = [axis for axis in shared if axis.name not in batches] or shared
    if not rows:
        return None
    reductions = sum(bool(state.stage(name).op.reduce_axes) for name in inside) - len(products)
    around = tuple(axis for axis in shared if axis is not rows[-1])
    return Rows(tuple(inside), len(products), reductions, rows[-1], around)


def _from_products(state: State, output: str) -> list[str]:
    """The products with a reduction behind them and all stages that depend on one, consumers first; none if one of them cannot
    be computed inside the output's loops."""
    reduced: set[str] = set()  # stages with a reduction somewhere behind them
    for stage in reversed(state.stages):
        readers = state.consumers(stage.name)
        if any(reader.name in reduced or reader.op.reduce_axes for reader in readers):
            reduced.add(stage.name)
    found: list[str] = []
    for stage in state.stages:
        starts = bool(stage.op.reduce_axes) and reuses_data(stage) and stage.name in reduced
        follows = any(read.tensor.name in found for read in state.reads(stage.name))
        if isinstance(stage.location, Inlined) or not (starts or follows):
            continue
        if stage.name == output:
            return found[::-1]
        if not (isinstance(stage.location, Root) and stage.is_unscheduled) or state.is_output(stage.name):
            return []
        found.append(stage.name)
    return []


def _output_axes(state: State, output: str, inside: list[str]) -> dict[str, dict[str, str]]:
    """For each stage which of its axes is which of the output's: where all readers, and those only by that axis, read it so."""
    found = {output: {axis.name: axis.name for axis in state.stage(output).op.axes}}
    for name in inside:
        axes = state.stage(name).op.axes
        ways: list[set[str | None]] = [set() for _ in axes]
        for reader in state.consumers(name):
            extents = {axis.name: axis.extent for axis in reader.op.axes}
            for read in state.reads(reader.name):
                if read.tensor.name != name:
                    continue
                for axis, way, index in zip(axes, ways, read.indices, strict=True):
                    same = isinstance(index, Var) and extents.get(index.name) == axis.extent
                    way.add(found[reader.name].get(index.name) if same and isinstance(index, Var) else None)
        found[name] = {axis.name: way.pop() or "" for axis, way in zip(axes, ways, strict=True) if len(way) == 1}
    return found


def _order(stage: Stage, rows: Rows) -> tuple[str, ...]:
    """The output's loops: those of one iteration, those around the blocks, the blocks, and what is inside of one."""
    around = [axis.name for axis in rows.around]
    units = [axis.name for axis in stage.op.axes if axis.extent == 1]
    first = [*units, *around, f"{rows.split.name}.0"]
    return (*first, *(item.name for item in stage.iterators if item.name not in first))
