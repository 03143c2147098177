"""Default schedules: a good guess for every operation without any measurement.

Cheap element-wise stages are inlined. A stage with data reuse gets one register tile, chosen by how well it fills vectors and
how often it reuses a loaded vector, and is computed inside its element-wise consumer's tiles if it has one. Everything
else runs its outer loops in parallel and its inner loop in vectors. This is candidate 0 of every search, so that tuning never
makes a model slower.

    steps = default_steps(dag, target, threads=2)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from ansor_py.schedule.access import has_reduction, is_elementwise_read, is_strictly_inlineable, needs_multi_level_tiling
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import Inlined, SplitRelation, Stage, State
from ansor_py.schedule.steps import (
    ComputeAt,
    ComputeInline,
    Fuse,
    Parallel,
    Pragma,
    Reorder,
    Split,
    Step,
    Vectorize,
)
from ansor_py.target import Target
from ansor_py.te.expr import Expr, Read, Var, reads_of, variables_of
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Compute

# A nest of fewer elements than this is not worth waking other threads for.
MIN_PARALLEL_ELEMENTS = 8192
# Iterations per thread that the collapsed parallel loops should offer.
ITERATIONS_PER_THREAD = 4
UNROLL_LIMIT = 64
# Vectors per step of a long vectorised loop.
STEP_LANES = 4
ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)


@dataclass(frozen=True)
class TileChoice:
    """Innermost lengths of a stage with data reuse: `rows` of one axis, `width` elements of the vectorised one."""

    row_axis: str | None
    rows: int
    vector_axis: str
    width: int


def default_steps(dag: ComputeDAG, target: Target, threads: int) -> tuple[Step, ...]:
    """Transform steps for the DAG; concrete, legal and deterministic."""
    builder = _Builder(State.initial(dag), target, threads)
    for tensor in dag.computed:
        if not builder.state.is_output(tensor.name) and not has_reduction(tensor) and is_strictly_inlineable(tensor):
            builder.add(ComputeInline(tensor.name))
    placed: set[str] = set()
    for stage in builder.state.stages:
        if isinstance(stage.location, Inlined) or not (has_reduction(stage.tensor) and needs_multi_level_tiling(stage.tensor)):
            continue
        consumer = builder.fusible_consumer(stage)
        builder.tile(stage, consumer)
        placed |= {stage.name} | ({consumer.name} if consumer is not None else set())
    for stage in builder.state.stages:
        if stage.name not in placed and not isinstance(stage.location, Inlined):
            builder.simple(stage)
    return builder.state.steps


def element_stride(read: Read, axis: str) -> int | None:
    """How many elements further a read goes when an axis grows by one; None if that is not constant."""
    simplifier = Simplifier({})
    stride, total = 1, 0
    for extent, index in zip(reversed(read.tensor.shape), reversed(read.indices), strict=True):
        for atom, coefficient in simplifier.linear(index).terms:
            if isinstance(atom, Var):
                total += coefficient * stride if atom.name == axis else 0
            elif axis in variables_of(atom):
                return None
        stride *= extent
    return total


class _Builder:
    """The state so far, extended step by step."""

    def __init__(self, state: State, target: Target, threads: int) -> None:
        self.state = state
        self.target = target
        self.threads = threads

    def add(self, step: Step) -> None:
        self.state = self.state.apply(step)

    def fusible_consumer(self, stage: Stage) -> Stage | None:
        """The only consumer, if it reads the stage element by element and does not reduce."""
        consumers = self.state.consumers(stage.name)
        if len(consumers) != 1 or self.state.is_output(stage.name):
            return None
        consumer = consumers[0]
        body = self.state.body(consumer.name)
        merged = _with_body(consumer, body)
        if has_reduction(consumer.tensor) or not is_elementwise_read(merged.tensor, stage.tensor):
            return None
        return consumer if consumer.is_unscheduled else None

    # Stages with data reuse.

    def tile(self, stage: Stage, consumer: Stage | None) -> None:
        """One level of register tiles around the reduction, inside the consumer's tiles if there is one."""
        lanes = self.target.lanes(stage.tensor.dtype)
        reduction = self._lane_reduction(stage)
        choice = self._choose(stage, lanes, reduction is not None)
        lengths = {choice.vector_axis: choice.width}
        if choice.row_axis is not None:
            lengths[choice.row_axis] = choice.rows
        if reduction is not None:
            lengths = self._rows_only(stage, choice)
        spatial = [axis.name for axis in stage.op.axes]
        reductions = [axis.name for axis in stage.op.reduce_axes]
        for name, length in lengths.items():
            self.add(Split(stage.name, name, (length,)))
        outer = [f"{name}.0" if name in lengths else name for name in spatial]
        inner = [f"{name}.1" for name in spatial if name in lengths]
        if reduction is not None:
            self.add(Split(stage.name, reduction, (lanes,)))
            reductions = [f"{name}.0" if name == reduction else name for name in reductions]
            inner.append(f"{reduction}.1")
        self.add(Reorder(stage.name, (*outer, *reductions, *inner)))
        if inner and (reduction is not None or choice.width > 1):
            self.add(Vectorize(stage.name, inner[-1]))
        self.add(Pragma(stage.name, UNROLL_LIMIT))
        if consumer is None:
            self.parallel(stage.name, outer, stage.tensor.size)
            return
        names = dict(zip(spatial, (axis.name for axis in consumer.op.axes), strict=True))
        for name, length in lengths.items():
            self.add(Split(consumer.name, names[name], (length,)))
        outer = [f"{names[name]}.0" if name in lengths else names[name] for name in spatial]
        inner = [f"{names[name]}.1" for name in spatial if name in lengths]
        self.add(Reorder(consumer.name, (*outer, *inner)))
        if inner and inner[-1].startswith(names[spatial[-1]]):
            self.add(Vectorize(consumer.name, inner[-1]))
        self.add(ComputeAt(stage.name, consumer.name, outer[-1]))
        self.parallel(consumer.name, outer, stage.tensor.size)

    def _lane_reduction(self, stage: Stage) -> str | None:
        """The reduction axis to run in lanes: contiguous in every read, where the last output axis is in none."""
        if not stage.op.reduce_axes or not stage.op.axes:
            return None
        axis, last = stage.op.reduce_axes[-1], stage.op.axes[-1]
        if axis.extent < self.target.lanes(stage.tensor.dtype):
            return None
        reads = reads_of(self.state.body(stage.name))
        along_reduction = [element_stride(read, axis.name) for read in reads]
        along_output = [element_stride(read, last.name) for read in reads]
        return axis.name if all(s == 1 for s in along_reduction) and 1 not in along_output else None

    def _rows_only(self, stage: Stage, choice: TileChoice) -> dict[str, int]:
        """Lengths when lanes are taken by the reduction: a few results side by side."""
        last = stage.op.axes[-1]
        rows = {last.name: min(4, last.extent)}
        if choice.row_axis is not None and choice.rows > 1:
            rows[choice.row_axis] = min(4, choice.rows)
        return rows

    def _choose(self, stage: Stage, lanes: int, lanes_taken: bool) -> TileChoice:
        """The tile with the best product of filled lanes, filled rows and reuse that fits the registers."""
        vector = stage.op.axes[-1]
        row = self._row_axis(stage, vector.name)
        row_extent = next((axis.extent for axis in stage.op.axes if axis.name == row), 1)
        best, best_score = TileChoice(row, 1, vector.name, 1), -1.0
        for vectors in (1, 2, 3, 4):
            width = min(vectors * lanes, vector.extent)
            used_vectors = ceil(width / lanes)
            if used_vectors < vectors and not lanes_taken:
                continue
            for rows in ROW_COUNTS:
                if rows > row_extent or rows * vectors + vectors + 1 > self.target.vector_registers:
                    continue
                filled = vector.extent / (ceil(vector.extent / width) * used_vectors * lanes)
                filled_rows = row_extent / (ceil(row_extent / rows) * rows)
                reuse = rows * vectors / (rows + vectors + 2.0)
                score = filled * filled_rows * reuse
                if score > best_score:
                    best, best_score = TileChoice(row, rows, vector.name, width), score
        return best

    def _row_axis(self, stage: Stage, vector: str) -> str | None:
        """An axis that the reads in lanes do not depend on, so that a loaded vector serves several rows; else the longest."""
        reads = [r for r in reads_of(self.state.body(stage.name)) if element_stride(r, vector) != 0]
        others = [axis for axis in stage.op.axes if axis.name != vector and axis.extent > 1]
        reused = [a for a in others if all(element_stride(r, a.name) == 0 for r in reads)]
        candidates = reused or others
        return max(candidates, key=lambda axis: axis.extent).name if candidates else None

    # All other stages.

    def simple(self, stage: Stage) -> None:
        """Parallel outside, vectors inside."""
        lanes = self.target.lanes(stage.tensor.dtype)
        spatial = [axis.name for axis in stage.op.axes]
        reductions = [axis.name for axis in stage.op.reduce_axes]
        work = stage.tensor.size
        for axis in stage.op.reduce_axes:
            work *= axis.extent
        reduction = self._lane_reduction(stage)
        if reduction is not None:
            self.add(Split(stage.name, reduction, (STEP_LANES * lanes,)))
            order = [name for name in reductions if name != reduction]
            self.add(Reorder(stage.name, (*spatial, *order, f"{reduction}.0", f"{reduction}.1")))
            self.add(Vectorize(stage.name, f"{reduction}.1"))
            self.parallel(stage.name, spatial, work)
            return
        if not spatial:
            return
        last = stage.op.axes[-1]
        if last.extent > 1:
            width = min(last.extent, (2 if reductions else STEP_LANES) * lanes)
            self.add(Split(stage.name, last.name, (width,)))
            outer = [*spatial[:-1], f"{last.name}.0"]
            self.add(Reorder(stage.name, (*outer, *reductions, f"{last.name}.1")))
            self.add(Vectorize(stage.name, f"{last.name}.1"))
            spatial = outer
        if reductions:
            self.add(Pragma(stage.name, UNROLL_LIMIT))
        self.parallel(stage.name, spatial, work)

    def parallel(self, stage: str, loops: Sequence[str], work: int) -> None:
        """Collapse as many outer loops as it takes to give every thread some iterations, and run them in parallel."""
        if self.threads < 2 or not loops or work < MIN_PARALLEL_ELEMENTS:
            return
        extents = _extents(self.state.stage(stage))
        count, product = 0, 1
        for name in loops:
            if count and (product >= self.threads * ITERATIONS_PER_THREAD or self.state.attached_to(stage, loops[count - 1])):
                break
            count, product = count + 1, product * extents[name]
        if product < 2:
            return
        chosen = tuple(loops[:count])
        if count > 1:
            self.add(Fuse(stage, chosen))
        self.add(Parallel(stage, "".join(f"{name}@" for name in chosen) if count > 1 else chosen[0]))


def _with_body(stage: Stage, body: Expr) -> Stage:
    op = Compute(stage.op.axes, stage.op.reduce_axes, body)
    return replace(stage, tensor=replace(stage.tensor, op=op))


def _extents(stage: Stage) -> dict[str, int]:
    """Extents of a root stage's iterators after splits by numbers."""
    extents = {axis.name: axis.extent for axis in (*stage.op.axes, *stage.op.reduce_axes)}
    for relation in stage.relations:
        if isinstance(relation, SplitRelation):
            rest = extents[relation.parent]
            for part, length in zip(reversed(relation.parts[1:]), relation.lengths, strict=True):
                assert isinstance(length, int)
                extents[part], rest = min(length, rest), -(-rest // length)
            extents[relation.parts[0]] = rest
    return extents
