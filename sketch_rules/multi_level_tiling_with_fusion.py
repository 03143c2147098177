"""Rule: tile a stage with data reuse and compute it inside its elementwise consumer (paper, Table 1, rule 4).

The consumer follows the producer's splits, so that one of its tiles is exactly what the producer computes at a time. Level 1
attaches the producer below the consumer's outermost tiles, level 2 below the second ones.
"""

from __future__ import annotations

from ansor_py.schedule.steps import ComputeAt, FollowSplit, Reorder
from ansor_py.sketch_rules.fusible import fusible_consumer, reuses_data
from ansor_py.sketch_rules.multi_level_tiling import tile, tiled_axes
from ansor_py.sketch_rules.notes import ComputedForCopy, TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule


@rule("multi_level_tiling_with_fusion")
class MultiLevelTilingWithFusion(Rule):
    """For a stage with data reuse and an elementwise consumer; the only way on for the compute half of a cache write.

    Before, and after on stage `C`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            D[i, j] = max(C[i, j], 0)

        fuse(C->D level 1)
        for i.0 in rest:
          for j.0 in rest:
            for i.0 in rest:
              for j.0 in rest:
                for i.1 in gene1.1:
                  for j.1 in gene2.1:
                    for k.0 in rest:
                      for i.2 in gene1.0:
                        for j.2 in gene2.0:
                          for k.1 in gene3.0:
                            register tile by float32 outer product:
                              for i.3 in gene0.0:
                                vectorize j.3 in gene0.1:
                                  C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
            for i.1 in gene0.0*gene1.0*gene1.1:
              for j.1 in gene0.1*gene2.0*gene2.1:
                D[i, j] = max(C[i, j], 0)

        fuse(C->D level 2)
        for i.0 in rest:
          for j.0 in rest:
            for i.1 in gene1.1:
              for j.1 in gene2.1:
                for i.0 in rest:
                  for j.0 in rest:
                    for i.1 in gene1.1:
                      for j.1 in gene2.1:
                        for k.0 in rest:
                          for i.2 in gene1.0:
                            for j.2 in gene2.0:
                              for k.1 in gene3.0:
                                register tile by float32 outer product:
                                  for i.3 in gene0.0:
                                    vectorize j.3 in gene0.1:
                                      C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
                for i.2 in gene0.0*gene1.0:
                  for j.2 in gene0.1*gene2.0:
                    D[i, j] = max(C[i, j], 0)
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        if not reuses_data(stage) or not stage.is_unscheduled or fusible_consumer(sketch, stage.name) is None:
            return "skip"
        return "apply_and_stop" if sketch.note(stage.name, ComputedForCopy) else "apply"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        name = sketch.stage(number).name
        return [(_fused(sketch, name, level), number - 1) for level in sketch.options.fusion_levels]


def _fused(sketch: PartialSketch, name: str, level: int) -> PartialSketch:
    consumer = fusible_consumer(sketch, name)
    assert consumer is not None
    producer = sketch.state.stage(name)
    axes = tiled_axes(sketch, producer)
    sketch = tile(sketch, name)
    pairs = list(zip(consumer.op.axes, producer.op.axes, strict=True))
    split = [(mine, theirs) for mine, theirs in pairs if theirs in axes.spatial]
    sketch = sketch.apply(*(FollowSplit(consumer.name, mine.name, name, theirs.name, level + 1) for mine, theirs in split))
    whole = tuple(mine.name for mine, theirs in pairs if theirs not in axes.spatial)
    levels = TileLevels(
        tuple((*(whole if part == 0 else ()), *(f"{mine.name}.{part}" for mine, _ in split)) for part in range(level + 1))
    )
    return (
        sketch.apply(Reorder(consumer.name, levels.order), ComputeAt(name, consumer.name, levels.loops[level - 1][-1]))
        .with_note(consumer.name, levels)
        .with_label(f"fuse({name}->{consumer.name} level {level})")
    )
