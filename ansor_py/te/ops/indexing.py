"""Elements chosen by a tensor of indices. Negative indices count from the end; those beyond are taken as the nearest.

y = gather(x, indices, axis=1)             # x[:, indices[...], ...]
y = gather_elements(x, indices, axis=1)    # y[i, j] = x[i, indices[i, j]]
y = gather_nd(x, indices, batch_dims=0)    # x[indices[..., 0], indices[..., 1], ...]
y = one_hot(indices, depth, values)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ansor_py.te import expr
from ansor_py.te.expr import INDEX, Expr, binary, cast, const, equal, select
from ansor_py.te.ops.checks import axes_of, normalized_axis, require, require_fit
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body


def wrapped(index: Expr, extent: int) -> Expr:
    """An index that was computed, as one of `0 .. extent - 1`."""
    wide = cast(index, INDEX)
    counted = select(wide < 0, wide + extent, wide)
    return expr.minimum(expr.maximum(counted, 0), max(extent - 1, 0))


def gather(x: Tensor, indices: Tensor, axis: int = 0, name: str = "gather") -> Tensor:
    """Slices of x along `axis`; the indices' dimensions take the place of that axis."""
    along = normalized_axis(name, axis, x)
    rank = len(indices.shape)
    output = axes_of((*x.shape[:along], *indices.shape, *x.shape[along + 1 :]))
    position = wrapped(indices[output[along : along + rank]], x.shape[along])
    return tensor_from_body(name, output, x[(*output[:along], position, *output[along + rank :])])


def gather_elements(x: Tensor, indices: Tensor, axis: int = 0, name: str = "gather_elements") -> Tensor:
    """For every element of `indices` the element of x in the same place, but at that index along `axis`."""
    along = normalized_axis(name, axis, x)
    require(len(indices.shape) == len(x.shape), name, "data and indices need equal ranks", x, indices)
    fits = all(axis == along or i <= n for axis, (i, n) in enumerate(zip(indices.shape, x.shape, strict=True)))
    require_fit(fits, name, f"there are more indices than data along another axis than {along}", x, indices)
    output = axes_of(indices.shape)
    position = wrapped(indices[output], x.shape[along])
    return tensor_from_body(name, output, x[(*output[:along], position, *output[along + 1 :])])


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, name: str = "gather_nd") -> Tensor:
    """Slices of x at the positions that the last dimension of `indices` holds; leading `batch_dims` go together."""
    require(len(indices.shape) >= 1, name, "the indices need at least one dimension", indices)
    *places, depth = indices.shape
    require(0 <= batch_dims < len(indices.shape), name, f"the indices cannot have {batch_dims} batch dimensions", indices)
    require_fit(tuple(places[:batch_dims]) == x.shape[:batch_dims], name, "batch dimensions need equal extents", x, indices)
    require(batch_dims + depth <= len(x.shape), name, f"{depth} indices are too many", x, indices)
    output = axes_of((*places, *x.shape[batch_dims + depth :]))
    where = output[: len(places)]
    chosen = [wrapped(indices[(*where, k)], x.shape[batch_dims + k]) for k in range(depth)]
    return tensor_from_body(name, output, x[(*output[:batch_dims], *chosen, *output[len(places) :])])


def one_hot(indices: Tensor, depth: int, values: Tensor, axis: int = -1, name: str = "one_hot") -> Tensor:
    """`values[1]` where the new dimension `axis` (of extent `depth`) is at the index, else `values[0]`."""
    rank = len(indices.shape) + 1
    require(-rank <= axis < rank, name, f"there is no axis {axis}", indices)
    require(values.shape == (2,), name, "values must be the two numbers off and on", values)
    along = axis % rank
    output = axes_of((*indices.shape[:along], depth, *indices.shape[along:]))
    index = cast(indices[(*output[:along], *output[along + 1 :])], INDEX)
    counted = select(index < 0, index + depth, index)
    return tensor_from_body(name, output, select(equal(counted, output[along]), values[1], values[0]))


def reverse_sequence(
    x: Tensor, lengths: Tensor, batch_axis: int = 1, time_axis: int = 0, name: str = "reverse_sequence"
) -> Tensor:
    """The first `lengths[b]` steps of each sequence b in reverse order, the rest as it is."""
    batch, time = normalized_axis(name, batch_axis, x), normalized_axis(name, time_axis, x)
    require(lengths.shape == (x.shape[batch],), name, "needs one length a sequence", x, lengths)
    axes = axes_of(x.shape)
    step, length = axes[time], cast(lengths[axes[batch]], INDEX)
    source = wrapped(select(step < length, length - 1 - step, step), x.shape[time])
    return tensor_from_body(name, axes, x[(*axes[:time], source, *axes[time + 1 :])])


def tile(x: Tensor, repeats: Sequence[int], name: str = "tile") -> Tensor:
    """x repeated so often along each dimension."""
    require(len(repeats) == len(x.shape), name, f"needs {len(x.shape)} repeats, got {list(repeats)}", x)
    require(all(count >= 0 for count in repeats), name, f"repeats must not be negative, got {list(repeats)}", x)
    axes = axes_of([extent * count for extent, count in zip(x.shape, repeats, strict=True)])
    index = [
        axis if count == 1 else binary("mod", axis, extent) for axis, extent, count in zip(axes, x.shape, repeats, strict=True)
    ]
    return tensor_from_body(name, axes, x[tuple(index)])


def trilu(x: Tensor, upper: bool = True, k: int = 0, name: str = "trilu") -> Tensor:
    """The last two dimensions as matrices, with zeros below (`upper`) or above the diagonal that is k to the right."""
    require(len(x.shape) >= 2, name, "needs at least two dimensions", x)
    axes = axes_of(x.shape)
    distance = axes[-1] - axes[-2]
    kept = distance >= k if upper else distance <= k
    return tensor_from_body(name, axes, select(kept, x[axes], const(0, x.dtype)))


def eye(shape: Sequence[int], k: int = 0, dtype: str = "float32", name: str = "eye") -> Tensor:
    """A matrix with ones on the diagonal that is k to the right."""
    require(len(shape) == 2, name, f"needs two dimensions, got {list(shape)}")
    axes = axes_of(shape)
    return tensor_from_body(name, axes, cast(equal(axes[1] - axes[0], k), dtype))


def progression_length(start: float, limit: float, step: float) -> int:
    """How many of the numbers `start, start + step, ...` come before `limit`: ceil((limit - start) / step), at least 0.

    Exact for integers. Floats of any dtype are taken as they are, the quotient in float64: 0.3 and 0.1 of float32 lie so that
    3 * 0.1 is below 0.3.
    """
    if isinstance(start, int) and isinstance(limit, int) and isinstance(step, int):
        return max(-((start - limit) // step), 0)
    quotient = (limit - start) / step
    require(math.isfinite(quotient), "arithmetic_progression", f"from {start} to {limit} by {step} are not so many numbers")
    return max(math.ceil(quotient), 0)


def arithmetic_progression(
    count: int, start: float, step: float, dtype: str = "float32", name: str = "arithmetic_progression"
) -> Tensor:
    """`start, start + step, ...`: so many numbers."""
    (axis,) = axes_of((count,))
    return tensor_from_body(name, (axis,), cast(axis, dtype) * const(step, dtype) + const(start, dtype))


@operator("gather", example="gather:30522,256,count=128")
def gather_workload(rows: int, columns: int, *, count: int = 1) -> Tensor:
    """So many rows of a constant table[rows, columns], chosen by indices."""
    table = placeholder((rows, columns), name="table", constant=True)
    return gather(table, placeholder((count,), "int64", "indices"))
