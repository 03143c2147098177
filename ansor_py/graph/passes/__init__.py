"""Graph passes, each a function from a graph to an equivalent graph, and the order in which they run.

graph = run_passes(import_model("m.onnx"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansor_py.graph.ir import Graph
from ansor_py.graph.passes.affine_folding import fold_affine
from ansor_py.graph.passes.concat_splitting import split_concats
from ansor_py.graph.passes.constant_folding import fold_constants
from ansor_py.graph.passes.dead_code import remove_dead_code
from ansor_py.graph.passes.exact_reciprocals import multiply_by_reciprocals
from ansor_py.graph.passes.identity_removal import remove_identities
from ansor_py.graph.passes.pad_folding import fold_pads
from ansor_py.graph.passes.view_merging import merge_views

Pass = Callable[[Graph], Graph]

# The order matters: identities hide the patterns that folding looks for; folding leaves constants and dead nodes behind.
PASSES: tuple[Pass, ...] = (
    fold_constants,
    remove_identities,
    remove_dead_code,
    multiply_by_reciprocals,
    fold_affine,
    fold_pads,
    merge_views,
    fold_constants,
    remove_dead_code,
    split_concats,
)


def run_passes(graph: Graph, passes: Sequence[Pass] = PASSES) -> Graph:
    """The graph after all passes, in order."""
    for apply in passes:
        graph = apply(graph)
    return graph


__all__ = [
    "PASSES",
    "Pass",
    "fold_affine",
    "fold_constants",
    "fold_pads",
    "merge_views",
    "multiply_by_reciprocals",
    "remove_dead_code",
    "remove_identities",
    "run_passes",
    "split_concats",
]
