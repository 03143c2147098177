"""Every transform step, in pairs: what it does to the loops, and how its wrong use is refused.

`PAIRS` has one entry a step. What the step does is shown by the nests in its docstring (`docstring_nests` says how), from the
state that the entry begins with. How it stands in a record is fixed as JSON. A refusal is the whole message after the step's
title: it has to name what is wrong and what to do about it. A registered step without an entry fails a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.errors import ScheduleError
from ansor_py.schedule.micro_kernels import MICRO_KERNELS
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
    UseAlgorithm,
    Vectorize,
    step_from_json,
)
from docstring_nests import documented, nest_of
from nest_examples import chain, exponentials, phases, product, product_relu, row_sums, state_of
from targets import host_targets
from te_interpreter import evaluate, random_feeds


def after(*steps: Step) -> State:
    """The product and its ReLU after some steps."""
    return state_of(product_relu(), *steps)


@dataclass(frozen=True)
class Refusal:
    """A step that is illegal after the steps of a state, and why."""

    state: State
    step: Step
    reason: str


@dataclass(frozen=True)
class Pair:
    """`before` is the state in which the docstring's example begins, `json` its step in a record, and what is refused."""

    before: State
    json: str
    refused: tuple[Refusal, ...]


TILED = (Split("C", "i", (2, 5)), Split("C", "j", (6,)))
BLOCKED = (
    Split("C", "i", (4,)),
    Split("C", "j", (6,)),
    Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1")),
    Vectorize("C", "j.1"),
)
OUTER_PRODUCT = "float32 outer product"
PAIRS: dict[type[Step], Pair] = {
    Split: Pair(
        state_of(exponentials()),
        '["split", "D", "i", [8]]',
        (
            Refusal(after(), Split("B", "i", (4,)), "there is no such stage; the stages are C, D"),
            Refusal(after(), Split("C", "x", (4,)), "there is no iterator 'x'; stage 'C' has i, j, k"),
            Refusal(after(), Split("C", "i", (4, 0)), "lengths must be 1 or more, not [4, 0]"),
            Refusal(
                after(*BLOCKED, RegisterTile("C", ("i.1", "j.1"), OUTER_PRODUCT)),
                Split("C", "j.1", (2,)),
                "iterator 'j.1' is inside the register tile of i.1, j.1; split, reorder and attach first",
            ),
            Refusal(after(), Split("C", "i", ()), "no length is given; give those of the inner parts, innermost first"),
            Refusal(
                state_of(chain(), ComputeInline("D")),
                Split("D", "i", (4,)),
                "the stage is inlined and has no loops; compute_root gives it some",
            ),
        ),
    ),
    FollowSplit: Pair(
        after(Split("C", "i", (2, 5))),
        '["follow_split", "D", "i", "C", "i", 2]',
        (
            Refusal(
                after(),
                FollowSplit("D", "i", "C", "i", 2),
                "the followed iterator 'i' of stage 'C' has not been split; split it first",
            ),
            Refusal(after(*TILED), FollowSplit("D", "i", "B", "i", 2), "there is no stage 'B'; the stages are C, D"),
            Refusal(
                after(*TILED), FollowSplit("D", "i", "C", "i", 4), "it cannot follow into 4 parts; that split allows 2 to 3"
            ),
            Refusal(
                after(*TILED), FollowSplit("D", "i", "C", "i", 1), "it cannot follow into 1 parts; that split allows 2 to 3"
            ),
        ),
    ),
    FollowFusedSplit: Pair(
        after(*TILED, Fuse("D", ("i", "j"))),
        '["follow_fused_split", "D", "i@j@", "C", ["i", "j"], 1]',
        (
            Refusal(
                after(*TILED),
                FollowFusedSplit("D", "i", "C", ("i", "j"), 2),
                "level 2 of 'j' has no length; the levels with one are 1 to 1",
            ),
            Refusal(
                after(*TILED),
                FollowFusedSplit("D", "i", "C", (), 1),
                "it follows no iterator; name at least one that has been split",
            ),
        ),
    ),
    Fuse: Pair(
        state_of(exponentials()),
        '["fuse", "D", ["i", "j"]]',
        (
            Refusal(after(), Fuse("C", ("i",)), "fewer than two iterators are named; name neighbours, outermost first"),
            Refusal(after(), Fuse("C", ("i", "k")), "iterators i, k are not neighbours in this order; reorder first"),
            Refusal(after(), Fuse("C", ("j", "k")), "iterators j, k mix spatial and reduction loops; fuse each kind by itself"),
            Refusal(
                after(ComputeAt("C", "D", "i")),
                Fuse("D", ("i", "j")),
                "stage 'C' is attached to iterator 'i', which is not the last of the fused ones",
            ),
            Refusal(after(Parallel("C", "i")), Fuse("C", ("i", "j")), "iterators i, j are already marked parallel; fuse first"),
        ),
    ),
    Reorder: Pair(
        state_of(product()),
        '["reorder", "C", ["k", "i", "j"]]',
        (
            Refusal(after(), Reorder("C", ("i", "k")), "[i, k] is not an order of all iterators [i, j, k]"),
            Refusal(
                after(Vectorize("D", "j")),
                Reorder("D", ("j", "i")),
                "iterator 'j' is marked vectorize and has to stay innermost; reorder first",
            ),
            Refusal(
                after(Parallel("D", "i")),
                Reorder("D", ("j", "i")),
                "iterator 'i' is marked parallel and has to stay outermost; reorder first",
            ),
        ),
    ),
    Parallel: Pair(
        state_of(exponentials()),
        '["parallel", "D", "i"]',
        (
            Refusal(after(), Parallel("C", "j"), "it is not the outermost loop; reorder or fuse first"),
            Refusal(
                after(Reorder("C", ("k", "i", "j"))),
                Parallel("C", "k"),
                "it is a reduction loop; use rfactor to make it parallel",
            ),
        ),
    ),
    Vectorize: Pair(
        state_of(exponentials()),
        '["vectorize", "D", "j"]',
        (
            Refusal(after(), Vectorize("C", "j"), "it is not the innermost loop; reorder first"),
            Refusal(
                after(ComputeAt("C", "D", "j")), Vectorize("D", "j"), "stage 'C' is attached to it; attach that further out"
            ),
        ),
    ),
    Unroll: Pair(
        state_of(exponentials()),
        '["unroll", "D", "j"]',
        (
            Refusal(
                after(Vectorize("C", "k")),
                Unroll("C", "k"),
                "the loop is already marked vectorize, and a loop has one mark; mark another",
            ),
        ),
    ),
    RegisterTile: Pair(
        state_of(product(), *BLOCKED),
        '["register_tile", "C", ["i.1", "j.1"], "float32 outer product"]',
        (
            Refusal(
                after(*BLOCKED),
                RegisterTile("C", ("i.1", "j.1"), "int4 magic"),
                f"there is no micro-kernel 'int4 magic'; known are {', '.join(MICRO_KERNELS)}",
            ),
            Refusal(
                after(*BLOCKED),
                RegisterTile("C", (), OUTER_PRODUCT),
                "no iterator is named; name the loops of the tile, outermost first",
            ),
            Refusal(
                after(*BLOCKED),
                RegisterTile("C", ("j.1", "i.1"), OUTER_PRODUCT),
                "[j.1, i.1] is not the order of the loops; name them outermost first",
            ),
            Refusal(
                after(*BLOCKED),
                RegisterTile("C", ("k", "i.1", "j.1"), OUTER_PRODUCT),
                "iterator 'k' is a reduction loop; only the last may be one",
            ),
            Refusal(
                after(*BLOCKED, RegisterTile("C", ("i.1", "j.1"), OUTER_PRODUCT)),
                RegisterTile("C", ("j.1",), OUTER_PRODUCT),
                "it has one already, of i.1, j.1; a stage has one",
            ),
            Refusal(
                after(Fuse("C", ("i", "j"))),
                RegisterTile("C", ("i@j@",), OUTER_PRODUCT),
                "iterator 'i@j@' is fused; name loops that are not",
            ),
            Refusal(
                after(ComputeAt("C", "D", "j")),
                RegisterTile("D", ("j",), OUTER_PRODUCT),
                "stage 'C' is attached to iterator 'j'; attach further out",
            ),
        ),
    ),
    Pragma: Pair(
        state_of(product()),
        '["pragma", "C", 64]',
        (Refusal(after(), Pragma("C", -1), "the unroll limit must be 0 or more, not -1"),),
    ),
    StorageAlign: Pair(
        after(),
        '["storage_align", "C", 16, 4]',
        (
            Refusal(after(), StorageAlign("C", 4, 4), "factor must be 1 or more and 0 <= offset < factor, not 4 and 4"),
            Refusal(
                after(),
                StorageAlign("D", 16, 4),
                "it is an output, whose layout is fixed; align the buffer that a cache_write of it makes",
            ),
        ),
    ),
    ComputeAt: Pair(
        after(),
        '["compute_at", "C", "D", "i"]',
        (
            Refusal(after(), ComputeAt("C", "D", "x"), "there is no iterator 'x'; stage 'D' has i, j"),
            Refusal(after(), ComputeAt("C", "B", "x"), "there is no stage 'B'; the stages are C, D"),
            Refusal(after(), ComputeAt("D", "C", "i"), "it is an output and has to be computed at root"),
            Refusal(
                after(CacheWrite("C")),
                ComputeAt("C", "C.local", "i"),
                "stage 'C.local' does not depend on it; what reads it is D",
            ),
            Refusal(after(Vectorize("D", "j")), ComputeAt("C", "D", "j"), "the loop is vectorised; attach further out"),
            Refusal(
                after(CacheWrite("C"), ComputeInline("C")),
                ComputeAt("C.local", "C", "i"),
                "stage 'C' is inlined and has no loops; attach it to a stage that has some",
            ),
        ),
    ),
    ComputeInline: Pair(
        state_of(chain()),
        '["compute_inline", "D"]',
        (
            Refusal(after(), ComputeInline("C"), "it is a reduction, which cannot be part of another formula; use compute_at"),
            Refusal(after(), ComputeInline("D"), "it is an output and has to be computed"),
            Refusal(
                after(CacheWrite("C"), ComputeAt("C.local", "C", "i")),
                ComputeInline("C"),
                "stage 'C.local' is attached to it; attach that elsewhere first",
            ),
        ),
    ),
    ComputeRoot: Pair(
        after(ComputeAt("C", "D", "i")),
        '["compute_root", "C"]',
        (Refusal(after(), ComputeRoot("B"), "there is no such stage; the stages are C, D"),),
    ),
    CacheWrite: Pair(
        state_of(product()),
        '["cache_write", "C"]',
        (
            Refusal(after(*TILED), CacheWrite("C"), "its loops have already been transformed; this step comes first"),
            Refusal(
                after(Pragma("C", 16)),
                CacheWrite("C"),
                "it has an unroll limit, an aligned buffer or a register tile already; this step comes first",
            ),
            Refusal(
                after(RegisterTile("C", ("k",), "formula")),
                CacheWrite("C"),
                "it has an unroll limit, an aligned buffer or a register tile already; this step comes first",
            ),
            Refusal(
                after(CacheWrite("C")), CacheWrite("C"), "there is already a tensor 'C.local'; this step can be taken once"
            ),
        ),
    ),
    CacheRead: Pair(
        state_of(product()),
        '["cache_read", "B", ["C"]]',
        (
            Refusal(after(), CacheRead("X", ("C",)), "there is no such tensor; there are A, B, C, D"),
            Refusal(after(), CacheRead("A", ("D",)), "stage 'D' does not read it; its readers are C"),
            Refusal(after(), CacheRead("A", ()), "no reader is named; name the stages that read the copy"),
            Refusal(
                after(CacheRead("A", ("C",))),
                CacheRead("A", ("A.cache",)),
                "there is already a tensor 'A.cache'; this step can be taken once",
            ),
        ),
    ),
    CacheOperand: Pair(
        state_of(phases()),
        '["cache_operand", "W", "Y"]',
        (
            Refusal(after(), CacheOperand("B", "X"), "there is no stage 'X'; the stages are C, D"),
            Refusal(
                after(),
                CacheOperand("B", "D"),
                "stage 'D' reads it in 0 ways, and not in one; name a tensor that it reads",
            ),
        ),
    ),
    Rfactor: Pair(
        state_of(row_sums(), Split("S", "k", (4,))),
        '["rfactor", "S", "k.1", -1]',
        (
            Refusal(after(), Rfactor("C", "i", -1), "it is not a reduction loop; name one"),
            Refusal(
                after(*TILED),
                Rfactor("C", "k", -1),
                "its loops over i, j have already been transformed; this step comes first",
            ),
            Refusal(
                after(Parallel("C", "i")),
                Rfactor("C", "k", -1),
                "its iterator 'i' is already marked parallel; this step comes first",
            ),
            Refusal(after(), Rfactor("C", "k", 3), "the new axis cannot stand at 3; 0 to 2 are possible, and -1 is last"),
            Refusal(
                after(Rfactor("C", "k", -1), Split("C", "k", (4,))),
                Rfactor("C", "k.0", -1),
                "there is already a tensor 'C.rf'; this step can be taken once",
            ),
        ),
    ),
    UseAlgorithm: Pair(
        state_of(row_sums()),
        '["use_algorithm", "S", "halves"]',
        (
            Refusal(
                state_of(row_sums(20, 15)),
                UseAlgorithm("S", "halves"),
                "algorithm 'halves' does not apply to what the stage computes; leave the step out",
            ),
            Refusal(
                state_of(row_sums()),
                UseAlgorithm("S", "quarters"),
                "no algorithm 'quarters' is registered; import the file that has it",
            ),
            Refusal(
                state_of(row_sums(), Split("S", "i", (4,))),
                UseAlgorithm("S", "halves"),
                "its loops have already been transformed; this step comes first",
            ),
            Refusal(
                state_of(row_sums(), UseAlgorithm("S", "halves")),
                UseAlgorithm("S", "halves"),
                "algorithm 'halves' does not apply to what the stage computes; leave the step out",
            ),
        ),
    ),
    TransformLayout: Pair(
        state_of(product(), CacheOperand("B", "C")),
        '["transform_layout", "B.cache", [["j", 8]], ["j.outer", "k", "j.inner"]]',
        (
            Refusal(
                after(),
                TransformLayout("D", (), ("j", "i")),
                "it is an output, whose layout is fixed; transform the buffer that a cache_write of it makes",
            ),
            Refusal(after(), TransformLayout("C", (("x", 2),), ("i", "j")), "there is no axis 'x' to tile; the axes are i, j"),
            Refusal(
                after(),
                TransformLayout("C", (("j", 0),), ("i", "j.outer", "j.inner")),
                "the tile of axis 'j' must be 1 or more, not 0",
            ),
            Refusal(
                after(),
                TransformLayout("C", (("j", 3), ("j", 4)), ("i", "j.outer", "j.inner")),
                "an axis has two tiles in [('j', 3), ('j', 4)]; give each one",
            ),
            Refusal(
                after(),
                TransformLayout("C", (("j", 7),), ("i", "j.outer", "j.inner")),
                "tiles of a reduction's result must divide its axes; cache it first",
            ),
            Refusal(
                after(),
                TransformLayout("C", (("j", 3),), ("i", "j.outer")),
                "the order ['i', 'j.outer'] must list exactly the new axes ['i', 'j.inner', 'j.outer']",
            ),
            Refusal(
                after(CacheWrite("C"), ComputeAt("C.local", "C", "i")),
                TransformLayout("C", (("j", 3),), ("i", "j.outer", "j.inner")),
                "stage 'C.local' is attached to it; this step comes first",
            ),
        ),
    ),
}


def example_step(cls: type[Step]) -> Step:
    """The step that the docstring takes."""
    step = eval(documented(cls).subject, {item.__name__: item for item in STEPS.values()})
    assert type(step) is cls
    return step  # type: ignore[no-any-return]


def printed_nests() -> Iterator[tuple[type[Step], tuple[str, str]]]:
    """What the docstrings should show."""
    for cls, pair in PAIRS.items():
        yield cls, (nest_of(pair.before), nest_of(pair.before.apply(example_step(cls))))


def test_every_step_has_its_pair() -> None:
    own = {cls for cls in STEPS.values() if cls.__module__.startswith("ansor_py.")}
    assert own == set(PAIRS), "a step needs nests in its docstring and an entry in PAIRS"
    assert all(pair.refused for pair in PAIRS.values())
    assert all(type(refusal.step) is cls for cls, pair in PAIRS.items() for refusal in pair.refused)


@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.kind)
def test_a_step_read_from_a_record_makes_the_nest_of_its_docstring(cls: type[Step]) -> None:
    """Everything is replayed from JSON: the steps before, and the text that a record holds."""
    pair = PAIRS[cls]
    assert json.dumps(example_step(cls).to_json()) == pair.json
    texts = [*(json.dumps(step.to_json()) for step in pair.before.steps), pair.json]
    *steps, last = (step_from_json(json.loads(text)) for text in texts)
    state = State.initial(pair.before.dag).replay(steps)
    assert (nest_of(state), nest_of(state.apply(last))) == documented(cls).nests


@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.kind)
def test_the_program_of_a_step_read_from_a_record_computes_the_same(cls: type[Step]) -> None:
    pair = PAIRS[cls]
    dag, steps = pair.before.dag, (*pair.before.steps, step_from_json(json.loads(pair.json)))
    feeds = random_feeds(dag.outputs, seed=1)
    kernel = LoadedKernel(build_kernel(dag, steps, host_targets()["host"], threads=2))
    [output] = kernel.run([feeds[tensor] for tensor in dag.inputs])
    np.testing.assert_allclose(output, evaluate(dag.outputs[0], feeds, widen=True), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "refusal", [item for pair in PAIRS.values() for item in pair.refused], ids=lambda item: f"{item.step.kind}-{item.reason}"
)
def test_the_wrong_use_of_a_step_is_refused_by_what_is_wrong_and_what_to_do(refusal: Refusal) -> None:
    with pytest.raises(ScheduleError) as caught:
        refusal.state.apply(refusal.step)
    assert str(caught.value) == f"{refusal.step.title}: {refusal.reason}"
