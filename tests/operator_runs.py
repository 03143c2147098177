"""One operator of any version run by the evaluator of what is not compiled, for tests of its values.

[y] = evaluated("PRelu", [x, slope], opset=6)
y, last = evaluated("GRU", [x, w, r, None, lengths], outputs=2, hidden_size=3)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TypeProto, defs, helper

from ansor_py.graph.reference import evaluator_of
from graph_interpreter import Array


def operator_model(
    op_type: str,
    inputs: Sequence[Any],
    opset: int | None = None,
    outputs: int = 1,
    domain: str = "",
    **attributes: Any,
) -> ModelProto:
    """A model of one node; None among the inputs is one that is left out, and types are those of the arrays."""
    names = ["" if item is None else f"x{index}" for index, item in enumerate(inputs)]
    results = [f"y{index}" for index in range(outputs)]
    version = opset or (22 if not domain else 1)
    node = helper.make_node(op_type, names, results, name="node", domain=domain, **attributes)
    infos = []
    for name, item in zip(names, inputs, strict=True):
        if isinstance(item, np.ndarray) and item.dtype != object:
            kind = helper.np_dtype_to_tensor_dtype(item.dtype)
            infos.append(helper.make_tensor_value_info(name, kind, item.shape))
        elif name:
            infos.append(helper.make_value_info(name, TypeProto()))
    graph = helper.make_graph([node], "one", infos, [helper.make_empty_tensor_value_info(name) for name in results])
    opsets = [helper.make_opsetid(domain, version)]
    if domain:
        opsets.append(helper.make_opsetid("", 17))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def evaluated(op_type: str, inputs: Sequence[Any], outputs: int = 1, **options: Any) -> list[Any]:
    """The outputs of one operator; `options` are opset and domain, and the attributes."""
    feed = {f"x{index}": item for index, item in enumerate(inputs) if item is not None}
    results: list[Any] = evaluator_of(operator_model(op_type, inputs, outputs=outputs, **options)).run(None, feed)
    return results


def versions_of(op_type: str, domain: str = "") -> list[int]:
    """All versions of an operator in the installed onnx, ascending."""
    return sorted(s.since_version for s in defs.get_all_schemas_with_history() if (s.domain, s.name) == (domain, op_type))


def floats_of(*values: Any) -> Array:
    """An array of float32."""
    return np.array(values, np.float32)


def ints_of(*values: Any) -> Array:
    """An array of int64."""
    return np.array(values, np.int64)


def assert_same(got: Any, expected: Any) -> None:
    """Arrays, sequences of arrays, dictionaries, strings or nothing: the same kind, shape, dtype and values."""
    if expected is None or isinstance(expected, list):
        assert type(got) is type(expected)
        for one, other in zip(got or [], expected or [], strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert got == expected
    elif expected.dtype == object:
        assert (got.shape, got.tolist()) == (expected.shape, expected.tolist())
    else:
        tolerance = 1e-12 if expected.dtype == np.float64 else 2e-6
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=1e-9, strict=True)
