"""Functions of float32 over all that float32 holds, compiled from ONNX, against NumPy in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import ansor_py

Array = NDArray[Any]
SMALLEST_NORMAL = 2.0**-126
# exp flushes below 2**-125, and a factor of up to a hundred may follow it.
FLUSHED = 128 * 2.0**-125


def softplus(x: Array) -> Array:
    return np.where(x > 700, x, np.log1p(np.exp(np.minimum(x, 700))))


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Sin": np.sin,
    "Cos": np.cos,
    "Tan": np.tan,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atan": np.arctan,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Tanh": np.tanh,
    "Asinh": np.arcsinh,
    "Acosh": np.arccosh,
    "Atanh": np.arctanh,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: 1 / x,
    "Erf": np.vectorize(math.erf),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Mish": lambda x: x * np.tanh(softplus(x)),
    "Elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
}


def values() -> Array:
    """All magnitudes of both signs, the ends of exp, sinh and the domains, and what is no number."""
    rng = np.random.default_rng(0)
    magnitudes = 10.0 ** rng.uniform(-37, 38.5, 3000) * rng.choice([-1, 1], 3000)
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 89, -89, 88.72, 89.4, 1, -1, 1e20, -1e20, 3.4e38, -3.4e38, 104, -104]
    return np.concatenate([magnitudes, rng.uniform(-100, 100, 2000), rng.uniform(-1, 1, 2000), ends]).astype(np.float32)


def run(node: Any, feed: dict[str, Array]) -> Array:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in feed.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, next(iter(feed.values())).shape)
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 22)])
    return ansor_py.compile(model, threads=1, workers=0).run(feed)["y"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_right_for_every_argument(name: str) -> None:
    x = values()
    got = run(helper.make_node(name, ["x"], ["y"]), {"x": x})
    with np.errstate(all="ignore"):
        wanted = FUNCTIONS[name](x.astype(np.float64))
        rounded = wanted.astype(np.float32)
    special = ~np.isfinite(rounded)
    np.testing.assert_array_equal(got[special], rounded[special])
    np.testing.assert_allclose(got[~special].astype(np.float64), wanted[~special], rtol=4e-6, atol=FLUSHED)


@pytest.mark.parametrize("count", [1, 5, 64, 67])
@pytest.mark.parametrize(
    ("x", "y"), [(3279.8228, 6.2831855), (-1e20, 88.7), (1e10, 88.7), (-1e10, 88.7), (3e38, 1e-3), (5.0, np.inf), (7.5, -2.5)]
)
def test_mod_is_exact_in_every_lane(x: float, y: float, count: int) -> None:
    feed = {"a": np.full(count, x, np.float32), "b": np.full(count, y, np.float32)}
    got = run(helper.make_node("Mod", ["a", "b"], ["y"], fmod=1), feed)
    np.testing.assert_array_equal(got, np.fmod(feed["a"], feed["b"]))
