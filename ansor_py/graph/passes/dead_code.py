"""Dead code elimination: nodes whose results reach no output are dropped.

before:  mask = Dropout.1(x);  y = Relu(x);  outputs: y
after:   y = Relu(x)
"""

from __future__ import annotations

from ansor_py.graph.ir import Graph, rebuild


def remove_dead_code(graph: Graph) -> Graph:
    """Keep the nodes that an output depends on; the graph's inputs all stay, so that what a caller feeds does not change."""
    readings: dict[str, tuple[str, ...]] = {node.output: node.reads for node in graph.nodes}
    for opaque in graph.opaque:
        readings.update((name, tuple(opaque.inputs.values())) for name in opaque.outputs.values())
    needed: set[str] = set()
    waiting = [*graph.outputs.values(), *graph.dynamic_outputs.values()]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(readings.get(name, ()))
    kept = tuple(opaque for opaque in graph.opaque if needed & set(opaque.outputs.values()))
    return rebuild(graph, [node for node in graph.nodes if node.output in needed], opaque=kept)
