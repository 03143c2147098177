"""Matrix products: `matmul` by NumPy's rules, and `dense`, a fully connected layer.

c = matmul(512, 512, 512)                       # C[n, m] of placeholders A[n, k] and B[k, m]
c = matmul(q, k, transpose_b=True)              # batched, batch dimensions broadcast
y = dense(x, weight, bias)                      # x[..., k], weight[m, k]
"""

from __future__ import annotations

from typing import overload

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import Axis, Expr
from ansor_py.te.ops import elementwise
from ansor_py.te.ops.checks import (
    axes_of,
    broadcast_index,
    broadcast_shape,
    require,
    require_channels,
    require_rank,
    require_same_dtype,
)
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body


@overload
def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = ..., transpose_b: bool = ..., name: str = ...) -> Tensor: ...
@overload
def matmul(a: int, b: int, k: int, *, transpose_a: bool = ..., transpose_b: bool = ..., name: str = ...) -> Tensor: ...
def matmul(
    a: Tensor | int,
    b: Tensor | int,
    k: int | None = None,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    name: str = "C",
) -> Tensor:
    """The matrix product of two tensors, or of two new placeholders: `matmul(n, m, k)`.

    Operands have shapes [..., n, k] and [..., k, m], the last two exchanged by `transpose_a`, `transpose_b`; leading
    dimensions are broadcast, and an operand of one dimension is a vector, as in NumPy.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        require(k is None, "matmul", "an extent k is only for matmul(n, m, k), not for two tensors", a, b)
        return _product(a, b, transpose_a, transpose_b, name)
    if isinstance(a, int) and isinstance(b, int) and isinstance(k, int):
        require(min(a, b, k) >= 1, "matmul", f"extents must be at least 1, got n={a}, m={b}, k={k}")
        left = placeholder((k, a) if transpose_a else (a, k), name="A")
        right = placeholder((b, k) if transpose_b else (k, b), name="B")
        return _product(left, right, transpose_a, transpose_b, name)
    require(False, "matmul", "takes two tensors, or three extents n, m, k")
    raise AssertionError


def _product(a: Tensor, b: Tensor, transpose_a: bool, transpose_b: bool, name: str) -> Tensor:
    require(len(a.shape) >= 1 and len(b.shape) >= 1, "matmul", "operands must have at least one dimension", a, b)
    require_same_dtype("matmul", a, b)
    n, k = _matrix_extents(a, transpose_a, is_left=True)
    m, k_right = _matrix_extents(b, transpose_b, is_left=False)
    require(k == k_right, "matmul", f"the inner extents {k} and {k_right} differ", a, b)
    batch = broadcast_shape("matmul", [a.shape[:-2], b.shape[:-2]], a, b)
    batch_axes = axes_of(batch, "b")
    row = [Axis("i", n)] if n is not None else []
    column = [Axis("j", m)] if m is not None else []
    inner = reduce_axis(k, "k")
    left: list[Expr] = [*row, inner]
    right: list[Expr] = [inner, *column]
    element_a = a[(*broadcast_index(a.shape[:-2], batch_axes), *(reversed(left) if transpose_a else left))]
    element_b = b[(*broadcast_index(b.shape[:-2], batch_axes), *(reversed(right) if transpose_b else right))]
    axes = (*batch_axes, *row, *column) or (Axis("i", 1),)
    return tensor_from_body(name, axes, te_tensor.reduce_sum(element_a * element_b, inner))


def _matrix_extents(tensor: Tensor, transposed: bool, is_left: bool) -> tuple[int | None, int]:
    """The outer extent (None for a vector) and the inner extent of an operand."""
    if len(tensor.shape) == 1:
        return None, tensor.shape[0]
    rows, columns = tensor.shape[-2:]
    return (rows, columns) if is_left != transposed else (columns, rows)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None, name: str = "dense") -> Tensor:
    """A fully connected layer: x[..., k] times weight[m, k] transposed, plus bias[m] in a stage of its own."""
    require(len(x.shape) >= 1, "dense", "the input must have at least one dimension", x)
    require_rank("dense", weight, 2, "[outputs, inputs]")
    require_same_dtype("dense", x, weight)
    require(x.shape[-1] == weight.shape[1], "dense", "the input's last extent and the weight's second differ", x, weight)
    rows = axes_of(x.shape[:-1])
    j, k = Axis("j", weight.shape[0]), reduce_axis(weight.shape[1], "k")
    product = tensor_from_body(name, (*rows, j), te_tensor.reduce_sum(x[(*rows, k)] * weight[j, k], k))
    if bias is None:
        return product
    require_channels("dense", "bias", bias, weight.shape[0])
    return elementwise.add(product, bias, f"{name}_bias")


@operator("matmul", example="matmul:512,512,512")
def matmul_workload(n: int, m: int, k: int, *, transpose_a: int = 0, transpose_b: int = 0) -> Tensor:
    """Matrix product of A[n, k] and B[k, m], either one stored transposed on request."""
    return matmul(n, m, k, transpose_a=bool(transpose_a), transpose_b=bool(transpose_b))


@operator("batch_matmul", example="batch_matmul:12,128,128,64")
def batch_matmul_workload(batch: int, n: int, m: int, k: int, *, transpose_b: int = 0) -> Tensor:
    """Matrix products of A[batch, n, k] and B[batch, k, m]."""
    shape_b = (batch, m, k) if transpose_b else (batch, k, m)
    return matmul(placeholder((batch, n, k), name="A"), placeholder(shape_b, name="B"), transpose_b=bool(transpose_b))


@operator("dense", example="dense:16,1000,512,bias=1")
def dense_workload(n: int, m: int, k: int, *, bias: int = 0, relu: int = 0) -> Tensor:
    """Fully connected layer of x[n, k] with a constant weight[m, k], perhaps with bias and relu."""
    x, weight = placeholder((n, k), name="x"), placeholder((m, k), name="weight", constant=True)
    y = dense(x, weight, placeholder((m,), name="bias", constant=True) if bias else None)
    return elementwise.relu(y) if relu else y
