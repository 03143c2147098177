"""Concatenations without a kernel: tensors that lie one behind the other in the result are computed there.

Along the first dimension of more than one element the parts of a concatenation are consecutive runs of its bytes. A part that a
kernel computes, and that no other concatenation and no output of the model wants elsewhere, gets its place inside of the whole,
and nothing is left to copy. A whole may be a part of the next one, as in a DenseNet, whose layers then share one buffer.

    parts = with_joins(parts)
    parts.joins["x1"]        # ("y", 774400): the bytes of x1 begin there in y = Concat(x0, x1)
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ansor_py.codegen.memory import ALIGNMENT
from ansor_py.graph.onnx_ops.registry import OperatorCall

if TYPE_CHECKING:
    from ansor_py.graph.partition import Partition, Subgraph

CONCATENATIONS = ("Concat", "Join")


def with_joins(parts: Partition) -> Partition:
    """The partition without concatenations that need no kernel.

    Nothing is joined in a graph with nodes that are not compiled, which find their inputs and outputs by themselves.
    """
    graph = parts.graph
    if graph.opaque or graph.dynamic_inputs or graph.dynamic_outputs:
        return parts
    computed = {subgraph.output for subgraph in parts.subgraphs}
    outputs = {parts.owner(name) for name in graph.outputs.values()}
    joins: dict[str, tuple[str, int]] = {}
    kept: list[Subgraph] = []
    for subgraph in parts.subgraphs:
        places = _places(parts, subgraph)
        if places and places.keys() <= computed - outputs - joins.keys():
            joins.update(places)
        else:
            kept.append(subgraph)
    return replace(parts, subgraphs=tuple(kept), joins=joins)


def _places(parts: Partition, subgraph: Subgraph) -> dict[str, tuple[str, int]]:
    """Where the parts of a concatenation lie in it; nothing if it is none, or they cannot be computed there."""
    node, values = subgraph.nodes[0], parts.graph.values
    if len(subgraph.nodes) > 1 or node.op_type not in CONCATENATIONS:
        return {}
    result = values[subgraph.output]
    call = OperatorCall(node, ())
    if prod(result.shape[: call.checked_axis(call.integer("axis", 1), len(result.shape))]) != 1:
        return {}
    places: dict[str, tuple[str, int]] = {}
    offset = 0
    for name in node.inputs:
        if offset % ALIGNMENT or parts.owner(name) in places or not values[name].bytes:
            return {}
        places[parts.owner(name)] = (subgraph.output, offset)
        offset += values[name].bytes
    return places
