"""Concatenations without a kernel: tensors that lie one behind the other in the result are computed there.

Along the first dimension of more than one element the parts of a concatenation are consecutive runs of its bytes. A part that a
kernel computes, and that no other concatenation and no output of the model wants elsewhere, gets its place inside of the whole,
and nothing is left to copy. A whole may be a part of the next one, as in a DenseNet, whose layers then share one buffer.

    kept, joins = joined_values(graph, subgraphs, views)
    joins["x1"]        # ("y", 774400): the bytes of x1 begin there in y = Concat(x0, x1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from ansor_py.codegen.memory import ALIGNMENT
from ansor_py.graph.ir import Graph

if TYPE_CHECKING:
    from ansor_py.graph.partition import Subgraph

CONCATENATIONS = ("Concat", "Join")


def joined_values(
    graph: Graph, subgraphs: Sequence[Subgraph], views: Mapping[str, str]
) -> tuple[tuple[Subgraph, ...], dict[str, tuple[str, int]]]:
    """The subgraphs that are left, and for each part of the others' results the whole and its first byte in that.

    Nothing is joined in a graph with nodes that are not compiled, which find their inputs and outputs by themselves.
    """
    if graph.opaque or graph.dynamic_inputs or graph.dynamic_outputs:
        return tuple(subgraphs), {}

    def owner(value: str) -> str:
        while value in views:
            value = views[value]
        return value

    computed = {subgraph.output for subgraph in subgraphs}
    outputs = {owner(name) for name in graph.outputs.values()}
    joins: dict[str, tuple[str, int]] = {}
    kept: list[Subgraph] = []
    for subgraph in subgraphs:
        places = _places(graph, subgraph, owner)
        if places and places.keys() <= computed - outputs - joins.keys():
            joins.update(places)
        else:
            kept.append(subgraph)
    return tuple(kept), joins


def _places(graph: Graph, subgraph: Subgraph, owner: Callable[[str], str]) -> dict[str, tuple[str, int]]:
    """Where the parts of a concatenation lie in it; nothing if it is none, or they cannot be computed there."""
    node, shape = subgraph.nodes[0], graph.values[subgraph.output].shape
    if len(subgraph.nodes) > 1 or node.op_type not in CONCATENATIONS:
        return {}
    axis = int(str(node.attributes.get("axis", 1))) % len(shape)
    places: dict[str, tuple[str, int]] = {}
    offset = 0
    for name in node.inputs:
        if prod(shape[:axis]) != 1 or offset % ALIGNMENT or owner(name) in places or not graph.values[name].bytes:
            return {}
        places[owner(name)] = (subgraph.output, offset)
        offset += graph.values[name].bytes
    return places
