"""Holes: the decisions that a sketch leaves open. A kind of hole is a class, and a hole is an object of it.

A hole has a finite, ordered table of choices, and a gene is an index into it. All that anybody needs to know of a decision is
said by its class, and asked by nobody else: what steps a choice stands for, which choices are near each other, which one
is plain, and what must agree with other genes. A new kind is one class in one file:

    @hole_kind("storage_align")
    class StorageAlignHole(Hole):
        def steps(self, choice: int) -> tuple[Step, ...]:
            return (StorageAlign(self.stage, 16, choice),) if choice else ()

A choice reaches the program in one of three ways. Its numbers are lengths, which steps refer to by `Gene`; or it stands for
steps (`Alternatives` says where they are inserted), each of which makes another template of the loops; or the steps only set
a value of the stage's loops (`sets`), which the analysis of a population reads as an array over one template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ScheduleError
from ansor_py.registry import Registry
from ansor_py.schedule.steps.base import Step

if TYPE_CHECKING:
    from ansor_py.schedule.sketch import Sketch

Genes = NDArray[np.int32]
Mask = NDArray[np.bool_]
# What a hole may set of its stage without another template: how many outermost loops run in parallel, the unroll limit.
StageValue = Literal["parallel_loops", "unroll_limit"]

HOLE_KINDS: Registry[type[Hole]] = Registry("hole kind")
HoleType = TypeVar("HoleType", bound="type[Hole]")


def hole_kind(name: str) -> Callable[[HoleType], HoleType]:
    """Register a class of holes under a name. Raises ScheduleError for anything else, OptionError for a name that is taken."""

    def register(cls: HoleType) -> HoleType:
        if not isinstance(name, str) or not isinstance(cls, type) or not issubclass(cls, Hole):
            raise ScheduleError(f'hole kind {name!r:.60}: write @hole_kind("name") above a class that extends Hole')
        HOLE_KINDS.add(name, cls)
        cls.kind = name
        return cls

    return register


class Agreement(Protocol):
    """What the genes of a hole must agree with: those of other holes in the same rows. All rows at once."""

    def repair(self, genes: Genes, rng: np.random.Generator) -> None:
        """Set the genes of the hole, in place, to choices that agree with those of other holes; rows are int32[n, holes]."""
        ...

    def fits(self, genes: Genes) -> Mask:
        """Which rows agree, bool[n]."""
        ...


@dataclass(frozen=True)
class Hole:
    """One decision about a stage: an ordered table of choices, of which a gene is an index.

    Classes say by constants what kind of decision it is:

    `sets` is the value of the stage that the choices are, if they leave the template as it is; `moves` are the mutation
    operators that change such holes; `is_tile` says that choices are lengths of tiles, the last of which may reach beyond the
    axis (the search bounds the iterations that all tiles of a program waste); `is_often_plain` that random programs take the
    plain choice more often than others.

    Raises ScheduleError where there is nothing to choose, and for a class without `@hole_kind`.
    """

    name: str
    stage: str
    choices: tuple[Any, ...]

    kind: ClassVar[str]
    sets: ClassVar[StageValue | None] = None
    moves: ClassVar[tuple[str, ...]] = ("other_choice",)
    is_tile: ClassVar[bool] = False
    is_often_plain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if "kind" not in vars(type(self)):
            raise ScheduleError(f"hole '{self.name}': write @hole_kind(\"name\") above the class {type(self).__name__}")
        if not isinstance(self.choices, tuple) or not self.choices:
            raise ScheduleError(f"hole '{self.name}' has the choices {self.choices!r:.40}; it needs a tuple of at least one")

    @property
    def title(self) -> str:
        """The hole and its kind, for messages."""
        return f"hole '{self.name}' of kind '{self.kind}'"

    def steps(self, choice: Any) -> tuple[Step, ...]:
        """The steps that a choice stands for; none where lengths are read by `Gene`."""
        return ()

    @property
    def plain(self) -> int:
        """The choice to take where nothing is known: default schedules are made of them."""
        return 0

    @property
    def undecided(self) -> int:
        """The choice that leaves the decision undone, for scores of incomplete programs."""
        return 0

    def distances(self) -> NDArray[np.float64]:
        """How far each choice is from each, float64[choices, choices]: by default, places in the table."""
        places = np.arange(len(self.choices), dtype=np.float64)
        return np.abs(places[:, None] - places)

    def neighbours(self, most: int) -> NDArray[np.int32]:
        """For each choice the `most` nearest others (or all), nearest first: int32[choices, nearest]."""
        return self._nearest[:, :most]

    def agreement(self, sketch: Sketch, column: int) -> Agreement | None:
        """What the genes of this hole must agree with, which are a column of the rows of a sketch; None: every choice is right.

        Asked once for each sketch, so that tables can be made here.
        """
        return None

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """The choices as numbers, [choices, parts]; only for holes whose choices are numbers or tuples of numbers."""
        return np.array([choice if isinstance(choice, tuple) else (choice,) for choice in self.choices], dtype=np.int64)

    @cached_property
    def smaller(self) -> NDArray[np.int64]:
        """For every part of every choice the next smaller number that this part has in some choice, or 0; as `table`."""
        columns = [(part, np.unique(part)) for part in self.table.T]
        return np.stack([np.array([0, *values])[np.searchsorted(values, part)] for part, values in columns], axis=1)

    @cached_property
    def _nearest(self) -> NDArray[np.int32]:
        distances = self.distances()
        np.fill_diagonal(distances, np.inf)
        return np.argsort(distances, axis=1, kind="stable")[:, :-1].astype(np.int32)
