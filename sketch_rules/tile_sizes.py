"""Tables of tile sizes: what a hole for the cache tiles of one axis may choose.

Sizes need not divide the extent: round numbers stand beside the divisors, so that a prime extent has as many tiles as its
neighbours. A batched check of the search rejects combinations that waste too many iterations.
"""

from __future__ import annotations

from functools import cache

ROUND_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
REDUCTION_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512)
LARGEST_REDUCTION = 512
# Extents up to this are split exactly; a remainder of one or two iterations would be most of the loop.
SMALL_EXTENT = 8
# Of sizes that differ by less than this factor one is offered, a divisor if there is one.
NEAR_SIZES = 1.2


@cache
def divisors(extent: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    low = [value for value in range(1, int(extent**0.5) + 1) if extent % value == 0]
    return tuple(sorted({*low, *(extent // value for value in low)}))


def level_sizes(extent: int, largest: int = ROUND_SIZES[-1]) -> list[int]:
    """Sizes for one level of an axis: divisors and round numbers, at most `largest`, larger ones some distance apart."""
    sizes = set(divisors(extent))
    if extent > SMALL_EXTENT:
        sizes |= {size for size in ROUND_SIZES if size < extent}
    kept: list[int] = []
    for size in sorted(size for size in sizes if size <= largest):
        near = kept and size > SMALL_EXTENT and size < NEAR_SIZES * kept[-1]
        if not near:
            kept.append(size)
        elif extent % size == 0 and extent % kept[-1]:
            kept[-1] = size
    return kept


@cache
def tile_pairs(extent: int, smallest_register_tile: int) -> tuple[tuple[int, int], ...]:
    """Lengths of the two middle spatial levels, (inner, outer), in multiples of the register tile.

    `smallest_register_tile` is the least that the level below covers; the product of all three need not exceed the extent.
    """
    tiles = -(-extent // smallest_register_tile)
    sizes = level_sizes(tiles)
    return tuple((inner, outer) for inner in sizes for outer in sizes if inner * outer <= tiles)


@cache
def reduction_lengths(extent: int) -> tuple[tuple[int], ...]:
    """Lengths of the inner part of a reduction axis: divisors and near sizes up to 512, and the whole axis."""
    sizes = {size for size in divisors(extent) if size <= LARGEST_REDUCTION} | {extent}
    if extent > SMALL_EXTENT:
        sizes |= {size for size in REDUCTION_SIZES if size < extent}
    return tuple((size,) for size in sorted(sizes))
