"""Operators that move elements without computing: pad, concat, reshape, transpose, flatten, slice, broadcast.

Index arithmetic stays affine wherever the shapes allow it: a reshape divides only inside the smallest group of
dimensions whose sizes match, and only by what is not a multiple.

    reshape(x, (n, c * h * w))     # y[i0, i1] = x[i0, i1 // (h * w), i1 % (h * w) // w, i1 % w]
    reshape(x, (n, 2, c // 2))     # y[i0, i1, i2] = x[i0, i1 * (c // 2) + i2]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ansor_py.te.expr import INDEX, Axis, Const, Expr, binary, const, logical_and, maximum, minimum, select
from ansor_py.te.ops.checks import axes_of, broadcast_index, broadcast_shape, normalized_axis, require, require_same_dtype
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0, name: str = "pad") -> Tensor:
    """Surround a tensor by `before` and `after` elements of `value` in each dimension; negative numbers crop."""
    require(len(before) == len(after) == len(x.shape), "pad", f"needs {len(x.shape)} widths before and after", x)
    shape = [extent + low + high for extent, low, high in zip(x.shape, before, after, strict=True)]
    require(min(shape, default=0) >= 0, "pad", f"cropping by {list(before)}, {list(after)} leaves less than nothing", x)
    axes = axes_of(shape)
    inside = []
    for axis, extent, low, high in zip(axes, x.shape, before, after, strict=True):
        inside += [axis >= low] if low > 0 else []
        inside += [axis < low + extent] if high > 0 else []
    element = x[tuple(axis - low for axis, low in zip(axes, before, strict=True))]
    return tensor_from_body(name, axes, select(logical_and(*inside), element, const(value, x.dtype)))


def pad_repeating(x: Tensor, before: Sequence[int], after: Sequence[int], mode: str, name: str = "pad") -> Tensor:
    """Surround a tensor by its own elements; negative numbers crop.

    `edge` repeats the outermost ones, `reflect` mirrors at them, `wrap` begins again at the other end.
    """
    require(len(before) == len(after) == len(x.shape), name, f"needs {len(x.shape)} widths before and after", x)
    require(mode in ("edge", "reflect", "wrap"), name, f"unknown mode '{mode}'; known are edge, reflect, wrap", x)
    shape = [extent + low + high for extent, low, high in zip(x.shape, before, after, strict=True)]
    require(min(shape, default=0) >= 0, name, f"cropping by {list(before)}, {list(after)} leaves less than nothing", x)
    axes = axes_of(shape)
    index: list[Expr] = []
    for axis, extent, low, high in zip(axes, x.shape, before, after, strict=True):
        place = axis - low
        if low <= 0 and high <= 0:
            index.append(place)
        elif mode == "edge" or extent == 1:
            index.append(minimum(maximum(place, 0), extent - 1))
        elif mode == "wrap":
            index.append(binary("mod", place, extent))
        else:
            phase = binary("mod", place, 2 * extent - 2)
            index.append(minimum(phase, (2 * extent - 2) - phase))
    return tensor_from_body(name, axes, x[tuple(index)])


def concat(tensors: Sequence[Tensor], axis: int = 0, name: str = "concat") -> Tensor:
    """Tensors one behind the other along `axis`."""
    require(bool(tensors), "concat", "needs at least one tensor")
    first = tensors[0]
    require_same_dtype("concat", *tensors)
    position = normalized_axis("concat", axis, first)
    rest = {(*t.shape[:position], 0, *t.shape[position + 1 :]) if len(t.shape) > position else t.shape for t in tensors}
    require(len(rest) == 1, "concat", f"shapes differ in more than axis {axis}", *tensors)
    shape = list(first.shape)
    shape[position] = sum(tensor.shape[position] for tensor in tensors)
    axes = axes_of(shape)
    along, start = axes[position], 0
    parts: list[tuple[int, Expr]] = []
    for tensor in tensors:
        parts.append((start, tensor[(*axes[:position], along - start, *axes[position + 1 :])]))
        start += tensor.shape[position]
    return tensor_from_body(name, axes, _element_of(parts, along))


def _element_of(parts: Sequence[tuple[int, Expr]], along: Expr) -> Expr:
    """The element of the last part that begins at or before `along`, found by halving: hundreds of parts are no deep tree."""
    if len(parts) == 1:
        return parts[0][1]
    middle = len(parts) // 2
    return select(along < parts[middle][0], _element_of(parts[:middle], along), _element_of(parts[middle:], along))


def transpose(x: Tensor, axes: Sequence[int] | None = None, name: str = "transpose") -> Tensor:
    """Reorder dimensions: output dimension i is dimension `axes[i]` of x; by default reversed."""
    order = [normalized_axis("transpose", a, x) for a in (reversed(range(len(x.shape))) if axes is None else axes)]
    require(sorted(order) == list(range(len(x.shape))), "transpose", f"{order} is not an order of all axes", x)
    output = axes_of([x.shape[source] for source in order])
    return tensor_from_body(name, output, x[tuple(output[order.index(source)] for source in range(len(order)))])


def broadcast_to(x: Tensor, shape: Sequence[int], name: str = "broadcast_to") -> Tensor:
    """Repeat dimensions of extent 1, and add leading ones, by NumPy's rules."""
    common = broadcast_shape("broadcast_to", [x.shape, tuple(shape)], x)
    axes = axes_of(common)
    return tensor_from_body(name, axes, x[broadcast_index(x.shape, axes)])


def strided_slice(
    x: Tensor, begin: Sequence[int], end: Sequence[int], strides: Sequence[int] | None = None, name: str = "strided_slice"
) -> Tensor:
    """Elements `begin, begin + stride, ...` before `end` in each dimension, with Python's meaning of negative numbers.

    The result may be empty.
    """
    steps = (1,) * len(x.shape) if strides is None else tuple(strides)
    require(len(begin) == len(end) == len(steps) == len(x.shape), "strided_slice", "needs begin, end and stride a dimension", x)
    require(0 not in steps, "strided_slice", "a stride must not be 0", x)
    spans = [range(*slice(b, e, s).indices(n)) for n, b, e, s in zip(x.shape, begin, end, steps, strict=True)]
    axes = axes_of([len(span) for span in spans])
    return tensor_from_body(name, axes, x[tuple(axis * span.step + span.start for axis, span in zip(axes, spans, strict=True))])


def reshape(x: Tensor, shape: Sequence[int], name: str = "reshape") -> Tensor:
    """The same elements in row-major order under another shape; one extent may be -1."""
    known = math.prod(extent for extent in shape if extent != -1)
    require(sum(extent == -1 for extent in shape) <= 1, "reshape", f"more than one -1 in {list(shape)}", x)
    full = tuple(x.size // max(known, 1) if extent == -1 else extent for extent in shape)
    require(min(full, default=1) >= 0 and math.prod(full) == x.size, "reshape", f"{list(shape)} has another size", x)
    axes = axes_of(full) or (Axis("i0", 1),)
    return tensor_from_body(name, axes, x[_reshaped_index(x.shape, axes)])


def flatten(x: Tensor, axis: int = 1, name: str = "flatten") -> Tensor:
    """Two dimensions: the product of those before `axis`, and of the rest."""
    position = len(x.shape) if axis == len(x.shape) else normalized_axis("flatten", axis, x)
    return reshape(x, (math.prod(x.shape[:position]), math.prod(x.shape[position:])), name)


@dataclass(frozen=True)
class _Term:
    """`value * coefficient` of a linear position, with `0 <= value < extent`."""

    value: Expr
    coefficient: int
    extent: int


def _total(terms: Sequence[_Term]) -> Expr:
    result: Expr = Const(0, INDEX)
    for term in terms:
        result = result + term.value * term.coefficient
    return result


def _fits(terms: Sequence[_Term], bound: int) -> bool:
    """Whether the sum of the terms is always below `bound`."""
    return sum(term.coefficient * (term.extent - 1) for term in terms) < bound


def _quotient(terms: Sequence[_Term], divisor: int) -> Expr:
    whole = [_Term(t.value, t.coefficient // divisor, t.extent) for t in terms if t.coefficient % divisor == 0]
    rest = [t for t in terms if t.coefficient % divisor]
    return _total(whole) if _fits(rest, divisor) else _total(whole) + _total(rest) // divisor


def _remainder(terms: Sequence[_Term], divisor: int) -> list[_Term]:
    rest = [t for t in terms if t.coefficient % divisor]
    return rest if _fits(rest, divisor) else [_Term(binary("mod", _total(rest), divisor), 1, divisor)]


def _groups(source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[range, range]]:
    """The finest split of both shapes into consecutive dimensions of equal size."""
    groups = []
    i = j = 0
    while i < len(source) or j < len(target):
        start_i, start_j, size_i, size_j = i, j, 1, 1
        while size_i != size_j or (i == start_i and j == start_j):
            if j >= len(target) or (size_i <= size_j and i < len(source)):
                size_i *= source[i]
                i += 1
            else:
                size_j *= target[j]
                j += 1
        groups.append((range(start_i, i), range(start_j, j)))
    return groups


def _reshaped_index(source: tuple[int, ...], axes: Sequence[Axis]) -> tuple[Expr, ...]:
    """Where the element at `axes` lies in a row-major array of shape `source`."""
    if 0 in source:
        return (Const(0, INDEX),) * len(source)
    index: list[Expr] = []
    for inputs, outputs in _groups(source, tuple(axis.extent for axis in axes)):
        strides = [math.prod(axes[q].extent for q in outputs if q > p) for p in outputs]
        terms = [
            _Term(axes[p], stride, axes[p].extent) for p, stride in zip(outputs, strides, strict=True) if axes[p].extent > 1
        ]
        for p in inputs:
            stride = math.prod(source[q] for q in inputs if q > p)
            index.append(_quotient(_remainder(terms, stride * source[p]), stride) if source[p] > 1 else Const(0, INDEX))
    return tuple(index)


@operator("concat", example="concat:1,64,56,56,count=2,axis=1")
def concat_workload(*shape: int, count: int = 2, axis: int = 0) -> Tensor:
    """Several tensors of one shape, joined along one axis."""
    require(1 <= count <= 1024, "concat", f"joins 1 to 1024 tensors, not {count}")
    return concat([placeholder(shape, name=f"x{position}") for position in range(count)], axis)


@operator("transpose", example="transpose:512,512")
def transpose_workload(*shape: int) -> Tensor:
    """A tensor of any shape with its axes reversed."""
    return transpose(placeholder(shape, name="x"))


@operator("flatten", example="flatten:1,64,7,7,axis=1")
def flatten_workload(*shape: int, axis: int = 1) -> Tensor:
    """A tensor of any shape as a matrix."""
    return flatten(placeholder(shape, name="x"), axis)


@operator("reshape", example="reshape:64,56,56,rows=128")
def reshape_workload(*shape: int, rows: int = 1) -> Tensor:
    """A tensor of any shape as a matrix of so many rows."""
    return reshape(placeholder(shape, name="x"), (rows, -1))


@operator("pad", example="pad:1,64,56,56,width=1")
def pad_workload(*shape: int, width: int = 1) -> Tensor:
    """A tensor of any shape surrounded by zeros in its last two dimensions."""
    widths = [0] * max(len(shape) - 2, 0) + [width] * min(len(shape), 2)
    return pad(placeholder(shape, name="x"), widths, widths)
