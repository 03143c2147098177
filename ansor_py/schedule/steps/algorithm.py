"""The step that takes another algorithm for a stage (`ansor_py.schedule.algorithms`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

from ansor_py.schedule.algorithms import ALGORITHMS
from ansor_py.schedule.dag import producers, redirect_reads
from ansor_py.schedule.state import Stage, State, fresh_stage
from ansor_py.schedule.steps.base import Step, step
from ansor_py.schedule.steps.stages import require_new_name, require_unscheduled
from ansor_py.te.tensor import Compute, Tensor


@step("use_algorithm")
@dataclass(frozen=True)
class UseAlgorithm(Step):
    """Compute a stage by a registered algorithm: the stages that this takes stand before it, each named `STAGE.NAME`.

    The stage itself keeps its name, shape and dtype. What only its old formula read, such as padding, is gone.

    Before, and after `UseAlgorithm("S", "halves")`:

        for i in 20:
          for k in 16:
            S[i] = sum(A[i, k], axes=[k])

        for i0 in 2:
          for i1 in 20:
            for k in 8:
              S.halves[i0, i1] = sum(A[i1, ((i0 * 8) + k)], axes=[k])
        for i0 in 20:
          S[i0] = (S.halves[0, i0] + S.halves[1, i0])
    """

    algorithm: str

    def __reduce__(self) -> tuple[object, ...]:
        # Another process may not have imported the file of a user's algorithm yet.
        known = ALGORITHMS.get(self.algorithm)
        return _unpickled, (self.stage, self.algorithm, "" if known is None else known.build.__module__)

    def apply(self, state: State) -> State:
        stage = self.find_stage(state)
        require_unscheduled(self, state, stage)
        if self.algorithm not in ALGORITHMS:
            raise self.error(f"no algorithm '{self.algorithm}' is registered; import the file that has it")
        result = ALGORITHMS[self.algorithm].built(stage.tensor)
        if result is None:
            raise self.error(f"algorithm '{self.algorithm}' does not apply to what the stage computes; leave the step out")
        made = _renamed(stage.tensor, result)
        if not made or made[-1].name != stage.name:
            raise self.error(f"algorithm '{self.algorithm}' gives a tensor that the stage reads; it must make a new one")
        for tensor in made[:-1]:
            require_new_name(self, state, tensor.name)
        added = [fresh_stage(tensor) for tensor in made]
        added[-1] = replace(added[-1], location=stage.location)
        stages: list[Stage] = []
        for other in state.stages:
            stages.extend(added if other is stage else (other,))
        return _without_unread(replace(state, stages=tuple(stages)), [tensor.name for tensor in producers(stage.tensor)])


def _unpickled(stage: str, name: str, module: str) -> UseAlgorithm:
    if name not in ALGORITHMS and module:
        with suppress(ImportError):  # what is missing then, `apply` says
            importlib.import_module(module)
    return UseAlgorithm(stage, name)


def algorithms_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """The names of the algorithms that steps use, each once."""
    return tuple(dict.fromkeys(item.algorithm for item in steps if isinstance(item, UseAlgorithm)))


@lru_cache(maxsize=512)
def _renamed(tensor: Tensor, result: Tensor) -> tuple[Tensor, ...]:
    """What a result rests on and the tensor that it stands for does not, producers first: named after that, it last."""
    known = {id(needed) for needed in _needed(tensor)}
    renamed: dict[int, Tensor] = {}
    for item in _needed(result):
        if isinstance(item.op, Compute) and id(item) not in known:
            name = tensor.name if item is result else f"{tensor.name}.{item.name}"
            body = redirect_reads(item.op.body, renamed)
            renamed[id(item)] = Tensor(name, item.shape, item.dtype, replace(item.op, body=body))
    return tuple(renamed.values())


def _needed(tensor: Tensor) -> list[Tensor]:
    """A tensor and all that it rests on, producers first."""
    order: dict[int, Tensor] = {}
    pending = [(tensor, False)]
    while pending:
        item, is_expanded = pending.pop()
        if is_expanded:
            order.setdefault(id(item), item)
        elif id(item) not in order:
            pending.append((item, True))
            pending.extend((producer, False) for producer in reversed(producers(item)))
    return list(order.values())


def _without_unread(state: State, names: list[str]) -> State:
    """The state without those of the stages that nothing reads any more, and what only they read."""
    pending = [name for name in names if state.has_stage(name)]
    while pending:
        name = pending.pop()
        if not state.has_stage(name) or state.is_output(name) or state.readers(name) or state.attached_to(name):
            continue
        pending.extend(read.tensor.name for read in state.stage(name).op.reads if state.has_stage(read.tensor.name))
        state = replace(state, stages=tuple(stage for stage in state.stages if stage.name != name))
    return state
