"""The state of a schedule: stages, their iterators, and the transform steps that led there.

A `State` is immutable; `state.apply(step)` returns a new one and remembers the step, so the history is the program's
genome and replaying it on the DAG gives the identical state. Tile lengths are integers in a concrete state. In a
sketch's template they may be `Gene`s, whose values are read from a row of genes; extents are therefore not stored
here but computed by bound inference (`ansor_py.lower.bounds`).

    state = State.initial(dag).replay([Split("C", "i", (8,)), Reorder("C", ("i.0", "j", "k", "i.1"))])
    print(state)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from collections.abc import Iterator as Iteration
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ansor_py.errors import ScheduleError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import AxisKind, Expr, Read, reads_of, shared, substitute, transform
from ansor_py.te.tensor import Compute, Tensor

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
class RegisterTileOf:
    """The loops of a stage that form its register tile, outermost first, and the name of the micro-kernel inside."""

    loops: tuple[str, ...]
    micro_kernel: str


@dataclass(frozen=True)
class Stage:
    """One computed tensor and its loop nest. `iterators` are the loops, outermost first."""

    tensor: Tensor
    iterators: tuple[Iterator, ...]
    relations: tuple[SplitRelation | FuseRelation, ...] = ()
    location: Location = Root()
    unroll_limit: int = 0
    storage_align: tuple[int, int] | None = None
    register_tile: RegisterTileOf | None = None

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
    def plain_outer_iterators(self) -> tuple[Iterator, ...]:
        """The outermost loops, as far as they are spatial, not marked, and outside the register tile."""
        tile = self.register_tile.loops if self.register_tile is not None else ()
        plain = (item.kind == "spatial" and item.annotation == "none" and item.name not in tile for item in self.iterators)
        return tuple(item for item, _ in zip(self.iterators, itertools.takewhile(bool, plain), strict=False))

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
        after = replace(step.apply(self), steps=(*self.steps, step))
        after._take_over(self)
        return after

    def replay(self, steps: Iterable[Step]) -> State:
        """The state after all steps in order."""
        state = self
        for step in steps:
            state = state.apply(step)
        return state

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {stage.name: position for position, stage in enumerate(self.stages)}

    def has_stage(self, name: str) -> bool:
        """Whether there is a stage of that name (placeholders are none)."""
        return name in self._positions

    def stage(self, name: str) -> Stage:
        """A stage by name; raises ScheduleError that lists the stages."""
        if name not in self._positions:
            raise ScheduleError(f"there is no stage '{name}'; the stages are {', '.join(self._positions)}")
        return self.stages[self._positions[name]]

    def with_stage(self, stage: Stage) -> State:
        """The state with one stage replaced by another of the same name."""
        position = self._positions[stage.name]
        return replace(self, stages=(*self.stages[:position], stage, *self.stages[position + 1 :]))

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
        return [self.stage(reader) for reader in self._readers.get(name, ())]

    def consumers(self, name: str) -> list[Stage]:
        """Stages that read the tensor, looked up through inlined stages."""
        found: list[Stage] = []
        seen: set[str] = set()
        pending = self.readers(name)[::-1]
        while pending:
            reader = pending.pop()
            if reader.name in seen:
                continue
            seen.add(reader.name)
            if isinstance(reader.location, Inlined):
                pending.extend(reversed(self.readers(reader.name)))
            else:
                found.append(reader)
        return found

    @cached_property
    def nests(self) -> dict[str, list[str]]:
        """The stages that are not inlined by the stage at root whose nest holds them, in producer order."""
        found: dict[str, list[str]] = {stage.name: [] for stage in self.stages if isinstance(stage.location, Root)}
        for stage in self.stages:
            host = stage
            while isinstance(host.location, At):
                host = self.stage(host.location.stage)
            if not isinstance(host.location, Inlined):
                found[host.name].append(stage.name)
        return found

    @cached_property
    def prepacked(self) -> frozenset[str]:
        """Stages that are computed once, when the constants are known, and not in every run, as a packed weight is.

        They are those of whole nests that read nothing but constants and what such nests computed, and store no output.
        """
        found: set[str] = set()
        for names in self.nests.values():
            read = {read.tensor.name: read.tensor for name in names for read in self.reads(name)}
            known = all(tensor.is_constant or name in found or name in names for name, tensor in read.items())
            if known and not any(map(self.is_output, names)):
                found.update(names)
        return frozenset(found)

    def body(self, name: str) -> Expr:
        """The formula of a stage with all inlined producers substituted; what it uses several times is one node."""
        if name not in self._bodies:
            start = self._earlier.get(name)
            self._bodies[name] = shared(self._with_inlined(self.stage(name).op.body if start is None else start))
        return self._bodies[name]

    def reads(self, name: str) -> tuple[Read, ...]:
        """The distinct reads of `body(name)`, in order."""
        if name not in self._reads:
            self._reads[name] = tuple(dict.fromkeys(reads_of(self.body(name))))
        return self._reads[name]

    def dtypes(self, name: str) -> frozenset[str]:
        """The dtypes of all that a stage reads, computes and stores; a vector has as many lanes as it holds of the widest."""
        return frozenset({self.stage(name).tensor.dtype, self.body(name).dtype, *(read.dtype for read in self.reads(name))})

    def whole(self, name: str) -> Tensor:
        """The tensor that a stage computes from what stages not inlined and inputs hold: with `body` for its formula."""
        tensor = self.stage(name).tensor
        return replace(tensor, op=replace(self.stage(name).op, body=self.body(name)))

    @cached_property
    def _bodies(self) -> dict[str, Expr]:
        return {}

    @cached_property
    def _reads(self) -> dict[str, tuple[Read, ...]]:
        return {}

    @cached_property
    def _earlier(self) -> dict[str, Expr]:
        """Formulas in which some stages are inlined already."""
        return {}

    @cached_property
    def _readers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for stage in self.stages:
            for name in dict.fromkeys(read.tensor.name for read in stage.op.reads):
                found.setdefault(name, []).append(stage.name)
        return found

    def _take_over(self, before: State) -> None:
        """Keep what was found out about the formulas of the state before a step, of which most steps change none."""
        changed = [(old, new) for old, new in zip(before.stages, self.stages, strict=False) if old is not new]
        if len(before.stages) != len(self.stages) or any(old.tensor is not new.tensor for old, new in changed):
            return
        self.__dict__.update(_readers=before._readers, _positions=before._positions)
        placed = [(old, new) for old, new in changed if isinstance(old.location, Inlined) != isinstance(new.location, Inlined)]
        if any(isinstance(old.location, Inlined) for old, _ in placed):
            return
        inlined = {new.name for _, new in placed}
        for name, body in before._bodies.items():
            if any(read.tensor.name in inlined for read in before.reads(name)):
                self._earlier[name] = body
            else:
                self._bodies[name], self._reads[name] = body, before.reads(name)

    def _with_inlined(self, body: Expr) -> Expr:
        """The expression with the formulas of inlined stages in the place of their reads; equal reads get the same one."""
        formulas: dict[Read, Expr] = {}
        pending: list[tuple[Read | None, Expr]] = [(None, body)]
        while True:
            read, formula = pending[-1]
            inlined = [inner for inner in reads_of(formula) if self._is_inlined(inner)] if read not in formulas else []
            ready = [inner for inner in inlined if not self._has_inlined_index(inner)]
            missing = [inner for inner in ready if inner not in formulas]
            if missing:  # first those, then this one again
                pending.extend((inner, self._formula_of(inner)) for inner in missing)
                continue
            if inlined:
                formula = transform(formula, lambda node: formulas.get(node) if isinstance(node, Read) else None)
            if len(ready) < len(inlined):  # which read something else now
                pending[-1] = (read, formula)
                continue
            if read is None:
                return formula
            pending.pop()
            formulas.setdefault(read, formula)

    def _has_inlined_index(self, read: Read) -> bool:
        inner = (item for index in read.indices if index.has_reads for item in reads_of(index))
        return any(map(self._is_inlined, inner))

    def _is_inlined(self, read: Read) -> bool:
        name = read.tensor.name
        return self.has_stage(name) and isinstance(self.stage(name).location, Inlined)

    def _formula_of(self, read: Read) -> Expr:
        """What a stage computes for this element, from what it reads itself."""
        op = self.stage(read.tensor.name).op
        return substitute(op.body, {axis.name: index for axis, index in zip(op.axes, read.indices, strict=True)})

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
        if stage.storage_align is not None:
            yield f"{indent}storage_align {stage.name} factor = {stage.storage_align[0]}, offset = {stage.storage_align[1]}"
        for iterator in stage.iterators:
            if stage.register_tile is not None and iterator.name == stage.register_tile.loops[0]:
                yield f"{indent}register tile by {stage.register_tile.micro_kernel}:"
                indent += "  "
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
