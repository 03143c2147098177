"""Running sums and products along an axis.

y = cumulative_sum(x, axis=1)                                  # y[i] = x[0] + ... + x[i]
y = cumulative_sum(x, axis=1, exclusive=True, reverse=True)    # y[i] = x[i + 1] + ... + x[-1]

A short axis is one stage, in which every element is a reduction of its own. A long one is cut into blocks: running sums
inside of each block, running sums of the blocks' totals (the same again), and what lies before the block added to each
element. Every level costs a constant number of operations an element, and has a sixteenth of the elements of the one below:
linear time, all of it parallel and in vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import Axis, Expr, binary, const, select
from ansor_py.te.ops.checks import axes_of, normalized_axis
from ansor_py.te.ops.reduction import ReduceExpression
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

# Elements of a block, and the longest axis that is not cut into blocks.
BLOCK = 16
LONGEST_SINGLE = 2 * BLOCK


@dataclass(frozen=True)
class _Operation:
    """What is accumulated: the reduction, the binary operator of the same meaning, and its neutral element."""

    reduce: ReduceExpression
    operator: str
    neutral: int


_SUM = _Operation(te_tensor.reduce_sum, "add", 0)
_PRODUCT = _Operation(te_tensor.reduce_prod, "mul", 1)


def cumulative_sum(
    x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: str = "cumulative_sum"
) -> Tensor:
    """Sums of all elements up to each one along `axis`: without itself (`exclusive`), from the end (`reverse`)."""
    return _scan(x, normalized_axis(name, axis, x), exclusive, reverse, _SUM, name)


def cumulative_product(
    x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: str = "cumulative_product"
) -> Tensor:
    """Products of all elements up to each one along `axis`: without itself (`exclusive`), from the end (`reverse`)."""
    return _scan(x, normalized_axis(name, axis, x), exclusive, reverse, _PRODUCT, name)


def _scan(x: Tensor, along: int, exclusive: bool, reverse: bool, operation: _Operation, name: str) -> Tensor:
    extent = x.shape[along]
    axes = axes_of(x.shape)
    if extent <= LONGEST_SINGLE:
        k, here = reduce_axis(extent, "k"), axes[along]
        inside = _relation(k, here, exclusive, reverse)
        element = x[(*axes[:along], k, *axes[along + 1 :])]
        return tensor_from_body(name, axes, operation.reduce(select(inside, element, const(operation.neutral, x.dtype)), k))
    blocks = -(-extent // BLOCK)
    inner = _inside_blocks(x, along, blocks, exclusive, reverse, operation, name)
    totals = _totals(x, along, blocks, operation, name)
    before = _scan(totals, along, True, reverse, operation, f"{name}_blocks")
    block, place = axes[along] // BLOCK, binary("mod", axes[along], BLOCK)
    first, rest = axes[:along], axes[along + 1 :]
    body = binary(operation.operator, inner[(*first, block, place, *rest)], before[(*first, block, *rest)])
    return tensor_from_body(name, axes, body)


def _relation(k: Axis, here: Axis, exclusive: bool, reverse: bool) -> Expr:
    """Whether the element k belongs to the result at `here`."""
    if reverse:
        return k > here if exclusive else k >= here
    return k < here if exclusive else k <= here


def _inside_blocks(
    x: Tensor, along: int, blocks: int, exclusive: bool, reverse: bool, operation: _Operation, name: str
) -> Tensor:
    """The results as if each block were all: the axis `along` becomes two, block and place in it."""
    axes = axes_of((*x.shape[:along], blocks, BLOCK, *x.shape[along + 1 :]))
    k = reduce_axis(BLOCK, "k")
    element = _padded(x, along, axes[along] * BLOCK + k, (*axes[:along], *axes[along + 2 :]), operation)
    inside = _relation(k, axes[along + 1], exclusive, reverse)
    source = select(inside, element, const(operation.neutral, x.dtype))
    return tensor_from_body(f"{name}_inside", axes, operation.reduce(source, k))


def _totals(x: Tensor, along: int, blocks: int, operation: _Operation, name: str) -> Tensor:
    """The total of each block."""
    axes = axes_of((*x.shape[:along], blocks, *x.shape[along + 1 :]))
    k = reduce_axis(BLOCK, "k")
    element = _padded(x, along, axes[along] * BLOCK + k, (*axes[:along], *axes[along + 1 :]), operation)
    return tensor_from_body(f"{name}_total", axes, operation.reduce(element, k))


def _padded(x: Tensor, along: int, position: Expr, others: tuple[Expr, ...], operation: _Operation) -> Expr:
    """An element of x, or the neutral one behind its end."""
    extent = x.shape[along]
    element = x[(*others[:along], position, *others[along:])]
    return element if extent % BLOCK == 0 else select(position < extent, element, const(operation.neutral, x.dtype))


@operator("cumulative_sum", example="cumulative_sum:64,256,axis=1")
def cumulative_sum_workload(*shape: int, axis: int = -1) -> Tensor:
    """Running sums along one axis of a tensor of any shape."""
    return cumulative_sum(placeholder(shape, name="x"), axis)
