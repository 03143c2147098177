"""Default schedules: a good guess for every operation without any measurement.

Cheap element-wise stages are inlined. A stage with data reuse gets one register tile, chosen by how well it fills vectors and
how often it reuses a loaded vector, and is computed inside its element-wise consumer's tiles if it has one. Everything else
runs its outer loops in parallel and its inner loop in vectors; stages that share rows are computed one row after the other.
This is candidate 0 of every search, so that tuning never makes a model slower.

    steps = default_steps(dag, target, threads=2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ansor_py.codegen.default_tile import choose_tile, lane_reduction, transposed_row
from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.access import (
    common_outer_axes,
    has_reduction,
    is_elementwise_read,
    is_free_to_inline,
    needs_multi_level_tiling,
)
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import micro_kernel_for
from ansor_py.schedule.panels import Panels, panel_steps
from ansor_py.schedule.state import At, Inlined, SplitRelation, Stage, State
from ansor_py.schedule.steps import (
    ComputeAt,
    ComputeInline,
    Fuse,
    Parallel,
    Pragma,
    RegisterTile,
    Reorder,
    Split,
    Step,
    Vectorize,
)
from ansor_py.target import Target
from ansor_py.te.expr import DTYPE_BYTES, Axis, reads_of, variables_of
from ansor_py.te.tensor import Tensor

# A nest of fewer elements than this is not worth waking other threads for.
MIN_PARALLEL_ELEMENTS = 8192
# Iterations per thread that the collapsed parallel loops should offer.
ITERATIONS_PER_THREAD = 4
UNROLL_LIMIT = 128
# Vectors per step of a long vectorised loop.
STEP_LANES = 4
# Vectors of accumulators side by side in a sum over rows, and the rows from which on more of them pay.
ACCUMULATORS = (16, 8, 4, 2)
LONG_REDUCTION = 64
# Vectors along the last axis of a tile that is transposed in registers.
TRANSPOSED_VECTORS = 2


def default_steps(dag: ComputeDAG, target: Target, threads: int) -> tuple[Step, ...]:
    """Transform steps for the DAG; concrete, legal and deterministic."""
    builder = _Builder(State.initial(dag), target, threads)
    for tensor in reversed(dag.computed):  # what reads it is settled first
        if not builder.state.is_output(tensor.name) and builder.is_free_to_inline(tensor):
            builder.add(ComputeInline(tensor.name))
    placed: set[str] = set()
    for stage in builder.state.stages:
        if isinstance(stage.location, Inlined) or not (has_reduction(stage.tensor) and needs_multi_level_tiling(stage.tensor)):
            continue
        consumer = builder.fusible_consumer(stage)
        builder.tile(stage, consumer)
        placed |= {stage.name} | ({consumer.name} if consumer is not None else set())
    rest = [s.name for s in builder.state.stages if s.name not in placed and not isinstance(s.location, Inlined)]
    for name in rest:
        builder.simple(builder.state.stage(name))
    for name in reversed(rest):
        builder.attach(builder.state.stage(name), rest)
    for name in rest:
        builder.parallel_outer(builder.state.stage(name))
    return builder.state.steps


class _Builder:
    """The state so far, extended step by step."""

    def __init__(self, state: State, target: Target, threads: int) -> None:
        self.state = state
        self.target = target
        self.threads = threads

    def add(self, step: Step) -> None:
        self.state = self.state.apply(step)

    def is_free_to_inline(self, tensor: Tensor) -> bool:
        """Whether the formula costs nothing where it is read."""
        return is_free_to_inline(tensor, [self.state.whole(reader.name) for reader in self.state.consumers(tensor.name)])

    def fusible_consumer(self, stage: Stage) -> Stage | None:
        """The only consumer, if it reads the stage element by element and does not reduce."""
        consumers = self.state.consumers(stage.name)
        if len(consumers) != 1 or self.state.is_output(stage.name):
            return None
        consumer = consumers[0]
        whole = self.state.whole(consumer.name)
        if has_reduction(consumer.tensor) or not is_elementwise_read(whole, stage.tensor):
            return None
        return consumer if consumer.is_unscheduled else None

    # Stages with data reuse.

    def tile(self, stage: Stage, consumer: Stage | None) -> None:
        """One level of register tiles around the reduction, inside the consumer's tiles if there is one."""
        choice = choose_tile(self.state, stage, self.target)
        if choice.panels is not None:
            for step in panel_steps(self.state, stage, choice.panels):
                self.add(step)
        for name, length in choice.lengths.items():
            self.add(Split(stage.name, name, (length,)))
        spatial = [axis.name for axis in stage.op.axes]
        outer, inner = self._parts(spatial, choice.lengths)
        if choice.panels is not None:
            outer = _panels_first(outer, choice.panels, {name: name for name in spatial})
        reductions, inner_reductions = self._parts([axis.name for axis in stage.op.reduce_axes], choice.lengths)
        vector = f"{choice.vector}.1"
        rows = [name for name in (*inner, *inner_reductions) if name != vector]
        self.add(Reorder(stage.name, (*outer, *reductions, *rows, vector)))
        self.tile_registers(stage.name, (*rows, vector))
        if choice.lengths[choice.vector] > 1:
            self.add(Vectorize(stage.name, vector))
        self.add(Pragma(stage.name, UNROLL_LIMIT))
        if consumer is None:
            self.parallel(stage.name, outer, _work(stage))
            return
        names = {axis.name: own.name for axis, own in zip(stage.op.axes, consumer.op.axes, strict=True)}
        lengths = {names[name]: length for name, length in choice.lengths.items() if name in names}
        for name, length in lengths.items():
            self.add(Split(consumer.name, name, (length,)))
        outer, inner = self._parts([axis.name for axis in consumer.op.axes], lengths)
        if choice.panels is not None:
            outer = _panels_first(outer, choice.panels, names)
        self.add(Reorder(consumer.name, (*outer, *inner)))
        if inner and inner[-1] == f"{consumer.op.axes[-1].name}.1":
            self.add(Vectorize(consumer.name, inner[-1]))
        self.add(ComputeAt(stage.name, consumer.name, outer[-1]))
        self.parallel(consumer.name, outer, _work(stage))

    def tile_registers(self, stage: str, loops: tuple[str, ...]) -> None:
        self.add(RegisterTile(stage, loops, micro_kernel_for(self.state.body(stage), self.target).name))

    @staticmethod
    def _parts(axes: Sequence[str], lengths: dict[str, int]) -> tuple[list[str], list[str]]:
        """The outer loops of axes of which some were split, and the inner loops of those."""
        return [f"{name}.0" if name in lengths else name for name in axes], [f"{n}.1" for n in axes if n in lengths]

    # All other stages.

    def simple(self, stage: Stage) -> None:
        """Vectors inside; what runs in parallel is decided when all stages are placed."""
        lanes = self.target.lanes(stage.tensor.dtype)
        spatial = [axis.name for axis in stage.op.axes]
        reductions = [axis.name for axis in stage.op.reduce_axes]
        reads = reads_of(self.state.body(stage.name))
        in_lanes = lane_reduction(reads, stage, lanes)
        if in_lanes is not None:
            reduction = in_lanes.name
            # Lanes past the end are masked in every step: fewer vectors that divide the axis are better.
            even = (count for count in (STEP_LANES, STEP_LANES // 2, 1) if in_lanes.extent % (count * lanes) == 0)
            self.add(Split(stage.name, reduction, (next(even, STEP_LANES) * lanes,)))
            order = [name for name in reductions if name != reduction]
            self.add(Reorder(stage.name, (*spatial, *order, f"{reduction}.0", f"{reduction}.1")))
            self.add(Vectorize(stage.name, f"{reduction}.1"))
            return
        if not spatial:
            return
        row = transposed_row(reads, stage)
        if row is not None:
            self.transposed(stage, row, lanes)
            return
        last = stage.op.axes[-1]
        if last.extent > 1:
            width = min(last.extent, (self._accumulators(stage, lanes) if reductions else STEP_LANES) * lanes)
            self.add(Split(stage.name, last.name, (width,)))
            outer = [*spatial[:-1], f"{last.name}.0"]
            self.add(Reorder(stage.name, (*outer, *reductions, f"{last.name}.1")))
            self.add(Vectorize(stage.name, f"{last.name}.1"))
        if reductions:
            self.add(Pragma(stage.name, UNROLL_LIMIT))

    def transposed(self, stage: Stage, row: Axis, lanes: int) -> None:
        """Square tiles of the last axis and the one along which an input is contiguous, in runs of whole cache lines."""
        last = next(axis for axis in reversed(stage.op.axes) if axis.extent > 1)
        rest = [axis.name for axis in stage.op.axes if axis not in (row, last)]
        self.add(Split(stage.name, row.name, (min(row.extent, lanes),)))
        self.add(Split(stage.name, last.name, (min(last.extent, TRANSPOSED_VECTORS * lanes),)))
        outer = [*rest, f"{last.name}.0", f"{row.name}.0"]
        self.add(Reorder(stage.name, (*outer, f"{row.name}.1", f"{last.name}.1")))
        self.tile_registers(stage.name, (f"{row.name}.1", f"{last.name}.1"))
        self.add(Vectorize(stage.name, f"{last.name}.1"))

    def _accumulators(self, stage: Stage, lanes: int) -> int:
        """Vectors side by side in a reduction over outer axes: long runs of each row, but some iterations for every thread."""
        if prod(axis.extent for axis in stage.op.reduce_axes) < LONG_REDUCTION:
            return ACCUMULATORS[-1]
        wanted = self.threads * ITERATIONS_PER_THREAD if self.threads > 1 else 1
        elements = [axis.extent for axis in stage.op.axes]
        counts = (c for c in ACCUMULATORS if prod(elements[:-1]) * -(-elements[-1] // (c * lanes)) >= wanted)
        return next(counts, ACCUMULATORS[-1])

    def attach(self, stage: Stage, candidates: Sequence[str]) -> None:
        """Compute a stage inside the loops over rows that all of its consumers share, if a row fits half the L2 cache.

        A softmax then works on one row after the other, which stays in the first-level cache between its stages.
        """
        consumers = self.state.consumers(stage.name)
        if self.state.is_output(stage.name) or not consumers or any(c.name not in candidates for c in consumers):
            return
        places = {self._root(consumer) for consumer in consumers}
        if len(places) != 1 or stage.name in self.state.prepacked:
            return
        host = self.state.stage(places.pop())
        shared = min(common_outer_axes(self.state.whole(consumer.name), stage.tensor) for consumer in (host, *consumers))
        loops = [axis.name for axis in host.op.axes[:shared] if axis.extent > 1]
        whole = {iterator.name for iterator in host.iterators}
        while loops and loops[-1] not in whole:
            loops.pop()
        if not loops or any(name not in whole for name in loops):
            return
        step = ComputeAt(stage.name, host.name, loops[-1])
        try:
            region = infer_bounds(self.state.apply(step))[stage.name].region
        except ScheduleError:
            return
        count = [axis.name for axis in host.op.axes].index(loops[-1]) + 1
        size = DTYPE_BYTES[stage.tensor.dtype] * prod(int(extent) for extent in region)
        if all(int(extent) == 1 for extent in region[:count]) and size <= self.target.l2 // 2:
            self.add(step)

    def _root(self, stage: Stage) -> str:
        """The stage at root in whose nest a stage is computed."""
        while isinstance(stage.location, At):
            stage = self.state.stage(stage.location.stage)
        return stage.name

    def parallel_outer(self, stage: Stage) -> None:
        """Run the outer spatial loops of a stage at root in parallel."""
        if isinstance(stage.location, At):
            return
        loops = [iterator.name for iterator in stage.plain_outer_iterators]
        self.parallel(stage.name, loops, sum(_work(other) for other in self.state.stages if self._root(other) == stage.name))

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


def _panels_first(loops: Sequence[str], panels: Panels, names: Mapping[str, str]) -> list[str]:
    """The loops with those outside that choose a panel: it is used for all rows before the next one is read.

    `names` gives the loop's axis for every axis of the stage that reads the panels.
    """
    used = set().union(*(variables_of(index) for index in panels.read.indices))
    chosen = {names[axis] for axis in used if axis in names}
    return sorted(loops, key=lambda loop: loop.removesuffix(".0") not in chosen)


def _work(stage: Stage) -> int:
    """Elements that a stage goes through."""
    return stage.tensor.size * prod(axis.extent for axis in stage.op.reduce_axes)


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
