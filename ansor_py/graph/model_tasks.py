"""From a model to its partition and its tuning tasks; compiles nothing.

parts = partition_model("m.onnx", shapes={"batch": 1})
tasks = extract_tasks(parts, Target.detect())
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, Union

from ansor_py.errors import OptionError
from ansor_py.graph.fusion import fuse
from ansor_py.graph.partition import Partition, partition
from ansor_py.graph.row_fusion import with_row_choices
from ansor_py.schedule.task import Task
from ansor_py.search.scheduler.networks import Alternatives, Network
from ansor_py.target import Target

if TYPE_CHECKING:
    from onnx import ModelProto

    from ansor_py.graph.input_shapes import Shapes
    from ansor_py.graph.ir import Graph

Model: TypeAlias = "Union[str, os.PathLike[str], bytes, ModelProto]"
# Whether kernels over rows are offered beside the narrower ones that they could replace.
FUSIONS = ("wide", "narrow")


def partition_model(model: Model, shapes: Shapes | None = None, *, fallback: bool = True, fusion: str = "wide") -> Partition:
    """The model's kernels and tasks: import, passes, fusion, partition. Raises ModelError.

    `fallback`: nodes that cannot be compiled are left to ONNX's reference evaluator, instead of being an error. `fusion`: with
    "wide" the partition is open to choices (`Partition.choices`), with "narrow" there are none.
    """
    check_fusion(fusion)
    from ansor_py.graph.onnx_import import import_model
    from ansor_py.graph.passes import run_passes

    graph = run_passes(import_model(model, shapes, fallback=fallback))
    return partition_graph(graph, fusion)


def partition_graph(graph: Graph, fusion: str = "wide") -> Partition:
    """The same for a graph after the passes."""
    narrow = partition(graph, fuse(graph))
    return with_row_choices(narrow) if fusion == "wide" else narrow


def check_fusion(fusion: str) -> None:
    """Raise OptionError for what is no kind of fusion."""
    if fusion not in FUSIONS:
        raise OptionError(f"fusion is '{fusion}'; it must be {' or '.join(FUSIONS)}")


def extract_tasks(model: Model | Partition, target: Target | str | None = None, shapes: Shapes | None = None) -> list[Task]:
    """The distinct subgraphs of a model as tasks to tune, with the number of their occurrences as weight.

    Of a partition that is open to choices these are the tasks of all alternatives; `network_of` says which replace which.
    """
    parts = model if isinstance(model, Partition) else partition_model(model, shapes)
    machine = target_of(target)
    return [Task(unit.name, unit.dag, machine, unit.weight) for unit in parts.all_tasks]


def network_of(parts: Partition, name: str = "", default_seconds: Mapping[str, float] = MappingProxyType({})) -> Network:
    """A model as the task scheduler sees it: how often it runs each task, and which tasks may take the place of others."""
    inside = {id(part) for choice in parts.choices for part in choice.parts}
    narrow = parts.narrow if parts.choices else parts.subgraphs
    fixed = Counter(subgraph.workload_key for subgraph in narrow if id(subgraph) not in inside)
    names = {unit.workload_key: unit.name for unit in parts.all_tasks}
    calls: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for choice in parts.choices:
        several, one = calls.setdefault(choice.key, (Counter(), Counter()))
        several.update(part.workload_key for part in choice.parts)
        one.update([choice.key])
    alternatives = tuple(Alternatives(names[key], (dict(several), dict(one))) for key, (several, one) in calls.items())
    return Network(name, dict(fixed), default_seconds, alternatives)


def target_of(target: Target | str | None) -> Target:
    """The target meant: this machine for None, or one written as text. Raises TargetError for nonsense."""
    if target is None:
        return Target.detect()
    return Target.parse(target) if isinstance(target, str) else target
