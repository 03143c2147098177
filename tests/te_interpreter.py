"""The reference oracle: evaluates tensor expressions with NumPy, one whole tensor at a time.

It shares nothing with lowering: axes become index grids, reads become fancy indexing, reductions become NumPy's.

    a, b = np.random.rand(4, 8), np.random.rand(8, 3)
    c = te.matmul(4, 3, 8)
    evaluate(c, {"A": a, "B": b})        # an array [4, 3]

Arithmetic is in each expression's dtype, or, with `widen=True`, in float64 wherever it is float32. Memory is one index
grid a tensor (output and reduction axes together), so shapes should stay small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ansor_py.te.expr import Binary, Call, Cast, Compare, Const, Expr, Not, Read, Reduce, Select, Var
from ansor_py.te.tensor import Compute, Tensor

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array] | Mapping[Tensor, Array]

BINARY: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
    "and": np.logical_and,
    "or": np.logical_or,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
}
COMPARE: dict[str, Callable[..., Array]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
REDUCE: dict[str, Callable[..., Array]] = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "erf": lambda x: np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),
    "fmod": np.fmod,
    "sigmoid": lambda x: (1 / (1 + np.exp(-x))).astype(x.dtype),
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
}


@dataclass(frozen=True, eq=False)
class Points:
    """Index grids by axis name, and the values of expressions there, by identity; perhaps the points of a mask among others."""

    grid: Mapping[str, Array]
    values: dict[int, Array] = field(default_factory=dict)
    among: Points | None = None
    mask: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """What the grids are broadcast to."""
        return np.broadcast_shapes(*(values.shape for values in self.grid.values())) if self.grid else ()

    def where(self, mask: Array) -> Points:
        """Those of the points that the mask has."""
        taken = {name: np.broadcast_to(values, self.shape)[mask] for name, values in self.grid.items()}
        return Points(taken, among=self, mask=mask)

    def known(self, expr: Expr) -> Array | None:
        """The value of an expression, if it is known here or was computed where these points come from."""
        masks: list[tuple[Points, Array]] = []
        points = self
        while id(expr) not in points.values:
            if points.among is None or points.mask is None:
                return None
            masks.append((points.among, points.mask))
            points = points.among
        value = points.values[id(expr)]
        for outer, mask in reversed(masks):
            value = np.broadcast_to(value, outer.shape)[mask]
        return value


# The evaluation of one node asks for others and returns its value: expressions may be deeper than Python's stack.
Evaluation: TypeAlias = Generator[tuple[Expr, Points], Array, Array]


class Interpreter:
    """Evaluates tensors for given placeholders, each tensor once, and in it each node once."""

    def __init__(self, feeds: Feeds, widen: bool = False) -> None:
        self.feeds = {getattr(key, "name", key): value for key, value in feeds.items()}
        self.by_tensor = {key: value for key, value in feeds.items() if isinstance(key, Tensor)}
        self.widen = widen
        self.values: dict[Tensor, Array] = {}

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """NumPy's dtype for an expression's."""
        return np.dtype("float64" if self.widen and name == "float32" else name)

    def tensor(self, tensor: Tensor) -> Array:
        """The value of a tensor, shape and dtype as declared."""
        pending = [tensor]
        while pending:
            item = pending[-1]
            reads = item.op.reads if isinstance(item.op, Compute) else ()
            missing = [read.tensor for read in reads if read.tensor not in self.values]
            if missing and item not in self.values:
                pending.extend(missing)
                continue
            pending.pop()
            if item not in self.values:
                value = self._compute(item, item.op) if isinstance(item.op, Compute) else self._feed(item)
                assert value.shape == item.shape, (item.name, value.shape, item.shape)
                self.values[item] = value
        return self.values[tensor]

    def _feed(self, tensor: Tensor) -> Array:
        value = self.by_tensor[tensor] if tensor in self.by_tensor else self.feeds[tensor.name]
        return np.asarray(value).astype(self.dtype(tensor.dtype))

    def _compute(self, tensor: Tensor, op: Compute) -> Array:
        axes = (*op.axes, *op.reduce_axes)
        grid: dict[str, Array] = {}
        for position, axis in enumerate(axes):
            shape = [1] * len(axes)
            shape[position] = axis.extent
            grid[axis.name] = np.arange(axis.extent, dtype=np.int64).reshape(shape)
        body = op.body.source if isinstance(op.body, Reduce) else op.body
        full = tuple(axis.extent for axis in axes)
        value = np.broadcast_to(self.expression(body, grid), full)
        if isinstance(op.body, Reduce):
            value = REDUCE[op.body.combiner](value, axis=tuple(range(len(op.axes), len(axes))))
        return np.ascontiguousarray(value.astype(self.dtype(tensor.dtype))).reshape(tensor.shape)

    def expression(self, expr: Expr, grid: Mapping[str, Array]) -> Array:
        """The value of an expression over index grids by axis name; broadcastable to the grid."""
        everywhere = Points(grid)
        pending: list[tuple[Expr, Points, Evaluation]] = [(expr, everywhere, self._evaluation(expr, everywhere))]
        value: Array | None = None
        while pending:
            node, points, evaluation = pending[-1]
            try:
                wanted, where = evaluation.send(value)  # type: ignore[arg-type]  # None begins it
            except StopIteration as finished:
                pending.pop()
                value = points.values[id(node)] = finished.value
            else:
                value = where.known(wanted)
                if value is None:
                    pending.append((wanted, where, self._evaluation(wanted, where)))
        return everywhere.values[id(expr)]

    def _evaluation(self, expr: Expr, points: Points) -> Evaluation:
        if isinstance(expr, Select):
            return (yield from self._select(expr, points))
        operands: list[Array] = []
        for operand in expr.operands:
            operands.append((yield operand, points))
        match expr:
            case Const():
                return np.asarray(expr.value, dtype=self.dtype(expr.dtype))
            case Var():
                return points.grid[expr.name]
            case Binary():
                return BINARY[expr.op](*operands)
            case Compare():
                return COMPARE[expr.op](*operands)
            case Not():
                return np.logical_not(operands[0])
            case Cast():
                return operands[0].astype(self.dtype(expr.dtype))
            case Call():
                return FUNCTIONS[expr.function](*operands)
            case Read():
                return self._read(expr, tuple(operands))
        raise AssertionError(f"no meaning for {type(expr).__name__}")

    def _read(self, read: Read, indices: tuple[Array, ...]) -> Array:
        source = self.tensor(read.tensor)
        for index, extent in zip(indices, source.shape, strict=True):
            assert index.size == 0 or (index.min() >= 0 and index.max() < extent), f"{read} reads outside of 0..{extent - 1}"
        return np.asarray(source[indices])

    def _select(self, select: Select, points: Points) -> Evaluation:
        """Each branch is evaluated only where it is taken, so that a read which would be outside is an error elsewhere."""
        condition = np.broadcast_to((yield select.condition, points), points.shape)
        result = np.zeros(points.shape, dtype=self.dtype(select.dtype))
        for mask, branch in ((condition, select.then), (np.logical_not(condition), select.otherwise)):
            result[mask] = yield branch, points.where(mask)
        return result


def evaluate(tensor: Tensor, feeds: Feeds, widen: bool = False) -> Array:
    """The value of `tensor` for placeholders given by name or by tensor."""
    return Interpreter(feeds, widen).tensor(tensor)


def placeholders_of(*outputs: Tensor) -> list[Tensor]:
    """All placeholders below the outputs, in the order in which they are read first."""
    seen: dict[Tensor, None] = {}
    pending = [*reversed(outputs)]
    while pending:
        tensor = pending.pop()
        if tensor not in seen:
            seen[tensor] = None
            pending += [read.tensor for read in reversed(tensor.op.reads)] if isinstance(tensor.op, Compute) else []
    return [tensor for tensor in seen if not isinstance(tensor.op, Compute)]


def random_feeds(
    outputs: Tensor | Sequence[Tensor], seed: int = 0, low: float = -1.0, high: float = 1.0
) -> dict[Tensor, Array]:
    """Seeded uniform values for every placeholder below the outputs; integers are drawn from -5..5, booleans evenly."""
    rng = np.random.default_rng(seed)
    feeds: dict[Tensor, Array] = {}
    for tensor in placeholders_of(*((outputs,) if isinstance(outputs, Tensor) else outputs)):
        if tensor.dtype.startswith("float"):
            feeds[tensor] = rng.uniform(low, high, tensor.shape).astype(tensor.dtype)
        else:
            least, most = {"bool": (0, 2), "uint8": (0, 6)}.get(tensor.dtype, (-5, 6))
            feeds[tensor] = rng.integers(least, most, tensor.shape).astype(tensor.dtype)
    return feeds
