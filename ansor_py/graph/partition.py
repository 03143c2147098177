"""Partition: groups of operators become subgraphs with a compute DAG, and equal ones become one task.

The placeholders of a subgraph are named by their place (`data0`, `weight0`, ...), not by the model's names, so that two
layers of the same computation have the same workload key. Each occurrence keeps which graph value every placeholder is.

    parts = partition(graph, fuse(graph))
    for unit in parts.tasks:
        print(unit.weight, unit.name, unit.workload_key)

A partition may be open to choices (`row_fusion.py`): some of its kernels or one kernel in their place, which does the same.

    parts = parts.decided(choice.key for choice in parts.choices)      # all of them by one kernel each
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class Choice:
    """One kernel, `whole`, or several, `parts`, in order of execution, which compute the same."""

    whole: Subgraph
    parts: tuple[Subgraph, ...]

    @property
    def key(self) -> str:
        """What is decided: all choices of one workload key of the whole alike."""
        return self.whole.workload_key


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
    (`joined_values.py`), `slices` those that are read there (`sliced_values.py`). `choices` are those that it is open to, each
    subgraph in one at most; `narrow` are then the subgraphs with the parts of all of them.
    """

    graph: Graph
    subgraphs: tuple[Subgraph, ...]
    views: Mapping[str, str]
    joins: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    slices: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    narrow: tuple[Subgraph, ...] = ()

    @cached_property
    def tasks(self) -> tuple[TaskUnit, ...]:
        """The distinct subgraphs in order of first execution, with unique names, which a decision does not change."""
        names = {unit.workload_key: unit.name for unit in self.all_tasks} if self.choices else {}
        return _units(self.graph, self.subgraphs, names)

    @cached_property
    def all_tasks(self) -> tuple[TaskUnit, ...]:
        """The same of all alternatives: the tasks of the narrow partition, then those of the wholes."""
        wholes = tuple(choice.whole for choice in self.choices)
        return _units(self.graph, (*(self.narrow if self.choices else self.subgraphs), *wholes), {})

    @cached_property
    def taken(self) -> frozenset[str]:
        """The keys of the choices that are decided for the whole."""
        present = set(map(id, self.subgraphs))
        return frozenset(choice.key for choice in self.choices if id(choice.whole) in present)

    def decided(self, wholes: Iterable[str]) -> Partition:
        """The partition with the whole of each choice that has one of these keys, and the parts of all others."""
        wanted = set(wholes)
        if wanted == self.taken:
            return self
        taken = [choice for choice in self.choices if choice.key in wanted]
        # A whole runs where its last part does; what its parts hand on to each other nothing else reads.
        parts = {id(part) for choice in taken for part in choice.parts}
        whole = {id(choice.parts[-1]): choice.whole for choice in taken}
        chosen = [whole.get(id(part), part) for part in self.narrow if id(part) in whole or id(part) not in parts]
        return replace(self, subgraphs=tuple(chosen))

    def closed(self, wholes: Iterable[str]) -> Partition:
        """The same, open to no choice any more."""
        return replace(self.decided(wholes), choices=(), narrow=())

    def without(self, keys: Iterable[str]) -> Partition:
        """The partition with the parts of the choices of these keys, and not open to them."""
        dropped = set(keys)
        kept = tuple(choice for choice in self.choices if choice.key not in dropped)
        return self if len(kept) == len(self.choices) else replace(self.decided(self.taken - dropped), choices=kept)

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
    subgraphs = tuple(subgraph_of(graph, group.nodes) for group in groups if not group.is_view)
    return with_joins(with_slices(Partition(graph, subgraphs, views)))


def subgraph_of(
    graph: Graph, nodes: Sequence[OperatorNode], rewrite: Callable[[ComputeDAG], ComputeDAG] = merge_axes
) -> Subgraph:
    """The kernel of some nodes in topological order, of which the last computes the result; `rewrite` changes its DAG."""
    tensors: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    constants = 0
    for node in nodes:
        for name in node.reads:
            if name not in tensors:
                value = graph.values[name]
                is_constant = value.constant is not None
                label = f"weight{constants}" if is_constant else f"data{len(inputs) - constants}"
                inputs[name] = tensors[name] = _placeholder(value, label)
                constants += is_constant
        tensors[node.output] = node.expression([tensors[name] if name else None for name in node.inputs])
    output = nodes[-1].output
    dag = rewrite(ComputeDAG.from_outputs(tensors[output], inputs=list(inputs.values())))
    return Subgraph(tuple(nodes), tuple(inputs), output, dag)


def _units(graph: Graph, subgraphs: Sequence[Subgraph], names: Mapping[str, str]) -> tuple[TaskUnit, ...]:
    """The distinct ones among some subgraphs; without a name in `names` they get one."""
    found: dict[str, list[Subgraph]] = {}
    for subgraph in subgraphs:
        found.setdefault(subgraph.workload_key, []).append(subgraph)
    units, taken = [], set[str]()
    for key, occurrences in found.items():
        name = names[key] if names else _unique(_task_name(graph, occurrences[0]), taken)
        units.append(TaskUnit(name, occurrences[0].dag, tuple(occurrences)))
    return tuple(units)


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
