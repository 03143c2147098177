"""Recognising sums of products by the structure of their expressions: what makes a matrix product, what a convolution.

A *window* is a reduction axis that slides: some index of one operand adds it to an output axis along which the other operand
does not vary (`data[n, rc, y + ry, x + rx] * weight[f, rc, ry, rx]`: `ry` and `rx`, but not `rc`).

    product = product_of(partial)
    product.windows, product.depth      # ('ry', 'rx'), ('rc',)
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.schedule.state import Stage
from ansor_py.sketch_rules.fusible import reuses_data
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.te.expr import Axis, Binary, Expr, Read, Reduce, reads_of, variables_of


@dataclass(frozen=True)
class Product:
    """The one reduction of a DAG: a sum of products of two operands, each some function of one read.

    `windows` and `depth` are the reduction axes that slide and those that do not. `is_depthwise`: there is no depth, and the
    operand that does not slide (the filter) has no output axis of its own.
    """

    stage: Stage
    windows: tuple[Axis, ...]
    depth: tuple[Axis, ...]
    is_depthwise: bool


def product_of(partial: PartialSketch) -> Product | None:
    """The product that a DAG computes, or None if it computes something else, or more than one reduction."""
    stages = [stage for stage in partial.state.stages if stage.op.reduce_axes and stage.name not in partial.state.prepacked]
    if len(stages) != 1 or not stages[0].is_unscheduled or not reuses_data(stages[0]):
        return None
    [stage] = stages
    operands = _operands(stage.op.body)
    if operands is None:
        return None
    spatial = {axis.name for axis in stage.op.axes}
    sliding = [_sliding(mine, other, spatial) for mine, other in (operands, operands[::-1])]
    names = sliding[0] | sliding[1]
    windows = tuple(axis for axis in stage.op.reduce_axes if axis.name in names)
    depth = tuple(axis for axis in stage.op.reduce_axes if axis.name not in names)
    data, kernel = operands if sliding[0] else operands[::-1]
    own = (_variables(kernel) & spatial) - _variables(data)
    return Product(stage, windows, depth, bool(windows) and not depth and not own)


def _operands(body: Expr) -> tuple[Read, Read] | None:
    """The reads of the two factors that are summed."""
    if not isinstance(body, Reduce) or body.combiner != "sum":
        return None
    source = body.source
    if not isinstance(source, Binary) or source.op != "mul":
        return None
    left, right = reads_of(source.left), reads_of(source.right)
    return (left[0], right[0]) if len(left) == len(right) == 1 else None


def _variables(read: Read) -> set[str]:
    return set().union(*(variables_of(index) for index in read.indices))


def _sliding(read: Read, other: Read, spatial: set[str]) -> set[str]:
    """Reduction axes that share an index of the read with an output axis that the other operand lacks."""
    own = spatial - _variables(other)
    found: set[str] = set()
    for index in read.indices:
        names = variables_of(index)
        if names & own:
            found |= names - spatial
    return found
