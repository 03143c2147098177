"""Address arithmetic in the emitted text: each instruction stands in the outermost block that knows its operands."""

from __future__ import annotations

import re

import pytest

from ansor_py import te
from ansor_py.codegen.addresses import Coordinate, Value
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.kernel import kernel_text
from ansor_py.codegen.stores import store
from ansor_py.measure import MeasureInput, create_measurer
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import Reorder, Split
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from ansor_py.te.expr import INDEX, Var
from ansor_py.te.simplify import Simplifier
from targets import structure_targets


def test_a_place_takes_instructions_when_the_text_has_gone_on() -> None:
    text = FunctionText(set())
    text.do("first")
    place = text.place()
    text.do("last")
    with text.at(place):
        assert text.emit("add i64 1, 2") == "%v1"
    text.do("after")
    assert list(text.written()) == ["  first", "  %v1 = add i64 1, 2", "  last", "  after"]


@pytest.mark.parametrize("target", structure_targets())
def test_products_of_outer_variables_are_computed_outside_of_inner_loops(target: Target) -> None:
    product = te.matmul(24, 40, 56)
    stage = product.name
    steps = [Split(stage, "i", (4,)), Split(stage, "k", (8,)), Reorder(stage, ("i.0", "k.0", "j", "k.1", "i.1"))]
    text = kernel_text(ComputeDAG.from_outputs(product), steps, target, 1)
    index, checked = "", 0
    for line in text.splitlines():
        if re.match(r"\w+:$", line):
            index = ""
        if match := re.match(r"  (%i\d+) = phi i64", line):
            index = match[1]
        if match := re.match(r"  %v\d+ = mul i64 (%i\d+), \d+", line):
            assert match[1] == index, f"{line} stands in the loop of {index}"
            checked += 1
    assert checked >= 4


def test_an_integer_that_was_needed_in_an_inner_block_is_known_in_its_siblings() -> None:
    text = FunctionText(set())
    emitter = ExpressionEmitter(text, Simplifier({"i": (0, 9), "j": (0, 9)}), {}, Target.baseline())
    with text.loop("0", "10", []) as outer:
        emitter.enter(outer.index)
        emitter.coordinates["i"] = Coordinate(outer.index)
        names = []
        for _ in range(2):
            with text.loop("0", "10", []) as inner:
                emitter.enter(inner.index)
                emitter.coordinates["j"] = Coordinate(inner.index)
                names.append(emitter.index(Var("i") * 7))
                emitter.index(Var("i") * 7 + Var("j"))
                emitter.leave()
        emitter.leave()
    lines = list(text.written())
    assert names[0] == names[1]
    (definition,) = (number for number, line in enumerate(lines) if line.endswith(f"mul i64 {outer.index}, 7"))
    inner_starts = [number for number, line in enumerate(lines) if re.match(r"loop\d+:$", line)][1:]
    assert definition < min(inner_starts)
    assert sum("add i64" in line and "nuw" not in line for line in lines) == 2  # once in each inner loop


@pytest.mark.parametrize("size", [72, 136])
def test_an_index_that_is_read_is_read_only_where_it_exists(size: int) -> None:
    """The table of indices ends right before a page that must not be read; lanes behind its end are masked."""
    x, table = te.placeholder((64,), name="x"), te.placeholder((size,), dtype=INDEX, name="table")
    gathered = te.compute((size,), lambda i: x[te.minimum(te.maximum(table[i], 0), 63)])
    dag, target = ComputeDAG.from_outputs(gathered), Target.detect().with_cores(1)
    with create_measurer("process", target=target, threads=1) as measurer:
        [result] = measurer.measure([MeasureInput(dag.workload_key, dag, default_steps(dag, target, 1), target, threads=1)])
    assert result.error == "none", result.error_text


@pytest.mark.parametrize(
    ("lanes", "parts"),
    [("1111", ["<4 x float>"]), ("1110", ["<2 x float>", "<1 x float>"]), ("0000", []), ("0111", None), ("1011", None)],
)
def test_lanes_that_are_known_are_stored_where_they_stand(lanes: str, parts: list[str] | None) -> None:
    """The first ones without a mask, others by it."""
    text = FunctionText(set())
    emitter = ExpressionEmitter(text, Simplifier({"i": (0, 3)}), {"t": "%t"}, Target.parse("x86-64 cpu=haswell"))
    emitter.coordinates["i"] = Coordinate("0")
    emitter.lane_variable, emitter.lanes = "i", 4
    words = ", ".join("i1 true" if lane == "1" else "i1 false" for lane in lanes)
    mask = Value(f"<{words}>", "bool", 4)
    store(emitter, te.placeholder((4,), name="t"), (Var("i"),), Value("%v", "float32", 4), mask)
    written = "\n".join(text.written())
    if parts is None:
        assert f"<4 x i1> {mask.name}" in written
        assert "masked.store" in written
    else:
        assert re.findall(r"store (<\d x float>)", written) == parts
        assert "masked" not in written
