"""Steps that restructure the loops of one stage: split, follow split, fuse, reorder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansor_py.schedule.state import At, FuseRelation, Gene, Iterator, Length, Product, SplitRelation, Stage, State
from ansor_py.schedule.steps.base import Step, step
from ansor_py.schedule.steps.register_tile import check_untiled


@step("split")
@dataclass(frozen=True)
class Split(Step):
    """Split a loop into `len(lengths) + 1` parts named `x.0` (outermost), `x.1`, ...

    `lengths` are those of the inner parts, innermost first; the outermost part is what remains, rounded up. Lengths
    need not divide the extent: iterations past the end do not happen. Stages attached to the loop move to the innermost part.

    Before, and after `Split("D", "i", (8,))`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])

        for i.0 in 3:
          for i.1 in 8:
            for j in 12:
              D[i, j] = exp(A[i, j])
    """

    iterator: str
    lengths: tuple[Length, ...]

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        position = self.find_iterator(stage, self.iterator)
        if not self.lengths:
            raise self.error("no length is given; give those of the inner parts, innermost first")
        if any(isinstance(length, int) and length < 1 for length in self.lengths):
            raise self.error(f"lengths must be 1 or more, not [{', '.join(map(str, self.lengths))}]")
        return _split(self, state, stage, position, self.lengths)


def _split(step_: Step, state: State, stage: Stage, position: int, lengths: tuple[Length, ...]) -> State:
    old = stage.iterators[position]
    check_untiled(step_, stage, [old.name])
    parts = tuple(f"{old.name}.{level}" for level in range(len(lengths) + 1))
    new = tuple(Iterator(part, old.kind) for part in parts)
    if old.annotation != "none":
        # Annotations follow the loop that they are about: vector and unroll stay innermost, parallel outermost.
        at = 0 if old.annotation == "parallel" else len(new) - 1
        new = tuple(replace(item, annotation=old.annotation) if i == at else item for i, item in enumerate(new))
    result = replace(
        stage,
        iterators=(*stage.iterators[:position], *new, *stage.iterators[position + 1 :]),
        relations=(*stage.relations, SplitRelation(old.name, parts, lengths)),
    )
    return _move_attachments(state.with_stage(result), stage.name, old.name, parts[-1])


def _move_attachments(state: State, stage: str, old: str, new: str) -> State:
    for attached in state.attached_to(stage, old):
        state = state.with_stage(replace(attached, location=At(stage, new)))
    return state


def _source_lengths(step_: Step, state: State, source_stage: str, source_iterator: str) -> tuple[Length, ...]:
    for relation in step_.find_other(state, source_stage).relations:
        if isinstance(relation, SplitRelation) and relation.parent == source_iterator:
            return relation.lengths
    raise step_.error(f"the followed iterator '{source_iterator}' of stage '{source_stage}' has not been split; split it first")


def multiply(lengths: tuple[Length, ...]) -> Length:
    """The product of several lengths: a number if all are numbers."""
    number, open_factors = 1, []
    for length in lengths:
        for factor in length.factors if isinstance(length, Product) else (length,):
            if isinstance(factor, int):
                number *= factor
            else:
                open_factors.append(factor)
    if not open_factors:
        return number
    factors: tuple[int | Gene, ...] = (*open_factors, number) if number != 1 else tuple(open_factors)
    return factors[0] if len(factors) == 1 else Product(factors)


@step("follow_split")
@dataclass(frozen=True)
class FollowSplit(Step):
    """Split a loop into `parts` parts like an earlier split of another stage, so that the two nests stay aligned.

    The outer inner-parts copy the source's lengths; the innermost takes the product of all that remain (Ansor's `FSP`).

    Before, and after `FollowSplit("D", "i", "C", "i", 2)`:

        for i.0 in 2:
          for i.1 in 5:
            for i.2 in 2:
              for j in 12:
                for k in 16:
                  C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            D[i, j] = max(C[i, j], 0)

        for i.0 in 2:
          for i.1 in 5:
            for i.2 in 2:
              for j in 12:
                for k in 16:
                  C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i.0 in 2:
          for i.1 in 10:
            for j in 12:
              D[i, j] = max(C[i, j], 0)
    """

    iterator: str
    source_stage: str
    source_iterator: str
    parts: int

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        position = self.find_iterator(stage, self.iterator)
        source = _source_lengths(self, state, self.source_stage, self.source_iterator)
        kept = self.parts - 2
        if not 0 <= kept < len(source):
            raise self.error(f"it cannot follow into {self.parts} parts; that split allows 2 to {len(source) + 1}")
        inner = len(source) - kept
        return _split(self, state, stage, position, (multiply(source[:inner]), *source[inner:]))


@step("follow_fused_split")
@dataclass(frozen=True)
class FollowFusedSplit(Step):
    """Split a (fused) loop in two by the product of the lengths that several splits of another stage have at one level.

    `level` counts the parts of the sources from the outermost (0); the inner part gets the product (Ansor's `FFSP`).

    Before, and after `FollowFusedSplit("D", "i@j@", "C", ("i", "j"), 1)`:

        for i.0 in 2:
          for i.1 in 5:
            for i.2 in 2:
              for j.0 in 2:
                for j.1 in 6:
                  for k in 16:
                    C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i@j@ in 240:
          D[i, j] = max(C[i, j], 0)

        for i.0 in 2:
          for i.1 in 5:
            for i.2 in 2:
              for j.0 in 2:
                for j.1 in 6:
                  for k in 16:
                    C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i@j@.0 in 8:
          for i@j@.1 in 30:
            D[i, j] = max(C[i, j], 0)
    """

    iterator: str
    source_stage: str
    source_iterators: tuple[str, ...]
    level: int

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        position = self.find_iterator(stage, self.iterator)
        if not self.source_iterators:
            raise self.error("it follows no iterator; name at least one that has been split")
        factors: list[Length] = []
        for name in self.source_iterators:
            source = _source_lengths(self, state, self.source_stage, name)
            if not 1 <= self.level <= len(source):
                raise self.error(f"level {self.level} of '{name}' has no length; the levels with one are 1 to {len(source)}")
            factors.append(source[len(source) - self.level])
        return _split(self, state, stage, position, (multiply(tuple(factors)),))


@step("fuse")
@dataclass(frozen=True)
class Fuse(Step):
    """Fuse neighbouring loops of one kind into one, named `a@b@`. Only the last may have stages attached; they move along.

    Before, and after `Fuse("D", ("i", "j"))`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])

        for i@j@ in 240:
          D[i, j] = exp(A[i, j])
    """

    iterators: tuple[str, ...]

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        if len(self.iterators) < 2:
            raise self.error("fewer than two iterators are named; name neighbours, outermost first")
        first = self.find_iterator(stage, self.iterators[0])
        found = stage.iterators[first : first + len(self.iterators)]
        if tuple(item.name for item in found) != self.iterators:
            raise self.error(f"iterators {', '.join(self.iterators)} are not neighbours in this order; reorder first")
        check_untiled(self, stage, self.iterators)
        if len({item.kind for item in found}) != 1:
            raise self.error(f"iterators {', '.join(self.iterators)} mix spatial and reduction loops; fuse each kind by itself")
        for item in found[:-1]:
            if attached := state.attached_to(self.stage, item.name):
                raise self.error(
                    f"stage '{attached[0].name}' is attached to iterator '{item.name}', which is not the last of the fused ones"
                )
        annotations = {item.annotation for item in found} - {"none"}
        if annotations:
            marks = ", ".join(sorted(annotations))
            raise self.error(f"iterators {', '.join(self.iterators)} are already marked {marks}; fuse first")
        name = "".join(f"{item}@" for item in self.iterators)
        result = replace(
            stage,
            iterators=(
                *stage.iterators[:first],
                Iterator(name, found[0].kind),
                *stage.iterators[first + len(found) :],
            ),
            relations=(*stage.relations, FuseRelation(self.iterators, name)),
        )
        return _move_attachments(state.with_stage(result), stage.name, self.iterators[-1], name)


@step("reorder")
@dataclass(frozen=True)
class Reorder(Step):
    """Put the loops of a stage in a new order; `iterators` lists all of them.

    A parallel loop has to stay outermost, and a vectorised one innermost.

    Before, and after `Reorder("C", ("k", "i", "j"))`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        for k in 16:
          for i in 20:
            for j in 12:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
    """

    iterators: tuple[str, ...]

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        by_name = {item.name: item for item in stage.iterators}
        if sorted(by_name) != sorted(self.iterators):
            raise self.error(f"[{', '.join(self.iterators)}] is not an order of all iterators [{', '.join(by_name)}]")
        check_untiled(self, stage, [new for new, old in zip(self.iterators, by_name, strict=True) if new != old])
        ordered = tuple(by_name[name] for name in self.iterators)
        for item in ordered:
            if item.annotation == "parallel" and item is not ordered[0]:
                raise self.error(f"iterator '{item.name}' is marked parallel and has to stay outermost; reorder first")
            if item.annotation == "vectorize" and item is not ordered[-1]:
                raise self.error(f"iterator '{item.name}' is marked vectorize and has to stay innermost; reorder first")
        return state.with_stage(replace(stage, iterators=ordered))
