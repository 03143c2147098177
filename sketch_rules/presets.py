"""Which rules are tried, and in which order. The order matters: a rule may keep later ones from being tried.

generate_sketches(dag, target, rules="ansor")
"""

from __future__ import annotations

PRESETS: dict[str, tuple[str, ...]] = {
    # What tunes best with this code generator. A reduction over contiguous elements is vectorised by the annotation
    # (one partial result per lane), so that rfactor is left with what only it can do: parallel reductions.
    "default": (
        "always_inline",
        "inline_transposition",
        "inline_padding",
        "choose_algorithm",
        "add_row_blocks",
        "add_parallel_rfactor",
        "add_packing",
        "add_cache_write",
        "multi_level_tiling_with_fusion",
        "multi_level_tiling",
        "skip",
    ),
    # The paper's Table 1 in the order of TVM's implementation; gives the sketch counts of its unit tests.
    "ansor": (
        "always_inline",
        "add_rfactor",
        "add_cache_write",
        "multi_level_tiling_with_fusion",
        "multi_level_tiling",
        "skip",
    ),
}
