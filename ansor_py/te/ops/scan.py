"""Running sums and products along an axis.

y = cumulative_sum(x, axis=1)                                  # y[i] = x[0] + ... + x[i]
y = cumulative_sum(x, axis=1, exclusive=True, reverse=True)    # y[i] = x[i + 1] + ... + x[-1]

Every element is a reduction of its own, so that all of them can be computed at once: n^2 / 2 additions for n elements.
"""

from __future__ import annotations

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import const, select
from ansor_py.te.ops.checks import axes_of, normalized_axis
from ansor_py.te.ops.reduction import ReduceExpression
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body


def cumulative_sum(
    x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: str = "cumulative_sum"
) -> Tensor:
    """Sums of all elements up to each one along `axis`: without itself (`exclusive`), from the end (`reverse`)."""
    return _scan(x, axis, exclusive, reverse, te_tensor.reduce_sum, 0, name)


def cumulative_product(
    x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: str = "cumulative_product"
) -> Tensor:
    """Products of all elements up to each one along `axis`: without itself (`exclusive`), from the end (`reverse`)."""
    return _scan(x, axis, exclusive, reverse, te_tensor.reduce_prod, 1, name)


def _scan(x: Tensor, axis: int, exclusive: bool, reverse: bool, reduce: ReduceExpression, neutral: int, name: str) -> Tensor:
    along = normalized_axis(name, axis, x)
    axes, k = axes_of(x.shape), reduce_axis(x.shape[along], "k")
    here = axes[along]
    if reverse:
        counts = k > here if exclusive else k >= here
    else:
        counts = k < here if exclusive else k <= here
    element = x[(*axes[:along], k, *axes[along + 1 :])]
    return tensor_from_body(name, axes, reduce(select(counts, element, const(neutral, x.dtype)), k))


@operator("cumulative_sum", example="cumulative_sum:64,256,axis=1")
def cumulative_sum_workload(*shape: int, axis: int = -1) -> Tensor:
    """Running sums along one axis of a tensor of any shape."""
    return cumulative_sum(placeholder(shape, name="x"), axis)
