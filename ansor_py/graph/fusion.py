"""Operator fusion: TVM's rules on the post-dominator tree (TVM paper section 3; `FuseOps`).

Each operator starts as a group of its own. A group is merged into the operator that post-dominates it (through which
all its results flow) if every operator on the way has a pattern kind that allows it:

    complex-out-fusable (conv, matmul, pool)  takes element-wise and broadcasting consumers
    element-wise, broadcast                   flow into injective operators, reductions and the consumers of a complex one
    injective (transpose, concat, pad)        flow into injective operators and reductions, after the first phase
    reduction                                 ends a group
    opaque, views, graph outputs              are never merged into a consumer

So a group has one result, at most one complex-out-fusable anchor, and no path leaves it and comes back.

    for group in fuse(graph):
        print(group)              # Group(conv1, relu1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import networkx as nx

from ansor_py.graph.ir import Graph, OperatorNode, Pattern

# Nodes of one group, so that a long element-wise chain does not become one endless expression.
MAX_GROUP_NODES = 24
_SINK = ""  # the virtual node behind all outputs; no operator has this name


@dataclass(frozen=True, eq=False)
class Group:
    """Operators that become one kernel, in topological order; the last one computes the result."""

    nodes: tuple[OperatorNode, ...]

    @property
    def output(self) -> str:
        """Name of the value that the group computes."""
        return self.nodes[-1].output

    @property
    def is_view(self) -> bool:
        """Whether the group is a single view: no kernel, only another shape for the same bytes."""
        return len(self.nodes) == 1 and self.nodes[0].is_view

    def __str__(self) -> str:
        return f"Group({', '.join(node.name for node in self.nodes)})"


def node_pattern(graph: Graph, node: OperatorNode) -> Pattern:
    """The kind that fusion uses: views are opaque (they cost nothing), a broadcast over equal shapes is element-wise."""
    if node.is_view:
        return Pattern.OPAQUE
    if node.pattern is Pattern.BROADCAST:
        return max((_edge_pattern(graph, node, name) for name in node.reads), default=Pattern.ELEMENTWISE)
    return node.pattern


def _edge_pattern(graph: Graph, reader: OperatorNode, value: str) -> Pattern:
    """The kind of one read: a broadcasting operator reads an input of the result's shape element by element."""
    if reader.is_view:
        return Pattern.OPAQUE
    if reader.pattern is not Pattern.BROADCAST:
        return reader.pattern
    same = graph.values[value].shape == graph.values[reader.output].shape
    return Pattern.ELEMENTWISE if same else Pattern.BROADCAST


@dataclass(frozen=True)
class PostDominator:
    """The operator through which all results of another one flow, and the strongest kind met on the way to it."""

    node: str
    pattern: Pattern


def post_dominators(graph: Graph) -> dict[str, PostDominator]:
    """The immediate post-dominator of each operator that has one; an operator whose value leaves the graph has none."""
    reverse = graph.digraph.reverse(copy=True)
    reverse.add_node(_SINK)
    for node in graph.nodes:
        if node.output in graph.output_values or not graph.consumers(node.output):
            reverse.add_edge(_SINK, node.name)
    immediate = nx.immediate_dominators(reverse, _SINK)
    found: dict[str, PostDominator] = {}
    for node in reversed(graph.nodes):
        parent = immediate.get(node.name, _SINK)
        if parent == _SINK or parent == node.name:
            continue
        pattern = Pattern.ELEMENTWISE
        for reader in graph.consumers(node.output):
            pattern = max(pattern, _edge_pattern(graph, reader, node.output))
            step = reader.name
            while step != parent:
                pattern = max(pattern, found[step].pattern)
                step = found[step].node
        found[node.name] = PostDominator(parent, pattern)
    return found


def fuse(graph: Graph, max_nodes: int = MAX_GROUP_NODES) -> tuple[Group, ...]:
    """The groups of a graph, producers first."""
    state = _Fusion(graph, max_nodes)
    for phase in (0, 1):
        for node in graph.nodes:
            state.visit(node.name, phase)
    members: dict[str, list[OperatorNode]] = {}
    for node in graph.nodes:
        members.setdefault(state.root(node.name), []).append(node)
    # A group runs where its last operator stands; all that it reads is computed by then.
    position = {node.name: index for index, node in enumerate(graph.nodes)}
    groups = sorted(members.values(), key=lambda nodes: position[nodes[-1].name])
    return tuple(Group(tuple(nodes)) for nodes in groups)


@dataclass
class _Fusion:
    """Union-find over the operators, with the kind and the size of each group at its root."""

    graph: Graph
    max_nodes: int
    parent: dict[str, str] = field(default_factory=dict)
    kind: dict[str, Pattern] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)
    dominators: Mapping[str, PostDominator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            self.kind[node.name] = node_pattern(self.graph, node)
            self.size[node.name] = 1
        self.dominators = post_dominators(self.graph)

    def root(self, name: str) -> str:
        while name in self.parent:
            name = self.parent[name]
        return name

    def visit(self, name: str, phase: int) -> None:
        """Merge the operator's group into its post-dominator's where the rules allow it."""
        dominator = self.dominators.get(name)
        if dominator is None or self.root(name) == self.root(dominator.node):
            return
        kind = self.kind[self.root(name)]
        if kind is Pattern.COMPLEX and phase == 0 and dominator.pattern is Pattern.ELEMENTWISE:
            self._merge_path(name, dominator.node, lambda on_way, last: on_way <= Pattern.BROADCAST)
        elif kind <= Pattern.BROADCAST and dominator.pattern <= Pattern.REDUCTION:
            self._merge_path(
                name, dominator.node, lambda on_way, last: on_way <= (Pattern.COMPLEX if last else Pattern.INJECTIVE)
            )
        elif kind is Pattern.INJECTIVE and phase == 1:
            self._merge_path(
                name, dominator.node, lambda on_way, last: on_way <= (Pattern.REDUCTION if last else Pattern.INJECTIVE)
            )

    def _merge_path(self, source: str, sink: str, allowed: Callable[[Pattern, bool], bool]) -> None:
        """Merge everything between `source` and `sink`, both included, if each group on the way is allowed."""
        between = self._between(source, sink)
        if between is None or not all(allowed(self.kind[self.root(name)], name == sink) for name in between if name != source):
            return
        roots = {self.root(name) for name in between}
        if sum(self.size[root] for root in roots) > self.max_nodes:
            return
        target = self.root(sink)
        kind = max(self.kind[root] for root in roots)
        for root in roots - {target}:
            self.parent[root] = target
            self.size[target] += self.size[root]
        self.kind[target] = kind if kind in (Pattern.COMPLEX, Pattern.REDUCTION) else self.kind[target]

    def _between(self, source: str, sink: str) -> set[str] | None:
        """The operators on all paths from `source` to its post-dominator `sink`; None if there are too many for one group."""
        seen, stack = {source}, [source]
        while stack:
            name = stack.pop()
            if name == sink:
                continue
            for successor in self.graph.digraph.successors(name):
                if successor not in seen:
                    seen.add(successor)
                    stack.append(successor)
            if len(seen) > self.max_nodes:
                return None
        return seen
