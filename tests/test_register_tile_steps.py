"""The step `RegisterTile`: what it does to code, what it refuses; micro-kernels, lanes, and programs older than the step."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.cost_model.feature_groups import feature_names
from ansor_py.cost_model.features import extract_features
from ansor_py.errors import LoweringError, ScheduleError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.lower.guessed_tiles import with_register_tiles
from ansor_py.lower.ir import tiles_of
from ansor_py.lower.lower import lower, lowering
from ansor_py.lower.register_tile import register_tile
from ansor_py.measure import MeasureInput, create_measurer
from ansor_py.measure.records import Record, read_records
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels import FORMULA, MICRO_KERNELS, MicroKernel, UpdateWriter, micro_kernel, micro_kernel_for
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import (
    ComputeAt,
    ComputeInline,
    Fuse,
    Parallel,
    RegisterTile,
    Reorder,
    Split,
    Step,
    Vectorize,
    step_from_json,
)
from ansor_py.search.sampling.validity import stage_instructions
from ansor_py.target import Target
from targets import executed_targets, four_targets, structure_targets

PRODUCT = "float32 outer product"
ORDER = ("i.0", "j.0", "k", "i.1", "j.1")


def product(rows: int = 24, columns: int = 64, depth: int = 16) -> ComputeDAG:
    a, b = te.placeholder((rows, depth), name="a"), te.placeholder((depth, columns), name="b")
    return ComputeDAG.from_outputs(te.matmul(a, b, name="C"))


def tiled(rows: int, width: int, kernel: str = PRODUCT) -> tuple[Step, ...]:
    splits = (Split("C", "i", (rows,)), Split("C", "j", (width,)), Reorder("C", ORDER))
    return (*splits, RegisterTile("C", ("i.1", "j.1"), kernel), Vectorize("C", "j.1"))


def result_of(dag: ComputeDAG, steps: tuple[Step, ...], target: Target) -> tuple[np.ndarray, np.ndarray]:
    """What the program computes of random matrices, and their product."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(tensor.shape, dtype=np.float32) for tensor in dag.inputs]
    [found] = LoadedKernel(build_kernel(dag, steps, target, 1)).run(arrays)
    return np.asarray(found), arrays[0] @ arrays[1]


@pytest.mark.parametrize("target", executed_targets())
@pytest.mark.parametrize(("rows", "width"), [(4, 16), (5, 24), (3, 32), (1, 64), (2, 7)])
def test_a_stated_tile_is_what_is_emitted(rows: int, width: int, target: Target) -> None:
    dag = product()
    steps = tiled(rows, width)
    assert tuple(step_from_json(json.loads(json.dumps(step.to_json()))) for step in steps) == steps
    state = State.initial(dag).replay(steps)
    assert f"    register tile by {PRODUCT}:\n        for i.1 in {rows}:" in str(state)
    [tile] = tiles_of(lower(state, target).regions[0].body)
    extents = [loop.extent for loop in tile.loops]
    assert extents == [size for size in (rows, width) if size > 1]
    assert tile.kernel.name == PRODUCT
    found, expected = result_of(dag, steps, target)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", structure_targets())
def test_without_the_step_the_tile_is_the_vectorised_loop(target: Target) -> None:
    steps = tuple(step for step in tiled(4, 16) if not isinstance(step, RegisterTile))
    [tile] = tiles_of(lower(State.initial(product()).replay(steps), target).regions[0].body)
    assert [loop.variable for loop in tile.loops] == ["C/j.1"]


REFUSED: dict[str, tuple[tuple[Step, ...], str]] = {
    "unknown stage": ((RegisterTile("D", ("i",), PRODUCT),), "there is no such stage"),
    "unknown loop": ((RegisterTile("C", ("x",), PRODUCT),), "there is no iterator 'x'"),
    "no loops": ((RegisterTile("C", (), PRODUCT),), "no iterator is named; name the loops of the tile"),
    "unknown kernel": ((RegisterTile("C", ("j",), "int5 product"),), "there is no micro-kernel 'int5 product'; known are"),
    "order": ((RegisterTile("C", ("j", "i"), PRODUCT),), "is not the order of the loops"),
    "reduction outside": ((Reorder("C", ("k", "i", "j")), RegisterTile("C", ("k", "i"), PRODUCT)), "'k' is a reduction loop"),
    "twice": ((*tiled(4, 16), RegisterTile("C", ("j.1",), PRODUCT)), "it has one already, of i.1, j.1"),
    "fused": ((Fuse("C", ("i", "j")), RegisterTile("C", ("i@j@",), PRODUCT)), "iterator 'i@j@' is fused"),
    "split later": ((*tiled(4, 16), Split("C", "i.1", (2,))), "'i.1' is inside the register tile of i.1, j.1"),
    "fused later": ((*tiled(4, 16)[:4], Fuse("C", ("i.1", "j.1"))), "is inside the register tile"),
    "reordered later": ((*tiled(4, 16)[:4], Reorder("C", ("i.0", "j.0", "i.1", "k", "j.1"))), "is inside the register tile"),
    "parallel later": (
        (Reorder("C", ("i", "j", "k")), RegisterTile("C", ("i", "j"), PRODUCT), Parallel("C", "i")),
        "is inside the register tile",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_use_is_one_error_that_names_it(case: str) -> None:
    steps, words = REFUSED[case]
    with pytest.raises(ScheduleError, match=r"of (stage|iterator) '") as raised:
        State.initial(product()).replay(steps)
    assert words in str(raised.value)


def test_nothing_is_computed_inside_a_register_tile() -> None:
    x = te.placeholder((8, 16), name="x")
    dag = ComputeDAG.from_outputs(te.relu(te.relu(x, name="first"), name="second"))
    tile = RegisterTile("second", ("i0", "i1"), FORMULA.name)
    with pytest.raises(ScheduleError, match="'i0' is inside the register tile of i0, i1"):
        State.initial(dag).replay([tile, ComputeAt("first", "second", "i0")])
    with pytest.raises(ScheduleError, match="stage 'first' is attached to iterator 'i0'; attach further out"):
        State.initial(dag).replay([ComputeAt("first", "second", "i0"), tile])


@pytest.mark.parametrize("target", structure_targets())
def test_a_tile_that_cannot_be_emitted_is_one_error(target: Target) -> None:
    too_large = (*tiled(24, 64)[:4], Vectorize("C", "j.1"))
    split = (Split("C", "i", (4,)), Split("C", "j", (16,)), Reorder("C", ("i.0", "j.0", "i.1", "k", "j.1")))
    between = (*split, RegisterTile("C", ("i.1", "j.1"), PRODUCT))
    for steps, words in (
        (too_large, "accumulators, and 64 are the most; take shorter lengths"),
        (between, "loop 'C/k' of 16 iterations lies inside it"),
        ((*between[:3], RegisterTile("C", ("j.0",), PRODUCT), Vectorize("C", "j.1")), "but 'j.1' runs in lanes"),
        ((RegisterTile("C", ("k",), PRODUCT),), "reduction loop 'k' is in it but not in lanes"),
        (tiled(4, 16, "float64 outer product"), "micro-kernel 'float64 outer product' does not compute"),
    ):
        with pytest.raises(LoweringError, match="register tile of stage 'C'") as raised:
            lower(State.initial(product(96, 256)).replay(steps), target)
        assert words in str(raised.value)


# Micro-kernels.


def _apart(writer: UpdateWriter, accumulator: str) -> str:
    """A multiplication and an addition, each rounded."""
    product = writer.emit(f"fmul {writer.type} {writer.operand(0)}, {writer.operand(1)}")
    return writer.emit(f"fadd {writer.type} {accumulator}, {product}")


@pytest.fixture
def apart() -> Iterator[MicroKernel]:
    """A second micro-kernel of floats, as a file of a user's would register it."""
    yield micro_kernel(MicroKernel("float32 in two", ("float32", "float32"), ("rows", "lanes"), "float32", _apart))
    del MICRO_KERNELS["float32 in two"]


@pytest.mark.parametrize("target", executed_targets())
def test_another_micro_kernel_is_a_description_and_its_update(apart: MicroKernel, target: Target) -> None:
    dag = product()
    steps = tiled(4, 16, apart.name)
    text = kernel_text(dag, steps, target, 1)
    assert " fmul " in text
    assert "fmuladd" not in text
    found, expected = result_of(dag, steps, target)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert micro_kernel_for(State.initial(dag).body("C"), target).name == PRODUCT  # those registered before come first


def test_a_micro_kernel_needs_its_features(apart: MicroKernel) -> None:
    body = State.initial(product()).body("C")
    with_features = MicroKernel("float32 on AVX", apart.operands, apart.along, "float32", _apart, frozenset({"+avx"}))
    assert with_features.fits(body, Target.parse("x86-64 features=+sse2,+avx"))
    assert not with_features.fits(body, Target.parse("x86-64"))


@pytest.mark.parametrize("target", structure_targets())
def test_registers_are_those_of_what_is_at_hand(target: Target) -> None:
    product, formula = MICRO_KERNELS[PRODUCT], FORMULA
    copies = target.overwrites_operands
    assert copies == (target.architecture == "x86-64" and target.vector_bytes == 16)
    assert product.registers(3, 4, 0, target) == 12 + 3 + 1 + copies  # three broadcasts and one vector at a time
    assert product.registers(14, 2, 0, target) == 28 + 2 + 1 + copies  # two vectors and one broadcast at a time
    assert product.registers(14, 1, 0, target) == 14 + 1 + 1  # the broadcast is used once
    assert formula.registers(3, 4, 0, target) == 12 + 4 + 1 + copies
    assert product.registers(7, 1, 1, target) == 7 + 1 + 1 + (target.vector_bytes == 32)  # AVX2 masks with a vector
    assert product.goes_by_columns(3, 4, target) == (target.vector_registers == 16)  # in 32 all four vectors fit as well


@pytest.mark.parametrize("target", executed_targets())
def test_columns_first_computes_the_same(target: Target) -> None:
    """3 rows of 4 vectors: on 16 registers one column after the other."""
    dag = product(25, 4 * target.lanes("float32") + 3, 9)
    found, expected = result_of(dag, tiled(3, 4 * target.lanes("float32")), target)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# Lanes.


@pytest.mark.parametrize("target", structure_targets())
def test_lanes_are_those_of_the_widest_numbers_everywhere(target: Target) -> None:
    """A uint8 result of float32 operands has the lanes of float32: in rules, checks, features and code."""
    x = te.placeholder((64, 256), name="x")
    dag = ComputeDAG.from_outputs(te.cast(te.relu(x), "uint8", name="small"))
    lanes = target.lanes("float32")
    steps: tuple[Step, ...] = (Split("small", "i1", (4 * lanes,)), Vectorize("small", "i1.1"))
    steps = (ComputeInline(dag.computed[0].name), *steps)
    state = State.initial(dag).replay(steps)
    bounds = infer_bounds(state)["small"]
    tile = register_tile(bounds, target)
    assert tile.lanes == lanes
    assert tile.vectors(bounds.extents) == 4
    [emitted] = tiles_of(lower(state, target).regions[0].body)
    assert emitted.lanes == lanes
    assert f"<{lanes} x float>" in kernel_text(dag, steps, target, 1)
    assert f"<{4 * lanes} x " not in kernel_text(dag, steps, target, 1)
    once = stage_instructions(bounds, tile, 0)
    quarter = infer_bounds(State.initial(dag).replay((*steps[:1], Split("small", "i1", (lanes,)), Vectorize("small", "i1.1"))))
    assert once == 4 * stage_instructions(quarter["small"], register_tile(quarter["small"], target), 0)
    sketch = Sketch("small", dag, steps, ())
    features = extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target)
    [row] = features.rows
    assert row[feature_names().index("lane_utilisation")] == 1.0  # log2(1 + x)


# Programs from before the step.

OLD = [json.loads(line) for line in (Path(__file__).parent / "schema_1_programs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("old", OLD, ids=[f"{old['target']} {old['workload']} {old['name']}" for old in OLD])
def test_an_older_program_gets_the_tiles_that_were_guessed(old: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`added` is what the last engine that guessed made the tiles of, as its lowered programs show."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))
    workload = importlib.import_module("workloads").workload(old["workload"])
    target, dag = four_targets("cores=2")[old["target"]], workload.partition().subgraphs[0].dag
    steps = tuple(map(step_from_json, old["steps"]))
    converted = with_register_tiles(dag, steps, target)
    assert [step.to_json() for step in converted[len(steps) :]] == old["added"]
    assert with_register_tiles(dag, converted, target) == converted
    assert lower(State.initial(dag).replay(converted), target).regions


def test_records_of_older_programs_are_compiled_and_replayed_with_the_tiles_that_were_guessed(tmp_path: Path) -> None:
    dag, target = product(), Target.parse("host cores=1")
    old = [step.to_json() for step in tiled(4, 16) if not isinstance(step, RegisterTile)]
    line = {"schema": 1, "workload_key": dag.workload_key, "target": str(target), "threads": 1, "trial": 0, "steps": old}
    line |= {"costs": [0.25], "error": "none"}
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    [record], lost = read_records(tmp_path / "records.jsonl")
    steps = record.concrete_steps(dag)
    assert not lost
    assert steps[-1] == RegisterTile("C", ("i.1", "j.1"), PRODUCT)
    assert Record.from_json(record.to_json()).concrete_steps(dag) == steps
    with create_measurer(f"replay:{tmp_path}", target=target, threads=1) as measurer:
        [result] = measurer.measure([MeasureInput(dag.workload_key, dag, steps, target, 1)])
    assert result.costs == (0.25,)


def test_every_pass_gives_a_program_that_prints() -> None:
    names = [
        name
        for name, program in lowering(State.initial(product()).replay(tiled(4, 16)), four_targets()["avx2"])
        if str(program)
    ]
    assert names[0] == "scheduled"
    assert len(names) == len(set(names)) > 5
