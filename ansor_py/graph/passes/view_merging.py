"""View merging: a view of a view is a view of the first value.

before:  a = Reshape(x, [8, 64]);  y = Unsqueeze(a, axes=0)
after:   y = Reshape(x, [1, 8, 64])
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ansor_py.graph.ir import AttributeValue, Graph, OperatorNode, rebuild


def merge_views(graph: Graph) -> Graph:
    """Let each view read the value that owns the bytes, as a `Reshape` to its full shape."""
    source: dict[str, str] = {}
    nodes: list[OperatorNode] = []
    for node in graph.nodes:
        if node.is_view:
            first = source.get(node.inputs[0], node.inputs[0])
            source[node.output] = first
            shape = np.asarray(graph.values[node.output].shape, dtype=np.int64)
            attributes: dict[str, AttributeValue] = {"shape": shape, "allowzero": 1}
            node = replace(
                node, op_type="Reshape", inputs=(first,), attributes=attributes, domain="", opset=max(node.opset, 14)
            )
        nodes.append(node)
    return rebuild(graph, nodes)
