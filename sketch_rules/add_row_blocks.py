"""Rule: compute everything between a product and the row-wise result that ends it in blocks of rows, such as attention scores
and their softmax, so that the rows stay in the cache between the stages.

Ansor tiles the product by itself and sends its whole result through memory once for each row-wise stage. Here the result's row
axis is split by a hole, and the product and all stages behind it are computed inside the loop over blocks. The product is then
tiled within a block by the rules that come later; the variant without blocks stays.
"""

from __future__ import annotations

from ansor_py.schedule.access import common_outer_axes
from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.schedule.state import Gene, Root, Stage
from ansor_py.schedule.steps import ComputeAt, Split
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.sketch_rules.tile_sizes import level_sizes


@rule("add_row_blocks")
class AddRowBlocks(Rule):
    """For an output without data reuse behind row-wise reductions of a product whose rows are its own rows.

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
        applies = sketch.state.is_output(stage.name) and stage.is_unscheduled and not stage.op.reduce_axes
        return "apply" if applies and row_stages(sketch, stage) else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        stage = sketch.stage(number)
        inside = row_stages(sketch, stage)
        row = stage.op.axes[_shared_rows(sketch, stage, inside) - 1]
        sizes = tuple((size,) for size in level_sizes(row.extent, sketch.options.largest_block, sketch.options))
        sketch, hole = sketch.with_hole(TileHole(f"rows {stage.name}.{row.name}", stage.name, sizes))
        sketch = sketch.apply(Split(stage.name, row.name, (Gene(hole),)))
        placed = [ComputeAt(item.name, stage.name, f"{row.name}.0") for item in inside]
        return [(sketch.apply(*placed).with_label(f"rows({stage.name})"), number - 1)]


def row_stages(sketch: PartialSketch, stage: Stage) -> list[Stage]:
    """The stages from products to the given output, these included; none unless there is a product with reductions behind it.

    Nothing outside reads any of them, and each has the rows that its readers have.
    """
    found: dict[str, Stage] = {}
    reduced: set[str] = set()  # stages with a reduction somewhere behind them
    products = 0
    for item in reversed(sketch.state.stages):
        free = isinstance(item.location, Root) and item.is_unscheduled and not sketch.state.is_output(item.name)
        readers = [reader.name for reader in sketch.state.consumers(item.name)]
        if not free or not readers or any(name != stage.name and name not in found for name in readers):
            continue
        if any(name in reduced or (name in found and found[name].op.reduce_axes) for name in readers):
            reduced.add(item.name)
        product = reuses_data(item)
        if product and item.name not in reduced:  # an elementwise consumer takes it in by itself
            continue
        if any(name in found and reuses_data(found[name]) for name in readers):  # what a product reads stays outside
            continue
        products += product
        found[item.name] = item
    inside = list(found.values())
    return inside if products and _shared_rows(sketch, stage, inside) else []


def _shared_rows(sketch: PartialSketch, stage: Stage, inside: list[Stage]) -> int:
    """How many leading axes, the last of them longer than 1, all stages share with all their readers."""
    shared = len(stage.op.axes) - 1
    for item in inside:
        for reader in sketch.state.consumers(item.name):
            shared = min(shared, common_outer_axes(sketch.state.whole(reader.name), item.tensor))
    while shared and stage.op.axes[shared - 1].extent == 1:
        shared -= 1
    return shared
