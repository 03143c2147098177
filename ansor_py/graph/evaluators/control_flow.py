"""Loop, Scan and SequenceMap: graphs that are run several times, and what becomes of their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator

_UNBATCHED_VERSION = 9  # before it, Scan ran over a batch of sequences


@evaluator("Loop")
def loop(call: EvaluatorCall) -> tuple[Any, ...]:
    """The loop-carried values, and what each iteration gave besides, stacked.

    A trip count or condition that is left out does not end the loop.
    """
    limit, condition = call.number(0), call.number(1)
    body, values = call.attributes["body"], list(call.inputs[2:])
    scanned: list[list[Numbers]] = [[] for _ in body.output_names[1 + len(values) :]]
    trip, going = 0, condition is None or bool(condition)
    while going and (limit is None or trip < limit):
        given = (np.array(trip, np.int64), np.array(going), *values)
        results = call.run_graph("body", dict(zip(body.input_names, given, strict=True)))
        going, values = bool(np.asarray(results[0]).item()), results[1 : 1 + len(values)]
        for made, result in zip(scanned, results[1 + len(values) :], strict=True):
            made.append(result)
        trip += 1
    return (*values, *_stacked(body, 1 + len(values), scanned, [0] * len(scanned)))


@evaluator("Scan")
def scan(call: EvaluatorCall) -> tuple[Any, ...]:
    """The last states, and what each step gave besides, stacked; axes and directions may be chosen from version 9 on."""
    if call.version >= _UNBATCHED_VERSION:
        return _scanned(call, call.inputs)
    given = call.inputs[1:]
    lengths = [given[-1].shape[1]] * given[-1].shape[0] if call.inputs[0] is None else call.array(0).tolist()
    states = len(given) - int(call.get("num_scan_inputs"))
    batches = []
    for image, length in enumerate(lengths):
        cut = [value[image] if index < states else value[image, :length] for index, value in enumerate(given)]
        results = list(_scanned(call, cut))
        for index in range(states, len(results)):  # what a shorter sequence does not fill is zero
            missing = given[-1].shape[1] - length
            results[index] = np.pad(results[index], [(0, missing)] + [(0, 0)] * (results[index].ndim - 1))
        batches.append(results)
    return tuple(np.stack(parts) for parts in zip(*batches, strict=True))


def _scanned(call: EvaluatorCall, given: Sequence[Any]) -> tuple[Any, ...]:
    body, count = call.attributes["body"], int(call.get("num_scan_inputs"))
    states, sequences = list(given[: len(given) - count]), list(given[len(given) - count :])
    outputs = len(body.output_names) - len(states)
    backwards = call.get("scan_input_directions") or call.get("directions") or [0] * count
    axes = call.get("scan_input_axes") or [0] * count
    moved = [np.moveaxis(value, axis, 0) for value, axis in zip(sequences, axes, strict=True)]
    moved = [value[::-1] if flip else value for value, flip in zip(moved, backwards, strict=True)]
    made: list[list[Numbers]] = [[] for _ in range(outputs)]
    for step in range(len(moved[0])):
        feed = (*states, *(value[step] for value in moved))
        results = call.run_graph("body", dict(zip(body.input_names, feed, strict=True)))
        states = results[: len(states)]
        for items, result in zip(made, results[len(states) :], strict=True):
            items.append(result)
    flips = call.get("scan_output_directions") or [0] * outputs
    ordered = [items[::-1] if flip else items for items, flip in zip(made, flips, strict=True)]
    return (*states, *_stacked(body, len(states), ordered, call.get("scan_output_axes") or [0] * outputs))


def _stacked(body: Any, first: int, made: Sequence[Sequence[Numbers]], axes: Sequence[int]) -> list[Numbers]:
    """The results of all iterations along a new axis. ValueError where there were none and the graph states no shape."""
    stacked = []
    for index, (items, axis) in enumerate(zip(made, axes, strict=True)):
        if items:
            stacked.append(np.stack(items, axis))
            continue
        tensor = body.output_types[first + index].tensor_type
        extents = [dimension.dim_value for dimension in tensor.shape.dim if dimension.HasField("dim_value")]
        if not tensor.HasField("shape") or len(extents) < len(tensor.shape.dim):
            raise ValueError("nothing was iterated over, and the body does not state the shape of what it would have given")
        shape = list(extents)
        shape.insert(axis if axis >= 0 else axis + len(extents) + 1, 0)
        stacked.append(np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return stacked


@evaluator("SequenceMap")
def sequence_map(call: EvaluatorCall) -> tuple[Any, ...]:
    """The graph on every element; further sequences go along, further tensors are the same for all."""
    body = call.attributes["body"]
    rows = []
    for index, item in enumerate(call.inputs[0]):
        others = [other[index] if isinstance(other, list) else other for other in call.inputs[1:]]
        rows.append(call.run_graph("body", dict(zip(body.input_names, [item, *others], strict=True))))
    return tuple(list(column) for column in zip(*rows, strict=True)) if rows else tuple([] for _ in body.output_names)
