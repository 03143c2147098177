"""The order in which kernels and opaque nodes run: as few changes between native code and the evaluator as possible.

    for step in execution_order(parts):       # Subgraph or OpaqueNode
        print(reads(step), writes(step))

Kernels that are ready run before the next opaque node, so that the kernels between two opaque nodes are one native call.
"""

from __future__ import annotations

from typing import TypeAlias, Union

from ansor_py.errors import ModelError
from ansor_py.graph.ir import OpaqueNode
from ansor_py.graph.partition import Partition, Subgraph

ExecutionStep: TypeAlias = "Union[Subgraph, OpaqueNode]"


def reads(step: ExecutionStep) -> tuple[str, ...]:
    """The values that a step needs."""
    return step.inputs if isinstance(step, Subgraph) else tuple(step.inputs.values())


def writes(step: ExecutionStep) -> tuple[str, ...]:
    """The values that a step computes."""
    return (step.output,) if isinstance(step, Subgraph) else tuple(step.outputs.values())


def execution_order(parts: Partition) -> tuple[ExecutionStep, ...]:
    """All subgraphs and opaque nodes, producers first. Without opaque nodes it is the order of the partition."""
    if not parts.graph.opaque:
        return parts.subgraphs
    kernels: list[ExecutionStep] = list(parts.subgraphs)
    opaque: list[ExecutionStep] = list(parts.graph.opaque)
    missing = {name for step in (*kernels, *opaque) for name in writes(step)}
    order: list[ExecutionStep] = []
    while kernels or opaque:
        ran = _run_ready(parts, kernels, missing) or _run_ready(parts, opaque, missing)
        if not ran:
            raise ModelError(f"model '{parts.graph.name}': its kernels and its uncompiled nodes wait for each other")
        order += ran
    return tuple(order)


def _run_ready(parts: Partition, waiting: list[ExecutionStep], missing: set[str]) -> list[ExecutionStep]:
    """The steps that can run one after the other in the given order; they leave `waiting`, their results leave `missing`."""
    ran: list[ExecutionStep] = []
    for step in list(waiting):
        if not any(parts.owner(name) in missing for name in reads(step)):
            missing.difference_update(writes(step))
            ran.append(step)
    waiting[:] = [step for step in waiting if step not in ran]
    return ran
