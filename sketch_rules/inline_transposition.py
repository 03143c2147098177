"""Rule: a product reads what a transposition reads, in place of a transposed copy.

Ansor keeps a transposition as a stage of its own, because reading another order of dimensions may cost more than reading a
copy. A product reads each element many times and has its own means against a bad order: panels, which are a transposed copy
where one pays (`add_packing`), and lanes along the reduction.
"""

from __future__ import annotations

from ansor_py.schedule.access import is_transposition
from ansor_py.schedule.steps import ComputeInline
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


@rule("inline_transposition")
class InlineTransposition(Rule):
    """For a stage that is its input with dimensions in another order, and that only products with a reduction read.

    Before, and after on stage `T`:

        for k in 16:
          for i in 20:
            T[k, i] = A[i, k]
        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((T[k, i] * B[k, j]), axes=[k])

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage, state = sketch.stage(number), sketch.state
        readers = state.consumers(stage.name)
        free = not state.is_output(stage.name) and stage.is_unscheduled and not state.attached_to(stage.name)
        products = bool(readers) and all(reader.op.reduce_axes and reuses_data(reader) for reader in readers)
        return "apply_and_stop" if free and products and is_transposition(stage.tensor) else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        return [(sketch.apply(ComputeInline(sketch.stage(number).name)), number - 1)]
