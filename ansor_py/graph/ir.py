"""The graph IR: operator nodes and the values that flow between them.

A `Graph` is immutable; a pass returns a new one. Every node computes exactly one value (an ONNX node with several
outputs becomes one node for each output that is used, told apart by `output_index`), so a value, its producer and a
kernel's result are the same thing everywhere below. A value with a `constant` array is known at compile time.

    graph = import_model("m.onnx")
    print(graph)                       # one line a node
    graph.digraph                      # networkx.DiGraph over node names, edges carry the value's name
    graph.consumers("conv1_out")       # the nodes that read a value
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import SizeError
from ansor_py.te.tensor import MOST_BYTES, SIZE_LIMIT

if TYPE_CHECKING:
    from ansor_py.graph.library_kernels import Attribute
    from ansor_py.te.tensor import Tensor

Array: TypeAlias = NDArray[np.generic]
AttributeValue: TypeAlias = "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array"
# The domain of operators that passes introduce.
ANSOR_DOMAIN = "ansor_py"


class Pattern(IntEnum):
    """How an operator's output elements depend on its inputs; fusion compares these, weaker kinds first (as in TVM)."""

    ELEMENTWISE = 0
    BROADCAST = 1
    INJECTIVE = 2
    REDUCTION = 3
    COMPLEX = 4  # complex-out-fusable: convolution, matmul, pooling; element-wise consumers may be fused into its output
    OPAQUE = 8


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph: shape in elements, dtype, and the array if it is known at compile time.

    Raises SizeError for one that no machine can hold.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: Array | None = None

    def __post_init__(self) -> None:
        if self.bytes > MOST_BYTES:
            raise SizeError(f"value '{self.name}', {self.dtype}{list(self.shape)}, has {self.bytes} bytes; {SIZE_LIMIT}")

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(frozen=True, eq=False)
class OperatorNode:
    """One operator: the names of the values it reads ("" for an omitted optional input) and of the one it computes."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    domain: str = ""
    opset: int = 0
    output_index: int = 0
    output_count: int = 1

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that are present."""
        return tuple(name for name in self.inputs if name)

    @property
    def pattern(self) -> Pattern:
        """The pattern kind that the operator's registration states."""
        from ansor_py.graph.onnx_ops.registry import definition_of

        return definition_of(self).pattern

    @property
    def is_view(self) -> bool:
        """Whether the output has the bytes of the first input, only seen under another shape."""
        from ansor_py.graph.onnx_ops.registry import definition_of

        return definition_of(self).view

    def expression(self, inputs: Sequence[Tensor | None]) -> Tensor:
        """The node's result as a tensor expression over `inputs` (None for an omitted one)."""
        from ansor_py.graph.onnx_ops.registry import expression_of

        return expression_of(self, inputs)

    def __str__(self) -> str:
        shown = " ".join(f"{key}={_short(value)}" for key, value in self.attributes.items())
        return f"{self.op_type}({', '.join(self.inputs)})" + (f" {shown}" if shown else "")


@dataclass(frozen=True, eq=False)
class OpaqueNode:
    """An ONNX node without a tensor expression, which runs between compiled kernels.

    ONNX's reference evaluator runs it from `model`, a serialised ONNX model that holds the node alone; a library kernel
    (`library`; no `model`) from its `attributes`. `inputs` and `outputs` map the model's input and output names, or their
    positions as decimal numbers for a library kernel, to values of the graph. A name that is not among `Graph.values` is a
    dynamic value: of a shape that is known only when the model runs, or not a numeric tensor. `reason` says why the node is
    not compiled.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    reason: str
    model: bytes
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    library: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order, values by name, input names, and outputs (public name -> value name).

    `opaque` are the nodes that run outside of compiled code; `dynamic_inputs` and `dynamic_outputs` are the inputs and the
    outputs (public name -> value name) that are dynamic values. `wanted` are inputs whose values, if they were known, would
    let more nodes be compiled (the shape fed to a Reshape). `notes` are remarks on the model that had no consequences.
    """

    name: str
    nodes: tuple[OperatorNode, ...]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    opaque: tuple[OpaqueNode, ...] = ()
    dynamic_inputs: tuple[str, ...] = ()
    dynamic_outputs: Mapping[str, str] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @cached_property
    def producers(self) -> Mapping[str, OperatorNode]:
        """The node that computes each computed value."""
        return {node.output: node for node in self.nodes}

    @cached_property
    def readers(self) -> Mapping[str, tuple[OperatorNode, ...]]:
        """The nodes that read each value, in topological order, a node once."""
        found: dict[str, list[OperatorNode]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def output_values(self) -> frozenset[str]:
        """Names of the values that leave the compiled part of the graph: its outputs, and what opaque nodes read."""
        read = {name for node in self.opaque for name in node.inputs.values() if name in self.values}
        return frozenset({*self.outputs.values(), *read})

    @cached_property
    def digraph(self) -> nx.DiGraph:
        """The operators as a networkx graph: node names, with the `OperatorNode` as attribute `node`; edges carry `value`."""
        graph = nx.DiGraph(name=self.name)
        for node in self.nodes:
            graph.add_node(node.name, node=node)
            for name in node.reads:
                if name in self.producers:
                    graph.add_edge(self.producers[name].name, node.name, value=name)
        return graph

    def consumers(self, value: str) -> tuple[OperatorNode, ...]:
        """The nodes that read a value."""
        return self.readers.get(value, ())

    def producer(self, value: str) -> OperatorNode | None:
        """The node that computes a value, or None for an input or a constant."""
        return self.producers.get(value)

    def constant(self, value: str) -> Array | None:
        """The array of a constant value; None if it is computed, an input, or omitted ("")."""
        return self.values[value].constant if value else None

    def only_reader(self, value: str) -> OperatorNode | None:
        """The single node that reads a value which nothing else needs, else None."""
        readers = self.consumers(value)
        return readers[0] if len(readers) == 1 and value not in self.output_values else None

    def __str__(self) -> str:
        inputs = ", ".join(str(self.values[name]) for name in self.inputs)
        constants = sum(value.constant is not None for value in self.values.values())
        lines = [f"graph {self.name}({inputs}) -> {', '.join(self.outputs)}  # {len(self.nodes)} nodes, {constants} constants"]
        lines += [f"  {self.values[node.output]} = {node}" for node in self.nodes]
        for opaque in self.opaque:
            reads, writes = ", ".join(opaque.inputs.values()), ", ".join(opaque.outputs.values())
            runner = "a library kernel" if opaque.library else "ONNX's reference evaluator"
            lines.append(f"  {writes} = {opaque.op_type}({reads})  # by {runner}")
        return "\n".join(lines)


def rebuild(graph: Graph, nodes: Iterable[OperatorNode], values: Iterable[Value] = (), **changes: object) -> Graph:
    """The graph with other nodes (in any order) and further values; values that nothing mentions are dropped.

    `changes` may hold `inputs`, `outputs` or `opaque`.
    """
    known = dict(graph.values)
    known.update((value.name, value) for value in values)
    changed = replace(graph, nodes=sorted_nodes(nodes), values=known, **changes)  # type: ignore[arg-type]
    kept = {*changed.inputs, *changed.outputs.values()}
    for node in changed.nodes:
        kept.update(node.reads)
        kept.add(node.output)
    for opaque in changed.opaque:
        kept.update((*opaque.inputs.values(), *opaque.outputs.values()))
    return replace(changed, values={name: value for name, value in known.items() if name in kept})


def sorted_nodes(nodes: Iterable[OperatorNode]) -> tuple[OperatorNode, ...]:
    """Nodes in topological order; nodes that are already in order keep it."""
    listed = list(nodes)
    position = {node.name: index for index, node in enumerate(listed)}
    producer = {node.output: node.name for node in listed}
    order = nx.DiGraph()
    order.add_nodes_from(position)
    order.add_edges_from((producer[name], node.name) for node in listed for name in node.reads if name in producer)
    by_name = {node.name: node for node in listed}
    return tuple(by_name[name] for name in nx.lexicographical_topological_sort(order, key=position.__getitem__))


def replace_uses(graph: Graph, renamed: Mapping[str, str]) -> Graph:
    """Readers of a key of `renamed`, and graph outputs that are one, take the mapped value instead; chains are followed."""

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    nodes = [replace(node, inputs=tuple(final(name) for name in node.inputs)) for node in graph.nodes]
    opaque = tuple(replace(node, inputs={key: final(name) for key, name in node.inputs.items()}) for node in graph.opaque)
    return rebuild(graph, nodes, outputs={public: final(name) for public, name in graph.outputs.items()}, opaque=opaque)


def fresh_name(graph: Graph, wanted: str) -> str:
    """A value and node name that the graph does not use yet."""
    taken = {*graph.values, *(node.name for node in graph.nodes)}
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def _short(value: AttributeValue) -> str:
    if isinstance(value, np.ndarray):
        return np.array2string(value, threshold=4, separator=",") if value.size <= 4 else f"<{value.dtype}{list(value.shape)}>"
    return str(list(value)) if isinstance(value, tuple) else str(value)
