"""Rule: copy an operand of a large product into panels, so that the inner loop reads it in one stream (design, Idea 3).

`B[k, j]` becomes `B.cache[j / w, k, j % w]` with w the register tile's width, zero-filled to whole panels. Where the copy is
made is a location hole like any other. A transposed operand is packed too, and then the product is vectorised along its output.

    C[i, j] = sum(A[i, k] * B[j, k])   ->   sum(A[i, k] * B.cache[j // 32, k, j % 32])
"""

from __future__ import annotations

from dataclasses import replace

from ansor_py.schedule.state import Root, Stage
from ansor_py.schedule.steps import CacheRead, TransformLayout
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.te.expr import Axis, Const, Read, Var, reads_of

# Vectors in a panel's row. Two leave room for 14 rows of accumulators in 32 registers, the best ratio of work to loads.
PANEL_VECTORS = 2
# The operand is read again for every iteration of the axes it lacks; with fewer of them copying does not pay.
FEWEST_REUSES = 32
# An operand smaller than this many bytes stays in the first-level cache as it is.
SMALLEST_OPERAND = 1 << 15


@rule("add_packing")
class AddPacking(Rule):
    """For a reduction with data reuse that reads one operand along its last output axis; the unpacked variant stays."""

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        fits = reuses_data(stage) and bool(stage.op.reduce_axes) and stage.is_unscheduled
        if not fits or stage.name in sketch.panels or stage.name in sketch.cached:
            return "skip"
        return "apply" if packable_read(sketch, stage) is not None else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        stage = sketch.stage(number)
        read = packable_read(sketch, stage)
        axis = packed_axis(stage)
        assert read is not None
        assert axis is not None
        width = PANEL_VECTORS * sketch.target.lanes(stage.tensor.dtype)
        packed = sketch.apply(CacheRead(read.tensor.name, (stage.name,)))
        copy = packed.state.stage(f"{read.tensor.name}.cache")
        names = {index.name: own.name for index, own in zip(read.indices, copy.op.axes, strict=True) if isinstance(index, Var)}
        along = names[axis.name]
        reduced = [names[item.name] for item in stage.op.reduce_axes if item.name in names]
        outer = [own.name for own in copy.op.axes if own.name not in (along, *reduced)]
        order = (*outer, f"{along}.outer", *reduced, f"{along}.inner")
        packed = packed.apply(TransformLayout(copy.name, ((along, width),), order)).with_label(f"pack({read.tensor.name})")
        return [(replace(packed, panels={**packed.panels, stage.name: (axis.name, width)}), number + 1)]


def packed_axis(stage: Stage) -> Axis | None:
    """The output axis along which panels are made: the last one longer than 1."""
    return next((axis for axis in reversed(stage.op.axes) if axis.extent > 1), None)


def packable_read(sketch: PartialSketch, stage: Stage) -> Read | None:
    """The one read of an operand that has the panel axis and lacks others, every index a plain axis; None if there is none."""
    axis = packed_axis(stage)
    width = PANEL_VECTORS * sketch.target.lanes(stage.tensor.dtype)
    if axis is None or axis.extent < width:
        return None
    reads = reads_of(stage.op.body)
    for read in reads:
        names = [index.name for index in read.indices if isinstance(index, Var)]
        plain = all(isinstance(index, Var | Const) for index in read.indices) and len(set(names)) == len(names)
        alone = sum(other.tensor is read.tensor for other in reads) == 1
        reduced = any(item.name in names for item in stage.op.reduce_axes)
        if not (plain and alone and reduced and axis.name in names) or read.tensor.bytes < SMALLEST_OPERAND:
            continue
        reuses = 1
        for item in stage.op.axes:
            reuses *= 1 if item.name in names else item.extent
        if reuses >= FEWEST_REUSES and _can_copy(sketch, read):
            return read
    return None


def _can_copy(sketch: PartialSketch, read: Read) -> bool:
    """Whether the operand is an input, or a stage that has a buffer of its own."""
    name = read.tensor.name
    return not sketch.state.has_stage(name) or isinstance(sketch.state.stage(name).location, Root)
