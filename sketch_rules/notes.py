"""Notes: what a rule did to a stage, for the rules and annotations that come after it.

A note is an object of any class, and is asked for by that class, so a rule of one's own brings notes of its own:

    sketch = sketch.with_note("C", TileLevels((("i.0", "j.0"), ("k",), ("i.1", "j.1"))))
    levels = sketch.note("C", TileLevels)      # None if no rule left one
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TileLevels:
    """The stage is tiled, or follows a tiled one: its loops by tile level, the outermost level first."""

    loops: tuple[tuple[str, ...], ...]

    @property
    def order(self) -> tuple[str, ...]:
        """The loops of all levels, outermost first."""
        return tuple(loop for level in self.loops for loop in level)


@dataclass(frozen=True)
class ComputedForCopy:
    """The stage is the compute half of a cache write, which its copy takes in."""


@dataclass(frozen=True)
class PackedOperand:
    """An operand of the stage lies in panels along one of the stage's axes, `width` elements in a row."""

    axis: str
    width: int


@dataclass(frozen=True)
class MadeByAlgorithm:
    """The stage is one of those that an algorithm brought, or the one that they compute."""

    algorithm: str
