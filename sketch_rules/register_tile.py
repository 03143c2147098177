"""The register tile: the innermost spatial level of a tiled stage as one joint choice over its axes (design, Idea 3).

The accumulators of a tile stay in vector registers for the whole inner reduction loop, so only combinations that fit, by what
the micro-kernel takes, are offered: with V vectors along the vector axis and a product P of the other lengths, P*V accumulators
and what is at hand of the operands. AVX-512 has 32 registers, so 14x32, 12x32, 8x48 and 6x64 fit; of AVX2's 16 registers 3 rows
of 4 vectors take all.

    register_tiles((512, 512), vector=1, lanes=16, kernel=FLOAT32, target=target)    # ((1, 16), ..., (14, 32), ..., (6, 64))
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations

from ansor_py.schedule.micro_kernels import MicroKernel
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.target import Target


@cache
def register_tiles(
    extents: tuple[int, ...],
    vector: int | None,
    lanes: int,
    kernel: MicroKernel,
    target: Target,
    width: int | None = None,
    options: SpaceOptions = DEFAULT_SPACE,
) -> tuple[tuple[int, ...], ...]:
    """Lengths per axis, in the order of `extents` (elements); `vector` is the position of the vector axis (None: scalars).

    `width` fixes the length along the vector axis.
    """
    others = [position for position in range(len(extents)) if position != vector]
    lengths = [width or 1] if vector is None or width else vector_lengths(extents[vector], lanes, options.register_vectors)
    usable = target.vector_registers - options.spare_registers
    tiles: list[tuple[int, ...]] = []
    accumulators: list[int] = []
    for length in lengths:
        vectors = -(-length // lanes) if vector is not None else 1
        is_partial = int(vector is not None and length % lanes > 0)
        room = next((rows for rows in range(usable, 1, -1) if kernel.registers(rows, vectors, is_partial, target) <= usable), 1)
        for shape in _shapes([extents[position] for position in others], room, options):
            tile = dict(zip(others, shape, strict=True))
            if vector is not None:
                tile[vector] = length
            tiles.append(tuple(tile[position] for position in range(len(extents))))
            product = 1
            for size in shape:
                product *= size
            accumulators.append(product * vectors)
    fewest = min(options.fewest_accumulators, max(accumulators))
    return tuple(tile for tile, count in zip(tiles, accumulators, strict=True) if count >= fewest)


def vector_lengths(extent: int, lanes: int, most_vectors: int = DEFAULT_SPACE.register_vectors) -> list[int]:
    """Lengths along a vectorised axis: up to four whole vectors, the whole axis where that is shorter, and shorter vectors
    where whole ones leave a remainder. Ascending."""
    found = {min(extent, lanes * vectors) for vectors in range(1, most_vectors + 1)}
    part = lanes // 2
    while part > 1 and extent % lanes:
        if part < extent:
            found.add(part)
        if extent % part == 0:
            break
        part //= 2
    return sorted(found)


def _shapes(extents: Sequence[int], room: int, options: SpaceOptions) -> list[tuple[int, ...]]:
    """Lengths of the axes that are not vectorised, their product at most `room`, few of them above 1."""
    found: dict[tuple[int, ...], None] = {}
    count = min(options.most_long_axes, len(extents))
    for chosen in combinations(range(len(extents)), count):
        for shape in _products([extents[position] for position in chosen], room, options.register_sizes):
            whole = [1] * len(extents)
            for position, size in zip(chosen, shape, strict=True):
                whole[position] = size
            found[tuple(whole)] = None
    return sorted(found)


def _products(extents: Sequence[int], room: int, offered: Sequence[int]) -> list[tuple[int, ...]]:
    if not extents:
        return [()]
    sizes = {min(size, extents[0]) for size in offered}
    return [(size, *rest) for size in sorted(sizes) if size <= room for rest in _products(extents[1:], room // size, offered)]
