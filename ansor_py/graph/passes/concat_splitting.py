"""Concat splitting: a concatenation of many tensors becomes a tree of small ones.

A kernel that joins m tensors asks for each element which of them it comes from, m questions an element. In a tree of joins of
at most eight every element is moved a few times, with at most eight questions each time. The joins are kernels of their own:
fused together they would be one expression again.

    before:  y = Concat(x0, ..., x63)
    after:   j0 = Join(x0, ..., x7);  ...  j7 = Join(x56, ..., x63);  y = Join(j0, ..., j7)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ansor_py.graph.ir import ANSOR_DOMAIN, Graph, OperatorNode, Value, rebuild
from ansor_py.graph.onnx_ops.registry import OperatorCall

# The most tensors that one kernel joins.
WIDEST = 8


def split_concats(graph: Graph) -> Graph:
    """Replace every Concat of more than `WIDEST` tensors."""
    splitting = _Splitting(graph, {*graph.values, *(node.name for node in graph.nodes)})
    nodes: list[OperatorNode] = []
    for node in graph.nodes:
        nodes += splitting.tree(node) if node.op_type == "Concat" and len(node.inputs) > WIDEST else [node]
    return rebuild(graph, nodes, splitting.values) if splitting.values else graph


@dataclass
class _Splitting:
    """The values between the joins of a graph, and the names that are taken."""

    graph: Graph
    taken: set[str]
    values: list[Value] = field(default_factory=list)

    def tree(self, node: OperatorNode) -> list[OperatorNode]:
        """The joins that compute the node's result."""
        result = self.graph.values[node.output]
        call = OperatorCall(node, ())
        axis = call.checked_axis(call.integer("axis", 1), len(result.shape))
        parts = [self.graph.values[name] for name in node.inputs]
        made: list[OperatorNode] = []
        while len(parts) > 1:
            is_last = len(parts) <= WIDEST
            groups = [parts[start : start + WIDEST] for start in range(0, len(parts), WIDEST)]
            parts = [result] if is_last else [self._joined(node, group, axis) for group in groups]
            for group, joined in zip(groups, parts, strict=True):
                if len(group) > 1:
                    name = node.name if is_last else joined.name
                    inputs = tuple(part.name for part in group)
                    made.append(OperatorNode(name, "Join", inputs, joined.name, {"axis": axis}, ANSOR_DOMAIN, 1))
        return made

    def _joined(self, node: OperatorNode, group: list[Value], axis: int) -> Value:
        """A new value for what a group gives; a group of one is what it is."""
        if len(group) == 1:
            return group[0]
        number = 0
        while (name := f"{node.output}/join{number}") in self.taken:
            number += 1
        self.taken.add(name)
        extent = sum(part.shape[axis] for part in group)
        shape = (*group[0].shape[:axis], extent, *group[0].shape[axis + 1 :])
        self.values.append(Value(name, shape, group[0].dtype))
        return self.values[-1]
