"""Rule: inline what costs nothing to recompute, such as a bias or a ReLU (paper, Table 1, rule 2).

Beyond the paper: an expensive formula whose elements are read once, by an operation without reduction, is not recomputed.
"""

from __future__ import annotations

from ansor_py.schedule.access import has_reduction, is_read_once, is_strictly_inlineable
from ansor_py.schedule.state import Stage
from ansor_py.schedule.steps import ComputeInline
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


def _is_read_once(sketch: PartialSketch, stage: Stage) -> bool:
    state = sketch.state
    return is_read_once(stage.tensor, [state.whole(reader.name) for reader in state.consumers(stage.name)])


@rule("always_inline")
class AlwaysInline(Rule):
    """For a strictly inlineable stage that is neither an output nor a reduction."""

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        inlineable = (
            not sketch.state.is_output(stage.name)
            and stage.is_unscheduled
            and not has_reduction(stage.tensor)
            and not sketch.state.attached_to(stage.name)
            and (is_strictly_inlineable(stage.tensor) or _is_read_once(sketch, stage))
        )
        return "apply_and_stop" if inlineable else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        return [(sketch.apply(ComputeInline(sketch.stage(number).name)), number - 1)]
