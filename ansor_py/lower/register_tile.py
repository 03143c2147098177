"""The register tile of a stage after bound inference: which loops it covers, its lanes, accumulators and registers.

This is the one place that knows. Lowering, checks of populations, features and the simulated CPU read it; with bounds of a
template and genes the numbers are arrays over the population (design, Idea 2).

    tile = register_tile(bounds["C"], target)
    tile.loops, tile.lanes, tile.accumulators(bounds["C"].extents)     # ("i.3", "j.3"), 16, 28 or int64[n]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansor_py.errors import LoweringError
from ansor_py.lower.affine import Number, choose, larger, smaller
from ansor_py.lower.bounds import StageBounds
from ansor_py.schedule.micro_kernels import MICRO_KERNELS, MicroKernel, micro_kernel_for
from ansor_py.target import Target

# More accumulators than this (in vectors) do not stay in registers on any machine.
MAX_TILE_VECTORS = 64


@dataclass(frozen=True)
class StageTile:
    """The register tile of a stage.

    `loops` are its loops by name, outermost first, and `first` the position of the outermost one among those of the stage
    (their number where there is none). `vector` is the last of `loops` if that runs in lanes, `lanes` how many elements a
    vector holds of the widest numbers in the stage. `stated`: a `RegisterTile` step says so; else the tile is the vectorised
    loop alone.
    """

    loops: tuple[str, ...]
    first: int
    vector: str | None
    lanes: int
    kernel: MicroKernel
    stated: bool

    def rows(self, extents: Mapping[str, Number]) -> Number:
        """Accumulators side by side in each lane: iterations of the loops that do not run in lanes."""
        product: Number = 1
        for name in self.loops:
            if name != self.vector:
                product = product * extents[name]
        return product

    def vectors(self, extents: Mapping[str, Number]) -> Number:
        """Vectors in a row."""
        return 1 if self.vector is None else -(-extents[self.vector] // self.lanes)

    def accumulators(self, extents: Mapping[str, Number]) -> Number:
        """Vectors (scalars where nothing runs in lanes) in the whole tile."""
        return self.rows(extents) * self.vectors(extents)

    def is_partial(self, extents: Mapping[str, Number]) -> Number:
        """1 where the last vector of a row has lanes that do not exist, else 0."""
        return 0 if self.vector is None else smaller(extents[self.vector] % self.lanes, 1)

    def reduction_loops(self, b: StageBounds) -> list[int]:
        """Positions of the reduction loops right around the tile, innermost first; accumulators stay through them."""
        position = self.first
        while position > 0 and b.loops[position - 1].kind == "reduction":
            position -= 1
        return list(reversed(range(position, self.first)))


def steps_in_a_row(extents: Sequence[Number], emitted: Number, limit: Number) -> list[Number]:
    """How many iterations of reduction loops, innermost first, are emitted in a row of what `emitted` instructions take.

    As many as the unroll limit has room for; of a loop outside only if the one inside is emitted as a whole.
    """
    found: list[Number] = []
    unrolling: Number = 1
    for extent in extents:
        found.append(larger(1, smaller(extent, unrolling * limit // emitted)))
        emitted = emitted * found[-1]
        unrolling = choose(found[-1] == extent, unrolling, 0)
    return found


def register_tile(b: StageBounds, target: Target) -> StageTile:
    """The register tile of a stage. Raises LoweringError where its micro-kernel does not fit the stage or the target."""
    names = [loop.name for loop in b.loops]
    innermost = b.loops[-1] if b.loops else None
    vector = innermost.name if innermost is not None and innermost.annotation == "vectorize" else None
    lanes = target.lanes(*b.dtypes)
    stated = b.stage.register_tile
    if stated is None:
        loops = () if vector is None else (vector,)
        kernel = micro_kernel_for(b.body, target)
        return StageTile(loops, len(names) - len(loops), vector, lanes, kernel, stated=False)
    kernel = MICRO_KERNELS[stated.micro_kernel]
    if not kernel.fits(b.body, target):
        raise LoweringError(
            f"register tile of stage '{b.stage.name}': micro-kernel '{kernel.name}' does not compute '{b.body}' on "
            f"{target.cpu}; name one that does, such as '{micro_kernel_for(b.body, target).name}'"
        )
    if vector is not None and vector != stated.loops[-1]:
        raise LoweringError(
            f"register tile of stage '{b.stage.name}': its last loop is '{stated.loops[-1]}', but '{vector}' runs in lanes"
        )
    last = b.loops[names.index(stated.loops[-1])]
    if last.kind == "reduction" and vector is None:
        raise LoweringError(
            f"register tile of stage '{b.stage.name}': reduction loop '{last.name}' is in it but not in lanes; "
            "vectorise it or leave it out"
        )
    return StageTile(stated.loops, names.index(stated.loops[0]), vector, lanes, kernel, stated=True)
