"""Steps that add or reshape stages: cache write, cache read, rfactor, layout transformation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansor_py.schedule.state import FuseRelation, SplitRelation, Stage, State, fresh_stage
from ansor_py.schedule.steps.base import Step, step
from ansor_py.te.expr import (
    Axis,
    Expr,
    Read,
    Reduce,
    const,
    logical_and,
    reads_of,
    reduction_identity,
    select,
    substitute,
    transform,
    variables_of,
)
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Compute, Tensor, tensor_from_body


def require_unscheduled(step_: Step, state: State, stage: Stage) -> None:
    """Raise ScheduleError if something was done to the stage's loops, which get another formula."""
    if not stage.is_unscheduled:
        raise step_.error("its loops have already been transformed; this step comes first")
    _require_unmarked(step_, state, stage)


def _require_unmarked(step_: Step, state: State, stage: Stage) -> None:
    """The stage gets new loops, so that what was said of the old ones or attached to them would be lost."""
    if attached := state.attached_to(stage.name):
        raise step_.error(f"stage '{attached[0].name}' is attached to it; this step comes first")
    for item in stage.iterators:
        if item.annotation != "none":
            raise step_.error(f"its iterator '{item.name}' is already marked {item.annotation}; this step comes first")
    if stage.unroll_limit or stage.storage_align is not None or stage.register_tile is not None:
        raise step_.error("it has an unroll limit, an aligned buffer or a register tile already; this step comes first")


def require_new_name(step_: Step, state: State, name: str) -> None:
    """Raise ScheduleError if there is a tensor of that name."""
    if any(tensor.name == name for tensor in (*state.dag.inputs, *(stage.tensor for stage in state.stages))):
        raise step_.error(f"there is already a tensor '{name}'; this step can be taken once")


def _with_body(stage: Stage, body: Expr) -> Stage:
    op = Compute(stage.op.axes, stage.op.reduce_axes, body)
    return replace(stage, tensor=replace(stage.tensor, op=op))


def _inserted(state: State, at: str, *stages: Stage) -> State:
    """The state with the stage `at` replaced by several."""
    result: list[Stage] = []
    for stage in state.stages:
        result.extend(stages if stage.name == at else (stage,))
    return replace(state, stages=tuple(result))


@step("cache_write")
@dataclass(frozen=True)
class CacheWrite(Step):
    """Compute into a buffer of its own, `NAME.local`, which the stage copies: the copy's tiles can hold the compute.

    Before, and after `CacheWrite("C")`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        for i in 20:
          for j in 12:
            for k in 16:
              C.local[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            C[i, j] = C.local[i, j]
    """

    def apply(self, state: State) -> State:
        stage = self.find_stage(state)
        require_unscheduled(self, state, stage)
        require_new_name(self, state, f"{stage.name}.local")
        local = replace(stage.tensor, name=f"{stage.name}.local")
        copy = tensor_from_body(stage.name, stage.op.axes, Read(local, stage.op.axes))
        return _inserted(state, stage.name, fresh_stage(local), replace(fresh_stage(copy), location=stage.location))


@step("cache_read")
@dataclass(frozen=True)
class CacheRead(Step):
    """Copy a tensor (stage or placeholder) into `NAME.cache` and let the listed readers read the copy.

    `stage` names the tensor that is copied.

    Before, and after `CacheRead("B", ("C",))`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        for i0 in 16:
          for i1 in 12:
            B.cache[i0, i1] = B[i0, i1]
        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B.cache[k, j]), axes=[k])
    """

    readers: tuple[str, ...]

    def apply(self, state: State) -> State:
        tensors = {tensor.name: tensor for tensor in (*state.dag.inputs, *(stage.tensor for stage in state.stages))}
        if self.stage not in tensors:
            raise self.error(f"there is no such tensor; there are {', '.join(tensors)}")
        source = tensors[self.stage]
        require_new_name(self, state, f"{source.name}.cache")
        if not self.readers:
            raise self.error("no reader is named; name the stages that read the copy")
        actual = {stage.name for stage in state.readers(source.name)}
        for reader in self.readers:
            if reader not in actual:
                raise self.error(f"stage '{reader}' does not read it; its readers are {', '.join(sorted(actual))}")
        axes = source.op.axes if isinstance(source.op, Compute) else _axes_of(source)
        cache = tensor_from_body(f"{source.name}.cache", axes, Read(source, axes))
        stages: list[Stage] = []
        placed = False
        for stage in state.stages:
            if not placed and stage.name in self.readers:
                stages.append(fresh_stage(cache))
                placed = True
            stages.append(
                _with_body(stage, _redirect(stage.op.body, source.name, cache)) if stage.name in self.readers else stage
            )
        return replace(state, stages=tuple(stages))


@step("cache_operand")
@dataclass(frozen=True)
class CacheOperand(Step):
    """Copy what a stage reads of a tensor into `NAME.cache`, which has the axes of the reader that the read depends on.

    For reads whose indices are no plain axes; elements that the read would take from outside of the tensor are zero. `stage`
    names the tensor that is copied.

    Before, and after `CacheOperand("W", "Y")`:

        for p in 2:
          for i in 10:
            for k in 3:
              Y[p, i] = sum((X[(i + k)] * W[((1 - p) + (2 * k))]), axes=[k])

        for p in 2:
          for k in 3:
            W.cache[p, k] = W[((1 - p) + (2 * k))]
        for p in 2:
          for i in 10:
            for k in 3:
              Y[p, i] = sum((X[(i + k)] * W.cache[p, k]), axes=[k])
    """

    reader: str

    def apply(self, state: State) -> State:
        reader = self.find_other(state, self.reader)
        reads = {read for read in reads_of(reader.op.body) if read.tensor.name == self.stage}
        if len(reads) != 1:
            remedy = "cache_read copies the whole tensor" if reads else "name a tensor that it reads"
            raise self.error(f"stage '{self.reader}' reads it in {len(reads)} ways, and not in one; {remedy}")
        require_new_name(self, state, f"{self.stage}.cache")
        read = next(iter(reads))
        used = set().union(*(variables_of(index) for index in read.indices))
        axes = [axis for axis in (*reader.op.axes, *reader.op.reduce_axes) if axis.name in used]
        own = {axis.name: Axis(axis.name, axis.extent) for axis in axes}
        indices = tuple(substitute(index, own) for index in read.indices)
        simplifier = Simplifier({axis.name: (0, axis.extent - 1) for axis in axes})
        conditions: list[Expr] = []
        for index, extent in zip(indices, read.tensor.shape, strict=True):
            low, high = simplifier.interval(index)
            conditions += [index >= 0] if low < 0 else []
            conditions += [index < extent] if high >= extent else []
        body: Expr = Read(read.tensor, indices)
        if conditions:
            body = select(logical_and(*conditions), body, const(0, body.dtype))
        cache = tensor_from_body(f"{self.stage}.cache", tuple(own.values()), body)
        changed = _with_body(reader, transform(reader.op.body, lambda node: Read(cache, tuple(axes)) if node == read else None))
        return _inserted(state, self.reader, fresh_stage(cache), changed)


def _axes_of(tensor: Tensor) -> tuple[Axis, ...]:
    return tuple(Axis(f"i{position}", extent) for position, extent in enumerate(tensor.shape))


def _redirect(body: Expr, name: str, tensor: Tensor) -> Expr:
    return transform(
        body, lambda node: Read(tensor, node.indices) if isinstance(node, Read) and node.tensor.name == name else None
    )


@step("rfactor")
@dataclass(frozen=True)
class Rfactor(Step):
    """Turn one reduction loop into an axis of partial results, `NAME.rf`, which the stage then reduces (paper, Table 1 rule 6).

    The loop may be a part of a split (of fused) reduction axes, whose lengths must be numbers. `position` is where the
    new axis stands among the spatial axes of the partial stage (-1: last).

    Before, and after `Rfactor("S", "k.1", -1)`:

        for i in 20:
          for k.0 in 4:
            for k.1 in 4:
              S[i] = sum(A[i, k], axes=[k])

        for i in 20:
          for k.1 in 4:
            for k.0 in 4:
              S.rf[i, k.1] = sum(A[i, ((k.0 * 4) + k.1)], axes=[k.0])
        for i in 20:
          for k.1 in 4:
            S[i] = sum(S.rf[i, k.1], axes=[k.1])
    """

    iterator: str
    position: int

    def apply(self, state: State) -> State:
        stage = self.find_stage(state)
        factored = stage.iterators[self.find_iterator(stage, self.iterator)]
        body = stage.op.body
        if factored.kind != "reduction" or not isinstance(body, Reduce):
            raise self.error("it is not a reduction loop; name one")
        _require_unmarked(self, state, stage)
        self._require_plain_axes(stage)
        require_new_name(self, state, f"{stage.name}.rf")
        values, extents, conditions = self._reduction_values(stage)
        loops = [item for item in stage.iterators if item.kind == "reduction"]
        new_axes = {item.name: Axis(item.name, extents[item.name], "reduction") for item in loops}
        partial_axis = Axis(factored.name, extents[factored.name])
        source = substitute(body.source, values)
        if conditions:
            source = select(logical_and(*conditions), source, reduction_identity(body.combiner, body.dtype))
        rest = tuple(new_axes[item.name] for item in loops if item.name != factored.name)
        where = self.position if self.position >= 0 else len(stage.op.axes)
        axes = (*stage.op.axes[:where], partial_axis, *stage.op.axes[where:])
        partial_body = Reduce(body.combiner, source, rest) if rest else source
        partial = tensor_from_body(f"{stage.name}.rf", axes, partial_body)
        indices: list[Expr] = [new_axes[a.name] if a.name == factored.name else a for a in axes]
        final = tensor_from_body(
            stage.name, stage.op.axes, Reduce(body.combiner, Read(partial, tuple(indices)), (new_axes[factored.name],))
        )
        return _inserted(state, stage.name, fresh_stage(partial), replace(fresh_stage(final), location=stage.location))

    def _require_plain_axes(self, stage: Stage) -> None:
        """The loops over output elements are made anew; nothing must have been done to them yet."""
        axes = tuple(axis.name for axis in stage.op.axes)
        if tuple(item.name for item in stage.iterators[: len(axes)]) != axes:
            raise self.error(f"its loops over {', '.join(axes)} have already been transformed; this step comes first")
        if not -1 <= self.position <= len(axes):
            raise self.error(f"the new axis cannot stand at {self.position}; 0 to {len(axes)} are possible, and -1 is last")

    def _reduction_values(self, stage: Stage) -> tuple[dict[str, Expr], dict[str, int], list[Expr]]:
        """Reduction axes in terms of the loops, the loops' extents, and what must hold where lengths do not divide."""
        extents = {axis.name: axis.extent for axis in stage.op.reduce_axes}
        reduced = set(extents)
        for relation in stage.relations:
            if isinstance(relation, FuseRelation) and set(relation.parents) <= reduced:
                product = 1
                for parent in relation.parents:
                    product *= extents[parent]
                extents[relation.fused] = product
                reduced.add(relation.fused)
            elif isinstance(relation, SplitRelation) and relation.parent in reduced:
                rest = extents[relation.parent]
                for part, length in zip(reversed(relation.parts[1:]), relation.lengths, strict=True):
                    if not isinstance(length, int):
                        raise self.error(f"the length of '{part}' is still open ({length}); rfactor needs numbers")
                    extents[part], rest = min(length, rest), -(-rest // length)
                extents[relation.parts[0]] = rest
                reduced |= set(relation.parts)
        values: dict[str, Expr] = {
            item.name: Axis(item.name, extents[item.name], "spatial" if item.name == self.iterator else "reduction")
            for item in stage.iterators
            if item.kind == "reduction"
        }
        conditions: list[Expr] = []
        for relation in reversed(stage.relations):
            if isinstance(relation, SplitRelation) and relation.parent in reduced:
                value = values[relation.parts[0]]
                total = extents[relation.parts[0]]
                for part in relation.parts[1:]:
                    value, total = value * extents[part] + values[part], total * extents[part]
                values[relation.parent] = value
                if total != extents[relation.parent]:
                    conditions.append(value < extents[relation.parent])
            elif isinstance(relation, FuseRelation) and relation.fused in reduced:
                inner = 1
                for parent in reversed(relation.parents):
                    values[parent] = (values[relation.fused] // inner) % extents[parent]
                    inner *= extents[parent]
                first = relation.parents[0]
                values[first] = values[relation.fused] // (inner // extents[first])
        return {axis.name: values[axis.name] for axis in stage.op.reduce_axes}, extents, conditions


@step("transform_layout")
@dataclass(frozen=True)
class TransformLayout(Step):
    """Store a stage with tiled axes: `tiles` gives axis and tile size, `order` the new axes `x.outer`, `x.inner` or `x`.

    Where a size does not divide, the rest of the last tile is zero. Reads elsewhere are rewritten to the new layout.

    Before, and after `TransformLayout("B.cache", (("j", 8),), ("j.outer", "k", "j.inner"))`:

        for j in 12:
          for k in 16:
            B.cache[j, k] = B[k, j]
        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B.cache[j, k]), axes=[k])

        for j.outer in 2:
          for k in 16:
            for j.inner in 8:
              B.cache[j.outer, k, j.inner] = select((((j.outer * 8) + j.inner) < 12), B[k, ((j.outer * 8) + j.inner)], 0)
        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B.cache[(j // 8), k, (j % 8)]), axes=[k])
    """

    tiles: tuple[tuple[str, int], ...]
    order: tuple[str, ...]

    def apply(self, state: State) -> State:
        stage = self.find_stage(state)
        require_unscheduled(self, state, stage)
        if state.is_output(self.stage):
            raise self.error("it is an output, whose layout is fixed; transform the buffer that a cache_write of it makes")
        sizes = dict(self.tiles)
        if len(sizes) < len(self.tiles):
            raise self.error(f"an axis has two tiles in {list(self.tiles)}; give each one")
        new_axes: dict[str, Axis] = {}
        old_values: dict[str, Expr] = {}
        conditions: list[Expr] = []
        for axis in stage.op.axes:
            size = sizes.pop(axis.name, None)
            if size is None:
                new_axes[axis.name] = axis
                continue
            if size < 1:
                raise self.error(f"the tile of axis '{axis.name}' must be 1 or more, not {size}")
            outer = Axis(f"{axis.name}.outer", -(-axis.extent // size))
            inner = Axis(f"{axis.name}.inner", size)
            new_axes |= {outer.name: outer, inner.name: inner}
            old_values[axis.name] = outer * size + inner
            if axis.extent % size:
                conditions.append(old_values[axis.name] < axis.extent)
        if sizes:
            axes = ", ".join(axis.name for axis in stage.op.axes)
            raise self.error(f"there is no axis '{next(iter(sizes))}' to tile; the axes are {axes or 'none'}")
        if sorted(new_axes) != sorted(self.order):
            raise self.error(f"the order {list(self.order)} must list exactly the new axes {sorted(new_axes)}")
        if conditions and isinstance(stage.op.body, Reduce):
            raise self.error("tiles of a reduction's result must divide its axes; cache it first")
        body = substitute(stage.op.body, old_values)
        if conditions:
            body = select(logical_and(*conditions), body, const(0, body.dtype))
        tensor = tensor_from_body(stage.name, tuple(new_axes[name] for name in self.order), body)
        stages = [
            replace(fresh_stage(tensor), location=stage.location)
            if other.name == stage.name
            else _with_body(other, self._rewrite_reads(other.op.body, stage, tensor))
            for other in state.stages
        ]
        return replace(state, stages=tuple(stages))

    def _rewrite_reads(self, body: Expr, stage: Stage, tensor: Tensor) -> Expr:
        sizes = dict(self.tiles)

        def index(name: str, old: dict[str, Expr]) -> Expr:
            base, _, part = name.rpartition(".")
            if part in ("outer", "inner") and base in sizes:
                return old[base] // sizes[base] if part == "outer" else old[base] % sizes[base]
            return old[name]

        def rewrite(node: Expr) -> Expr | None:
            if not (isinstance(node, Read) and node.tensor.name == stage.name):
                return None
            old = {axis.name: value for axis, value in zip(stage.op.axes, node.indices, strict=True)}
            return Read(tensor, tuple(index(name, old) for name in self.order))

        return transform(body, rewrite)
