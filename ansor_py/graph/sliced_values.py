"""Slices without a kernel: a tensor that is one run of another one's bytes is read where it lies.

Parts of a split along the first dimension of more than one element, a token of a sequence, the planes of a few channels: the
kernel would copy consecutive elements, and whoever reads them may as well read the original. What counts is the expression,
an element read for each element at a constant distance, and not the operator's name.

    parts = with_slices(parts)
    parts.slices["right"]        # ("x", 4096): its bytes begin there in x
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import Read, Var
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Placeholder, Tensor

if TYPE_CHECKING:
    from ansor_py.graph.partition import Partition, Subgraph


def with_slices(parts: Partition) -> Partition:
    """The partition without kernels that copy a run of elements.

    An output of the model has a place of its own, and so has what the nodes that are not compiled read: such graphs keep all.
    """
    graph = parts.graph
    if graph.opaque or graph.dynamic_inputs or graph.dynamic_outputs:
        return parts
    outputs = {parts.owner(name) for name in graph.outputs.values()}
    slices: dict[str, tuple[str, int]] = {}
    kept: list[Subgraph] = []
    for subgraph in parts.subgraphs:
        first = first_element(subgraph.dag) if subgraph.output not in outputs else None
        if first is None:
            kept.append(subgraph)
        else:
            [source] = subgraph.inputs
            slices[subgraph.output] = (source, first * np.dtype(graph.values[source].dtype).itemsize)
    return replace(parts, subgraphs=tuple(kept), slices=slices)


def first_element(dag: ComputeDAG) -> int | None:
    """Where in the only input the elements lie one behind the other that are copied; None for a DAG that does anything else."""
    if len(dag.inputs) != 1 or dag.inputs[0].is_constant:
        return None
    place, source = 0, dag.inputs[0]
    for tensor in dag.computed:
        first = _first_of_run(tensor)
        if first is None or tensor.op.reads[0].tensor.name != source.name:  # type: ignore[union-attr]  # it is computed
            return None
        place, source = place + first, tensor
    return place


def _first_of_run(tensor: Tensor) -> int | None:
    """The first element read by an operation that copies elements which lie one behind the other; None for others."""
    if isinstance(tensor.op, Placeholder) or not isinstance(tensor.op.body, Read) or not tensor.size:
        return None
    axes, read = tensor.op.axes, tensor.op.body
    simplifier = Simplifier({axis.name: (0, axis.extent - 1) for axis in axes})
    place, own = simplifier.flat(read.tensor.shape, read.indices), simplifier.flat(tensor.shape, axes)
    plain = all(isinstance(atom, Var) for atom, _ in place.terms)
    same = all(place.stride(axis.name) == own.stride(axis.name) for axis in axes if axis.extent > 1)
    return place.constant if plain and same else None
