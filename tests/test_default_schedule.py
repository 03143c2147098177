"""Default schedules: rows of genes, the same whenever they are asked for, of every computation on every CPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import kernel_text
from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, feature_group
from ansor_py.cost_model.roofline_model import estimated_cycles
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Population
from ansor_py.search.sampling.default_schedule import default_schedule
from ansor_py.sketch_rules import PRESETS, RULES, PartialSketch, Rule, Verdict, generate_sketches, rule
from ansor_py.sketch_rules.rule import Derived
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor
from targets import structure_targets

TARGET = Target.parse("x86-64 cpu=haswell cores=2")


def dag_of(tensor: Tensor) -> ComputeDAG:
    return ComputeDAG.from_outputs(tensor)


def biased_product(size: int = 48) -> ComputeDAG:
    x, w = te.placeholder((size, size), name="x"), te.placeholder((size, size), name="w", constant=True)
    return dag_of(te.relu(te.matmul(x, w)))


@pytest.mark.parametrize("target", structure_targets("cores=2"))
@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_a_row_of_a_derived_sketch_and_always_the_same(target: Target, threads: int) -> None:
    dag = biased_product()
    chosen, again = default_schedule(dag, target, threads), default_schedule(biased_product(), target.with_cores(7), threads)
    assert (chosen.sketch.name, chosen.genes) == (again.sketch.name, again.genes)
    [sketch] = [s for s in generate_sketches(dag, target.with_cores(threads)) if s.name == chosen.sketch.name]
    assert sketch.concretise(chosen.genes) == chosen.steps


def test_the_roofline_likes_no_row_better_that_differs_in_one_gene_of_few_choices() -> None:
    chosen = default_schedule(biased_product(), TARGET, 1)
    row = np.array([chosen.genes], dtype=np.int32)
    [least] = estimated_cycles(Population(chosen.sketch, row), TARGET.with_cores(1))
    column = next(number for number, hole in enumerate(chosen.sketch.holes) if hole.name.startswith("unroll"))
    others = np.repeat(row, chosen.sketch.sizes[column], axis=0)
    others[:, column] = np.arange(len(others))
    assert estimated_cycles(Population(chosen.sketch, others), TARGET.with_cores(1)).min() == least


def test_nothing_that_a_user_registers_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = default_schedule(biased_product(), TARGET, 2)
    monkeypatch.setitem(PRESETS, "default", ("skip",))
    for name in list(RULES):
        monkeypatch.setitem(RULES, name, RULES[name])

    @rule("multi_level_tiling", replace=True)
    class Nothing(Rule):
        def condition(self, sketch: PartialSketch, number: int) -> Verdict:
            raise AssertionError

        def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
            raise AssertionError

    @feature_group("wrong", ["wrong"])
    def wrong(statement: object, target: Target, out: object) -> None:
        raise AssertionError

    try:
        after = default_schedule(biased_product(), TARGET, 2)
    finally:
        FEATURE_GROUPS.popitem()
    assert (before.sketch.name, before.genes) == (after.sketch.name, after.genes)


@pytest.mark.parametrize("target", structure_targets("cores=2"))
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2), (0,), (2, 0, 3)], ids=str)
def test_scalars_and_tiny_and_empty_tensors_have_one(shape: tuple[int, ...], target: Target) -> None:
    dag = dag_of(te.relu(te.placeholder(shape, name="x")))
    for threads in (1, 2):
        assert kernel_text(dag, default_schedule(dag, target, threads).steps, target, threads)


def test_an_input_without_elements_is_no_obstacle() -> None:
    empty, full = te.placeholder((0, 3), name="empty"), te.placeholder((2, 3), name="full")
    dag = dag_of(te.concat([empty, full], axis=0))
    assert kernel_text(dag, default_schedule(dag, TARGET, 2).steps, TARGET, 2)


def test_compiling_loads_neither_lightgbm_nor_ray() -> None:
    program = (
        "import sys\nfrom ansor_py import Task, Target, te\nfrom ansor_py.graph import compile_task\n"
        "compile_task(Task.from_compute(te.matmul(8, 8, 8), Target.detect(1)), workers=0)\n"
        "print([name for name in ('ray', 'lightgbm') if name in sys.modules], 'ansor_py.cost_model' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] True"
