"""Steps that say where a stage is computed: inside a consumer's loop, inlined, or at root."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansor_py.schedule.access import has_reduction
from ansor_py.schedule.state import At, Inlined, Location, Root, State
from ansor_py.schedule.steps.base import Step, step
from ansor_py.schedule.steps.register_tile import check_untiled


def _place(step_: Step, state: State, location: Location) -> State:
    return state.with_stage(replace(step_.find_stage(state), location=location))


@step("compute_at")
@dataclass(frozen=True)
class ComputeAt(Step):
    """Compute the stage inside a loop of a consumer: at each iteration, the part (with halo) that is read from there on.

    Before, and after `ComputeAt("C", "D", "i")`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            D[i, j] = max(C[i, j], 0)

        for i in 20:
          for i in needed:
            for j in needed:
              for k in 16:
                C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
          for j in 12:
            D[i, j] = max(C[i, j], 0)
    """

    target: str
    iterator: str

    @property
    def subject(self) -> str:
        """The stage, and the loop of the other stage that it should move into."""
        return f"stage '{self.stage}' at iterator '{self.iterator}' of stage '{self.target}'"

    def apply(self, state: State) -> State:
        self.find_stage(state)
        if state.is_output(self.stage):
            raise self.error("it is an output and has to be computed at root")
        target = self.find_other(state, self.target)
        position = self.find_iterator(target, self.iterator)
        if isinstance(target.location, Inlined):
            raise self.error(f"stage '{self.target}' is inlined and has no loops; attach it to a stage that has some")
        if target.iterators[position].annotation == "vectorize":
            raise self.error("the loop is vectorised; attach further out")
        check_untiled(self, target, [self.iterator])
        if not _reaches(state, self.stage, self.target):
            readers = ", ".join(reader.name for reader in state.readers(self.stage))
            raise self.error(f"stage '{self.target}' does not depend on it; what reads it is {readers}")
        return _place(self, state, At(self.target, self.iterator))


@step("compute_inline")
@dataclass(frozen=True)
class ComputeInline(Step):
    """Replace every read of the stage by its formula. An element that is read several times there is computed once.

    Before, and after `ComputeInline("D")`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])
        for i in 20:
          for j in 12:
            E[i, j] = max(D[i, j], 1)

        for i in 20:
          for j in 12:
            E[i, j] = max(exp(A[i, j]), 1)
    """

    def apply(self, state: State) -> State:
        stage = self.find_stage(state)
        if state.is_output(self.stage):
            raise self.error("it is an output and has to be computed")
        if has_reduction(stage.tensor):
            raise self.error("it is a reduction, which cannot be part of another formula; use compute_at")
        if state.attached_to(self.stage):
            raise self.error(f"stage '{state.attached_to(self.stage)[0].name}' is attached to it; attach that elsewhere first")
        return _place(self, state, Inlined())


@step("compute_root")
@dataclass(frozen=True)
class ComputeRoot(Step):
    """Give the stage a loop nest of its own again.

    Before, and after `ComputeRoot("C")`:

        for i in 20:
          for i in needed:
            for j in needed:
              for k in 16:
                C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
          for j in 12:
            D[i, j] = max(C[i, j], 0)

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            D[i, j] = max(C[i, j], 0)
    """

    def apply(self, state: State) -> State:
        return _place(self, state, Root())


def _reaches(state: State, producer: str, consumer: str) -> bool:
    """Whether `consumer` reads `producer`, directly or through other stages."""
    frontier, seen = [producer], {producer}
    while frontier:
        for reader in state.readers(frontier.pop()):
            if reader.name == consumer:
                return True
            if reader.name not in seen:
                seen.add(reader.name)
                frontier.append(reader.name)
    return False
