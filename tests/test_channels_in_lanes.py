"""Convolutions with output channels in lanes and packed weights, extents that nothing divides: right, and without gathers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel, kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.micro_kernels.outer_products import FLOAT32
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import (
    CacheRead,
    ComputeAt,
    ComputeInline,
    Pragma,
    RegisterTile,
    Reorder,
    Split,
    Step,
    TransformLayout,
    Vectorize,
)
from ansor_py.target import Target
from targets import executed_targets, structure_targets
from te_interpreter import evaluate, random_feeds
from test_register_tiles import STACK, loops_of, multiplications

VECTOR = re.compile(r"[xyz]mm|\bq\d")
CHANNELS = (16, 20, 36)  # of panels of 16: one, part of one, part of the third


def convolution(channels: int) -> ComputeDAG:
    data = te.placeholder((1, 8, 6, 13), name="data")
    weight = te.placeholder((channels, 8, 3, 3), name="w", constant=True)
    return ComputeDAG.from_outputs(te.relu(te.conv2d(data, weight, padding=1, name="C"), name="relu"))


def tiled(panel: int, row: int, reduction: int, fused: bool) -> tuple[Step, ...]:
    """Rows of `row` pixels by `panel` channels; a part of the reduction at a time, or fused into the consumer by panels."""
    layout = TransformLayout("w.cache", (("i0", panel),), ("i0.outer", "i1", "i2", "i3", "i0.inner"))
    splits = (Split("C", "f", (panel,)), Split("C", "x", (row,)), Split("C", "rc", (reduction,)))
    parts = ("y", "x.0", "rc.0") if fused else ("rc.0", "y", "x.0")
    order = Reorder("C", ("n", "f.0", *parts, "rc.1", "ry", "rx", "x.1", "f.1"))
    tile = (RegisterTile("C", ("x.1", "f.1"), FLOAT32.name), Vectorize("C", "f.1"))
    steps: tuple[Step, ...] = (CacheRead("w", ("C",)), layout, *splits, order, *tile)
    if fused:
        steps = (*steps, Split("relu", "i1", (panel,)), ComputeAt("C", "relu", "i1.0"))
    return (*steps, ComputeInline("C_pad"))


CASES = [
    (panel, row, reduction, fused)
    for panel, row in ((16, 5), (16, 4), (8, 8), (32, 3))
    for reduction, fused in ((4, False), (8, True))
]


@pytest.mark.parametrize("target", executed_targets())
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("case", CASES)
def test_results_are_right(case: tuple[int, int, int, bool], channels: int, target: Target) -> None:
    dag = convolution(channels)
    feeds = random_feeds(dag.outputs, seed=1)
    [output] = LoadedKernel(build_kernel(dag, tiled(*case), target, 2)).run([feeds[tensor] for tensor in dag.inputs])
    np.testing.assert_allclose(output, evaluate(dag.outputs[0], feeds, widen=True), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("case", [case for case in CASES if case[1] >= 4])
def test_nothing_is_gathered_or_scattered(case: tuple[int, int, int, bool], channels: int, target: Target) -> None:
    """Accumulators are loaded and stored in transposed vectors at the edges too, and packed weights are read as vectors."""
    text = kernel_text(convolution(channels), tiled(*case), target, 1)
    kernel = text.partition("prepack")[0] if "prepack" in text else text
    assert "masked.gather" not in kernel
    assert "masked.scatter" not in kernel


@pytest.mark.parametrize("target", structure_targets())
def test_the_next_panel_of_the_weights_is_fetched_if_the_caches_hold_it(target: Target) -> None:
    """16 channels x 8 x 9 elements of 4 bytes are a panel, which may take a quarter of the second cache."""
    for size, fetched in ((64 << 10, True), (16 << 10, False)):
        machine = replace(target, l2=size)
        assert ("llvm.prefetch" in kernel_text(convolution(36), tiled(16, 4, 8, fused=True), machine, 1)) == fetched
    data = te.placeholder((40, 64), name="a"), te.placeholder((64, 40), name="b")
    product = ComputeDAG.from_outputs(te.matmul(*data, name="C"))
    order = Reorder("C", ("i.0", "j.0", "k", "i.1", "j.1"))
    tile = (RegisterTile("C", ("i.1", "j.1"), FLOAT32.name), Vectorize("C", "j.1"))
    steps = (Split("C", "i", (4,)), Split("C", "j", (8,)), order, *tile)
    assert "llvm.prefetch" not in kernel_text(product, steps, target, 1)


def test_the_last_panel_stays_where_it_is() -> None:
    dag = convolution(36)
    fused = infer_bounds(State.initial(dag).replay(tiled(16, 4, 8, fused=True)))["C"]
    assert [int(guard.limit) for guard in fused.guards if "relu/i1.0" in guard.value.variables] == [36]


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize(("width", "rows", "unroll"), [(56, 2, 64), (56, 4, 64), (28, 2, 64), (56, 2, 128)])
def test_unrolled_steps_keep_their_accumulators_in_registers(width: int, rows: int, unroll: int, target: Target) -> None:
    """Of a strided convolution, whose pixels LLVM's scheduler would load for several steps at once."""
    lanes = target.lanes("float32")
    data = te.placeholder((1, 64, width, width), name="data")
    weight = te.placeholder((4 * lanes, 64, 1, 1), name="w", constant=True)
    dag = ComputeDAG.from_outputs(te.conv2d(data, weight, stride=2, name="C"))
    layout = TransformLayout("w.cache", (("i0", 2 * lanes),), ("i2", "i3", "i0.outer", "i1", "i0.inner"))
    splits = (Split("C", "f", (2 * lanes,)), Split("C", "y", (rows,)), Split("C", "x", (6,)))
    order = Reorder("C", ("n", "y.0", "f.0", "y.1", "x.0", "rc", "ry", "rx", "x.1", "f.1"))
    tile = (RegisterTile("C", ("x.1", "f.1"), FLOAT32.name), Vectorize("C", "f.1"), Pragma("C", unroll))
    steps = (CacheRead("w", ("C",)), layout, *splits, order, *tile)
    assembly = emit_assembly(kernel_text(dag, steps, target, 1), target)
    loops = [loop for loop in loops_of(assembly) if multiplications(loop) >= 48]
    assert loops
    for loop in loops:
        accesses = sum(bool(STACK.search(line) and VECTOR.search(line)) for line in loop)
        assert accesses <= (multiplications(loop) // 2 if target.overwrites_operands else 0)
