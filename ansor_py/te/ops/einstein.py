"""Sums of products written as index equations (Einstein notation).

y = einsum("bij,bjk->bik", a, b)
y = einsum("...ii->...i", a)            # the diagonal
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr
from ansor_py.te.ops.checks import require, require_same_dtype
from ansor_py.te.tensor import Tensor, reduce_axis, tensor_from_body

_SCALAR = ("1",)  # the label of a scalar, which is kept in a tensor of one element


@dataclass(frozen=True)
class _Factor:
    """A tensor, and the label of each of its dimensions."""

    tensor: Tensor
    labels: tuple[str, ...]


def einsum(equation: str, *tensors: Tensor, name: str = "einsum") -> Tensor:
    """The sum over all indices that the result (behind `->`) does not name of the product of the operands.

    Without `->` the result has the indices that occur once, in alphabetical order. `...` stands for leading dimensions that are
    broadcast. An index that only one operand has is summed first; then operands are multiplied two at a time from the left,
    each time summed over what neither the result nor a later operand needs.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    require(len(terms) == len(tensors), name, f"'{equation}' has {len(terms)} operands, not {len(tensors)}", *tensors)
    require_same_dtype(name, *tensors)
    factors = [_Factor(t, tuple(_labels(term, t, equation, name))) for term, t in zip(terms, tensors, strict=True)]
    output = tuple(_output(right, bool(arrow), left, {label for factor in factors for label in factor.labels}))
    _extents(factors, name)  # of all at once, so that a message names all operands
    known = {label for factor in factors for label in factor.labels}
    require(set(output) <= known, name, f"the result of '{equation}' names an unknown index", *tensors)
    if len(factors) == 1:
        return _contracted(factors, output, name)
    for index, factor in enumerate(factors):
        needed = _needed(output, [*factors[:index], *factors[index + 1 :]])
        if not set(factor.labels) <= needed:
            kept = tuple(label for label in dict.fromkeys(factor.labels) if label in needed)
            factors[index] = _Factor(_contracted([factor], kept, f"{name}_sum{index}"), kept or _SCALAR)
    while len(factors) > 2:
        pair, rest = factors[:2], factors[2:]
        needed = _needed(output, rest)
        kept = tuple(label for label in dict.fromkeys((*pair[0].labels, *pair[1].labels)) if label in needed)
        factors = [_Factor(_contracted(pair, kept, f"{name}_with{len(rest)}"), kept or _SCALAR), *rest]
    return _contracted(factors, output, name)


def _needed(output: Sequence[str], others: Sequence[_Factor]) -> set[str]:
    return {*output, *(label for factor in others for label in factor.labels)}


def _extents(factors: Sequence[_Factor], name: str) -> dict[str, int]:
    """The extent of each index; 1 is broadcast. ExpressionError where operands do not agree."""
    tensors = [factor.tensor for factor in factors]
    extents: dict[str, int] = {}
    for factor in factors:
        for label, extent in zip(factor.labels, factor.tensor.shape, strict=True):
            known = extents.setdefault(label, extent)
            require(
                known == extent or 1 in (known, extent), name, f"index '{label}' has extents {known} and {extent}", *tensors
            )
            extents[label] = max(known, extent) if 0 not in (known, extent) else 0
    return extents


def _contracted(factors: Sequence[_Factor], output: Sequence[str], name: str) -> Tensor:
    """The product of the factors in one reduction over what `output` does not name."""
    extents = _extents(factors, name)
    axes: dict[str, Axis] = {label: Axis(_axis_name(label), extents[label]) for label in output}
    summed = {label: reduce_axis(extent, f"r{_axis_name(label)}") for label, extent in extents.items() if label not in axes}
    product: Expr | None = None
    for factor in factors:
        index = tuple(
            Const(0, INDEX) if extent == 1 and extents[label] != 1 else (axes | summed)[label]
            for label, extent in zip(factor.labels, factor.tensor.shape, strict=True)
        )
        element = factor.tensor[index]
        product = element if product is None else product * element
    assert product is not None
    result_axes = tuple(axes.values()) or (Axis("i0", 1),)
    return tensor_from_body(name, result_axes, te_tensor.reduce_sum(product, tuple(summed.values())))


def _axis_name(label: str) -> str:
    return f"e{label[3:]}" if label.startswith("...") else label


def _labels(term: str, tensor: Tensor, equation: str, name: str) -> list[str]:
    """One label a dimension; the dimensions of an ellipsis are numbered from the last one, which is `...0`."""
    if not term and tensor.shape == (1,):
        return [*_SCALAR]
    before, dots, after = term.partition("...")
    hidden = len(tensor.shape) - len(before) - len(after)
    fits = hidden >= 0 if dots else hidden == 0
    require(fits, name, f"'{term}' in '{equation}' does not fit the operand", tensor)
    return [*before, *(f"...{position}" for position in reversed(range(hidden))), *after]


def _output(right: str, is_explicit: bool, left: str, labels: set[str]) -> list[str]:
    hidden = sorted((label for label in labels if label.startswith("...")), reverse=True)
    if is_explicit:
        before, dots, after = right.partition("...")
        return [*before, *(hidden if dots else []), *after]
    once = sorted(label for label in set(left) - {",", "."} if left.count(label) == 1)
    return [*hidden, *once]
