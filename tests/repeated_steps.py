"""The same step again and again: programs that use every value several times, as one formula or as many operations in a row.

ROUNDS["x - x * x"].body(200)       # one tensor: the formula of the 200th x
ROUNDS["x - x * x"].stages(200)     # 200 tensors
ROUNDS["x - x * x"].expected()      # NumPy's answer for `data()`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ansor_py import te
from ansor_py.te.expr import Expr, call, cast
from ansor_py.te.tensor import Tensor
from graph_interpreter import Array

DEPTH, LONG = 200, 3000
SHAPE = (5, 37)


def repeated(step: Callable[[Expr], Expr], times: int, start: Expr) -> Expr:
    """The step, a number of times."""
    for _ in range(times):
        start = step(start)
    return start


@dataclass(frozen=True)
class Round:
    """`x = step(x)`, a number of times; NumPy's meaning of it."""

    step: Callable[[Expr, Expr], Expr]  # of x and the column
    meaning: Callable[[Array, Array], Array]
    depth: int = DEPTH
    dtype: str = "float32"
    least: float = 0.1  # of the values at first

    def body(self, depth: int) -> Tensor:
        """One operation."""

        def formula(i: Expr, j: Expr) -> Expr:
            return repeated(lambda x: self.step(x, j), depth, self.source[i, j])

        return te.compute(SHAPE, formula, name="y")

    def stages(self, depth: int) -> Tensor:
        """One operation after the other."""
        tensor = self.source
        for _ in range(depth):
            tensor = self._stage(tensor)
        return tensor

    def _stage(self, x: Tensor) -> Tensor:
        return te.compute(SHAPE, lambda i, j: self.step(x[i, j], j), name="y")

    @property
    def source(self) -> Tensor:
        """The placeholder."""
        return te.placeholder(SHAPE, dtype=self.dtype, name="x")

    def data(self) -> Array:
        """The first x."""
        rng = np.random.default_rng(0)
        if self.dtype.startswith("float"):
            return rng.uniform(self.least, 0.9, SHAPE).astype(self.dtype)
        return rng.integers(-9, 10, SHAPE).astype(self.dtype)

    def expected(self) -> Array:
        """What comes out after `depth` rounds."""
        value, columns = self.data(), np.arange(SHAPE[1])
        with np.errstate(over="ignore"):
            for _ in range(self.depth):
                value = self.meaning(value, columns).astype(self.dtype)
        return value


ROUNDS = {
    "x - x * x": Round(lambda x, j: x - x * x, lambda x, j: x - x * x),
    "silu": Round(lambda x, j: x * call("sigmoid", x) * 1.9, lambda x, j: x / (1 + np.exp(-x)) * np.float32(1.9), 24),
    "leaky": Round(
        lambda x, j: te.select(x > 0.0, x * 0.99, x * 1.01), lambda x, j: np.where(x > 0, x * 0.99, x * 1.01), least=-0.9
    ),
    "branches": Round(lambda x, j: te.select(j < 9, x + 0.5, x * 0.5), lambda x, j: np.where(j < 9, x + 0.5, x * 0.5)),
    "int64": Round(lambda x, j: x - x * x, lambda x, j: x - x * x, dtype="int64"),
    "int64 tested": Round(lambda x, j: te.select(x < 3, x + 1, x - 2), lambda x, j: np.where(x < 3, x + 1, x - 2), 90, "int64"),
    "int8": Round(lambda x, j: x + x * x, lambda x, j: x + x * x, dtype="int8"),
    "double": Round(
        lambda x, j: cast(cast(x, "float64") * 1.0009, "float32") - x * 0.001,
        lambda x, j: (x.astype("float64") * 1.0009).astype("float32") - x * np.float32(0.001),
    ),
    "plus one": Round(lambda x, j: x + 1.0, lambda x, j: x + np.float32(1), LONG),
}


def assert_close(got: Array, wanted: Array) -> None:
    """Equal integers, or floats that differ by rounding."""
    assert got.dtype == wanted.dtype
    if np.issubdtype(wanted.dtype, np.integer):
        np.testing.assert_array_equal(got, wanted)
    else:
        assert np.isfinite(wanted).all()
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-6)
