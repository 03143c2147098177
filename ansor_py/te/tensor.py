"""Tensors and the operations that produce them.

A tensor is the result of an operation: a `Placeholder` (an input, perhaps a constant one such as a weight) or a
`Compute` (a scalar expression for the element at each index). Tensors compare by identity.

    a, b = placeholder((64, 32), name="A"), placeholder((32, 16), name="B")
    k = reduce_axis(32, "k")
    c = compute((64, 16), lambda i, j: reduce_sum(a[i, k] * b[k, j], k), name="C")
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ansor_py.errors import ExpressionError, SizeError
from ansor_py.te.expr import DTYPE_BYTES, INDEX, Axis, Expr, Operand, Read, Reduce, as_expr, reads_of, reduction_identity, walk

# What 64-bit arithmetic on bounds has room for: programs run some more iterations than an operation has, and count their bytes.
MOST_BYTES = MOST_ITERATIONS = 2**60
MOST_DIMENSIONS = 64  # NumPy's limit
SIZE_LIMIT = "64-bit arithmetic has room for 2^60"


@dataclass(frozen=True)
class Placeholder:
    """An input. `constant` inputs (weights) have the same value in every call."""

    constant: bool = False


@dataclass(frozen=True)
class Compute:
    """An element-wise definition: `body` in terms of the spatial `axes` and, in a reduction, `reduce_axes`."""

    axes: tuple[Axis, ...]
    reduce_axes: tuple[Axis, ...]
    body: Expr

    @cached_property
    def reads(self) -> tuple[Read, ...]:
        """All reads of the body, in order."""
        return tuple(reads_of(self.body))


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named array of known shape (elements) and dtype, and the operation that produces it.

    Raises SizeError for one that no machine can hold or compute.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    op: Placeholder | Compute

    def __post_init__(self) -> None:
        if len(self.shape) > MOST_DIMENSIONS:
            raise SizeError(f"tensor '{self.name}' has {len(self.shape)} dimensions; there can be {MOST_DIMENSIONS}")
        if self.bytes > MOST_BYTES:
            raise SizeError(f"tensor '{self.name}', {self.dtype}{list(self.shape)}, has {self.bytes} bytes; {SIZE_LIMIT}")
        if isinstance(self.op, Compute) and self.iterations > MOST_ITERATIONS:
            reduced = ", ".join(f"{axis.name}={axis.extent}" for axis in self.op.reduce_axes)
            raise SizeError(
                f"tensor '{self.name}', {self.dtype}{list(self.shape)} with a reduction over {reduced}, takes "
                f"{self.iterations} iterations; {SIZE_LIMIT}"
            )

    def __getitem__(self, indices: Operand | tuple[Operand, ...]) -> Expr:
        items = indices if isinstance(indices, tuple) else (indices,)
        if len(items) != len(self.shape):
            raise ExpressionError(f"tensor '{self.name}' has {len(self.shape)} dimensions but was indexed with {len(items)}")
        return Read(self, tuple(as_expr(item, INDEX) for item in items))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Number of bytes."""
        return self.size * DTYPE_BYTES[self.dtype]

    @property
    def is_constant(self) -> bool:
        """Whether it is an input that has the same value in every call."""
        return isinstance(self.op, Placeholder) and self.op.constant

    @property
    def iterations(self) -> int:
        """How often the body is evaluated: once for each element, and in a reduction for each of its steps."""
        reduce_axes = self.op.reduce_axes if isinstance(self.op, Compute) else ()
        return self.size * math.prod(axis.extent for axis in reduce_axes)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


def placeholder(shape: Sequence[int], dtype: str = "float32", name: str = "input", constant: bool = False) -> Tensor:
    """An input tensor. Raises ExpressionError for a shape that is none and for an unknown dtype, SizeError as any tensor."""
    return Tensor(name, _checked_shape(shape, name), _checked_dtype(dtype, name), Placeholder(constant))


def reduce_axis(extent: int, name: str = "k") -> Axis:
    """An axis over which a reduction runs."""
    return Axis(name, extent, "reduction")


def compute(shape: Sequence[int], function: Callable[..., Expr], name: str = "compute") -> Tensor:
    """A tensor whose element at each index is `function(*axes)`.

    The axes take the parameter names of `function` (`lambda n, c: ...`), or `i0, i1, ...` for `*indices`. A reduction
    must be the whole body, not a part of it. Raises ExpressionError for a function that does not fit the shape or returns
    something else than an expression.
    """
    extents = _checked_shape(shape, name)
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    if len(names) < len(parameters):
        names = [f"i{position}" for position in range(len(extents))]
    elif len(names) != len(extents):
        raise ExpressionError(f"operation '{name}' has {len(extents)} dimensions but its function takes {len(names)} indices")
    axes = tuple(Axis(axis_name, extent) for axis_name, extent in zip(names, extents, strict=True))
    body = function(*axes)
    if not isinstance(body, Expr):
        raise ExpressionError(f"the function of operation '{name}' must return an expression, not {body!r}; see te.const")
    return tensor_from_body(name, axes, body)


def tensor_from_body(name: str, axes: Sequence[Axis], body: Expr) -> Tensor:
    """A computed tensor from explicit axes and body; checks that reductions are outermost and axis names unique."""
    if any(isinstance(node, Reduce) for node in walk(body) if node is not body):
        raise ExpressionError(f"operation '{name}': a reduction must be the whole body; put it in a tensor of its own")
    reduce_axes = body.axes if isinstance(body, Reduce) else ()
    axis_names = [axis.name for axis in (*axes, *reduce_axes)]
    if len(set(axis_names)) != len(axis_names):
        raise ExpressionError(f"operation '{name}' uses an axis name twice: {', '.join(axis_names)}")
    shape = tuple(axis.extent for axis in axes)
    return Tensor(name, shape, body.dtype, Compute(tuple(axes), reduce_axes, body))


def _reduce(combiner: str, source: Expr, axes: Axis | Sequence[Axis]) -> Expr:
    listed = (axes,) if isinstance(axes, Axis) else tuple(axes)
    if not listed:
        return source
    for axis in listed:
        if axis.kind != "reduction":
            raise ExpressionError(f"axis '{axis.name}' is not a reduction axis; make it with te.reduce_axis")
    if any(axis.extent == 0 for axis in listed):  # of nothing
        return reduction_identity(combiner, source.dtype)
    return Reduce(combiner, source, listed)


def reduce_sum(source: Expr, axes: Axis | Sequence[Axis]) -> Expr:
    """Sum over reduction axes."""
    return _reduce("sum", source, axes)


def reduce_max(source: Expr, axes: Axis | Sequence[Axis]) -> Expr:
    """Maximum over reduction axes."""
    return _reduce("max", source, axes)


def reduce_min(source: Expr, axes: Axis | Sequence[Axis]) -> Expr:
    """Minimum over reduction axes."""
    return _reduce("min", source, axes)


def reduce_prod(source: Expr, axes: Axis | Sequence[Axis]) -> Expr:
    """Product over reduction axes."""
    return _reduce("prod", source, axes)


def _checked_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    try:
        extents = tuple(operator.index(extent) for extent in shape)
    except TypeError:
        raise ExpressionError(f"the shape of tensor '{name}' must be a sequence of whole numbers, not {shape!r}") from None
    if any(extent < 0 for extent in extents):
        raise ExpressionError(f"tensor '{name}' has a negative dimension in {list(extents)}")
    return extents


def _checked_dtype(dtype: str, name: str) -> str:
    if dtype not in DTYPE_BYTES:
        raise ExpressionError(f"tensor '{name}' has unknown dtype '{dtype}'; known are {', '.join(DTYPE_BYTES)}")
    return dtype
