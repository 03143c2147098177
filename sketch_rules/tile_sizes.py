"""Tables of tile sizes: what a hole for the cache tiles of one axis may choose.

Sizes need not divide the extent: round numbers stand beside the divisors, so that a prime extent has as many tiles as its
neighbours. A batched check of the search rejects combinations that waste too many iterations.
"""

from __future__ import annotations

from functools import cache

from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions


@cache
def divisors(extent: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    low = [value for value in range(1, int(extent**0.5) + 1) if extent % value == 0]
    return tuple(sorted({*low, *(extent // value for value in low)}))


def level_sizes(extent: int, largest: int, options: SpaceOptions = DEFAULT_SPACE) -> list[int]:
    """Sizes for one level of an axis: divisors and round numbers, at most `largest`, larger ones some distance apart."""
    sizes = set(divisors(extent))
    if extent > options.small_extent:
        sizes |= {size for size in options.round_sizes if size < extent}
    kept: list[int] = []
    for size in sorted(size for size in sizes if size <= largest):
        near = kept and size > options.small_extent and size < options.near_sizes * kept[-1]
        if not near:
            kept.append(size)
        elif extent % size == 0 and extent % kept[-1]:
            kept[-1] = size
    return kept


@cache
def tile_pairs(extent: int, smallest_register_tile: int, options: SpaceOptions = DEFAULT_SPACE) -> tuple[tuple[int, int], ...]:
    """Lengths of the two middle spatial levels, (inner, outer), in multiples of the register tile.

    `smallest_register_tile` is the least that the level below covers; the product of all three need not exceed the extent.
    """
    tiles = -(-extent // smallest_register_tile)
    sizes = level_sizes(tiles, options.round_sizes[-1], options)
    outer_sizes = sizes if options.cache_levels > 1 else [1]
    return tuple((inner, outer) for inner in sizes for outer in outer_sizes if inner * outer <= tiles)


@cache
def reduction_lengths(extent: int, options: SpaceOptions = DEFAULT_SPACE) -> tuple[tuple[int], ...]:
    """Lengths of the inner part of a reduction axis: divisors and `reduction_sizes` up to their largest, and the whole."""
    offered = options.reduction_sizes
    sizes = {size for size in divisors(extent) if size <= offered[-1]} | {extent}
    if extent > options.small_extent:
        sizes |= {size for size in offered if size < extent}
    return tuple((size,) for size in sorted(sizes))
