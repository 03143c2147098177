"""Rule: give an output that reuses data, and has no consumer to fuse into, a local copy to compute in (paper, Table 1, rule 5).

The compute half is then tiled and fused into the copy; accumulators that do not fit the registers stay in the cache.
"""

from __future__ import annotations

from ansor_py.schedule.state import Root
from ansor_py.schedule.steps import CacheWrite
from ansor_py.sketch_rules.fusible import fusible_consumer, reuses_data
from ansor_py.sketch_rules.notes import ComputedForCopy, MadeByAlgorithm, PackedOperand
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


@rule("add_cache_write")
class AddCacheWrite(Rule):
    """For a stage with data reuse and without an elementwise consumer; the stage to go on with is the compute half.

    Before, and after on stage `C`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        cache(C)
        for i in 20:
          for j in 12:
            for k in 16:
              C.local[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            C[i, j] = C.local[i, j]
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        if sketch.note(stage.name, MadeByAlgorithm):  # its consumers read it all over, not element by element
            return "skip"
        untouched = stage.is_unscheduled and isinstance(stage.location, Root)
        applies = reuses_data(stage) and untouched and fusible_consumer(sketch, stage.name) is None
        return "apply" if applies else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        name = sketch.stage(number).name
        packed = sketch.note(name, PackedOperand)
        sketch = sketch.apply(CacheWrite(name)).with_label(f"cache({name})").with_note(f"{name}.local", ComputedForCopy())
        return [(sketch.with_note(f"{name}.local", packed) if packed else sketch, number)]
