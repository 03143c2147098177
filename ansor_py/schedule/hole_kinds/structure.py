"""Holes whose choices are different structures of the loops: where a stage is computed, how a reduction is factored.

sketch = sketch.choose(LocationHole("location pad", "pad", (None, ("C", "i.0"))))
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.schedule.hole import Hole, hole_kind
from ansor_py.schedule.steps import ComputeAt, Rfactor, Split, Step

Place = tuple[str, str]  # a stage and one of its iterators


@hole_kind("location")
class LocationHole(Hole):
    """Where the stage is computed: at root (None), or inside a loop."""

    moves = ("location",)

    def steps(self, choice: Place | None) -> tuple[Step, ...]:
        """None at root."""
        return (ComputeAt(self.stage, *choice),) if choice else ()


@hole_kind("rfactor")
@dataclass(frozen=True)
class FactorHole(Hole):
    """By which length the reduction loop `loop` is split, part `part` (0 the outer one) being made an axis of partial results.

    The length has to be a number, as it is an extent of the new stage.
    """

    loop: str
    part: int

    moves = ("location",)

    def steps(self, choice: int) -> tuple[Step, ...]:
        """Split and rfactor."""
        return Split(self.stage, self.loop, (choice,)), Rfactor(self.stage, f"{self.loop}.{self.part}", -1)

    @property
    def plain(self) -> int:
        """The longest part: the fewest partial results."""
        return len(self.choices) - 1
