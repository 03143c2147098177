"""Identity removal: readers of an operator that changes nothing read its input instead.

before:  a = Dropout(x);  b = Identity(a);  y = Relu(b)
after:   y = Relu(x)
"""

from __future__ import annotations

from ansor_py.graph.ir import Graph, OperatorNode, rebuild, replace_uses


def remove_identities(graph: Graph) -> Graph:
    """Drop identities, inference dropouts, casts to the same dtype, and transposes and views that change nothing."""
    renamed = {node.output: node.inputs[0] for node in graph.nodes if _changes_nothing(graph, node)}
    changed = replace_uses(graph, renamed)
    return rebuild(changed, [node for node in changed.nodes if node.output not in renamed])


def _changes_nothing(graph: Graph, node: OperatorNode) -> bool:
    if node.op_type == "Identity" or (node.op_type == "Dropout" and node.output_index == 0):
        return True
    before, after = graph.values[node.inputs[0]] if node.inputs and node.inputs[0] else None, graph.values[node.output]
    if before is None or before.shape != after.shape or before.dtype != after.dtype:
        return False
    if node.op_type == "Transpose":
        order = node.attributes.get("perm", tuple(reversed(range(len(before.shape)))))
        return list(order) == sorted(order)  # type: ignore[arg-type]
    return node.op_type == "Cast" or node.is_view
