"""Rule: factor a reduction, so that parts of it run in parallel or in vector lanes (paper, Table 1, rule 6).

All reduction loops are fused and split in two. Variant "outer" makes the outer part an axis of partial results (chunks
for the threads), variant "inner" the inner part (lanes of a vector). The factor has to be a number, so it is a structural
hole: each choice has steps of its own. Neither half is tiled further.
"""

from __future__ import annotations

from typing import Literal

from ansor_py.schedule.hole_kinds import FactorHole
from ansor_py.schedule.state import Root, Stage
from ansor_py.schedule.steps import Fuse, Reorder, Vectorize
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.notes import ComputedForCopy
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.sketch_rules.space_options import SpaceOptions
from ansor_py.sketch_rules.tile_sizes import divisors

Variant = Literal["outer", "inner"]


@rule("add_rfactor")
class AddRfactor(Rule):
    """Both variants, under Ansor's condition (reference page, section 2, "needs rfactor").

    Before, and after on stage `S`:

        for i in 4:
          for k in 4096:
            S[i] = sum(A[i, k], axes=[k])

        rfactor(S outer)
        for i in 4:
          for k.0 in 16:
            for k.1 in 256:
              S.rf[i, k.0] = sum(A[i, ((k.0 * 256) + k.1)], axes=[k.1])
        for i in 4:
          for k.0 in 16:
            S[i] = sum(S.rf[i, k.0], axes=[k.0])

        rfactor(S inner)
        for i in 4:
          for k.0 in 512:
            vectorize k.1 in 8:
              S.rf[i, k.1] = sum(A[i, ((k.0 * 8) + k.1)], axes=[k.0])
        for i in 4:
          for k.1 in 8:
            S[i] = sum(S.rf[i, k.1], axes=[k.1])
    """

    variants: tuple[Variant, ...] = ("outer", "inner")

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        stage = sketch.stage(number)
        if not stage.op.reduce_axes or not stage.is_unscheduled or sketch.note(stage.name, ComputedForCopy) is not None:
            return "skip"
        if not isinstance(stage.location, Root):  # the partial results would be computed outside, of what is inside
            return "skip"
        return "apply" if self.needs_rfactor(stage, sketch.target.cores, sketch.options) else "skip"

    def needs_rfactor(self, stage: Stage, cores: int, options: SpaceOptions) -> bool:
        """Whether there is more to gain from the reduction than from the output elements."""
        spatial, reduction = _sizes(stage)
        if reuses_data(stage):
            return spatial <= reduction and spatial <= options.rfactor_elements * cores
        return reduction > cores

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        return [(_factored(sketch, sketch.stage(number), variant), number - 1) for variant in self.variants]


@rule("add_parallel_rfactor")
class AddParallelRfactor(AddRfactor):
    """Variant "outer" alone, where there are threads to feed and fewer output elements than they can share.

    Before, and after on stage `S`:

        for i in 4:
          for k in 4096:
            S[i] = sum(A[i, k], axes=[k])

        rfactor(S outer)
        for i in 4:
          for k.0 in 16:
            for k.1 in 256:
              S.rf[i, k.0] = sum(A[i, ((k.0 * 256) + k.1)], axes=[k.1])
        for i in 4:
          for k.0 in 16:
            S[i] = sum(S.rf[i, k.0], axes=[k.0])
    """

    variants: tuple[Variant, ...] = ("outer",)

    def needs_rfactor(self, stage: Stage, cores: int, options: SpaceOptions) -> bool:
        spatial, reduction = _sizes(stage)
        few = cores > 1 and spatial <= options.rfactor_chunks[-1] * cores and reduction > 64
        return few and super().needs_rfactor(stage, cores, options)


def _sizes(stage: Stage) -> tuple[int, int]:
    spatial = reduction = 1
    for axis in stage.op.axes:
        spatial *= axis.extent
    for axis in stage.op.reduce_axes:
        reduction *= axis.extent
    return spatial, reduction


def factor_lengths(extent: int, variant: Variant, lanes: int, cores: int, options: SpaceOptions) -> tuple[int, ...]:
    """Lengths of the inner part: vectors for variant "inner", a few chunks a core for "outer"; divisors where there are any."""
    if variant == "inner":
        wanted = [lanes * vectors for vectors in options.vectors]
    else:
        wanted = [-(-extent // (cores * chunks)) for chunks in options.rfactor_chunks]
        wanted = [length if length < lanes else -(-length // lanes) * lanes for length in wanted]
    found: set[int] = set()
    for length in wanted:
        if variant == "outer" and extent % length:
            length = next((d for d in divisors(extent) if length <= d <= length * 5 // 4), length)
        found.add(length)
    kept = sorted(length for length in found if 1 < length < extent)
    return tuple(kept) or (max(1, extent // 2),)


def _factored(sketch: PartialSketch, stage: Stage, variant: Variant) -> PartialSketch:
    name = stage.name
    loops = tuple(axis.name for axis in stage.op.reduce_axes)
    if len(loops) > 1:
        sketch = sketch.apply(Fuse(name, loops))
    fused = next(item.name for item in sketch.state.stage(name).iterators if item.kind == "reduction")
    _, reduction = _sizes(stage)
    lanes = sketch.target.lanes(*sketch.state.dtypes(stage.name))
    lengths = factor_lengths(reduction, variant, lanes, sketch.target.cores, sketch.options)
    hole = FactorHole(f"rfactor {name}", name, lengths, fused, 0 if variant == "outer" else 1)
    sketch = sketch.choose(hole).with_label(f"rfactor({name} {variant})")
    if variant == "outer":
        return sketch
    partial, factored = f"{name}.rf", f"{fused}.{hole.part}"
    order = [item.name for item in sketch.state.stage(partial).iterators if item.name != factored]
    return sketch.apply(Reorder(partial, (*order, factored)), Vectorize(partial, factored))
