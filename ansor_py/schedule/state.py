"""The state of a schedule: stages, their iterators, and the transform steps that led there.

A `State` is immutable; `state.apply(step)` returns a new one and remembers the step, so the history is the program's
genome and replaying it on the DAG gives the identical state. Tile lengths are integers in a concrete state. In a
sketch's template they may be `Gene`s, whose values are read from a row of genes; extents are therefore not stored
here but computed by bound inference (`ansor_py.lower.bounds`).

    state = State.initial(dag).replay([Split("C", "i", (8,)), Reorder("C", ("i.0", "j", "k", "i.1"))])
    print(state)
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator as Iteration
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ansor_py.errors import ScheduleError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import AxisKind, Expr, Read, reads_of, substitute, transform
from ansor_py.te.tensor import Compute, Placeholder, Tensor, tensor_from_body

if TYPE_CHECKING:
    from ansor_py.schedule.steps.base import Step

Annotation = Literal["none", "parallel", "vectorize", "unroll"]


@dataclass(frozen=True)
class Gene:
    """A length that is part `part` of the choice which a genes row makes for hole number `hole`."""

    hole: int
    part: int = 0

    def __str__(self) -> str:
        return f"gene{self.hole}.{self.part}"


@dataclass(frozen=True)
class Product:
    """A length that is the product of other lengths (a follow split over several tile levels)."""

    factors: tuple[int | Gene, ...]

    def __str__(self) -> str:
        return "*".join(map(str, self.factors))


Length = int | Gene | Product


@dataclass(frozen=True)
class Iterator:
    """One loop of a stage."""

    name: str
    kind: AxisKind
    annotation: Annotation = "none"


@dataclass(frozen=True)
class SplitRelation:
    """`parent` was split into `parts` (outermost first); `lengths` are those of the inner parts, innermost first."""

    parent: str
    parts: tuple[str, ...]
    lengths: tuple[Length, ...]


@dataclass(frozen=True)
class FuseRelation:
    """`parents` (outermost first) were fused into one iterator."""

    parents: tuple[str, ...]
    fused: str


@dataclass(frozen=True)
class Root:
    """The stage has a loop nest of its own, before those of its consumers."""


@dataclass(frozen=True)
class Inlined:
    """The stage's formula replaces every read of it."""


@dataclass(frozen=True)
class At:
    """The stage is computed inside the body of `iterator` of `stage`, just the part that is needed there."""

    stage: str
    iterator: str


Location = Root | Inlined | At


@dataclass(frozen=True)
class Stage:
    """One computed tensor and its loop nest. `iterators` are the loops, outermost first."""

    tensor: Tensor
    iterators: tuple[Iterator, ...]
    relations: tuple[SplitRelation | FuseRelation, ...] = ()
    location: Location = Root()
    unroll_limit: int = 0
    storage_align: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The name of the stage is that of its tensor."""
        return self.tensor.name

    @property
    def op(self) -> Compute:
        """The operation; every stage is computed (placeholders have no loops)."""
        assert isinstance(self.tensor.op, Compute)
        return self.tensor.op

    def position(self, iterator: str) -> int:
        """Index of an iterator among the loops; ValueError if it is not one of them."""
        return [item.name for item in self.iterators].index(iterator)

    @property
    def is_unscheduled(self) -> bool:
        """Whether nothing has been done to the loops yet."""
        return not self.relations and len(self.iterators) == len(self.op.axes) + len(self.op.reduce_axes)


def fresh_stage(tensor: Tensor, location: Location | None = None) -> Stage:
    """A stage whose loops are the axes of its operation, reductions innermost."""
    assert isinstance(tensor.op, Compute)
    axes = (*tensor.op.axes, *tensor.op.reduce_axes)
    return Stage(tensor, tuple(Iterator(axis.name, axis.kind) for axis in axes), (), location or Root())


@dataclass(frozen=True, eq=False)
class State:
    """All stages (producers first) after the transform steps `steps`."""

    dag: ComputeDAG
    stages: tuple[Stage, ...]
    steps: tuple[Step, ...] = ()

    @staticmethod
    def initial(dag: ComputeDAG) -> State:
        """The untransformed program: every operation at root with its plain loops."""
        return State(dag, tuple(fresh_stage(tensor) for tensor in dag.computed))

    def apply(self, step: Step) -> State:
        """The state after one more step; raises ScheduleError, which names step, stage and iterator, if it is illegal."""
        return replace(step.apply(self), steps=(*self.steps, step))

    def replay(self, steps: Iterable[Step]) -> State:
        """The state after all steps in order."""
        state = self
        for step in steps:
            state = state.apply(step)
        return state

    @cached_property
    def _by_name(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages}

    def has_stage(self, name: str) -> bool:
        """Whether there is a stage of that name (placeholders are none)."""
        return name in self._by_name

    def stage(self, name: str) -> Stage:
        """A stage by name; raises ScheduleError that lists the stages."""
        if name not in self._by_name:
            raise ScheduleError(f"there is no stage '{name}'; the stages are {', '.join(self._by_name)}")
        return self._by_name[name]

    def with_stage(self, stage: Stage) -> State:
        """The state with one stage replaced by another of the same name."""
        return replace(self, stages=tuple(stage if old.name == stage.name else old for old in self.stages))

    def is_output(self, name: str) -> bool:
        """Whether the stage produces an output of the DAG."""
        return any(tensor.name == name for tensor in self.dag.outputs)

    def attached_to(self, stage: str, iterator: str | None = None) -> list[Stage]:
        """Stages computed inside a stage's loops, or inside one loop, in producer order."""
        return [
            other
            for other in self.stages
            if isinstance(other.location, At) and other.location.stage == stage and iterator in (None, other.location.iterator)
        ]

    def readers(self, name: str) -> list[Stage]:
        """Stages whose own formula reads the tensor, inlined ones included."""
        return [stage for stage in self.stages if any(read.tensor.name == name for read in reads_of(stage.op.body))]

    def consumers(self, name: str) -> list[Stage]:
        """Stages that read the tensor, looked up through inlined stages."""
        found: dict[str, Stage] = {}
        for reader in self.readers(name):
            below = self.consumers(reader.name) if isinstance(reader.location, Inlined) else [reader]
            found.update({stage.name: stage for stage in below})
        return list(found.values())

    def is_prepared(self, name: str) -> bool:
        """Whether the stage depends on constants alone and stands at root: it is computed once, not in every run."""
        stage = self.stage(name)
        if self.is_output(name) or not isinstance(stage.location, Root):
            return False
        return all(
            self.is_prepared(read.tensor.name)
            if self.has_stage(read.tensor.name)
            else isinstance(read.tensor.op, Placeholder) and read.tensor.op.constant
            for read in reads_of(self.body(name))
        )

    def body(self, name: str) -> Expr:
        """The formula of a stage with all inlined producers substituted."""
        if name not in self._bodies:
            self._bodies[name] = self._inline(self.stage(name).op.body)
        return self._bodies[name]

    def reads(self, name: str) -> tuple[Read, ...]:
        """The distinct reads of `body(name)`, in order."""
        if name not in self._reads:
            self._reads[name] = tuple(dict.fromkeys(reads_of(self.body(name))))
        return self._reads[name]

    def whole(self, name: str) -> Tensor:
        """The tensor that a stage computes from what stages not inlined and inputs hold: with `body` for its formula."""
        op = self.stage(name).op
        return tensor_from_body(name, op.axes, self.body(name))

    @cached_property
    def _bodies(self) -> dict[str, Expr]:
        return {}

    @cached_property
    def _reads(self) -> dict[str, tuple[Read, ...]]:
        return {}

    def _inline(self, body: Expr) -> Expr:
        def rewrite(node: Expr) -> Expr | None:
            if isinstance(node, Read) and node.tensor.name in self._by_name:
                producer = self._by_name[node.tensor.name]
                if isinstance(producer.location, Inlined):
                    axes = (axis.name for axis in producer.op.axes)
                    return self._inline(substitute(producer.op.body, dict(zip(axes, node.indices, strict=True))))
            return None

        return transform(body, rewrite)

    def __str__(self) -> str:
        lines = [f"placeholder {tensor}" for tensor in self.dag.inputs]
        for stage in self.stages:
            if isinstance(stage.location, Root):
                lines.extend(self._lines(stage, ""))
        return "\n".join(lines)

    def _lines(self, stage: Stage, indent: str) -> Iteration[str]:
        lengths = _part_lengths(stage)
        if stage.unroll_limit:
            yield f"{indent}pragma {stage.name} auto_unroll_max_step = {stage.unroll_limit}"
        for iterator in stage.iterators:
            word = "for" if iterator.annotation == "none" else iterator.annotation
            yield f"{indent}{word} {iterator.name} in {lengths[iterator.name]}:"
            indent += "  "
            for attached in self.attached_to(stage.name, iterator.name):
                yield from self._lines(attached, indent)
        axes = ", ".join(axis.name for axis in stage.op.axes)
        yield f"{indent}{stage.name}[{axes}] = {self.body(stage.name)}"


def _part_lengths(stage: Stage) -> dict[str, str]:
    """How each iterator's extent reads in a printed state: a number where it is known without bound inference."""
    known: dict[str, int | None] = {}
    text: dict[str, str] = {}
    at_root = isinstance(stage.location, Root)
    for axis in (*stage.op.axes, *stage.op.reduce_axes):
        known[axis.name] = axis.extent if at_root or axis.kind == "reduction" else None
        text[axis.name] = str(axis.extent) if known[axis.name] is not None else "needed"
    for relation in stage.relations:
        if isinstance(relation, SplitRelation):
            rest = known[relation.parent]
            for part, length in zip(reversed(relation.parts[1:]), relation.lengths, strict=True):
                clamped = min(length, rest) if rest is not None and isinstance(length, int) else None
                known[part], text[part] = clamped, str(length if clamped is None else clamped)
                rest = -(-rest // length) if rest is not None and isinstance(length, int) else None
            known[relation.parts[0]] = rest
            text[relation.parts[0]] = "rest" if rest is None else str(rest)
        else:
            extents = [known[parent] for parent in relation.parents]
            product: int | None = 1
            for extent in extents:
                product = None if product is None or extent is None else product * extent
            known[relation.fused] = product
            text[relation.fused] = "*".join(text[p] for p in relation.parents) if product is None else str(product)
    return text
