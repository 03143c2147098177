"""Operators that read or write by index: whole arrays at once, with negative indices, reductions and every version's axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator

_AXES_INPUT_VERSION = 13  # from it on, the axes of Unsqueeze are an input


@evaluator("GatherElements")
def gather_elements(call: EvaluatorCall) -> tuple[Any, ...]:
    """Along `axis`, the element that the index names; indices may cover a part of the other axes."""
    data, indices, axis = call.x, call.array(1), int(call.get("axis", 0))
    axis %= data.ndim
    part = tuple(slice(None) if index == axis else slice(0, extent) for index, extent in enumerate(indices.shape))
    return (np.take_along_axis(data[part], _wrapped(indices, data.shape[axis]), axis),)


def _wrapped(indices: Numbers, extent: int) -> Numbers:
    """Indices with negative ones counted from the end. IndexError outside of the extent."""
    if ((indices < -extent) | (indices >= extent)).any():
        raise IndexError(f"an index is outside of {extent} elements")
    return np.where(indices < 0, indices + extent, indices).astype(np.int64)


def _updated(data: Numbers, places: tuple[Any, ...], updates: Numbers, reduction: str) -> Numbers:
    """A copy of the data with updates written, or combined one after the other, at places that may repeat."""
    result = data.copy()
    match reduction:
        case "none":
            result[places] = updates
        case "add" if data.dtype != bool:
            np.add.at(result, places, updates)
        case "mul" if data.dtype != bool:
            np.multiply.at(result, places, updates)
        case "add" | "max":
            np.maximum.at(result, places, updates)
        case "mul" | "min":
            np.minimum.at(result, places, updates)
        case _:
            raise ValueError(f"reduction '{reduction}' is none of none, add, mul, max, min")
    return result


@evaluator("Scatter", "ScatterElements")
def scatter_elements(call: EvaluatorCall) -> tuple[Any, ...]:
    """Updates at the positions that indices along `axis` name."""
    data, indices, axis = call.x, call.array(1), int(call.get("axis", 0))
    places: list[Numbers] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _wrapped(indices, data.shape[axis])
    return (_updated(data, tuple(places), call.array(2), call.get("reduction", "none")),)


@evaluator("ScatterND")
def scatter_nd(call: EvaluatorCall) -> tuple[Any, ...]:
    """Updates at the positions that the last axis of the indices names, elements or slices."""
    data, indices = call.x, call.array(1)
    places = tuple(_wrapped(indices[..., axis], data.shape[axis]) for axis in range(indices.shape[-1]))
    return (_updated(data, places, call.array(2), call.get("reduction", "none")),)


@evaluator("OneHot")
def one_hot(call: EvaluatorCall) -> tuple[Any, ...]:
    """`values[1]` where the position along the new axis is the index, `values[0]` elsewhere."""
    indices, depth, (off, on) = call.x, int(call.number(1)), call.array(2)
    axis = int(call.get("axis", -1))
    axis += indices.ndim + 1 if axis < 0 else 0
    positions = np.arange(depth).reshape([-1 if index == axis else 1 for index in range(indices.ndim + 1)])
    hot = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis) == positions
    return (np.where(hot, on, off).astype(call.array(2).dtype),)


@evaluator("Unsqueeze")
def unsqueeze(call: EvaluatorCall) -> tuple[Any, ...]:
    """Axes of extent 1, named by their places in the result and in any order."""
    axes = call.array(1).reshape(-1).tolist() if call.version >= _AXES_INPUT_VERSION else call.get("axes")
    return (np.expand_dims(call.x, tuple(int(axis) for axis in axes)),)


@evaluator("Unique")
def unique(call: EvaluatorCall) -> tuple[Any, ...]:
    """Distinct elements or slices, sorted or in the order in which they first occur; first places, inverse and counts."""
    x, axis = call.x, call.get("axis")
    data = x.reshape(-1) if axis is None else x
    along = 0 if axis is None else int(axis)
    found, first, inverse, counts = np.unique(data, True, True, True, axis=along)
    if not call.get("sorted", 1):
        order = np.argsort(first, kind="stable")
        found, first, counts = found.take(order, along), first[order], counts[order]
        inverse = np.argsort(order, kind="stable")[inverse.reshape(-1)]
    return (found, *(item.reshape(-1).astype(np.int64) for item in (first, inverse, counts)))


@evaluator("Shape")
def shape(call: EvaluatorCall) -> tuple[Any, ...]:
    """The extents from `start` to `end`, both cut off at the rank."""
    extents = np.array(np.shape(call.inputs[0]), np.int64)
    return (extents[call.get("start", 0) : call.get("end")],)
