"""Rule: leave a stage as it is (paper, Table 1, rule 1). Its annotations come later."""

from __future__ import annotations

from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


@rule("skip")
class Skip(Rule):
    """Always applies; the last of a list of rules.

    Before, and after on stage `D`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        return "apply"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        return [(sketch, number - 1)]
