"""Loop, Scan and SequenceMap outside of compiled code: how often a graph runs, and what becomes of its results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from operator_runs import assert_same, evaluated, floats_of, ints_of

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def body(nodes: list[Any], inputs: list[str], outputs: dict[str, Any], **shapes: list[int]) -> Any:
    """A graph whose outputs have shapes where they are given, and element types."""
    infos = [helper.make_value_info(name, helper.make_tensor_type_proto(TensorProto.FLOAT, None)) for name in inputs]
    results = [helper.make_tensor_value_info(name, kind, shapes.get(name)) for name, kind in outputs.items()]
    return helper.make_graph(nodes, "body", infos, results)


def counting(shape: list[int] | None = None) -> Any:
    """A body that adds 1 to its state, gives the state before, and goes on until it is 3."""
    nodes = [
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["three"], value_float=3.0),
        helper.make_node("Add", ["state", "one"], ["new"]),
        helper.make_node("ReduceMax", ["new"], ["largest"], keepdims=0),
        helper.make_node("Less", ["largest", "three"], ["on"]),
        helper.make_node("Identity", ["state"], ["before"]),
    ]
    kinds = {"on": TensorProto.BOOL, "new": TensorProto.FLOAT, "before": TensorProto.FLOAT}
    return body(nodes, ["step", "going", "state"], kinds, **({"before": shape} if shape is not None else {}))


@pytest.mark.parametrize(
    "limits", [(None, None), (np.array(9), None), (None, np.array(True)), (ints_of(9), np.array([True]))], ids=str
)
@pytest.mark.parametrize("shape", [(), (2,), (2, 2)], ids=str)
def test_loops_stack_what_they_give(limits: tuple[Any, Any], shape: tuple[int, ...]) -> None:
    """Along a new axis for every rank; a count or condition that is left out does not end the loop."""
    end, scanned = evaluated("Loop", [*limits, np.zeros(shape, np.float32)], 2, opset=17, body=counting())
    assert_same(end, np.full(shape, 3, np.float32))
    assert_same(scanned, np.stack([np.full(shape, index, np.float32) for index in range(3)]))


def test_loops_end_by_their_count_or_before_they_begin() -> None:
    end, scanned = evaluated("Loop", [np.array(2), None, floats_of(0)], 2, opset=17, body=counting())
    assert (end.tolist(), scanned.tolist()) == ([2], [[0], [1]])
    end, scanned = evaluated("Loop", [np.array(0), None, floats_of(0)], 2, opset=17, body=counting([1]))
    assert (end.tolist(), scanned.shape, scanned.dtype) == ([0], (0, 1), np.float32)
    with pytest.raises(ValueError, match="does not state the shape"):
        evaluated("Loop", [None, np.array(False), floats_of(0)], 2, opset=17, body=counting())


def sums() -> Any:
    """A body that adds what it is given to its state, and gives the sum."""
    nodes = [helper.make_node("Add", ["state", "item"], ["new"]), helper.make_node("Identity", ["new"], ["given"])]
    return body(nodes, ["state", "item"], dict.fromkeys(("new", "given"), TensorProto.FLOAT))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [[0, 1, 2], [3, 5, 7]]),
        ({"scan_input_directions": [1]}, [[3, 4, 5], [3, 5, 7]]),
        ({"scan_output_directions": [1]}, [[3, 5, 7], [0, 1, 2]]),
        ({"scan_output_axes": [-1]}, [[0, 3], [1, 5], [2, 7]]),
        ({"scan_input_axes": [-1]}, [[0, 3], [1, 7], [3, 12]]),
        ({"scan_input_axes": [1], "scan_output_axes": [1]}, [[0, 1, 3], [3, 7, 12]]),
    ],
    ids=str,
)
def test_scans_along_any_axis_and_direction(attributes: dict[str, Any], expected: list[list[int]]) -> None:
    width = 2 if "scan_input_axes" in attributes else 3
    end, scanned = evaluated("Scan", [np.zeros(width, np.float32), ROWS], 2, body=sums(), num_scan_inputs=1, **attributes)
    assert_same(scanned, floats_of(*expected))
    assert_same(end, ROWS.sum(1 if width == 2 else 0))


def test_scans_of_batches_before_version_9() -> None:
    sequences = floats_of([[1], [2], [3]], [[4], [5], [6]])
    inputs = [ints_of(3, 2), np.zeros((2, 1), np.float32), sequences]
    end, scanned = evaluated("Scan", inputs, 2, opset=8, body=sums(), num_scan_inputs=1)
    assert end.tolist() == [[6], [9]]
    assert scanned[..., 0].tolist() == [[1, 3, 6], [4, 9, 0]]
    [_, backwards] = evaluated("Scan", [None, *inputs[1:]], 2, opset=8, body=sums(), num_scan_inputs=1, directions=[1])
    assert backwards[..., 0].tolist() == [[3, 5, 6], [6, 11, 15]]


def test_maps_over_several_sequences_and_tensors() -> None:
    nodes = [helper.make_node("Sum", ["a", "b", "c"], ["y"])]
    graph = body(nodes, ["a", "b", "c"], {"y": TensorProto.FLOAT})
    [got] = evaluated(
        "SequenceMap", [[floats_of(1), floats_of(2)], [floats_of(10), floats_of(20)], floats_of(100)], body=graph, opset=17
    )
    assert_same(got, [floats_of(111), floats_of(122)])
    assert evaluated("SequenceMap", [[], [], floats_of(1)], body=graph, opset=17) == [[]]
