"""Shapes and dtypes of imported values against ONNX's inference and against the arrays that the backend tests expect.

The inference may know less than an expression does (it follows no sizes that are computed), but nothing else. Where the two
contradict each other is known: STFT without the attribute `onesided`, whose default is 1, and poolings with `ceil_mode` before
opset 22, which no case has (`tests/test_pooling_shapes.py`).
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, TypeProto, helper, shape_inference
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from ansor_py.errors import AnsorError
from ansor_py.graph.backend import AnsorRep, specialised
from ansor_py.graph.ir import Graph
from ansor_py.graph.onnx_import import import_model

# Where the inference is wrong.
CONTRADICTED = {"test_stft", "test_stft_with_window"}
# Of so many shards, the tests run one.
SHARDS = 8


def node_cases() -> Iterator[TestCase]:
    """The node cases of one shard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in cases:
        if case.model is not None and case.data_sets and zlib.crc32(case.name.encode()) % SHARDS == 1:
            yield case


def imported(model: ModelProto, feed: dict[str, Any]) -> tuple[ModelProto, Graph] | None:
    """The model for these inputs, those that have to be known as constants, and its graph; None if it is refused."""
    prepared = AnsorRep(model)
    try:
        prepared._graph(feed)
        known = {name: np.asarray(feed[name]) for name in prepared._wanted if name in feed}
        special = specialised(model, feed, known)
        return special, import_model(special, fallback=True)
    except AnsorError:
        return None


def contradicts(kind: TypeProto, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether something that is inferred is not so."""
    tensor = kind.tensor_type
    if tensor.elem_type and str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) != dtype:
        return True
    if not tensor.HasField("shape"):
        return False
    inferred = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    return len(inferred) != len(shape) or any(i not in (None, s) for i, s in zip(inferred, shape, strict=True))


def test_values_have_the_shapes_of_the_standard() -> None:
    compared, wrong, contradicted = 0, list[str](), set[str]()
    cases = list(node_cases())
    for case in cases:
        inputs, outputs = case.data_sets[0]
        feed = dict(zip([info.name for info in case.model.graph.input], inputs, strict=True))
        found = imported(case.model, feed)
        if found is None:
            continue
        special, graph = found
        for info in (*special.graph.output, *special.graph.value_info):
            info.ClearField("type")
        inferred = {info.name: info.type for info in shape_inference.infer_shapes(special, data_prop=True).graph.output}
        for info, expected in zip(case.model.graph.output, outputs, strict=True):
            value = graph.values.get(info.name)
            if value is None:
                continue
            compared += 1
            if contradicts(inferred[info.name], value.shape, value.dtype):
                contradicted.add(case.name)
            if isinstance(expected, np.ndarray) and (value.shape, value.dtype) != (expected.shape, str(expected.dtype)):
                wrong.append(f"{case.name}: {value}, expected {expected.dtype}{list(expected.shape)}")
    assert not wrong, "\n".join(wrong)
    assert contradicted == CONTRADICTED & {case.name for case in cases}
    assert compared > 150
