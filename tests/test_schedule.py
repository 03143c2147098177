"""States and transform steps: what legal steps do to the loops, what illegal ones say, and the JSON they are written as."""

from __future__ import annotations

import json

import pytest

from ansor_py import te
from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import (
    STEPS,
    CacheOperand,
    CacheRead,
    CacheWrite,
    ComputeAt,
    ComputeInline,
    ComputeRoot,
    FollowFusedSplit,
    FollowSplit,
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
    step_from_json,
)


def matmul_relu() -> State:
    """Stages `C` (a matmul with axes i, j, k) and `relu` (axes i0, i1), which is the output."""
    a, b = te.placeholder((12, 20), name="A"), te.placeholder((20, 30), name="B")
    k = te.reduce_axis(20, "k")
    c = te.compute((12, 30), lambda i, j: te.reduce_sum(a[i, k] * b[k, j], k), name="C")
    return State.initial(ComputeDAG.from_outputs(te.relu(c, name="relu")))


TILED = (Split("C", "i", (4,)), Split("C", "j", (8, 2)), Split("C", "k", (5,)))

# One example of every step, legal after the steps before it in its list.
LEGAL: tuple[tuple[Step, ...], ...] = (
    (*TILED, Reorder("C", ("i.0", "j.0", "k.0", "j.1", "i.1", "k.1", "j.2")), Unroll("C", "k.1"), Vectorize("C", "j.2")),
    (*TILED, FollowSplit("relu", "i1", "C", "j", 2), Fuse("relu", ("i0", "i1.0")), Parallel("relu", "i0@i1.0@")),
    (*TILED, Fuse("relu", ("i0", "i1")), FollowFusedSplit("relu", "i0@i1@", "C", ("i", "j"), 1), Pragma("C", 64)),
    (ComputeAt("C", "relu", "i0"), StorageAlign("C", 16, 3), ComputeRoot("C")),
    (CacheWrite("C"), ComputeInline("C"), ComputeAt("C.local", "relu", "i1")),
    (CacheRead("B", ("C",)), TransformLayout("B.cache", (("i1", 8),), ("i1.outer", "i0", "i1.inner"))),
    (CacheOperand("B", "C"), TransformLayout("B.cache", (("j", 8),), ("j.outer", "k", "j.inner"))),
    (Split("C", "k", (6,)), Rfactor("C", "k.1", -1)),
    (*TILED, RegisterTile("C", ("k.1",), "formula")),
)

# (what comes before, the illegal step, what its message must name beside the step and its stage)
ILLEGAL: tuple[tuple[tuple[Step, ...], Step, tuple[str, ...]], ...] = (
    ((), Split("D", "i", (4,)), ("C", "relu")),
    ((), Split("C", "x", (4,)), ("'x'", "i, j, k")),
    ((), Split("C", "i", (4, 0)), ("'i'", "4, 0")),
    ((), FollowSplit("relu", "i1", "C", "j", 2), ("'i1'", "'j'")),
    ((), FollowSplit("relu", "i1", "D", "j", 2), ("'i1'", "'D'")),
    (TILED, FollowSplit("relu", "i1", "C", "j", 5), ("'i1'", "5 parts")),
    (TILED, FollowFusedSplit("relu", "i1", "C", ("i", "j"), 2), ("'i1'", "level 2", "'i'")),
    ((), Fuse("C", ("i",)), ("two",)),
    ((), Fuse("C", ("i", "k")), ("i, k", "neighbours")),
    ((), Fuse("C", ("j", "k")), ("j, k", "reduction")),
    ((ComputeAt("C", "relu", "i0"),), Fuse("relu", ("i0", "i1")), ("'C'", "'i0'")),
    ((Parallel("C", "i"),), Fuse("C", ("i", "j")), ("i, j", "parallel")),
    ((), Reorder("C", ("i", "k")), ("i, k", "i, j, k")),
    ((), Parallel("C", "j"), ("'j'", "outermost")),
    ((Reorder("C", ("k", "i", "j")),), Parallel("C", "k"), ("'k'", "rfactor")),
    ((), Vectorize("C", "j"), ("'j'", "innermost")),
    ((ComputeAt("C", "relu", "i1"),), Vectorize("relu", "i1"), ("'i1'", "'C'")),
    ((Vectorize("C", "k"),), Unroll("C", "k"), ("'k'", "vectorize")),
    ((), Pragma("C", -1), ("-1",)),
    ((), StorageAlign("C", 4, 4), ("4",)),
    ((), StorageAlign("relu", 4, 1), ("output",)),
    ((), ComputeAt("C", "relu", "x"), ("'relu'", "'x'", "i0, i1")),
    ((), ComputeAt("C", "D", "x"), ("'D'", "'x'")),
    ((), ComputeAt("relu", "C", "i"), ("'C'", "'i'", "output")),
    ((CacheWrite("C"),), ComputeAt("C", "C.local", "i"), ("'C.local'", "'i'", "depend")),
    ((Vectorize("relu", "i1"),), ComputeAt("C", "relu", "i1"), ("'relu'", "'i1'", "vectorised")),
    ((CacheWrite("C"), ComputeInline("C")), ComputeAt("C.local", "C", "i"), ("'C'", "'i'", "inlined")),
    ((), ComputeInline("C"), ("reduction",)),
    ((), ComputeInline("relu"), ("output",)),
    ((CacheWrite("C"), ComputeAt("C.local", "C", "i")), ComputeInline("C"), ("'C.local'",)),
    (TILED, CacheWrite("C"), ("first",)),
    ((Pragma("C", 16),), CacheWrite("C"), ("unroll limit",)),
    ((), CacheRead("D", ("C",)), ("'D'", "A, B, C, relu")),
    ((), CacheRead("A", ("relu",)), ("'relu'", "C")),
    ((CacheRead("A", ("C",)),), CacheRead("A", ("A.cache",)), ("'A.cache'",)),
    ((), CacheOperand("B", "D"), ("'D'",)),
    ((), CacheOperand("B", "relu"), ("'relu'", "0 ways")),
    ((CacheRead("B", ("C",)),), CacheOperand("B", "B.cache"), ("'B.cache'",)),
    ((), Rfactor("C", "i", -1), ("'i'", "reduction")),
    ((Rfactor("C", "k", -1), Split("C", "k", (4,))), Rfactor("C", "k.0", -1), ("'k.0'", "C.rf")),
    ((Parallel("C", "i"),), Rfactor("C", "k", -1), ("'k'", "'i'", "parallel")),
    ((), TransformLayout("relu", (), ("i0", "i1")), ("output",)),
    ((), TransformLayout("C", (("x", 2),), ("i", "j")), ("'x'",)),
    ((), TransformLayout("C", (("j", 7),), ("i", "j.outer", "j.inner")), ("divide",)),
    ((), TransformLayout("C", (("j", 3),), ("i", "j.outer")), ("j.inner",)),
    (
        (CacheWrite("C"), ComputeAt("C.local", "C", "i")),
        TransformLayout("C", (("j", 3),), ("i", "j.outer", "j.inner")),
        ("'C.local'",),
    ),
)


def test_every_step_has_an_example() -> None:
    assert {step.kind for steps in LEGAL for step in steps} == set(STEPS)


@pytest.mark.parametrize("steps", LEGAL, ids=lambda steps: steps[-1].kind)
def test_steps_survive_json_and_replay_to_the_same_state(steps: tuple[Step, ...]) -> None:
    state = matmul_relu().replay(steps)
    assert state.steps == steps
    read = tuple(step_from_json(json.loads(json.dumps(step.to_json()))) for step in steps)
    assert read == steps
    assert str(State.initial(state.dag).replay(read)) == str(state)


@pytest.mark.parametrize(("before", "step", "named"), ILLEGAL, ids=lambda item: str(getattr(item, "kind", "")))
def test_illegal_steps_name_step_stage_and_iterator(before: tuple[Step, ...], step: Step, named: tuple[str, ...]) -> None:
    state = matmul_relu().replay(before)
    with pytest.raises(ScheduleError) as caught:
        state.apply(step)
    message = str(caught.value)
    for word in (f"{step.kind} of ", f"stage '{step.stage}'", *named):
        assert word in message
    iterator = getattr(step, "iterator", None)
    assert iterator is None or f"iterator '{iterator}'" in message


def test_a_stage_attached_where_not_all_its_consumers_are_is_refused_with_the_step_that_did_it() -> None:
    x = te.exp(te.placeholder((6, 9), name="x"), name="e")
    state = State.initial(ComputeDAG.from_outputs([te.relu(x, name="r"), te.neg(x, name="n")]))
    with pytest.raises(ScheduleError, match=r"compute_at of stage 'e' at iterator 'i0' of stage '.': its consumer '.'"):
        infer_bounds(state.apply(ComputeAt("e", "n", "i0")))
    assert infer_bounds(matmul_relu().apply(ComputeAt("C", "relu", "i1")))["C"].region == (1, 1)


def test_a_printed_state_is_the_loop_nest() -> None:
    state = matmul_relu().replay(
        (
            Split("relu", "i0", (5,)),
            ComputeAt("C", "relu", "i0.0"),
            Parallel("relu", "i0.0"),
            Pragma("C", 16),
            Split("C", "j", (8,)),
            Reorder("C", ("i", "k", "j.0", "j.1")),
            Vectorize("C", "j.1"),
        )
    )
    assert str(state) == (
        "placeholder A: float32[12, 20]\n"
        "placeholder B: float32[20, 30]\n"
        "parallel i0.0 in 3:\n"
        "  pragma C auto_unroll_max_step = 16\n"
        "  for i in needed:\n"
        "    for k in 20:\n"
        "      for j.0 in rest:\n"
        "        vectorize j.1 in 8:\n"
        "          C[i, j] = sum((A[i, k] * B[k, j]), axes=[k])\n"
        "  for i0.1 in 5:\n"
        "    for i1 in 30:\n"
        "      relu[i0, i1] = max(C[i0, i1], 0)"
    )


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "unknown"),
        (["twist", "C"], "twist"),
        (["split", "C", "i"], "3 fields"),
        (["split", "C", "i", 5], "'lengths'"),
        (["split", "C", "i", "58"], "'lengths'"),
        (["split", "C", "i", [5, "8"]], "'lengths'"),
        (["split", 3, "i", [5]], "'stage'"),
        (["pragma", "C", True], "'auto_unroll_max_step'"),
        (["transform_layout", "C", [["j"]], ["i", "j"]], "'tiles'"),
    ],
)
def test_nonsense_is_not_read_as_a_step(data: list[object], named: str) -> None:
    with pytest.raises(ScheduleError, match=named):
        step_from_json(data)
