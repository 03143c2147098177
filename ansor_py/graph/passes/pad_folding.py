"""Pad folding: zeros that an explicit Pad puts around a convolution's input become the convolution's own padding.

before:  a = Pad(x, [0, 0, 1, 1, 0, 0, 1, 1]);  y = Conv(a, w) pads=[0, 0, 0, 0]
after:   y = Conv(x, w) pads=[1, 1, 1, 1]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ansor_py.graph.ir import Graph, OperatorNode, rebuild


def fold_pads(graph: Graph) -> Graph:
    """Fold every zero Pad of spatial dimensions into the convolutions that read it (a Pad nobody else reads dies)."""
    nodes = []
    for node in graph.nodes:
        producer = graph.producer(node.inputs[0]) if node.op_type == "Conv" else None
        widths = _zero_pads(graph, producer) if producer is not None else None
        if producer is None or widths is None or str(node.attributes.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID"):
            nodes.append(node)
            continue
        own = node.attributes.get("pads", tuple([0] * len(widths)))
        total = tuple(int(a) + int(b) for a, b in zip(np.asarray(own).tolist(), widths, strict=True))
        changed = {**node.attributes, "pads": total, "auto_pad": "NOTSET"}
        nodes.append(replace(node, inputs=(producer.inputs[0], *node.inputs[1:]), attributes=changed))
    return rebuild(graph, nodes)


def _zero_pads(graph: Graph, node: OperatorNode) -> list[int] | None:
    """Begin and end widths of the spatial dimensions if the node pads only those, with zeros, and crops none; else None."""
    if node.op_type != "Pad" or str(node.attributes.get("mode", "constant")) != "constant" or "axes" in node.attributes:
        return None
    if len(node.reads) > 1:  # the number to pad with is computed
        return None
    if float(np.asarray(node.attributes.get("value", 0.0)).reshape(-1)[0]) != 0.0:
        return None
    widths = [int(width) for width in np.asarray(node.attributes["pads"]).reshape(-1).tolist()]
    rank = len(graph.values[node.output].shape)
    begin, end = widths[:rank], widths[rank:]
    if rank < 3 or any(begin[:2]) or any(end[:2]) or min(widths) < 0:
        return None
    return begin[2:] + end[2:]
