"""Holes that set a value of a stage's loops and leave its template as it is: how many run in parallel, the unroll limit.

sketch = sketch.choose(ParallelHole("parallel C", "C", (0, 1, 2), ("i", "j")))
sketch = sketch.choose(UnrollHole("unroll C", "C", (0, 16, 64)))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.hole import Agreement, Genes, Hole, Mask, hole_kind
from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.state import Root, State
from ansor_py.schedule.steps import Fuse, Parallel, Pragma, Step

# Enough for all nine taps of a 3x3 window with a register tile of 14 vectors (docs/kernels.md).
PLAIN_UNROLL_LIMIT = 128


@hole_kind("parallel")
@dataclass(frozen=True)
class ParallelHole(Hole):
    """How many of the outermost `loops` are fused and run in parallel; 0 is serial.

    A stage that is computed inside another one is serial. At root it may be if it `may_be_serial`: starting the threads takes
    as long as a small stage.
    """

    loops: tuple[str, ...]
    may_be_serial: bool = True

    sets = "parallel_loops"
    moves = ("parallel",)

    def steps(self, choice: int) -> tuple[Step, ...]:
        """Fuse the loops if they are several, and run them in parallel."""
        loops = self.loops[:choice]
        if choice < 2:
            return tuple(Parallel(self.stage, loop) for loop in loops)
        return Fuse(self.stage, loops), Parallel(self.stage, "".join(f"{loop}@" for loop in loops))

    @property
    def plain(self) -> int:
        """As many as there are."""
        return len(self.choices) - 1

    @property
    def undecided(self) -> int:
        """As many as there are."""
        return self.plain

    def agreement(self, sketch: Sketch, column: int) -> Agreement | None:
        """With the locations: of the stage itself, and of those that are computed inside its loops."""
        most = np.array([fusible_loops(template, self.stage) for template in sketch.templates])
        free = most.min() >= max(self.choices) and (self.may_be_serial or 0 not in self.choices)
        return None if free else FusibleLoops(sketch, column, self.table[:, 0], most, self.may_be_serial)


def fusible_loops(template: State | None, stage: str) -> int:
    """How many outermost loops of a stage can be fused: up to one inside which something is computed; 0 if not at root."""
    if template is None:  # a structure that is not legal
        return 1
    host = template.stage(stage)
    loops = [place for place, loop in enumerate(host.iterators, 1) if template.attached_to(stage, loop.name)]
    return min(loops, default=len(host.iterators)) if isinstance(host.location, Root) else 0


@dataclass(frozen=True, eq=False)
class FusibleLoops:
    """No more loops are fused than a template lets: `most[structure key]`; `counts` are the choices of the hole."""

    sketch: Sketch
    column: int
    counts: NDArray[np.int64]
    most: NDArray[np.int64]
    may_be_serial: bool

    @cached_property
    def _largest(self) -> NDArray[np.intp]:
        """By structure key, the choice of the most loops that it lets."""
        return np.asarray(np.where(self.counts <= self.most[:, None], self.counts, -1).argmax(axis=1))

    def repair(self, genes: Genes, rng: np.random.Generator) -> None:
        """As many loops as are left; where a stage at root must not be serial, any number of them."""
        keys = self.sketch.structure_keys(genes)
        chosen = genes[:, self.column]  # a view
        parallel = np.flatnonzero(self.counts)
        if not self.may_be_serial and len(parallel):
            idle = (self.most[keys] > 0) & (self.counts[chosen] == 0)
            chosen[idle] = rng.choice(parallel, int(idle.sum()))
        chosen[:] = np.where(self.counts[chosen] > self.most[keys], self._largest[keys], chosen)

    def fits(self, genes: Genes) -> Mask:
        """Where no more are fused than that."""
        return np.asarray(self.counts[genes[:, self.column]] <= self.most[self.sketch.structure_keys(genes)])


@hole_kind("unroll")
class UnrollHole(Hole):
    """Up to how many emitted vector instructions the loops inside the stage's reduction are unrolled; 0: not at all."""

    sets = "unroll_limit"
    moves = ("unroll",)

    def steps(self, choice: int) -> tuple[Step, ...]:
        """A pragma."""
        return (Pragma(self.stage, choice),) if choice else ()

    @property
    def plain(self) -> int:
        """The largest limit up to one that suits small windows."""
        return max((n for n, limit in enumerate(self.choices) if limit <= PLAIN_UNROLL_LIMIT), default=0)
