"""Arrays of the values at which dtypes differ, and one operator run on them: by a kernel, and folded at compile time.

x = extremes(np.int64, 67, seed=1)
by_kernel, folded = both_ways("Add", [x, x])
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
from onnx import defs, helper
from onnx.reference import ReferenceEvaluator

from ansor_py.graph import compile
from graph_interpreter import Array, floats, make_model

INTEGERS = ("int64", "int32", "int8", "uint8")
FLOATS = ("float32", "float64")


def extremes(dtype: str, count: int, seed: int = 0) -> Array:
    """Seeded draws of the largest, the smallest, powers of two and what lies beside them; of NaN and infinities."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if kind.kind == "f":
        values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1, -1, 2.5, -2.5, 0.5, 3e38, 1e-3, 127.5, -128.5, 255.5, 1e10]
        return np.array([values[index] for index in rng.integers(0, len(values), count)], kind)
    limits = np.iinfo(kind)
    whole = [limits.min, limits.max, limits.min + 1, limits.max - 1, 0, 1, 2, 3, limits.max // 2 + 1]
    whole += [-1, -2, limits.min // 2] if limits.min < 0 else []
    whole += [2**53 + 1, -(2**53) - 1, 2**62 + 1] if kind.itemsize == 8 else []
    return np.array([whole[index] for index in rng.integers(0, len(whole), count)], kind)


def allows(op_type: str, dtype: str, opset: int) -> bool:
    """Whether the operator's first input may have the dtype."""
    schema = defs.get_schema(op_type, opset)
    name = "tensor(" + {"float32": "float", "float64": "double"}.get(dtype, dtype) + ")"
    parameter = schema.inputs[0].type_str
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    return name in allowed.get(parameter, {parameter})


def both_ways(
    op_type: str, inputs: list[Any], constants: list[Any] | None = None, opset: int = 22, outputs: int = 1, **attributes: Any
) -> tuple[list[Array], list[Array]]:
    """The results of one node: of a kernel that is fed with `inputs`, and of all inputs known, without any evaluator."""
    data = {f"x{index}": np.asarray(array) for index, array in enumerate(inputs)}
    known = {f"c{index}": np.asarray(array) for index, array in enumerate(constants or [])}
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op_type, [*data, *known], names, name="node", **attributes)
    unused = {"unused": floats(1)}

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("ONNX's reference evaluator ran")

    with mock.patch.object(ReferenceEvaluator, "run", refuse):
        compiled = compile(make_model([node], data, names, known, opset), threads=1, workers=0, fallback=False)
        folded = compile(make_model([node], unused, names, known | data, opset), threads=1, workers=0, fallback=False)
    assert not folded.plan.calls
    by_kernel, by_folding = compiled.run(data), folded.run(unused)
    return [by_kernel[name] for name in names], [by_folding[name] for name in names]


def assert_same(got: Array, expected: Array, what: object) -> None:
    """Equal dtype, shape and values; floats to a few units in the last place."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), what
    if got.dtype.kind == "f":
        tiny = 1e-12 if got.dtype == np.float64 else 1e-7
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=tiny, err_msg=str(what))
    else:
        np.testing.assert_array_equal(got, expected, err_msg=str(what))
