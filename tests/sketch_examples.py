"""Hand-made sketches for tests: tiled matmul, fused convolution with padding, softmax, and a few odd ones.

They use the public `Sketch`, `Alternatives` and kinds of holes only, with lengths that do not divide, structural location
holes, parallel and unroll holes, so that everything which works on populations can be tested without derivation rules.

    sketch = matmul_cached()
    population = random_population(sketch, 100, np.random.default_rng(0))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.hole import Hole, hole_kind
from ansor_py.schedule.hole_kinds import LocationHole, ParallelHole, RegisterTileHole, TileHole, UnrollHole
from ansor_py.schedule.sketch import Alternatives, Population, Sketch
from ansor_py.schedule.state import Gene
from ansor_py.schedule.steps import (
    CacheRead,
    CacheWrite,
    ComputeAt,
    ComputeInline,
    FollowSplit,
    Reorder,
    Split,
    Step,
    StorageAlign,
    TransformLayout,
    Vectorize,
)
from ansor_py.te.expr import call, logical_and, maximum, select
from ansor_py.te.tensor import compute, placeholder, reduce_axis, reduce_max, reduce_sum

LENGTHS = (1, 2, 3, 4, 7, 8)
UNROLL_LIMITS = (0, 16, 64, 512)


def random_population(sketch: Sketch, programs: int, rng: np.random.Generator) -> Population:
    """Independent uniform genes."""
    return Population(sketch, rng.integers(0, sketch.sizes, (programs, len(sketch.holes))).astype(np.int32))


def tile_hole(stage: str, axis: str, parts: int, lengths: Sequence[int] = LENGTHS) -> Hole:
    """All tuples of the given lengths."""
    return TileHole(f"tile {stage}.{axis}", stage, tuple(itertools.product(lengths, repeat=parts)))


@hole_kind("location or inlined")
class PlaceHole(LocationHole):
    """A location that may also be no place at all: the formula replaces every read."""

    def steps(self, choice: Any) -> tuple[Step, ...]:
        return (ComputeInline(self.stage),) if choice == "inline" else super().steps(choice)


def matmul_dag(n: int = 24, m: int = 30, k: int = 17) -> ComputeDAG:
    """C = A B."""
    a, b = placeholder((n, k), name="A"), placeholder((k, m), name="B", constant=True)
    r = reduce_axis(k, "k")
    return ComputeDAG.from_outputs(compute((n, m), lambda i, j: reduce_sum(a[i, r] * b[r, j], r), name="C"))


REGISTER_TILES = ((4, 8), (2, 16), (3, 7), (1, 1))


def _matmul_tiling(stage: str) -> tuple[tuple[Step, ...], tuple[Hole, ...], tuple[str, ...]]:
    """SSRSRS: steps for holes 0 to 3, the holes, and the order of loops."""
    holes = (
        RegisterTileHole(f"register tile {stage}", stage, REGISTER_TILES),
        tile_hole(stage, "i", 2),
        tile_hole(stage, "j", 2),
        tile_hole(stage, "k", 1),
    )
    order = ("i.0", "j.0", "i.1", "j.1", "k.0", "i.2", "j.2", "k.1", "i.3", "j.3")
    steps = (
        Split(stage, "i", (Gene(0, 0), Gene(1, 0), Gene(1, 1))),
        Split(stage, "j", (Gene(0, 1), Gene(2, 0), Gene(2, 1))),
        Split(stage, "k", (Gene(3),)),
        Reorder(stage, order),
        Vectorize(stage, "j.3"),
    )
    return steps, holes, order


def matmul_tiled(dag: ComputeDAG | None = None) -> Sketch:
    """Multi-level tiling alone."""
    steps, holes, order = _matmul_tiling("C")
    parallel = ParallelHole("parallel C", "C", (0, 1, 2, 3), order)
    unroll = UnrollHole("unroll C", "C", UNROLL_LIMITS)
    return Sketch(
        "tiled",
        dag or matmul_dag(),
        (*steps, Alternatives(5), Alternatives(4)),
        (*holes, parallel, unroll),
    )


def matmul_cached(dag: ComputeDAG | None = None) -> Sketch:
    """A cache-write stage, computed inside its copy at one of two levels or at root."""
    steps, holes, _ = _matmul_tiling("C.local")
    levels = (("C", "j.0"), ("C", "j.1"), None)
    copy = ("i.0", "j.0", "i.1", "j.1", "i.2", "j.2")
    return Sketch(
        "cached",
        dag or matmul_dag(),
        (
            CacheWrite("C"),
            *steps,
            FollowSplit("C", "i", "C.local", "i", 3),
            FollowSplit("C", "j", "C.local", "j", 3),
            Reorder("C", copy),
            Alternatives(4),
            Vectorize("C", "j.2"),
            Alternatives(6),
            Alternatives(5),
        ),
        (
            *holes,
            LocationHole("location C.local", "C.local", levels),
            ParallelHole("parallel C", "C", (0, 2), copy),
            UnrollHole("unroll C.local", "C.local", UNROLL_LIMITS),
        ),
    )


def matmul_packed() -> Sketch:
    """The second operand copied into panels whose width is a constant, rows padded, at root or inside the product."""
    steps, holes, order = _matmul_tiling("C")
    levels = (("C", "j.0"), ("C", "k.0"), None)
    return Sketch(
        "packed",
        matmul_dag(),
        (
            CacheRead("B", ("C",)),
            TransformLayout("B.cache", (("i1", 4),), ("i1.outer", "i0", "i1.inner")),
            StorageAlign("B.cache", 16, 3),
            *steps,
            Alternatives(4),
            Alternatives(5),
        ),
        (*holes, LocationHole("location B.cache", "B.cache", levels), ParallelHole("parallel C", "C", (0, 1), order)),
    )


def conv_dag(
    size: int = 9, channels: int = 3, filters: int = 5, kernel: int = 3, stride: int = 1, padding: int = 1
) -> ComputeDAG:
    """relu(conv2d(pad(x), w) + bias), NCHW."""
    x = placeholder((1, channels, size, size), name="x")
    w = placeholder((filters, channels, kernel, kernel), name="w", constant=True)
    bias = placeholder((filters,), name="bias", constant=True)
    padded_size = size + 2 * padding

    def pad(n, c, h, v):  # type: ignore[no-untyped-def]
        inside = logical_and(h >= padding, h < size + padding, v >= padding, v < size + padding)
        return select(inside, x[n, c, h - padding, v - padding], 0.0)

    padded = compute((1, channels, padded_size, padded_size), pad, name="pad")
    rc, rh, rw = reduce_axis(channels, "rc"), reduce_axis(kernel, "rh"), reduce_axis(kernel, "rw")
    out = (padded_size - kernel) // stride + 1
    conv = compute(
        (1, filters, out, out),
        lambda n, f, y, z: reduce_sum(padded[n, rc, y * stride + rh, z * stride + rw] * w[f, rc, rh, rw], (rc, rh, rw)),
        name="conv",
    )
    biased = compute(conv.shape, lambda n, f, y, z: conv[n, f, y, z] + bias[f], name="biased")
    return ComputeDAG.from_outputs(compute(conv.shape, lambda n, f, y, z: maximum(biased[n, f, y, z], 0.0), name="relu"))


def conv_fused(stride: int = 1) -> Sketch:
    """The convolution tiled and computed inside the activation; the padding inlined, at root, or at one of three loops."""
    order = ("n", "f.0", "y.0", "z.0", "f.1", "y.1", "z.1", "rc.0", "rh", "rw", "f.2", "y.2", "rc.1", "f.3", "y.3", "z.2")
    levels = (("conv", "z.1"), ("conv", "rc.0"), ("relu", "z.0"), None)
    outer = ("n", "f.0", "y.0", "z.0", "f.1", "y.1", "z.1")
    holes = (
        tile_hole("conv", "f", 3, (1, 2, 3)),
        tile_hole("conv", "y", 3, (1, 2, 4)),
        tile_hole("conv", "z", 2, (1, 3, 4)),
        tile_hole("conv", "rc", 1, (1, 2)),
        PlaceHole("location pad", "pad", (*levels, "inline")),
        ParallelHole("parallel relu", "relu", (0, 3, 4), outer),
        UnrollHole("unroll conv", "conv", UNROLL_LIMITS),
    )
    return Sketch(
        "fused",
        conv_dag(stride=stride),
        (
            ComputeInline("biased"),
            Split("conv", "f", (Gene(0, 0), Gene(0, 1), Gene(0, 2))),
            Split("conv", "y", (Gene(1, 0), Gene(1, 1), Gene(1, 2))),
            Split("conv", "z", (Gene(2, 0), Gene(2, 1))),
            Split("conv", "rc", (Gene(3),)),
            Reorder("conv", order),
            FollowSplit("relu", "f", "conv", "f", 2),
            FollowSplit("relu", "y", "conv", "y", 2),
            FollowSplit("relu", "z", "conv", "z", 2),
            Reorder("relu", outer),
            ComputeAt("conv", "relu", "z.0"),
            Vectorize("conv", "z.2"),
            Vectorize("relu", "z.1"),
            Alternatives(6),
            Alternatives(4),
            Alternatives(5),
        ),
        holes,
    )


def softmax_dag(rows: int = 6, columns: int = 20) -> ComputeDAG:
    """Softmax over the last axis."""
    x = placeholder((rows, columns), name="x")
    m, s = reduce_axis(columns, "m"), reduce_axis(columns, "s")
    largest = compute((rows,), lambda i: reduce_max(x[i, m], m), name="largest")
    power = compute((rows, columns), lambda i, j: call("exp", x[i, j] - largest[i]), name="power")
    total = compute((rows,), lambda i: reduce_sum(power[i, s], s), name="total")
    return ComputeDAG.from_outputs(compute((rows, columns), lambda i, j: power[i, j] / total[i], name="softmax"))


def softmax_located() -> Sketch:
    """The rows of the result tiled, each producer at root or inside the rows; the exponentials read twice."""
    levels = (("softmax", "i.0"), ("softmax", "i.1"), None)

    return Sketch(
        "located",
        softmax_dag(),
        (
            Split("softmax", "i", (Gene(0),)),
            Split("softmax", "j", (Gene(1),)),
            Split("total", "s", (Gene(2),)),
            Vectorize("softmax", "j.1"),
            Alternatives(3),
            Alternatives(4),
            Alternatives(5),
            Alternatives(6),
        ),
        (
            tile_hole("softmax", "i", 1),
            tile_hole("softmax", "j", 1),
            tile_hole("total", "s", 1),
            LocationHole("location largest", "largest", levels),
            LocationHole("location power", "power", levels),
            LocationHole("location total", "total", levels),
            ParallelHole("parallel softmax", "softmax", (0, 1), ("i.0",)),
        ),
    )


def is_legal(sketch: Sketch, row: Sequence[int]) -> bool:
    """Whether producers are not computed further out than what they need of each other allows (softmax only needs this)."""
    if sketch.name != "located":
        return True
    largest, power, total = (row[column] for column in (3, 4, 5))
    depth = {0: 1, 1: 2, 2: 0}
    return depth[largest] <= depth[power] <= depth[total]


EXAMPLES: dict[str, Callable[[], Sketch]] = {
    "matmul tiled": matmul_tiled,
    "matmul cached": matmul_cached,
    "matmul packed": matmul_packed,
    "conv fused": conv_fused,
    "conv fused stride 2": lambda: conv_fused(stride=2),
    "softmax": softmax_located,
}


def legal_population(sketch: Sketch, programs: int, rng: np.random.Generator) -> Population:
    """Random genes without those that attach a stage where not all of its consumers are."""
    genes = random_population(sketch, programs * 8, rng).genes
    kept = [row for row in genes if is_legal(sketch, [int(gene) for gene in row])]
    return Population(sketch, np.array(kept[:programs], dtype=np.int32))
