"""Dead code elimination: nodes whose results reach no output are dropped.

before:  mask = Dropout.1(x);  y = Relu(x);  outputs: y
after:   y = Relu(x)
"""

from __future__ import annotations

from ansor_py.graph.ir import Graph, rebuild


def remove_dead_code(graph: Graph) -> Graph:
    """Keep the nodes that an output depends on; the graph's inputs all stay, so that what a caller feeds does not change."""
    needed = set(graph.output_values)
    kept = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.reads)
    return rebuild(graph, reversed(kept))
