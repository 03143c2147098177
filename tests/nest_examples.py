"""Small tensor expressions whose loop nests are short to read: what docstrings and tests of steps and rules begin with."""

from __future__ import annotations

from ansor_py import te
from ansor_py.schedule.algorithms import algorithm
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import Step
from ansor_py.te.expr import Read, Reduce, substitute
from ansor_py.te.tensor import Compute, Tensor


def exponentials() -> Tensor:
    """D."""
    a = te.placeholder((20, 12), name="A")
    return te.compute((20, 12), lambda i, j: te.exp(a[i, j]), name="D")


def product(columns: int = 12, constant: bool = False) -> Tensor:
    """C = A B, of which B may be a constant."""
    a, b = te.placeholder((20, 16), name="A"), te.placeholder((16, columns), name="B", constant=constant)
    k = te.reduce_axis(16, "k")
    return te.compute((20, columns), lambda i, j: te.reduce_sum(a[i, k] * b[k, j], k), name="C")


def transposed_product() -> Tensor:
    """T, A transposed, and C = T^T B."""
    a, b, k = te.placeholder((20, 16), name="A"), te.placeholder((16, 12), name="B"), te.reduce_axis(16, "k")
    t = te.compute((16, 20), lambda k, i: a[i, k], name="T")
    return te.compute((20, 12), lambda i, j: te.reduce_sum(t[k, i] * b[k, j], k), name="C")


def shifted_transposition() -> Tensor:
    """T, A transposed, and D = T + 1."""
    a = te.placeholder((20, 16), name="A")
    t = te.compute((16, 20), lambda k, i: a[i, k], name="T")
    return te.compute((16, 20), lambda k, i: t[k, i] + 1.0, name="D")


def padded_windows(depthwise: bool = True, stride: int = 1) -> Tensor:
    """P, A in a frame of zeros, and W, sums over windows of P: each row by itself, or all rows for each filter of B."""
    a, k, count = te.placeholder((4, 20), name="A"), te.reduce_axis(3, "k"), 20 // stride
    p = te.compute((4, 22), lambda c, i: te.select(te.logical_and(i >= 1, i < 21), a[c, i - 1], 0.0), name="P")
    if depthwise:
        v = te.placeholder((4, 3), name="V")
        return te.compute((4, count), lambda c, i: te.reduce_sum(p[c, i * stride + k] * v[c, k], k), name="W")
    b, r = te.placeholder((8, 4, 3), name="B"), te.reduce_axis(4, "r")
    return te.compute((8, count), lambda f, i: te.reduce_sum(p[r, i * stride + k] * b[f, r, k], (r, k)), name="W")


def product_relu() -> Tensor:
    """C = A B and D."""
    c = product()
    return te.compute((20, 12), lambda i, j: te.maximum(c[i, j], 0.0), name="D")


def scaled_relu() -> Tensor:
    """D, a ReLU, and E, twice that."""
    a = te.placeholder((20, 12), name="A")
    d = te.compute((20, 12), lambda i, j: te.maximum(a[i, j], 0.0), name="D")
    return te.compute((20, 12), lambda i, j: d[i, j] * 2.0, name="E")


def product_of_exponentials() -> Tensor:
    """D = exp(A), C = D B."""
    a, b, k = te.placeholder((20, 16), name="A"), te.placeholder((16, 12), name="B"), te.reduce_axis(16, "k")
    d = te.compute((20, 16), lambda i, j: te.exp(a[i, j]), name="D")
    return te.compute((20, 12), lambda i, j: te.reduce_sum(d[i, k] * b[k, j], k), name="C")


def chain() -> Tensor:
    """D and then E, both elementwise."""
    d = exponentials()
    return te.compute((20, 12), lambda i, j: te.maximum(d[i, j], 1.0), name="E")


def row_sums(rows: int = 20, columns: int = 16) -> Tensor:
    """S."""
    a, k = te.placeholder((rows, columns), name="A"), te.reduce_axis(columns, "k")
    return te.compute((rows,), lambda i: te.reduce_sum(a[i, k], k), name="S")


def normalised_product() -> Tensor:
    """C = A B, S the sums of its rows, D = C / S."""
    c, m = product(), te.reduce_axis(12, "m")
    s = te.compute((20,), lambda i: te.reduce_sum(c[i, m], m), name="S")
    return te.compute((20, 12), lambda i, j: c[i, j] / s[i], name="D")


@algorithm("halves", exact=False)  # so that no other test's search space has it
def halves(tensor: Tensor) -> Tensor | None:
    """The sum of an even number of elements in a row as those of its two halves."""
    op = tensor.op
    if not isinstance(op, Compute) or not isinstance(op.body, Reduce) or not isinstance(op.body.source, Read):
        return None
    if op.body.combiner != "sum" or len(op.reduce_axes) != 1 or op.reduce_axes[0].extent % 2:
        return None
    [whole], source = op.reduce_axes, op.body.source
    k = te.reduce_axis(whole.extent // 2, whole.name)

    def half(*at: te.Expr) -> te.Expr:
        values = {axis.name: index for axis, index in zip(op.axes, at[1:], strict=True)}
        return te.reduce_sum(substitute(source, {**values, whole.name: at[0] * k.extent + k}), k)

    parts = te.compute((2, *tensor.shape), half, name="halves")
    return te.compute(tensor.shape, lambda *at: parts[(0, *at)] + parts[(1, *at)], name=tensor.name)


def phases() -> Tensor:
    """Y: two phases of a transposed convolution of a row, by a kernel of 6."""
    x, w, k = te.placeholder((12,), name="X"), te.placeholder((6,), name="W"), te.reduce_axis(3, "k")
    return te.compute((2, 10), lambda p, i: te.reduce_sum(x[i + k] * w[1 - p + 2 * k], k), name="Y")


def state_of(output: Tensor, *steps: Step) -> State:
    """The state of all that the output needs, after some steps."""
    return State.initial(ComputeDAG.from_outputs(output)).replay(steps)
