"""States: steps of a record replayed, where stages may be attached, and what is not a step. `test_step_nests` has each step."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ansor_py import te
from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import ComputeAt, Split, step_from_json


def matmul_relu() -> State:
    """Stages `C` (a matmul with axes i, j, k) and `relu` (axes i0, i1), which is the output."""
    a, b = te.placeholder((12, 20), name="A"), te.placeholder((20, 30), name="B")
    k = te.reduce_axis(20, "k")
    c = te.compute((12, 30), lambda i, j: te.reduce_sum(a[i, k] * b[k, j], k), name="C")
    return State.initial(ComputeDAG.from_outputs(te.relu(c, name="relu")))


def test_a_stage_attached_where_not_all_its_consumers_are_is_refused_with_the_step_that_did_it() -> None:
    x = te.exp(te.placeholder((6, 9), name="x"), name="e")
    state = State.initial(ComputeDAG.from_outputs([te.relu(x, name="r"), te.neg(x, name="n")]))
    with pytest.raises(ScheduleError, match=r"compute_at of stage 'e' at iterator 'i0' of stage '.': its consumer '.'"):
        infer_bounds(state.apply(ComputeAt("e", "n", "i0")))
    assert infer_bounds(matmul_relu().apply(ComputeAt("C", "relu", "i1")))["C"].region == (1, 1)


REPLAYED = """[
    ["split", "relu", "i0", [5]],
    ["compute_at", "C", "relu", "i0.0"],
    ["parallel", "relu", "i0.0"],
    ["pragma", "C", 16],
    ["split", "C", "j", [8]],
    ["reorder", "C", ["i", "k", "j.0", "j.1"]],
    ["vectorize", "C", "j.1"]
]"""


def test_steps_of_a_record_replay_to_their_nest() -> None:
    state = matmul_relu().replay(map(step_from_json, json.loads(REPLAYED)))
    assert [step.to_json() for step in state.steps] == json.loads(REPLAYED)
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


@pytest.mark.parametrize("lengths", [8, [8], (8.0,), (True,), (np.int64(8),)], ids=repr)
def test_a_step_is_not_made_of_other_types_than_its_fields_have(lengths: Any) -> None:
    with pytest.raises(ScheduleError, match=r"step 'split': field 'lengths' must be tuple\[Length, ...\], not "):
        Split("C", "i", lengths)
