"""Values that several branches of selects have in common: computed once, and reading nothing that does not exist."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.codegen.select_branches import placement
from ansor_py.measure import MeasureInput, create_measurer
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from ansor_py.te.expr import INDEX, Axis, Expr, maximum
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Tensor
from te_interpreter import evaluate

TARGET = Target.detect().with_cores(1)
SIZE, MARGIN = 64, 3  # elements of x, and how far an index goes beyond them on either side
X = te.placeholder((SIZE,), name="x")
TABLE = te.placeholder((SIZE,), dtype=INDEX, name="table")
I = Axis("i", SIZE + 2 * MARGIN)  # noqa: E741


def here(shift: int = 0) -> Expr:
    return X[I + (shift - MARGIN)]


def inside(shift: int = 0) -> Expr:
    index = I + (shift - MARGIN)
    return te.logical_and(index >= 0, index < SIZE)


def two_branches() -> Expr:
    value = here() * here()
    return te.select(inside(), value, 0.0) + te.select(te.logical_and(inside(), I > 20), 1.0 - value, 2.0)


def branches_in_branches() -> Expr:
    """The condition of the inner read holds in some lanes where the one around it does not."""
    inner = te.select(inside(1), here(1) * 3.0, 5.0)
    value = maximum(inner, 0.25) + inner
    return te.select(I < 9, value, 1.0) * te.select(I > 5, value - 1.0, 0.5)


def in_the_condition_as_well() -> Expr:
    x = X[te.select(inside(), I - MARGIN, 0)]
    return te.select(x > 0.0, x, x * 0.1) + te.select(x > 0.5, 1.0 - x, x)


def looked_up() -> Expr:
    """An index is read as well, and neither it nor what it points at exists everywhere."""
    value = X[TABLE[I - MARGIN]] * 2.0
    points_inside = te.logical_and(TABLE[I - MARGIN] >= 0, TABLE[I - MARGIN] < SIZE)
    taken = te.select(inside(), te.select(points_inside, value, 3.0), 0.0)
    return taken + te.select(te.logical_and(inside(), I > 30), te.select(points_inside, -value, 1.0), 2.0)


def a_row_of_a_table() -> Expr:
    """Lanes past the last element of a vector must not look for their index either."""
    return te.select(inside(), X[te.minimum(maximum(TABLE[I - MARGIN], 0), SIZE - 1)], 0.0)


def once_each() -> Expr:
    return te.select(inside(), here(), 0.0) + te.select(inside(2), here(2), 1.0)


FORMULAS: dict[str, Callable[[], Expr]] = {
    item.__name__: item
    for item in (two_branches, branches_in_branches, in_the_condition_as_well, looked_up, a_row_of_a_table, once_each)
}


def tensor(formula: Callable[[], Expr]) -> Tensor:
    return te.tensor_from_body("y", (I,), formula())


@pytest.mark.parametrize("name", FORMULAS)
def test_results_are_right_and_nothing_else_is_read(name: str) -> None:
    """The last element of x lies right before a page that must not be read."""
    output = tensor(FORMULAS[name])
    dag = ComputeDAG.from_outputs(output)
    steps = default_steps(dag, TARGET, 1)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.uniform(-1, 1, SIZE).astype(np.float32), "table": rng.integers(-9, SIZE + 9, SIZE)}
    [got] = LoadedKernel(build_kernel(dag, steps, TARGET, 1)).run([feeds[tensor.name] for tensor in dag.inputs])
    np.testing.assert_allclose(got, evaluate(output, feeds), rtol=1e-6, atol=1e-6)
    with create_measurer("process", target=TARGET, threads=1) as measurer:
        [result] = measurer.measure([MeasureInput(dag.workload_key, dag, steps, TARGET, threads=1)])
    assert result.error == "none", result.error_text


def test_a_common_value_is_read_once_where_it_exists() -> None:
    dag = ComputeDAG.from_outputs(tensor(two_branches))
    text = kernel_text(dag, default_steps(dag, TARGET, 1), TARGET, 1)
    [function] = re.findall(r"define internal void @nest0.*?\n}", text, re.DOTALL)
    stores = len(re.findall(r"\bstore |masked\.store", function))
    assert len(re.findall(r"masked\.load", function)) == stores
    assert not re.findall(r"= load (?!volatile)", function)


def test_only_what_is_common_leaves_its_branch() -> None:
    simplifier = Simplifier({"i": (0, SIZE + 2 * MARGIN - 1)})
    assert placement(here() + 1.0, simplifier).outside == frozenset()
    once = once_each()
    assert not placement(once, simplifier).exists
    common = placement(two_branches(), simplifier)
    assert len(common.exists) == 2
    exists = f"(((i + -{MARGIN}) >= 0) && ((i + -{MARGIN}) < {SIZE}))"
    assert [[str(condition) for condition in needed] for needed in common.exists.values()] == [[exists], [exists]]
    in_range = Simplifier({"i": (MARGIN, SIZE)})
    assert not placement(two_branches(), in_range).exists


@st.composite
def formulas(draw: st.DrawFn) -> Expr:
    """Each value is made of earlier ones, any of which may be used again."""
    padded = [te.select(inside(shift), here(shift), float(shift)) for shift in range(3)]
    values: list[Expr] = [*padded, X[te.select(inside(), I - MARGIN, 0)]]
    conditions = [I < 9, I > 5, I % 3 < 1, inside(1)]
    for _ in range(draw(st.integers(2, 10))):
        a, b = (draw(st.sampled_from(values)) for _ in range(2))
        condition = draw(st.sampled_from([*conditions, a > b, a < 0.3]))
        made: list[Expr] = [te.select(condition, a, b), te.select(condition, b - 0.5, a * b), maximum(a, b), a * 0.5 + b]
        values.append(draw(st.sampled_from(made)))
    return values[-1]


@settings(max_examples=40, deadline=None)
@given(formulas())
def test_any_formula_with_branches_is_right(formula: Expr) -> None:
    output = te.tensor_from_body("y", (I,), formula)
    dag = ComputeDAG.from_outputs(output)
    data = np.random.default_rng(1).uniform(-1, 1, SIZE).astype(np.float32)
    [got] = LoadedKernel(build_kernel(dag, default_steps(dag, TARGET, 1), TARGET, 1)).run([data])
    np.testing.assert_allclose(got, evaluate(output, {"x": data}), rtol=1e-5, atol=1e-5)
