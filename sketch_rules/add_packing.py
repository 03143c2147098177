"""Rule: copy an operand of a product into panels, so that the inner loop reads it in one stream (design, Idea 3).

`B[k, j]` becomes `B.cache[j / w, k, j % w]` with w the register tile's width, zero-filled to whole panels. A transposed operand
is packed too, and then the product is vectorised along its output.

    C[i, j] = sum(A[i, k] * B[j, k])   ->   sum(A[i, k] * B.cache[j // 32, k, j % 32])

Where the copy is made is a location hole like any other, unless the operand is constant: then it is made once, before any
run. A constant may be packed along any output axis: a convolution's output channels run in lanes, whatever the image's width.
"""

from __future__ import annotations

from dataclasses import replace

from ansor_py.schedule.panels import (
    Panels,
    filling,
    is_known_before,
    is_reused_along,
    is_worth_copying,
    panel_steps,
    possible_panels,
)
from ansor_py.schedule.state import Stage
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.multi_level_tiling import computed_extents
from ansor_py.sketch_rules.notes import ComputedForCopy, MadeByAlgorithm, PackedOperand
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


@rule("add_packing")
class AddPacking(Rule):
    """For a reduction with data reuse, each operand that may be packed; the unpacked variant stays.

    Before, and after on stage `C`:

        for i in 20:
          for j in 32:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        pack(B j 16)
        for i1.outer in 2:
          for i0 in 16:
            for i1.inner in 16:
              B.cache[i1.outer, i0, i1.inner] = B[i0, ((i1.outer * 16) + i1.inner)]
        for i in 20:
          for j in 32:
            for k in 16:
              C[i, j] = sum((A[i, k] * B.cache[(j // 16), k, (j % 16)]), axes=[k])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        fits = reuses_data(stage) and bool(stage.op.reduce_axes) and stage.is_unscheduled
        if not fits or any(sketch.note(stage.name, kind) for kind in (PackedOperand, ComputedForCopy)):
            return "skip"
        if not worthwhile_panels(sketch, stage):
            return "skip"
        return "apply_and_stop" if sketch.note(stage.name, MadeByAlgorithm) else "apply"  # whose sketches are many

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        stage = sketch.stage(number)
        packed = (_packed(sketch, stage, panels) for panels in worthwhile_panels(sketch, stage))
        return [(item, [other.name for other in item.state.stages].index(stage.name)) for item in packed]


def _packed(sketch: PartialSketch, stage: Stage, panels: Panels) -> PartialSketch:
    packed = sketch.apply(*panel_steps(sketch.state, stage, panels))
    packed = packed.with_label(f"pack({panels.read.tensor.name} {panels.axis} {panels.width})")
    return packed.with_note(stage.name, PackedOperand(panels.axis, panels.width))


def worthwhile_panels(sketch: PartialSketch, stage: Stage) -> list[Panels]:
    """Constants along any output axis, other operands along the last one if they are large and read often.

    None along an axis that is computed in blocks: blocks begin inside of a panel, at the latest where the axis ends, and a
    vector would come from two panels.
    """
    lanes = sketch.target.lanes(*sketch.state.dtypes(stage.name))
    extents = {axis.name: axis.extent for axis in stage.op.axes}
    parts = zip(stage.op.axes, computed_extents(sketch, stage), strict=True)
    blocked = {axis.name for axis, part in parts if part < axis.extent}
    found: list[Panels] = []
    for panels in possible_panels(stage, lanes):
        if panels.axis in blocked:
            continue
        if sketch.note(stage.name, MadeByAlgorithm) and not is_reused_along(stage, panels):
            continue
        if not (is_known_before(sketch.state, panels) or is_worth_copying(sketch.state, stage, panels)):
            continue
        widths = (vectors * lanes for vectors in sketch.options.panel_vectors)
        fitting = [width for width in widths if filling(extents[panels.axis], width) <= sketch.options.most_filling]
        found.extend(replace(panels, width=width) for width in fitting[:1])
    return found
