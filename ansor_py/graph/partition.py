"""Partition: groups of operators become subgraphs with a compute DAG, and equal ones become one task.

The placeholders of a subgraph are named by their place (`data0`, `weight0`, ...), not by the model's names, so that two
layers of the same computation have the same workload key. Each occurrence keeps which graph value every placeholder is.

    parts = partition(graph, fuse(graph))
    for unit in parts.tasks:
        print(unit.weight, unit.name, unit.workload_key)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ansor_py.graph.fusion import Group
from ansor_py.graph.ir import Graph, OperatorNode, Value
from ansor_py.graph.joined_values import with_joins
from ansor_py.graph.sliced_values import with_slices
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.te.tensor import Tensor, placeholder

# How many operator names a task's name lists before it says how many more there are.
_NAMED_OPERATORS = 4


@dataclass(frozen=True, eq=False)
class Subgraph:
    """One kernel call: `inputs` are the graph values of the DAG's placeholders, in order, `output` is what it computes."""

    nodes: tuple[OperatorNode, ...]
    inputs: tuple[str, ...]
    output: str
    dag: ComputeDAG

    @property
    def workload_key(self) -> str:
        """What identifies the computation."""
        return self.dag.workload_key


@dataclass(frozen=True, eq=False)
class TaskUnit:
    """Subgraphs of equal workload key: tuned and compiled once, called once for each occurrence."""

    name: str
    dag: ComputeDAG
    occurrences: tuple[Subgraph, ...]

    @property
    def weight(self) -> int:
        """How often one run of the model calls the kernel."""
        return len(self.occurrences)

    @property
    def workload_key(self) -> str:
        """What identifies the computation."""
        return self.dag.workload_key


@dataclass(frozen=True, eq=False)
class Partition:
    """A graph cut into kernels: `subgraphs` in order of execution; `views` maps a value to the one whose bytes it is.

    Values that lie inside of another one, with the byte where they begin: `joins` those that are computed there
    (`joined_values.py`), `slices` those that are read there (`sliced_values.py`).
    """

    graph: Graph
    subgraphs: tuple[Subgraph, ...]
    views: Mapping[str, str]
    joins: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    slices: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> tuple[TaskUnit, ...]:
        """The distinct subgraphs in order of first execution, with unique names."""
        found: dict[str, list[Subgraph]] = {}
        for subgraph in self.subgraphs:
            found.setdefault(subgraph.workload_key, []).append(subgraph)
        units, taken = [], set[str]()
        for occurrences in found.values():
            name = _unique(_task_name(self.graph, occurrences[0]), taken)
            units.append(TaskUnit(name, occurrences[0].dag, tuple(occurrences)))
        return tuple(units)

    def owner(self, value: str) -> str:
        """The value whose bytes `value` is: itself, unless it is a view."""
        while value in self.views:
            value = self.views[value]
        return value

    def place(self, value: str) -> tuple[str, int]:
        """The value that has a buffer of its own in which `value` lies, and its first byte there."""
        owner, offset = self.owner(value), 0
        while owner in self.joins or owner in self.slices:
            whole, first = self.joins.get(owner) or self.slices[owner]
            owner, offset = self.owner(whole), offset + first
        return owner, offset


def partition(graph: Graph, groups: Sequence[Group]) -> Partition:
    """A subgraph for each group that computes something; views are aliases, as are slices and concatenations without a copy."""
    views = {group.output: group.nodes[0].inputs[0] for group in groups if group.is_view}
    subgraphs = tuple(_subgraph(graph, group) for group in groups if not group.is_view)
    return with_joins(with_slices(Partition(graph, subgraphs, views)))


def _subgraph(graph: Graph, group: Group) -> Subgraph:
    tensors: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    constants = 0
    for node in group.nodes:
        for name in node.reads:
            if name not in tensors:
                value = graph.values[name]
                is_constant = value.constant is not None
                label = f"weight{constants}" if is_constant else f"data{len(inputs) - constants}"
                inputs[name] = tensors[name] = _placeholder(value, label)
                constants += is_constant
        tensors[node.output] = node.expression([tensors[name] if name else None for name in node.inputs])
    dag = merge_axes(ComputeDAG.from_outputs(tensors[group.output], inputs=list(inputs.values())))
    return Subgraph(group.nodes, tuple(inputs), group.output, dag)


def _placeholder(value: Value, label: str) -> Tensor:
    """A scalar has shape [1]: kernels index everything they read."""
    return placeholder(value.shape or (1,), value.dtype, label, constant=value.constant is not None)


def _task_name(graph: Graph, subgraph: Subgraph) -> str:
    """Such as `conv_relu_1x64x55x55`: the operators and the shape of the result."""
    kinds = [node.op_type.lower() for node in subgraph.nodes]
    rest = len(kinds) - _NAMED_OPERATORS
    shown = [*kinds[:_NAMED_OPERATORS], f"and_{rest}_more"] if rest > 0 else kinds
    shape = "x".join(str(extent) for extent in graph.values[subgraph.output].shape) or "scalar"
    return f"{'_'.join(shown)}_{shape}"


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}.{number}", number + 1
    taken.add(candidate)
    return candidate
