"""Merged axes: the same bytes come out, and what has to stay apart does."""

from __future__ import annotations

import numpy as np
import pytest

from ansor_py import te
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.te.tensor import Tensor
from te_interpreter import evaluate, random_feeds


def x(*shape: int) -> Tensor:
    return te.placeholder(shape, name="x")


CASES: dict[str, tuple[Tensor, tuple[int, ...]]] = {
    "relu": (te.relu(x(1, 3, 5, 7)), (105,)),
    "pointwise convolution": (
        te.relu(te.conv2d(x(1, 6, 5, 7), te.placeholder((4, 6, 1, 1), name="w"), te.placeholder((4,), name="b"))),
        (4, 35),
    ),
    "3x3 convolution": (te.conv2d(x(1, 6, 5, 7), te.placeholder((4, 6, 3, 3), name="w")), (4, 3, 5)),
    "strided pointwise convolution": (te.conv2d(x(1, 6, 5, 7), te.placeholder((4, 6, 1, 1), name="w"), stride=2), (4, 3, 4)),
    "global pooling": (te.global_average_pool(x(2, 3, 5, 7)), (6,)),
    "channel broadcast": (te.add(x(2, 3, 5, 7), te.placeholder((1, 3, 1, 1), name="c")), (2, 3, 35)),
    "row broadcast": (te.add(x(2, 3, 5, 7), te.placeholder((7,), name="c")), (30, 7)),
    "softmax": (te.softmax(x(2, 3, 5), axis=-1), (6, 5)),
    "concat": (te.concat([x(2, 3, 5), te.placeholder((2, 4, 5), name="y")], axis=1), (2, 7, 5)),
    "transpose": (te.transpose(x(2, 3, 5), (2, 0, 1)), (5, 6)),
    "matmul": (te.matmul(4, 5, 6), (4, 5)),
    "padding": (te.pad(x(2, 3, 5, 7), (0, 0, 1, 1), (0, 0, 1, 1)), (6, 7, 9)),
}


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of extent 1 may or may not have been merged into a neighbour."""
    return tuple(extent for extent in shape if extent != 1)


@pytest.mark.parametrize("name", CASES)
def test_merged_dag_computes_the_same(name: str) -> None:
    output, expected = CASES[name]
    dag = ComputeDAG.from_outputs(output)
    merged = merge_axes(dag)
    assert squeezed(merged.outputs[0].shape) == expected
    assert [tensor.name for tensor in merged.inputs] == [tensor.name for tensor in dag.inputs]
    assert merged.flops == dag.flops
    feeds = random_feeds(dag.outputs, seed=3)
    same = {new: feeds[old].reshape(new.shape) for old, new in zip(dag.inputs, merged.inputs, strict=True)}
    result = evaluate(merged.outputs[0], same).reshape(-1)
    np.testing.assert_allclose(result, evaluate(dag.outputs[0], feeds).reshape(-1), rtol=1e-6)


def test_merging_twice_changes_nothing() -> None:
    for output, _ in CASES.values():
        once = merge_axes(ComputeDAG.from_outputs(output))
        assert str(merge_axes(once)) == str(once)
