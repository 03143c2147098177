"""The constants of the sketch rules in one frozen dataclass: which sizes, limits and variants a search space offers.

The rules read them from the partial sketch that they work on, so that a study of a space sets a constant and edits no rule.

    generate_sketches(dag, target, options=SpaceOptions(unroll_limits=(0, 64)))
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.errors import OptionError
from ansor_py.schedule.algorithms import check_math
from ansor_py.strategy_options import OptionSet


@dataclass(frozen=True)
class SpaceOptions(OptionSet):
    """What the rules and annotations offer. Sizes are iterations; vectors are those of the target.

    Attributes:
        own: options of single rules (`options.of(MyOptions)`).
        round_sizes: cache tiles of a spatial axis that are offered beside the divisors of its extent.
        reduction_sizes: the same for the inner part of a reduction; its divisors are offered up to the largest of them.
        small_extent: extents up to this are split exactly; a remainder of one or two iterations would be most of the loop.
        near_sizes: of sizes that differ by less than this factor one is offered, a divisor if there is one.
        register_sizes: lengths of a register tile along axes that are not vectorised.
        register_vectors: most vectors of a register tile along the vectorised axis.
        spare_registers: those that a register tile leaves free.
        fewest_accumulators: fewer leave vector units idle most of the time (`Core.latency` times `Core.vector_units` keep them
            busy); smaller tiles are offered if nothing else fits.
        most_long_axes: along so many axes, beside the vectorised one, a register tile is longer than 1.
        vectors: lengths, in vectors, of the vector loop of a stage that is not tiled, and of factored partial results.
        wide_vectors: the same for a sum over rows: side by side no accumulator waits for itself.
        masked_steps: an operand is read through masks in place of a padded copy if its window has at most so many steps along
            lanes. Each step has masks of its own.
        panel_vectors: vectors in a row of a packed operand, the first that fits. Two leave room for 14 rows of accumulators
            in 32 registers, the best ratio of work to loads.
        most_filling: the zeros that fill the last panel may add at most this share to the axis.
        cache_levels: levels of cache tiles of a spatial axis, between its outermost loop and its register tile: 1 or 2.
        fusion_levels: tile levels of a consumer (1 the outermost) inside which the product that it reads may be computed.
        largest_block: most rows in a block of row-wise stages; larger ones hardly reuse more and leave the first-level cache.
        unroll_limits: up to how many vector instructions the loops inside a reduction are unrolled, register tiles included.
        location_structures: bound on the combinations of structural choices of a sketch; each has features of its own.
        location_levels: tile levels of a tiled consumer (from the outermost) inside which other stages may be computed.
        serial_operations: a stage of fewer may run serially: starting the threads costs as much as these.
        most_parallel_loops: of a stage that is not tiled, so many loops are fused and run in parallel at most.
        rfactor_elements: a reduction with data reuse is factored if its result has at most so many elements a core.
        rfactor_chunks: parts of a reduction for every core.
        math: `exact` offers algorithms that do no more than order the operations of the definition anew, `fast` those with
            larger rounding errors, too, such as Winograd's (`ansor_py.schedule.algorithms`).
    """

    round_sizes: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
    reduction_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512)
    small_extent: int = 8
    near_sizes: float = 1.2
    register_sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)
    register_vectors: int = 4
    spare_registers: int = 0
    fewest_accumulators: int = 4
    most_long_axes: int = 2
    vectors: tuple[int, ...] = (1, 2, 4)
    wide_vectors: tuple[int, ...] = (1, 2, 4, 8, 16)
    masked_steps: int = 3
    panel_vectors: tuple[int, ...] = (2, 3, 1)
    most_filling: float = 0.25
    cache_levels: int = 2
    fusion_levels: tuple[int, ...] = (1, 2)
    largest_block: int = 64
    unroll_limits: tuple[int, ...] = (0, 16, 64, 128, 512)
    location_structures: int = 24
    location_levels: int = 3
    serial_operations: int = 1 << 16
    most_parallel_loops: int = 6
    rfactor_elements: int = 16
    rfactor_chunks: tuple[int, ...] = (1, 2, 4)
    math: str = "exact"

    def __post_init__(self) -> None:
        check_math(self.math)
        constants = {name: value for name, value in vars(self).items() if name not in ("own", "math")}
        for name, value in constants.items():
            least = 0 if name in MAY_BE_ZERO else 1
            values = value if isinstance(value, tuple) else (value,)
            if not values or min(values) < least:
                raise OptionError(f"search option 'space.{name}' must be {least} or more, not {_text(value)}")
        if 1 not in self.register_sizes:
            raise OptionError("search option 'space.register_sizes' must contain 1, which fits any registers; add it")
        for name, value in constants.items():
            if isinstance(value, tuple) and name != "panel_vectors" and list(value) != sorted(set(value)):
                raise OptionError(f"search option 'space.{name}' must ascend, and {_text(value)} does not")
        for name, levels in (("fusion_levels", self.fusion_levels), ("cache_levels", (self.cache_levels,))):
            if max(levels) > MOST_LEVELS:
                raise OptionError(f"search option 'space.{name}' can name 1 and 2, not {_text(levels)}")


# The other options are at least 1.
MAY_BE_ZERO = ("spare_registers", "most_filling", "small_extent", "unroll_limits", "location_levels", "serial_operations")
MOST_LEVELS = 2  # a product has two levels of spatial tiles around its reduction

DEFAULT_SPACE = SpaceOptions()


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
