"""A sketch while it is being derived: the steps and holes so far, and the template state that they lead to.

Rules are functions on it: every method returns a new partial sketch.

    partial, hole = partial.with_hole(TileHole("tile C.i", "C", choices))
    partial = partial.apply(Split("C", "i", (Gene(hole, 0), Gene(hole, 1))))
    partial = partial.choose(UnrollHole("unroll C", "C", (0, 64)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.hole import Hole
from ansor_py.schedule.sketch import Alternatives, Sketch
from ansor_py.schedule.state import SplitRelation, Stage, State
from ansor_py.schedule.steps import Step
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.target import Target

NoteType = TypeVar("NoteType")


@dataclass(frozen=True, eq=False)
class PartialSketch:
    """Steps, holes, and what later rules and annotations need to know of them.

    `state` is the template after `steps` with the first alternative of every structural hole. `notes`
    holds what rules noted of stages (`ansor_py.sketch_rules.notes`), `label` the words that make up the sketch's name.
    `options` are the constants of the rules.
    """

    dag: ComputeDAG
    target: Target
    state: State
    steps: tuple[Step | Alternatives, ...] = ()
    holes: tuple[Hole, ...] = ()
    notes: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    label: tuple[str, ...] = ()
    options: SpaceOptions = DEFAULT_SPACE

    @staticmethod
    def initial(dag: ComputeDAG, target: Target, options: SpaceOptions = DEFAULT_SPACE) -> PartialSketch:
        """Nothing decided yet."""
        return PartialSketch(dag, target, State.initial(dag), options=options)

    def apply(self, *steps: Step) -> PartialSketch:
        """With further steps; raises ScheduleError if one is illegal."""
        return replace(self, steps=(*self.steps, *steps), state=self.state.replay(steps))

    def with_hole(self, hole: Hole) -> tuple[PartialSketch, int]:
        """With one more hole whose choices are lengths, and the number by which steps refer to it (`Gene`)."""
        return replace(self, holes=(*self.holes, hole)), len(self.holes)

    def choose(self, hole: Hole) -> PartialSketch:
        """With one more hole, whose choices stand for steps. Later steps must be legal after those of each choice."""
        state = self.state if hole.sets else self.state.replay(hole.steps(hole.choices[0]))
        return replace(self, holes=(*self.holes, hole), steps=(*self.steps, Alternatives(len(self.holes))), state=state)

    @property
    def structural(self) -> list[Hole]:
        """The holes so far that choose the template."""
        chosen = [self.holes[item.hole] for item in self.steps if isinstance(item, Alternatives)]
        return [hole for hole in chosen if hole.sets is None]

    def with_note(self, stage: str, note: object) -> PartialSketch:
        """With something noted of a stage, in the place of an earlier note of that class."""
        return replace(self, notes={**self.notes, stage: (note, *self.notes.get(stage, ()))})

    def note(self, stage: str, kind: type[NoteType]) -> NoteType | None:
        """What was noted of a stage by an object of a class; None if nothing was."""
        return next((note for note in self.notes.get(stage, ()) if isinstance(note, kind)), None)

    def with_label(self, word: str) -> PartialSketch:
        """With one more word in the name."""
        return replace(self, label=(*self.label, word))

    def stage(self, number: int) -> Stage:
        """A stage by its number among the computed ones, producers first."""
        return self.state.stages[number]

    def finish(self) -> Sketch:
        """The sketch."""
        return Sketch(" ".join(self.label) or "untransformed", self.dag, self.steps, self.holes)


def innermost_part(stage: Stage, axis: str) -> str:
    """The innermost loop that an axis of a stage (or a part of it) was split into; the axis itself if it was not."""
    for relation in stage.relations:
        if isinstance(relation, SplitRelation) and relation.parent == axis:
            axis = relation.parts[-1]
    return axis


def moved_last(stage: Stage, iterator: str) -> tuple[str, ...]:
    """The order of a stage's loops with one of them innermost."""
    return (*(item.name for item in stage.iterators if item.name != iterator), iterator)
