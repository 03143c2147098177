"""Holes whose choices are lengths of loops: tiles of one axis, the register tile of several, vector loops.

A choice is a length or a tuple of them, inner to outer. `Gene(hole, part)` stands for one in the steps of a sketch:

    sketch, hole = sketch.with_hole(TileHole("tile C.i", "C", ((1, 1), (1, 2), (2, 1))))
    sketch.apply(Split("C", "i", (8, Gene(hole, 0), Gene(hole, 1))))
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.hole import Hole, hole_kind


class LengthHole(Hole):
    """Lengths are near where their ratios are: to double one is as far for small ones as for large ones."""

    moves: ClassVar[tuple[str, ...]] = ("nearest_choice", "other_choice")
    is_tile = True

    def distances(self) -> NDArray[np.float64]:
        """The sum of the parts' distances on a scale of logarithms."""
        logs = np.log2(self.table)
        return np.asarray(np.abs(logs[:, None, :] - logs[None, :, :]).sum(axis=2))


@hole_kind("tile")
class TileHole(LengthHole):
    """Lengths of the middle levels of one axis; the largest stands last."""

    is_often_plain = True

    @property
    def plain(self) -> int:
        """The lengths that add no loops: all of one part, such as the inner part of a reduction; else ones."""
        ones = [number for number, lengths in enumerate(self.choices) if set(lengths) == {1}]
        return len(self.choices) - 1 if len(self.choices[0]) == 1 or not ones else ones[0]


@hole_kind("register_tile")
class RegisterTileHole(LengthHole):
    """Lengths of the innermost tile, one for each split axis: what stays in vector registers."""

    moves = ("nearest_choice", "other_choice", "register_tile")

    @property
    def plain(self) -> int:
        """The largest tile, of equal ones the one nearest to a square: it does most for every element that it loads."""
        return max(range(len(self.choices)), key=lambda number: (math.prod(self.choices[number]), -sum(self.choices[number])))


@hole_kind("vectorize")
class VectorHole(LengthHole):
    """The length of a vector loop outside a register tile. Lanes beyond the axis are masked: no iteration is wasted."""

    moves = ("vectorize",)
    is_tile = False

    @property
    def plain(self) -> int:
        """The longest vectors; none where a choice of 1 says that the lanes' elements are not neighbours."""
        return 0 if self.choices[0] == 1 else len(self.choices) - 1
