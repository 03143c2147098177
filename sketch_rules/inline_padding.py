"""Rule: a product reads a padded input through its window, with zeros for what lies outside, in place of a padded copy.

A copy costs a store and a load for every element, which pays where a product reads the copy for each of its output channels.
A depthwise convolution reads every element for the steps of its window alone, with lanes along a row: there masks in the
loads are cheaper than the copy, and the copy stays as the other variant, for the search to decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.schedule.access import element_stride
from ansor_py.schedule.state import Stage
from ansor_py.schedule.steps import ComputeInline
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.notes import PackedOperand
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.te.expr import Const, Expr, Read, Select


@rule("inline_padding")
class InlinePadding(Rule):
    """For an input inside of a frame of constants, where the one product that reads it moves along with all of its axes, and
    along one of them from an element to the next.

    Before, and after on stage `P`:

        for c in 4:
          for i in 22:
            P[c, i] = select(((i >= 1) && (i < 21)), A[c, (i - 1)], 0)
        for c in 4:
          for i in 20:
            for k in 3:
              W[c, i] = sum((P[c, (i + k)] * V[c, k]), axes=[k])

        inlined(P)
        for c in 4:
          for i in 20:
            for k in 3:
              W[c, i] = sum((select((((i + k) >= 1) && ((i + k) < 21)), A[c, ((i + k) - 1)], 0) * V[c, k]), axes=[k])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage, state = sketch.stage(number), sketch.state
        readers = state.consumers(stage.name)
        free = not state.is_output(stage.name) and stage.is_unscheduled and not state.attached_to(stage.name)
        if not free or len(readers) != 1 or not is_padding(state.body(stage.name)):
            return "skip"
        [reader] = readers
        # Lanes along an axis of panels would be gathered.
        lies_in_panels = sketch.note(reader.name, PackedOperand) is not None
        reads = [read for read in state.reads(reader.name) if read.tensor.name == stage.name]
        masked = read_by_window_alone(reader, reads) and steps_along_lanes(reader, reads) <= sketch.options.masked_steps
        return "apply" if masked and not lies_in_panels else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        name = sketch.stage(number).name
        return [(sketch.apply(ComputeInline(name)).with_label(f"inlined({name})"), number - 1)]


def is_padding(body: Expr) -> bool:
    """Whether a formula is an element where a condition holds, and else a constant."""
    return isinstance(body, Select) and isinstance(body.then, Read) and isinstance(body.otherwise, Const)


def read_by_window_alone(product: Stage, reads: Sequence[Read]) -> bool:
    """Whether a product's reads of an operand move with each of its output axes, with one of them element after element.

    Then nothing but the steps of its reduction reads an element again.
    """
    if not (product.op.reduce_axes and reuses_data(product)):
        return False
    axes = [axis.name for axis in product.op.axes if axis.extent > 1]
    strides = [[element_stride(read, axis) for axis in axes] for read in reads]
    return all(all(of_read) and 1 in of_read for of_read in strides)


def steps_along_lanes(product: Stage, reads: Sequence[Read]) -> int:
    """How many steps of a reduction go from an element of an operand to its neighbours."""
    steps = 1
    for axis in product.op.reduce_axes:
        along = any((element_stride(read, axis.name) or 0) < read.tensor.shape[-1] for read in reads)
        steps *= axis.extent if along else 1
    return steps
