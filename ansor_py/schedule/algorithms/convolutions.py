"""What algorithms ask about a stage: whether it is a convolution of stride 1, found by how its sum of products reads.

found = convolution_of(tensor, kernel=3)
found.data, found.weight        # Read of x[n, rc, y + ry, x + rx], Read of w[f, rc, ry, rx]
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.te.expr import Axis, Binary, Const, Expr, Read, Reduce, Var, logical_and, select, substitute
from ansor_py.te.tensor import Compute, Tensor


@dataclass(frozen=True)
class Convolution:
    """A sum of products over channels and windows, of a varying operand `data` and a constant one, `weight`.

    `batch` are the axes of the output that index the data alone, `filters` the one that indexes the weight alone. `channels`
    is the reduction axis that indexes both. At the dimensions of the data that are windows stand the output's axes `positions`
    plus the reduction axes `taps`.
    """

    data: Read
    weight: Read
    batch: tuple[Axis, ...]
    filters: Axis
    positions: tuple[Axis, ...]
    channels: Axis
    taps: tuple[Axis, ...]

    def data_at(self, batch: tuple[Expr, ...], channel: Expr, places: tuple[Expr, ...], reached: tuple[int, ...]) -> Expr:
        """The data at indices, which stay below `reached` along the windows: zero beyond its end."""
        names = (*(axis.name for axis in self.batch), self.channels.name)
        values = dict(zip(names, (*batch, channel), strict=True))
        along = iter(places)
        indices = tuple(substitute(i, values) if isinstance(i, Const | Var) else next(along) for i in self.data.indices)
        extents = dict(zip(indices, self.data.tensor.shape, strict=True))
        bounds = [place < extents[place] for place, most in zip(places, reached, strict=True) if most > extents[place]]
        value = Read(self.data.tensor, indices)
        return select(logical_and(*bounds), value, 0.0) if bounds else value

    def weight_at(self, filters: Expr, channel: Expr, taps: tuple[Expr, ...]) -> Expr:
        """The weight at indices."""
        names = (self.filters.name, self.channels.name, *(axis.name for axis in self.taps))
        values = dict(zip(names, (filters, channel, *taps), strict=True))
        return Read(self.weight.tensor, tuple(substitute(index, values) for index in self.weight.indices))


def convolution_of(tensor: Tensor, kernel: int, rank: int) -> Convolution | None:
    """The facts of a convolution with constant weights, windows of length `kernel` along `rank` dimensions; else None."""
    if not isinstance(tensor.op, Compute) or not isinstance(tensor.op.body, Reduce) or tensor.dtype != "float32":
        return None
    body = tensor.op.body
    product = body.source
    if body.combiner != "sum" or not (isinstance(product, Binary) and product.op == "mul"):
        return None
    if len(tensor.op.reduce_axes) != rank + 1:
        return None
    for data, weight in ((product.left, product.right), (product.right, product.left)):
        if isinstance(data, Read) and isinstance(weight, Read) and weight.tensor.is_constant:
            found = _facts(tensor.op, data, weight)
            if found is not None and [axis.extent for axis in found.taps] == [kernel] * rank:
                return found
    return None


def _facts(op: Compute, data: Read, weight: Read) -> Convolution | None:
    axes = {axis.name: axis for axis in (*op.axes, *op.reduce_axes)}
    batch: list[Axis] = []
    channels: list[Axis] = []
    windows: list[tuple[Axis, Axis]] = []
    for index in data.indices:
        if isinstance(index, Const):
            continue
        if isinstance(index, Var) and index.name in axes:
            axis = axes[index.name]
            (batch if axis.kind == "spatial" else channels).append(axis)
            continue
        window = _window(index, axes)
        if window is None:
            return None
        windows.append(window)
    if not all(isinstance(index, Const) or (isinstance(index, Var) and index.name in axes) for index in weight.indices):
        return None
    used = [axes[index.name] for index in weight.indices if isinstance(index, Var)]
    filters = [axis for axis in used if axis.kind == "spatial"]
    places, taps = [place for place, _ in windows], [tap for _, tap in windows]
    ours = [*batch, *channels, *places, *taps, *filters]
    complete = len(ours) == len(axes) == len(set(ours)) and len(filters) == len(channels) == 1 and bool(windows)
    if not complete or sorted(axis.name for axis in used) != sorted(axis.name for axis in (*filters, *channels, *taps)):
        return None
    return Convolution(data, weight, tuple(batch), filters[0], tuple(places), channels[0], tuple(taps))


def _window(index: Expr, axes: dict[str, Axis]) -> tuple[Axis, Axis] | None:
    """The axes of an index `y + ry`: an axis of the output and one of the reduction."""
    if not (isinstance(index, Binary) and index.op == "add"):
        return None
    found = [axes.get(item.name) for item in index.operands if isinstance(item, Var)]
    place = next((axis for axis in found if axis is not None and axis.kind == "spatial"), None)
    tap = next((axis for axis in found if axis is not None and axis.kind == "reduction"), None)
    return None if place is None or tap is None else (place, tap)
