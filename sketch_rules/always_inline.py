"""Rule: inline what costs nothing to recompute, such as a bias or a ReLU (paper, Table 1, rule 2).

Beyond the paper: an expensive formula whose elements are read once, by an operation without reduction, is not recomputed. And
what a rule has placed beside a product that reads it again and again is in the cache there, and not computed with every read.
"""

from __future__ import annotations

from ansor_py.schedule.access import is_free_to_inline
from ansor_py.schedule.state import At
from ansor_py.schedule.steps import ComputeInline
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


@rule("always_inline")
class AlwaysInline(Rule):
    """For a stage that is no output, whose formula costs nothing where it is read.

    Before, and after on stage `D`:

        for i in 20:
          for j in 12:
            D[i, j] = max(A[i, j], 0)
        for i in 20:
          for j in 12:
            E[i, j] = (D[i, j] * 2)

        for i in 20:
          for j in 12:
            E[i, j] = (max(A[i, j], 0) * 2)
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage, state = sketch.stage(number), sketch.state
        inlineable = (
            not state.is_output(stage.name)
            and stage.is_unscheduled
            and not state.attached_to(stage.name)
            and not (isinstance(stage.location, At) and any(map(reuses_data, state.consumers(stage.name))))
            and is_free_to_inline(stage.tensor, [state.whole(reader.name) for reader in state.consumers(stage.name)])
        )
        return "apply_and_stop" if inlineable else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        return [(sketch.apply(ComputeInline(sketch.stage(number).name)), number - 1)]
