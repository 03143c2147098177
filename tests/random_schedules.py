"""Random legal schedules: steps are drawn at random and those that the state refuses are left out.

What remains is legal by the project's own judgement, and then has to compute the right result.
"""

from __future__ import annotations

import math

import numpy as np

from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.register_tile import MAX_TILE_VECTORS
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import FORMULA
from ansor_py.schedule.state import Inlined, State
from ansor_py.schedule.steps import (
    CacheOperand,
    CacheRead,
    CacheWrite,
    ComputeAt,
    ComputeInline,
    Fuse,
    Parallel,
    Pragma,
    RegisterTile,
    Reorder,
    Rfactor,
    Split,
    Step,
    StorageAlign,
    TransformLayout,
    Unroll,
    Vectorize,
)

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 16, 20, 32, 64)


def random_state(dag: ComputeDAG, rng: np.random.Generator) -> State:
    """A random schedule of a DAG: new stages, loops and locations, annotations, in this order."""
    state = _stages(State.initial(dag), rng)
    for stage in reversed(state.stages):
        if not isinstance(state.stage(stage.name).location, Inlined):
            state = _loops(state, stage.name, rng)
            if rng.random() < 0.6:
                state = _location(state, stage.name, rng)
    for stage in state.stages:
        if not isinstance(stage.location, Inlined):
            state = _annotations(state, stage.name, rng)
    return state


def _tried(state: State, step: Step) -> State:
    try:
        after = state.apply(step)
        infer_bounds(after)
    except ScheduleError:
        return state
    return after


def _stages(state: State, rng: np.random.Generator) -> State:
    for tensor in state.dag.computed:
        stage = state.stage(tensor.name)
        choice = rng.random()
        if choice < 0.25:
            state = _tried(state, ComputeInline(stage.name))
        elif choice < 0.45:
            state = _tried(state, CacheWrite(stage.name))
        elif choice < 0.7 and stage.op.reduce_axes:
            axis = stage.op.reduce_axes[int(rng.integers(len(stage.op.reduce_axes)))]
            state = _tried(state, Split(stage.name, axis.name, (int(rng.choice(LENGTHS)),)))
            state = _tried(state, Rfactor(stage.name, f"{axis.name}.{int(rng.integers(2))}", -1))
        elif choice < 0.8 and stage.op.axes:
            axis = stage.op.axes[-1]
            order = [a.name for a in stage.op.axes[:-1]] + [f"{axis.name}.inner"]
            order.insert(int(rng.integers(len(order))), f"{axis.name}.outer")
            state = _tried(state, TransformLayout(stage.name, ((axis.name, int(rng.choice(LENGTHS))),), tuple(order)))
        elif choice < 0.85:
            state = _tried(state, StorageAlign(stage.name, 16, 3))
    for tensor in state.dag.inputs:
        if rng.random() < 0.2:
            readers = state.readers(tensor.name)
            if readers:
                reader = readers[0].name
                whole = rng.random() < 0.5
                state = _tried(state, CacheRead(tensor.name, (reader,)) if whole else CacheOperand(tensor.name, reader))
    return state


def _loops(state: State, name: str, rng: np.random.Generator) -> State:
    for iterator in state.stage(name).iterators:
        if rng.random() < 0.6:
            count = int(rng.integers(1, 4))
            state = _tried(state, Split(name, iterator.name, tuple(int(rng.choice(LENGTHS)) for _ in range(count))))
    if rng.random() < 0.7:
        names = [item.name for item in state.stage(name).iterators]
        state = _tried(state, Reorder(name, tuple(str(item) for item in rng.permutation(names))))
    if rng.random() < 0.4:
        names = [item.name for item in state.stage(name).iterators]
        if len(names) > 1:
            start = int(rng.integers(len(names) - 1))
            state = _tried(state, Fuse(name, tuple(names[start : start + 2])))
            if rng.random() < 0.5 and f"{names[start]}@{names[start + 1]}@" in [i.name for i in state.stage(name).iterators]:
                state = _tried(state, Split(name, f"{names[start]}@{names[start + 1]}@", (int(rng.choice(LENGTHS)),)))
    return state


def _location(state: State, name: str, rng: np.random.Generator) -> State:
    consumers = state.consumers(name)
    if not consumers:
        return state
    consumer = consumers[int(rng.integers(len(consumers)))]
    if not consumer.iterators:
        return state
    iterator = consumer.iterators[int(rng.integers(len(consumer.iterators)))]
    return _tried(state, ComputeAt(name, consumer.name, iterator.name))


def _register_tile(state: State, name: str, rng: np.random.Generator) -> State:
    """Of up to three innermost loops, where that is not more than can be emitted."""
    chosen = state.stage(name).iterators[-int(rng.integers(1, 4)) :]
    if chosen[-1].kind == "reduction" and chosen[-1].annotation != "vectorize":
        return state
    loops = [item.name for item in chosen]
    extents = infer_bounds(state)[name].extents
    few = math.prod(int(extents[loop]) for loop in loops) <= MAX_TILE_VECTORS
    return _tried(state, RegisterTile(name, tuple(loops), FORMULA.name)) if few else state


def _annotations(state: State, name: str, rng: np.random.Generator) -> State:
    iterators = state.stage(name).iterators
    if not iterators:
        return state
    if rng.random() < 0.7:
        state = _tried(state, Vectorize(name, iterators[-1].name))
    if rng.random() < 0.3:
        state = _register_tile(state, name, rng)
    if rng.random() < 0.7:
        state = _tried(state, Parallel(name, iterators[0].name))
    if rng.random() < 0.3:
        state = _tried(state, Unroll(name, iterators[int(rng.integers(len(iterators)))].name))
    return _tried(state, Pragma(name, int(rng.choice((0, 16, 64)))))
