"""The step that says which loops of a stage form its register tile, and what is computed inside (design, Idea 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansor_py.schedule.micro_kernels import MICRO_KERNELS
from ansor_py.schedule.state import FuseRelation, RegisterTileOf, Stage, State
from ansor_py.schedule.steps.base import Step, step


@step("register_tile")
@dataclass(frozen=True)
class RegisterTile(Step):
    """Emit the iterations of some inner loops one after the other, as one piece that works on registers.

    Of a reduction the accumulators of the whole tile stay in registers through the reduction loops right around it. `iterators`
    are named in the order of the loops; the last may be computed in lanes (`Vectorize`), and may then be a reduction loop, the
    others are spatial. Every loop inside the first of them that is not named has to have one iteration.
    Without the step a stage has a tile of its vectorised loop alone, in steps of a few vectors where that is long.

    Before, and after `RegisterTile("C", ("i.1", "j.1"), "float32 outer product")`:

        for i.0 in 5:
          for j.0 in 2:
            for k in 16:
              for i.1 in 4:
                vectorize j.1 in 6:
                  C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        for i.0 in 5:
          for j.0 in 2:
            for k in 16:
              register tile by float32 outer product:
                for i.1 in 4:
                  vectorize j.1 in 6:
                    C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
    """

    iterators: tuple[str, ...]
    micro_kernel: str

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        if self.micro_kernel not in MICRO_KERNELS:
            raise self.error(f"there is no micro-kernel '{self.micro_kernel}'; known are {', '.join(MICRO_KERNELS)}")
        if stage.register_tile is not None:
            raise self.error(f"it has one already, of {', '.join(stage.register_tile.loops)}; a stage has one")
        if not self.iterators:
            raise self.error("no iterator is named; name the loops of the tile, outermost first")
        positions = [self.find_iterator(stage, name) for name in self.iterators]
        if positions != sorted(set(positions)):
            raise self.error(f"[{', '.join(self.iterators)}] is not the order of the loops; name them outermost first")
        fused = {relation.fused for relation in stage.relations if isinstance(relation, FuseRelation)}
        for name in self.iterators:
            if name in fused:
                raise self.error(f"iterator '{name}' is fused; name loops that are not")
        for position in positions[:-1]:
            if stage.iterators[position].kind == "reduction":
                raise self.error(f"iterator '{stage.iterators[position].name}' is a reduction loop; only the last may be one")
        for item in stage.iterators[positions[0] :]:
            if attached := state.attached_to(self.stage, item.name):
                raise self.error(f"stage '{attached[0].name}' is attached to iterator '{item.name}'; attach further out")
        return state.with_stage(replace(stage, register_tile=RegisterTileOf(self.iterators, self.micro_kernel)))


def check_untiled(step_: Step, stage: Stage, iterators: Sequence[str]) -> None:
    """Raise the step's error if it would change or use a loop of the stage's register tile, or one inside it."""
    if stage.register_tile is None:
        return
    first = stage.position(stage.register_tile.loops[0])
    inside = {item.name for item in stage.iterators[first:]}
    for name in iterators:
        if name in inside:
            tile = ", ".join(stage.register_tile.loops)
            raise step_.error(f"iterator '{name}' is inside the register tile of {tile}; split, reorder and attach first")
