"""From a partition and its kernels to an execution plan: lifetimes, places of all buffers, packed weights.

planned = make_plan(parts, kernels, target, threads=2, schedules={})
weights = pack_weights(parts.graph, planned)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.kernel import LoadedKernel
from ansor_py.codegen.memory import aligned, aligned_array
from ansor_py.graph.execution_order import execution_order, reads, writes
from ansor_py.graph.ir import Graph
from ansor_py.graph.memory import Buffer, largest_live_set, plan_memory
from ansor_py.graph.partition import Partition, Subgraph
from ansor_py.graph.plan import Call, Copy, Fallback, FallbackNode, FusionChoice, Location, Plan, Port, Slot, Work

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.target import Target


@dataclass(frozen=True)
class PlannedModel:
    """A plan, the byte offset of each constant among the weights, and for each call that has prepacked buffers theirs."""

    plan: Plan
    weight_offsets: Mapping[str, int]
    prepacked: tuple[tuple[Subgraph, CompiledKernel, tuple[int, ...]], ...]


def lifetimes(parts: Partition) -> list[Buffer]:
    """The intermediates that need a place in the arena: alive from the call that writes them to their last reader's.

    Values that are outputs, or whose views are, lie in the caller's buffers instead.
    """
    graph = parts.graph
    outside = _outside(parts)
    steps = execution_order(parts)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, item in enumerate(steps):
        for name in writes(item):
            if name in graph.values:
                first.setdefault(parts.place(name)[0], step)
                last[parts.place(name)[0]] = step
        for name in reads(item):
            if parts.place(name)[0] in first:
                last[parts.place(name)[0]] = step
    for name in graph.outputs.values():
        if parts.place(name)[0] in first:  # a part of an intermediate, which is copied after the last step
            last[parts.place(name)[0]] = len(steps) - 1
    return [Buffer(name, graph.values[name].bytes, first[name], last[name]) for name in first if name not in outside]


def _outside(parts: Partition) -> dict[str, int]:
    """The values that lie in the caller's buffer of an output, as a whole, with its number."""
    found: dict[str, int] = {}
    for index, name in enumerate(parts.graph.outputs.values()):
        owner, _ = parts.place(name)
        if parts.graph.values[owner].bytes == parts.graph.values[name].bytes:
            found.setdefault(owner, index)
    return found


def least_memory(parts: Partition) -> dict[str, int]:
    """Bytes that a run needs whatever the schedules, by what for; known before anything is compiled."""
    graph = parts.graph
    return {
        "inputs": sum(graph.values[name].bytes for name in graph.inputs),
        "outputs": sum(graph.values[name].bytes for name in graph.outputs.values()),
        "intermediates": largest_live_set(lifetimes(parts)),
    }


def make_plan(
    parts: Partition,
    kernels: Mapping[str, CompiledKernel],
    target: Target,
    threads: int,
    schedules: Mapping[str, str],
    choices: tuple[FusionChoice, ...] = (),
) -> PlannedModel:
    """The plan of a partitioned graph; `kernels` and `schedules` are by workload key. `choices` are noted in it."""
    graph = parts.graph
    memory = plan_memory(lifetimes(parts))
    places: dict[str, Location] = {name: Location("arena", offset) for name, offset in memory.offsets.items()}
    for index, name in enumerate(graph.inputs):
        places[name] = Location("input", index)
    weight_offsets, end = _weight_layout(parts, kernels)
    prepacked, weights_bytes = _prepacked_layout(parts, kernels, end)
    offsets = {id(subgraph): offsets for subgraph, _, offsets in prepacked}
    places.update((name, Location("weights", offset)) for name, offset in weight_offsets.items())
    places |= {name: Location("output", index) for name, index in _outside(parts).items() if name not in places}

    def place(name: str) -> Location:
        owner, offset = parts.place(name)
        return places[owner].shifted(offset)

    copies = tuple(
        Copy(place(name), Location("output", index), graph.values[name].bytes)
        for index, name in enumerate(graph.outputs.values())
        if place(name) != Location("output", index)
    )
    # A constant that is read only while prepacking is not stored; its slot of the kernel's table is never looked at.
    unread = Location("weights", 0)
    calls = tuple(
        Call(
            kernels[subgraph.workload_key].symbol,
            (
                *(place(name) if parts.place(name)[0] in places else unread for name in (*subgraph.inputs, subgraph.output)),
                *(Location("weights", offset) for offset in offsets.get(id(subgraph), ())),
            ),
        )
        for subgraph in execution_order(parts)
        if isinstance(subgraph, Subgraph)
    )
    plan = Plan(
        name=graph.name,
        inputs=tuple(_port(graph, name, name) for name in graph.inputs),
        outputs=tuple(_port(graph, public, name) for public, name in graph.outputs.items()),
        calls=calls,
        copies=copies,
        arena_bytes=memory.arena_bytes,
        live_bytes=memory.live_bytes,
        weights_bytes=weights_bytes,
        workspace_bytes=max((kernel.workspace_bytes for kernel in kernels.values()), default=0),
        threads=threads,
        target=target.to_json(),
        schedules={kernels[key].symbol: text for key, text in schedules.items()},
        work={kernels[unit.workload_key].symbol: Work.of(unit.name, unit.dag) for unit in parts.tasks},
        fallback=_plan_fallback(parts, places),
        algorithms={kernel.symbol: kernel.algorithms for kernel in kernels.values() if kernel.algorithms},
        notes=graph.notes,
        choices=choices,
    )
    return PlannedModel(plan, weight_offsets, prepacked)


def _plan_fallback(parts: Partition, places: Mapping[str, Location]) -> Fallback | None:
    """The opaque nodes with where their inputs and outputs lie; None if there are none and nothing is dynamic."""
    graph = parts.graph
    if not (graph.opaque or graph.dynamic_inputs or graph.dynamic_outputs):
        return None

    def slots(names: Mapping[str, str]) -> tuple[Slot, ...]:
        return tuple(slot(formal, name) for formal, name in names.items())

    def slot(formal: str, name: str) -> Slot:
        value = graph.values.get(name)
        if value is None:
            return Slot(formal, name)
        return Slot(formal, name, places[parts.owner(name)], value.shape, value.dtype)

    nodes, calls = [], 0
    for step in execution_order(parts):
        if isinstance(step, Subgraph):
            calls += 1
        else:
            identity = (step.name, step.op_type, step.domain, step.opset, step.reason)
            ports = (slots(step.inputs), slots(step.outputs))
            nodes.append(FallbackNode(*identity, calls, *ports, step.library, dict(step.attributes)))
    return Fallback(tuple(nodes), graph.dynamic_inputs, dict(graph.dynamic_outputs))


def pack_weights(graph: Graph, planned: PlannedModel) -> NDArray[np.uint8]:
    """The constants at their offsets in one 64-byte aligned array of bytes."""
    packed = aligned_array((planned.plan.weights_bytes,), np.uint8)
    end = 0
    for name, offset in planned.weight_offsets.items():
        value = graph.values[name]
        assert value.constant is not None
        packed[end:offset] = 0
        end = offset + value.bytes
        target = packed[offset:end].view(value.dtype).reshape(value.shape)
        target[...] = value.constant  # constants may have stride 0; the copy spells them out
    packed[end:] = 0
    loaded: dict[str, LoadedKernel] = {}
    for subgraph, kernel, offsets in planned.prepacked:
        if kernel.symbol not in loaded:
            loaded[kernel.symbol] = LoadedKernel(kernel)
        arrays = loaded[kernel.symbol].prepack(_constants(graph, subgraph, kernel))
        for array, offset in zip(arrays, offsets, strict=True):
            packed[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
    return packed


def _constants(graph: Graph, subgraph: Subgraph, kernel: CompiledKernel) -> list[NDArray[np.generic]]:
    """Arrays in the kernel's ABI order: constants with their values, the others empty, as nothing reads them yet."""
    names = (*subgraph.inputs, subgraph.output)
    arrays: list[NDArray[np.generic]] = []
    for spec, name in zip(kernel.buffers, names, strict=True):
        value = graph.values[name].constant
        array = aligned_array(spec.shape if spec.role == "constant" else (1,), spec.dtype)
        if spec.role == "constant" and value is not None:
            array[...] = value.reshape(spec.shape)
        arrays.append(array)
    return arrays


def _prepacked_layout(
    parts: Partition, kernels: Mapping[str, CompiledKernel], end: int
) -> tuple[tuple[tuple[Subgraph, CompiledKernel, tuple[int, ...]], ...], int]:
    """Offsets of what each call's kernel prepacks from its constants, behind the other weights; and the total size."""
    found: list[tuple[Subgraph, CompiledKernel, tuple[int, ...]]] = []
    for step in execution_order(parts):
        if not isinstance(step, Subgraph) or not kernels[step.workload_key].prepacked:
            continue
        kernel, offsets = kernels[step.workload_key], list[int]()
        for spec in kernel.prepacked:
            offsets.append(end)
            end += aligned(int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize)
        found.append((step, kernel, tuple(offsets)))
    return tuple(found), end


def _read_constants(parts: Partition, kernels: Mapping[str, CompiledKernel]) -> list[str]:
    """What every step reads while the model runs."""
    names: list[str] = []
    for step in execution_order(parts):
        if isinstance(step, Subgraph):
            unread = kernels[step.workload_key].unread
            names += [n for n, tensor in zip(step.inputs, step.dag.inputs, strict=True) if tensor.name not in unread]
        else:
            names += reads(step)
    return names


def _weight_layout(parts: Partition, kernels: Mapping[str, CompiledKernel]) -> tuple[dict[str, int], int]:
    """Offsets of the constants that kernels read or that are outputs, in order of first use; and the total size."""
    graph = parts.graph
    used = [parts.owner(name) for name in _read_constants(parts, kernels)]
    used += [parts.owner(name) for name in graph.outputs.values()]
    offsets: dict[str, int] = {}
    end = 0
    for name in dict.fromkeys(used):
        value = graph.values.get(name)
        if value is not None and value.constant is not None:
            offsets[name] = end
            end += aligned(value.bytes)
    return offsets, end


def _port(graph: Graph, public: str, name: str) -> Port:
    value = graph.values[name]
    return Port(public, value.shape, value.dtype)
