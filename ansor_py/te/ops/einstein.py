"""Sums of products written as index equations (Einstein notation).

y = einsum("bij,bjk->bik", a, b)
y = einsum("...ii->...i", a)            # the diagonal
"""

from __future__ import annotations

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr
from ansor_py.te.ops.checks import require, require_same_dtype
from ansor_py.te.tensor import Tensor, reduce_axis, tensor_from_body


def einsum(equation: str, *tensors: Tensor, name: str = "einsum") -> Tensor:
    """The sum over all indices that the result (behind `->`) does not name of the product of the operands.

    Without `->` the result has the indices that occur once, in alphabetical order. `...` stands for leading dimensions that are
    broadcast. All operands go into one reduction.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    require(len(terms) == len(tensors), name, f"'{equation}' has {len(terms)} operands, not {len(tensors)}", *tensors)
    require_same_dtype(name, *tensors)
    labels = [_labels(term, tensor, equation, name) for term, tensor in zip(terms, tensors, strict=True)]
    extents: dict[str, int] = {}
    for row, tensor in zip(labels, tensors, strict=True):
        for label, extent in zip(row, tensor.shape, strict=True):
            known = extents.setdefault(label, extent)
            require(
                known == extent or 1 in (known, extent), name, f"index '{label}' has extents {known} and {extent}", *tensors
            )
            extents[label] = max(known, extent) if 0 not in (known, extent) else 0
    output = _output(right, bool(arrow), left, extents)
    require(set(output) <= set(extents), name, f"the result of '{equation}' names an unknown index", *tensors)
    axes: dict[str, Axis] = {label: Axis(_axis_name(label), extents[label]) for label in output}
    summed = {label: reduce_axis(extent, f"r{_axis_name(label)}") for label, extent in extents.items() if label not in axes}
    product: Expr | None = None
    for row, tensor in zip(labels, tensors, strict=True):
        index = tuple(
            Const(0, INDEX) if extent == 1 and extents[label] != 1 else (axes | summed)[label]
            for label, extent in zip(row, tensor.shape, strict=True)
        )
        product = tensor[index] if product is None else product * tensor[index]
    assert product is not None
    result_axes = tuple(axes.values()) or (Axis("i0", 1),)
    return tensor_from_body(name, result_axes, te_tensor.reduce_sum(product, tuple(summed.values())))


def _axis_name(label: str) -> str:
    return f"e{label[3:]}" if label.startswith("...") else label


def _labels(term: str, tensor: Tensor, equation: str, name: str) -> list[str]:
    """One label a dimension; the dimensions of an ellipsis are numbered from the last one, which is `...0`."""
    if not term and tensor.shape == (1,):
        return ["1"]  # a scalar, kept in a tensor of one element
    before, dots, after = term.partition("...")
    hidden = len(tensor.shape) - len(before) - len(after)
    fits = hidden >= 0 if dots else hidden == 0
    require(fits, name, f"'{term}' in '{equation}' does not fit the operand", tensor)
    return [*before, *(f"...{position}" for position in reversed(range(hidden))), *after]


def _output(right: str, is_explicit: bool, left: str, extents: dict[str, int]) -> list[str]:
    hidden = sorted((label for label in extents if label.startswith("...")), reverse=True)
    if is_explicit:
        before, dots, after = right.partition("...")
        return [*before, *(hidden if dots else []), *after]
    once = sorted(label for label in set(left) - {",", "."} if left.count(label) == 1)
    return [*hidden, *once]
