"""Selection and sorting: the largest or smallest elements of an axis.

    values, places = top_k(call)

One order for all dtypes: elements become integers that sort as they do. NaN is above everything else, zeros of both signs
are equal, and of equal elements the first comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ModelError
from ansor_py.graph.library_kernels import LibraryCall, library_kernel


@library_kernel("TopK", shape_inputs=(1,))
def top_k(call: LibraryCall) -> tuple[NDArray[Any], ...]:
    """The k largest or smallest elements along an axis in their order, and where they are.

    `sorted=0` allows any order; it is the sorted one as well.
    """
    x = call.array(0)
    axis = call.axis(-1, x.ndim)
    k = call.integer("k", 0) if call.opset < 10 else _one_number(call, 1)
    if not 0 <= k <= x.shape[axis]:
        raise ModelError(f"{call.title}: there are no {k} elements along axis {axis} of shape {list(x.shape)}")
    rows = np.moveaxis(x, axis, -1)
    keys = ordered_integers(rows)
    keys = ~keys if call.integer("largest", 1) else keys
    places = first_in_order(keys.reshape(-1, x.shape[axis]), k).reshape(*rows.shape[:-1], k)
    values = np.take_along_axis(rows, places, axis=-1)
    return np.moveaxis(values, -1, axis), np.moveaxis(places, -1, axis)


def ordered_integers(x: NDArray[Any]) -> NDArray[Any]:
    """Integers in the order of the elements: equal for equal ones, the largest for NaN."""
    if not np.issubdtype(x.dtype, np.floating):
        return x
    plain = np.where(np.isnan(x), np.nan, x + x.dtype.type(0))  # one NaN, and one zero
    bits = np.ascontiguousarray(plain.astype(x.dtype, copy=False)).view(f"i{x.dtype.itemsize}")
    ordered: NDArray[Any] = bits ^ ((bits >> (8 * x.dtype.itemsize - 1)) & np.iinfo(bits.dtype).max)
    return ordered


def first_in_order(keys: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The positions of the k smallest of each row, in their order; a partition, then a sort of what it selects."""
    count, length = keys.shape
    if k == 0:
        return np.zeros((count, 0), np.int64)
    if k == length:
        return np.argsort(keys, axis=1, kind="stable")
    last = np.partition(keys, k - 1, axis=1)[:, k - 1 : k]
    below, equal = keys < last, keys == last
    missing = k - np.count_nonzero(below, axis=1, keepdims=True)
    selected = below | (equal & (np.cumsum(equal, axis=1) <= missing))
    places = np.nonzero(selected)[1].reshape(count, k)
    order = np.argsort(np.take_along_axis(keys, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def _one_number(call: LibraryCall, index: int) -> int:
    array = call.array(index)
    if array.size != 1:
        raise ModelError(f"{call.title}: input {index} must be one number, not shape {list(array.shape)}")
    return int(array.reshape(-1)[0])
