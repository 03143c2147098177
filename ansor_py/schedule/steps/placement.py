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
    """Compute the stage inside a loop of a consumer: at each iteration, the part (with halo) that is read from there on."""

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
        if not state.has_stage(self.target):
            raise self.error(f"there is no stage '{self.target}'; the stages are {', '.join(s.name for s in state.stages)}")
        target = state.stage(self.target)
        position = self.find_iterator(target, self.iterator)
        if isinstance(target.location, Inlined):
            raise self.error(f"stage '{self.target}' is inlined and has no loops")
        if target.iterators[position].annotation == "vectorize":
            raise self.error("the loop is vectorised; attach further out")
        check_untiled(self, target, [self.iterator])
        if not _reaches(state, self.stage, self.target):
            raise self.error(f"stage '{self.target}' does not depend on it")
        return _place(self, state, At(self.target, self.iterator))


@step("compute_inline")
@dataclass(frozen=True)
class ComputeInline(Step):
    """Replace every read of the stage by its formula."""

    def apply(self, state: State) -> State:
        stage = self.find_stage(state)
        if state.is_output(self.stage):
            raise self.error("it is an output and has to be computed")
        if has_reduction(stage.tensor):
            raise self.error("it is a reduction, which cannot be part of another formula")
        if state.attached_to(self.stage):
            raise self.error(f"stage '{state.attached_to(self.stage)[0].name}' is attached to it")
        return _place(self, state, Inlined())


@step("compute_root")
@dataclass(frozen=True)
class ComputeRoot(Step):
    """Give the stage a loop nest of its own again."""

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
