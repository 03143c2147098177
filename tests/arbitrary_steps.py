"""Arbitrary steps: of every registered kind, fields filled by their types with names and numbers that may make no sense.

A state either refuses such a step by a ScheduleError or means the same program after it. A new step is drawn like all others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from ansor_py.errors import ScheduleError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import MICRO_KERNELS
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import STEPS, Step

NUMBERS = (-1, 0, 1, 2, 3, 4, 64)


def arbitrary_state(dag: ComputeDAG, steps: int, rng: np.random.Generator) -> State:
    """A state after those of many arbitrary steps that it did not refuse."""
    state = State.initial(dag)
    for _ in range(steps):
        try:
            state = state.apply(arbitrary_step(state, rng))
        except ScheduleError:
            continue
    return state


def arbitrary_step(state: State, rng: np.random.Generator) -> Step:
    """A step of any kind, about any stage or input."""
    cls = list(STEPS.values())[int(rng.integers(len(STEPS)))]
    stages = [stage.name for stage in state.stages]
    stage = _one([*stages, *stages, *(tensor.name for tensor in state.dag.inputs)], rng)
    hints = get_type_hints(cls)
    fields = {field.name: _value(hints[field.name], state, stage, rng) for field in dataclasses.fields(cls)}
    return cls(**fields | {"stage": stage})


def _value(hint: Any, state: State, stage: str, rng: np.random.Generator) -> Any:
    own = [item.name for item in state.stage(stage).iterators] if state.has_stage(stage) else []
    if hint is str:
        other = _one(state.stages, rng)
        loops = [*(item.name for item in other.iterators), *(axis.name for axis in other.op.axes)]
        return _one(
            [_one(own or loops or ["i"], rng), _one(loops or ["i"], rng), other.name, _one(list(MICRO_KERNELS), rng)], rng
        )
    if get_origin(hint) is not tuple:  # a number, which a length may be
        return _one(NUMBERS, rng)
    item = get_args(hint)[0]
    if item is not str:
        several = get_origin(item) is tuple
        return tuple(
            tuple(_value(part, state, stage, rng) for part in get_args(item)) if several else _one(NUMBERS, rng)
            for _ in range(int(rng.integers(3)))
        )
    kind = rng.random()
    if kind < 0.3:
        return tuple(str(name) for name in rng.permutation(own))
    if kind < 0.5:
        return (_one([item.name for item in state.stages], rng),)
    first, last = sorted(int(place) for place in rng.integers(len(own) + 1, size=2))
    return tuple(own[first:last])


def _one(items: Sequence[Any], rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]
