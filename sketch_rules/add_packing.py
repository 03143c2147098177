"""Rule: copy an operand of a product into panels, so that the inner loop reads it in one stream (design, Idea 3).

`B[k, j]` becomes `B.cache[j / w, k, j % w]` with w the register tile's width, zero-filled to whole panels. A transposed operand
is packed too, and then the product is vectorised along its output.

    C[i, j] = sum(A[i, k] * B[j, k])   ->   sum(A[i, k] * B.cache[j // 32, k, j % 32])

Where the copy is made is a location hole like any other, unless the operand is constant: then it is made once, before any
run. A constant may be packed along any output axis: a convolution's output channels run in lanes, whatever the image's width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansor_py.schedule.state import Root, Stage
from ansor_py.schedule.steps import CacheRead, TransformLayout
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.te.expr import Const, Read, Var, reads_of
from ansor_py.te.tensor import Placeholder

# Vectors in a panel's row, the first that fits. Two leave room for 14 rows of accumulators in 32 registers, the best ratio
# of work to loads.
PANEL_VECTORS = (2, 3, 1)
# The zeros that fill the last panel may add at most this share to the axis.
MOST_FILLING = 0.25
# The operand is read again for every iteration of the axes it lacks; with fewer of them copying at run time does not pay.
FEWEST_REUSES = 32
# An operand smaller than this many bytes stays in the first-level cache as it is.
SMALLEST_OPERAND = 1 << 15


@dataclass(frozen=True)
class Panels:
    """An operand that may be packed: the read, the output axis along which panels are made, and their width (elements)."""

    read: Read
    axis: str
    width: int


@rule("add_packing")
class AddPacking(Rule):
    """For a reduction with data reuse, each operand that may be packed; the unpacked variant stays."""

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        fits = reuses_data(stage) and bool(stage.op.reduce_axes) and stage.is_unscheduled
        if not fits or stage.name in sketch.panels or stage.name in sketch.cached:
            return "skip"
        return "apply" if possible_panels(sketch, stage) else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        stage = sketch.stage(number)
        return [(_packed(sketch, stage, panels), number + 1) for panels in possible_panels(sketch, stage)]


def _packed(sketch: PartialSketch, stage: Stage, panels: Panels) -> PartialSketch:
    read = panels.read
    packed = sketch.apply(CacheRead(read.tensor.name, (stage.name,)))
    copy = packed.state.stage(f"{read.tensor.name}.cache")
    names = {index.name: own.name for index, own in zip(read.indices, copy.op.axes, strict=True) if isinstance(index, Var)}
    along = names[panels.axis]
    reduced = [names[item.name] for item in stage.op.reduce_axes if item.name in names]
    outer = [own.name for own in copy.op.axes if own.name not in (along, *reduced)]
    order = (*outer, f"{along}.outer", *reduced, f"{along}.inner")
    packed = packed.apply(TransformLayout(copy.name, ((along, panels.width),), order))
    packed = packed.with_label(f"pack({read.tensor.name} {panels.axis} {panels.width})")
    return replace(packed, panels={**packed.panels, stage.name: (panels.axis, panels.width)})


def possible_panels(sketch: PartialSketch, stage: Stage) -> list[Panels]:
    """Operands with an output axis of at least a panel's width, every index a plain axis, that are worth copying."""
    lanes = sketch.target.lanes(stage.tensor.dtype)
    last = next((axis for axis in reversed(stage.op.axes) if axis.extent > 1), None)
    reads = reads_of(stage.op.body)
    found: list[Panels] = []
    for read in reads:
        names = [index.name for index in read.indices if isinstance(index, Var)]
        plain = all(isinstance(index, Var | Const) for index in read.indices) and len(set(names)) == len(names)
        alone = sum(other.tensor is read.tensor for other in reads) == 1
        reduced = any(item.name in names for item in stage.op.reduce_axes)
        if not (plain and alone and reduced):
            continue
        constant = _is_constant(read)
        if not constant and not _is_worth_copying(sketch, stage, read, names):
            continue
        for axis in stage.op.axes:
            if axis.name in names and (axis is last or constant):
                fitting = [v * lanes for v in PANEL_VECTORS if _filling(axis.extent, v * lanes) <= MOST_FILLING]
                found.extend(Panels(read, axis.name, width) for width in fitting[:1])
    return found


def _filling(extent: int, width: int) -> float:
    return -extent % width / extent


def _is_constant(read: Read) -> bool:
    return isinstance(read.tensor.op, Placeholder) and read.tensor.op.constant


def _is_worth_copying(sketch: PartialSketch, stage: Stage, read: Read, names: list[str]) -> bool:
    """Whether an operand is large, read often, and has a buffer of its own."""
    reuses = 1
    for item in stage.op.axes:
        reuses *= 1 if item.name in names else item.extent
    name = read.tensor.name
    has_buffer = not sketch.state.has_stage(name) or isinstance(sketch.state.stage(name).location, Root)
    return read.tensor.bytes >= SMALLEST_OPERAND and reuses >= FEWEST_REUSES and has_buffer
