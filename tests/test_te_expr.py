"""Scalar expressions: folding, dtypes, substitution, structural equality; tensors and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.errors import ExpressionError
from ansor_py.te.expr import (
    COMBINERS,
    INDEX,
    Axis,
    Binary,
    Cast,
    Compare,
    Const,
    Expr,
    Read,
    Reduce,
    Select,
    Var,
    binary,
    call,
    cast,
    compare,
    const,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    reads_of,
    reduction_identity,
    select,
    substitute,
    transform,
    variables_of,
    walk,
)
from te_interpreter import Interpreter, evaluate

ROW, COL = Var("i"), Var("j")
X = Var("x", "float32")
TRUE, FALSE = Const(True, "bool"), Const(False, "bool")
OPEN = compare("lt", ROW, COL)


@pytest.mark.parametrize(
    ("folded", "expected"),
    [
        (ROW + 0, ROW),
        (0 + ROW, ROW),
        (ROW - 0, ROW),
        (ROW * 1, ROW),
        (1 * ROW, ROW),
        (ROW * 0, const(0, INDEX)),
        (ROW // 1, ROW),
        (ROW % 1, const(0, INDEX)),
        (X / 1, X),
        (X + 0.0, X),
        (const(7, INDEX) // 2, const(3, INDEX)),
        (const(-7, INDEX) // 2, const(-4, INDEX)),
        (const(-7, INDEX) % 4, const(1, INDEX)),
        (minimum(const(2, INDEX), 3), const(2, INDEX)),
        (maximum(const(2, INDEX), 3), const(3, INDEX)),
        (compare("lt", const(2, INDEX), 3), TRUE),
        (logical_and(), TRUE),
        (logical_and(OPEN, TRUE), OPEN),
        (logical_and(OPEN, FALSE), FALSE),
        (logical_or(OPEN, TRUE), TRUE),
        (logical_or(FALSE, OPEN), OPEN),
        (logical_not(FALSE), TRUE),
        (select(TRUE, ROW, COL), ROW),
        (select(FALSE, ROW, COL), COL),
        (cast(ROW, INDEX), ROW),
        (cast(const(2.7, "float32"), "int32"), const(2, "int32")),
    ],
)
def test_constants_and_neutral_elements_fold(folded: Expr, expected: Expr) -> None:
    assert folded == expected


@pytest.mark.parametrize(
    "kept", [X * 0.0, X - X, ROW // 2, ROW % 2, binary("floordiv", const(1, INDEX), 0), cast(ROW, "float32")]
)
def test_what_could_change_the_value_stays(kept: Expr) -> None:
    assert isinstance(kept, Binary | Cast)


def test_equality_is_structure_and_axes_are_variables() -> None:
    assert Axis("i", 8) * 2 + 1 == Axis("i", 8) * 2 + 1
    assert Axis("i", 8) != Axis("i", 9)
    assert isinstance(te.equal(ROW, COL), Compare)
    with pytest.raises(TypeError, match="no truth value"):
        bool(OPEN)


def test_dtypes_follow_the_operands() -> None:
    assert (X + 1).dtype == "float32"
    assert (ROW + 1).dtype == INDEX
    assert OPEN.dtype == "bool"
    assert select(OPEN, X, 0).dtype == "float32"
    assert te.exp(X).dtype == "float32"
    assert cast(ROW, "float64").dtype == "float64"
    assert isinstance(1 - X, Binary)


@pytest.mark.parametrize(
    ("build", "phrase"),
    [
        (lambda: X + ROW, "different dtypes"),
        (lambda: ROW / 2, "use '//'"),
        (lambda: const(1, "float16"), "unknown dtype 'float16'"),
        (lambda: call("gamma", X), "unknown function 'gamma'"),
        (lambda: te.placeholder((2, -1)), "negative dimension"),
        (lambda: te.placeholder((2,), dtype="half"), "unknown dtype 'half'"),
        (lambda: te.placeholder((2, 3), name="A")[ROW], "'A' has 2 dimensions but was indexed with 1"),
        (lambda: te.reduce_sum(X, Axis("i", 3)), "not a reduction axis"),
        (
            lambda: te.compute((2,), lambda i: te.reduce_sum(X, te.reduce_axis(3)) + 1.0, name="D"),
            "'D': a reduction must be the whole body",
        ),
        (
            lambda: te.compute((2,), lambda k: te.reduce_sum(X, te.reduce_axis(3, "k")), name="D"),
            "'D' uses an axis name twice: k, k",
        ),
    ],
)
def test_errors_name_the_thing(build: Callable[[], Any], phrase: str) -> None:
    with pytest.raises(ExpressionError, match=phrase):
        build()


def test_printing_reads_like_the_source() -> None:
    a = te.placeholder((4, 4), name="A")
    assert str(a[ROW, COL + 1] * 2.0) == "(A[i, (j + 1)] * 2)"
    assert str(select(OPEN, minimum(ROW, COL), 0)) == "select((i < j), min(i, j), 0)"
    assert str(te.reduce_sum(a[ROW, te.reduce_axis(4)], te.reduce_axis(4))) == "sum(A[i, k], axes=[k])"
    assert str(a) == "A: float32[4, 4]"


def test_walking_and_rewriting() -> None:
    a = te.placeholder((8,), name="A")
    body = select(OPEN, a[ROW * 2 + COL], a[COL])
    assert variables_of(body) == {"i", "j"}
    assert [str(read) for read in reads_of(body)] == ["A[((i * 2) + j)]", "A[j]"]
    assert next(walk(body)) is body
    replaced = substitute(body, {"i": const(0, INDEX), "j": const(1, INDEX)})
    assert replaced == a[1]  # the condition folds, and with it the choice
    assert substitute(body, {"unused": COL}) is body
    doubled = transform(a[ROW], lambda node: node * 2.0 if isinstance(node, Read) else None)
    assert doubled == a[ROW] * 2.0


@pytest.mark.parametrize("combiner", list(COMBINERS))
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int8", "int64"])
def test_reduction_identities_change_nothing(combiner: str, dtype: str) -> None:
    identity = reduction_identity(combiner, dtype)
    assert identity.dtype == dtype
    for value in (0, 3):
        assert binary(COMBINERS[combiner], identity, const(value, dtype)) == const(value, dtype)


def test_reduction_identities_of_bool() -> None:
    assert (reduction_identity("max", "bool").value, reduction_identity("min", "bool").value) == (False, True)
    assert reduction_identity("max", "float32").value == -math.inf


def test_compute_takes_axis_names_from_its_function() -> None:
    tensor = te.compute((2, 3), lambda row, column: cast(row + column, "float32"), name="T")
    assert isinstance(tensor.op, te.Compute)
    assert [axis.name for axis in tensor.op.axes] == ["row", "column"]
    numbered = te.compute((2, 3), lambda *index: cast(index[0] + index[1], "float32"))
    assert isinstance(numbered.op, te.Compute)
    assert [axis.name for axis in numbered.op.axes] == ["i0", "i1"]
    np.testing.assert_array_equal(evaluate(tensor, {}), [[0, 1, 2], [1, 2, 3]])
    assert (tensor.size, tensor.bytes) == (6, 24)


def test_reduction_over_no_axis_is_its_source() -> None:
    assert te.reduce_sum(X, ()) is X
    assert isinstance(te.reduce_sum(X, te.reduce_axis(2)), Reduce)


NUMBER = st.integers(-9, 9)


def _expressions(depth: int) -> st.SearchStrategy[tuple[Expr, Callable[[int, int], int]]]:
    """Index expressions with a Python function that means the same."""
    leaves: st.SearchStrategy[tuple[Expr, Callable[[int, int], int]]] = st.one_of(
        NUMBER.map(lambda n: (const(n, INDEX), lambda i, j: n)),
        st.just((ROW, lambda i, j: i)),
        st.just((COL, lambda i, j: j)),
    )
    if depth == 0:
        return leaves
    below = _expressions(depth - 1)
    operators: dict[str, Callable[[int, int], int]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "min": min,
        "max": max,
    }
    pairs = st.tuples(st.sampled_from(list(operators)), below, below).map(
        lambda t: (binary(t[0], t[1][0], t[2][0]), lambda i, j: operators[t[0]](t[1][1](i, j), t[2][1](i, j)))
    )
    divisors = st.tuples(st.sampled_from(["floordiv", "mod"]), below, st.integers(1, 5)).map(
        lambda t: (
            binary(t[0], t[1][0], t[2]),
            lambda i, j: t[1][1](i, j) // t[2] if t[0] == "floordiv" else t[1][1](i, j) % t[2],
        )
    )
    choices = st.tuples(below, below, below).map(
        lambda t: (
            select(t[0][0] < t[1][0], t[2][0], t[0][0]),
            lambda i, j: t[2][1](i, j) if t[0][1](i, j) < t[1][1](i, j) else t[0][1](i, j),
        )
    )
    return st.one_of(leaves, pairs, divisors, choices)


@given(_expressions(3), NUMBER, NUMBER)
def test_folding_never_changes_a_value(pair: tuple[Expr, Callable[[int, int], int]], i: int, j: int) -> None:
    expression, meaning = pair
    grid = {"i": np.asarray(i), "j": np.asarray(j)}
    assert int(Interpreter({}).expression(expression, grid)) == meaning(i, j)
    folded = substitute(expression, {"i": const(i, INDEX), "j": const(j, INDEX)})
    assert folded == const(meaning(i, j), INDEX)
    assert not isinstance(folded, Select)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [(ROW + COL, ROW), (COL + ROW, ROW), (ROW * 15 + COL, ROW), (select(ROW < 1, COL, COL * 2), ROW), (COL // (ROW + 1), ROW)],
)
def test_substitution_happens_once_even_where_the_result_folds(expr: Expr, expected: Expr) -> None:
    values = {"i": const(0, INDEX), "j": ROW}
    assert substitute(expr, values) == expected


@pytest.mark.parametrize("shape", ["X", 5, (2, "n"), (2.5,), (-1,)])
def test_a_shape_that_is_none_is_refused_by_the_tensors_name(shape: Any) -> None:
    with pytest.raises(ExpressionError, match="'w'"):
        te.placeholder(shape, name="w")


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda i: X, "2 dimensions .* 1 indices"), (lambda i, j, k: X, "3 indices"), (lambda i, j: 5, "not 5; see te.const")],
)
def test_a_function_that_does_not_define_the_elements_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ExpressionError, match=f"'w'.*{message}"):
        te.compute((2, 3), function, name="w")
