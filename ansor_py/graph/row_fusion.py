"""Wider fusion: kernels behind each other that go from row to row may be one kernel, and are offered as such.

Fusion by kinds of operators (`fusion.py`) stops at every product and at every softmax. Here consecutive kernels of a partition
are put together as long as what they compute says that rows stay together (`row_access.py`): a product with the row operations
behind it, such as scale, mask and softmax, or a layer normalisation however it is exported; then the product of these rows with
the values, and the transposition behind that; row operations with the residual and the element-wise operators around them.
Transpositions that only one product reads may be part of its kernel, in these and by themselves, and views between do not
matter.

Nothing is decided here: each such kernel is a `Choice` beside those that it could replace (`partition_choice.py`).

    parts = with_row_choices(partition(graph, fuse(graph)))
    for choice in parts.choices:
        print(choice.whole.nodes, len(choice.parts))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import networkx as nx

from ansor_py.graph.fusion import MAX_GROUP_NODES
from ansor_py.graph.ir import OperatorNode
from ansor_py.graph.partition import Choice, Partition, Subgraph, subgraph_of
from ansor_py.graph.row_access import is_product, shared_rows, transposes
from ansor_py.graph.split_axes import split_axes
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.te.tensor import Compute

_SINK = -1  # the virtual kernel behind all results that leave the compiled part of the graph


def with_row_choices(parts: Partition, max_nodes: int = MAX_GROUP_NODES) -> Partition:
    """The partition, open to a choice wherever kernels behind each other may be one over their rows."""
    kernels = _Kernels(parts, max_nodes)
    choices: list[Choice] = []
    taken: set[int] = set()
    for seed in range(len(parts.subgraphs)):
        found = kernels.widest(seed) if seed not in taken else []
        if found and taken.isdisjoint(found):
            choices.append(kernels.choice(kernels.with_transpositions(found, taken), taken))
    for number in range(len(parts.subgraphs)):
        members = kernels.with_transpositions([number], taken) if number not in taken else []
        if len(members) > 1:
            choices.append(kernels.choice(members, taken))
    return replace(parts, choices=tuple(choices), narrow=parts.subgraphs)


def _wide_dag(dag: ComputeDAG) -> ComputeDAG:
    return merge_axes(split_axes(dag))


@dataclass(frozen=True, eq=False)
class _Kernels:
    """The kernels of a partition by number, and which reads which, views seen through."""

    parts: Partition
    max_nodes: int

    @cached_property
    def digraph(self) -> nx.DiGraph:
        """Edges from producers to readers, and to the sink from what others than kernels read."""
        parts, graph = self.parts, self.parts.graph
        # What lies inside of another value, or has others inside, is needed in memory.
        sliced = (parts.owner(source) for source, _ in parts.slices.values())
        outside = {*(parts.owner(name) for name in graph.output_values), *parts.joins, *sliced}
        computed = {subgraph.output: number for number, subgraph in enumerate(parts.subgraphs)}
        edges = nx.DiGraph()
        edges.add_nodes_from((*range(len(parts.subgraphs)), _SINK))
        for number, subgraph in enumerate(parts.subgraphs):
            owners = {parts.owner(name) for name in subgraph.inputs}
            edges.add_edges_from((computed[owner], number) for owner in owners if owner in computed)
            if subgraph.output in outside:
                edges.add_edge(number, _SINK)
        edges.add_edges_from([(number, _SINK) for number in computed.values() if not edges.out_degree(number)])
        return edges

    @cached_property
    def post_dominator(self) -> dict[int, int]:
        """The kernel through which everything flows that is made of a kernel's result."""
        found: dict[int, int] = dict(nx.immediate_dominators(self.digraph.reverse(copy=True), _SINK))
        return {number: parent for number, parent in found.items() if _SINK not in (number, parent)}

    @cached_property
    def has_product(self) -> tuple[bool, ...]:
        return tuple(any(map(is_product, subgraph.dag.computed)) for subgraph in self.parts.subgraphs)

    @cached_property
    def reduces(self) -> tuple[bool, ...]:
        """Whether kernels have reductions that are no products."""
        return tuple(
            any(isinstance(t.op, Compute) and t.op.reduce_axes and not is_product(t) for t in subgraph.dag.computed)
            for subgraph in self.parts.subgraphs
        )

    def widest(self, seed: int) -> list[int]:
        """The most kernels, from `seed` on, that may be one; none if they are not at least two."""
        members, best = [seed], list[int]()
        while members[-1] in self.post_dominator:
            following = self._following(members[-1])
            members = sorted({*members, *following})
            if not following or self._size(members) > self.max_nodes or not self._may_grow(members, seed):
                break
            if any(self.reduces[number] for number in members):
                if not shared_rows(self.whole(members).dag):
                    break
                best = members
        return best

    def _may_grow(self, members: Sequence[int], seed: int) -> bool:
        """What can be said before there is a DAG: a product is the first kernel's, or comes after a reduction of its rows."""
        products = [number for number in members if self.has_product[number]]
        if products and not self.has_product[seed]:
            return False
        reduced = any(self.reduces[number] for number in members if number not in products[1:])
        return len(products) <= 1 or (len(products) == 2 and reduced)

    def _following(self, number: int) -> list[int]:
        """The kernels on the way from one to its post-dominator, this one included; none if they are too many."""
        last = self.post_dominator[number]
        seen, stack = set[int](), [number]
        while stack and len(seen) <= self.max_nodes:
            for reader in self.digraph.successors(stack.pop()):
                if reader not in seen:
                    seen.add(reader)
                    stack += [reader] if reader != last else []
        return [] if stack else sorted(seen)

    def with_transpositions(self, members: Sequence[int], taken: set[int]) -> list[int]:
        """With the transpositions outside that only a product among the kernels reads."""
        found = set(members)
        for number in (number for number in members if self.has_product[number]):
            for source in sorted(self.digraph.predecessors(number)):
                alone = list(self.digraph.successors(source)) == [number] and source not in taken
                if alone and self._size([*found, source]) <= self.max_nodes and self._is_transposition(source):
                    found.add(source)
        return sorted(found)

    def _is_transposition(self, number: int) -> bool:
        return transposes(self.parts.subgraphs[number].dag)

    def _size(self, members: Iterable[int]) -> int:
        return sum(len(self.parts.subgraphs[number].nodes) for number in members)

    def choice(self, members: Sequence[int], taken: set[int]) -> Choice:
        """The choice between one kernel and these, which are taken then."""
        taken.update(members)
        return Choice(self.whole(members), tuple(self.parts.subgraphs[number] for number in members))

    def whole(self, members: Sequence[int]) -> Subgraph:
        """The kernels as one, with the views between them."""
        graph = self.parts.graph
        nodes = {node.name: node for number in members for node in self.parts.subgraphs[number].nodes}
        outputs = {self.parts.subgraphs[number].output for number in members}
        for number in members:
            for name in self.parts.subgraphs[number].inputs:
                nodes |= {node.name: node for node in self._views(name)} if self.parts.owner(name) in outputs else {}
        place = {node.name: index for index, node in enumerate(graph.nodes)}
        return subgraph_of(graph, sorted(nodes.values(), key=lambda node: place[node.name]), _wide_dag)

    def _views(self, name: str) -> list[OperatorNode]:
        """The views between a value and the one whose bytes it has."""
        found = []
        while name in self.parts.views:
            found.append(self.parts.graph.producers[name])
            name = self.parts.views[name]
        return found
