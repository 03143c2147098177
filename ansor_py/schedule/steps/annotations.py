"""Steps that say how a loop runs: parallel, vectorize, unroll, the auto-unroll pragma, storage alignment."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansor_py.schedule.state import Annotation, State
from ansor_py.schedule.steps.base import Step, step
from ansor_py.schedule.steps.register_tile import check_untiled


def _annotate(step_: Step, state: State, iterator: str, annotation: Annotation) -> State:
    stage = step_.find_loops(state)
    position = step_.find_iterator(stage, iterator)
    old = stage.iterators[position]
    if old.annotation not in ("none", annotation):
        raise step_.error(f"the loop is already marked {old.annotation}, and a loop has one mark; mark another")
    iterators = list(stage.iterators)
    iterators[position] = replace(old, annotation=annotation)
    return state.with_stage(replace(stage, iterators=tuple(iterators)))


@step("parallel")
@dataclass(frozen=True)
class Parallel(Step):
    """Run the iterations of a spatial loop on all threads. Loops may be fused first to get more iterations.

    Of a stage that is computed inside another the loops run one after the other all the same.

    Before, and after `Parallel("D", "i")`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])

        parallel i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])
    """

    iterator: str

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        position = self.find_iterator(stage, self.iterator)
        if stage.iterators[position].kind != "spatial":
            raise self.error("it is a reduction loop; use rfactor to make it parallel")
        if position != 0:
            raise self.error("it is not the outermost loop; reorder or fuse first")
        check_untiled(self, stage, [self.iterator])
        return _annotate(self, state, self.iterator, "parallel")


@step("vectorize")
@dataclass(frozen=True)
class Vectorize(Step):
    """Compute the iterations of the innermost loop in vector lanes. A reduction loop gets one partial result a lane.

    Before, and after `Vectorize("D", "j")`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])

        for i in 20:
          vectorize j in 12:
            D[i, j] = exp(A[i, j])
    """

    iterator: str

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        if self.find_iterator(stage, self.iterator) != len(stage.iterators) - 1:
            raise self.error("it is not the innermost loop; reorder first")
        if attached := state.attached_to(self.stage, self.iterator):
            raise self.error(f"stage '{attached[0].name}' is attached to it; attach that further out")
        return _annotate(self, state, self.iterator, "vectorize")


@step("unroll")
@dataclass(frozen=True)
class Unroll(Step):
    """Emit the iterations of a loop one after the other.

    Before, and after `Unroll("D", "j")`:

        for i in 20:
          for j in 12:
            D[i, j] = exp(A[i, j])

        for i in 20:
          unroll j in 12:
            D[i, j] = exp(A[i, j])
    """

    iterator: str

    def apply(self, state: State) -> State:
        return _annotate(self, state, self.iterator, "unroll")


@step("pragma")
@dataclass(frozen=True)
class Pragma(Step):
    """Allow inner loops of a stage to be unrolled up to `auto_unroll_max_step` emitted instructions (0: not at all).

    Before, and after `Pragma("C", 64)`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])

        pragma C auto_unroll_max_step = 64
        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
    """

    auto_unroll_max_step: int

    def apply(self, state: State) -> State:
        if self.auto_unroll_max_step < 0:
            raise self.error(f"the unroll limit must be 0 or more, not {self.auto_unroll_max_step}")
        return state.with_stage(replace(self.find_loops(state), unroll_limit=self.auto_unroll_max_step))


@step("storage_align")
@dataclass(frozen=True)
class StorageAlign(Step):
    """Pad the rows (last dimension) of the stage's buffer so that their length modulo `factor` is `offset` (elements).

    Keeps rows of a power-of-two length from falling into the same cache sets. An output's layout is not ours to change.

    Before, and after `StorageAlign("C", 16, 4)`:

        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            D[i, j] = max(C[i, j], 0)

        storage_align C factor = 16, offset = 4
        for i in 20:
          for j in 12:
            for k in 16:
              C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])
        for i in 20:
          for j in 12:
            D[i, j] = max(C[i, j], 0)
    """

    factor: int
    offset: int

    def apply(self, state: State) -> State:
        stage = self.find_loops(state)
        if state.is_output(self.stage):
            raise self.error("it is an output, whose layout is fixed; align the buffer that a cache_write of it makes")
        if self.factor < 1 or not 0 <= self.offset < self.factor:
            raise self.error(f"factor must be 1 or more and 0 <= offset < factor, not {self.factor} and {self.offset}")
        return state.with_stage(replace(stage, storage_align=(self.factor, self.offset)))
