"""Running the nodes of a compiled model that are not compiled: by library kernels, or by ONNX's reference evaluator.

    runner = FallbackRunner(plan.fallback.nodes, models)       # imports onnx when the first node for the evaluator runs
    runner.run(index, memory, held)

`memory(location, shape, dtype)` gives the array at a place of compiled code's memory; `held` are the dynamic values by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ModelError
from ansor_py.graph.library_kernels import LibraryCall, run_kernel
from ansor_py.graph.plan import FallbackNode, Location, Slot

Memory: TypeAlias = Callable[[Location, tuple[int, ...], str], NDArray[Any]]


class FallbackRunner:
    """The nodes between native segments; evaluators are made when they are first needed.

    `models` are the ONNX models of the nodes that are left to the evaluator, in the order of these nodes.
    """

    def __init__(self, nodes: Sequence[FallbackNode], models: Sequence[bytes]) -> None:
        self._nodes = nodes
        left = (index for index, node in enumerate(nodes) if not node.library)
        self._models = dict(zip(left, models, strict=True))
        self._evaluators: dict[int, Any] = {}

    def run(self, index: int, memory: Memory, held: dict[str, Any]) -> None:
        """Run one node: it reads memory and `held`, and its results go there. ModelError when the node cannot be run."""
        node = self._nodes[index]
        results = self._by_library(node, memory, held) if node.library else self._by_evaluator(index, memory, held)
        for slot, result in zip(node.outputs, results, strict=True):
            if slot.location is None:
                held[slot.value] = result
                continue
            array = np.asarray(result)
            if array.shape != slot.shape or str(array.dtype) != slot.dtype:
                raise ModelError(
                    f"{node}: its result '{slot.value}' is {array.dtype}{list(array.shape)}, "
                    f"but the model states {slot.dtype}{list(slot.shape)}"
                )
            memory(slot.location, slot.shape, slot.dtype)[...] = array

    def _by_library(self, node: FallbackNode, memory: Memory, held: dict[str, Any]) -> list[Any]:
        given = {int(slot.formal): _value(slot, memory, held) for slot in node.inputs}
        inputs = [given.get(position) for position in range(max(given, default=-1) + 1)]
        results = run_kernel(node.op_type, LibraryCall(str(node), node.opset, node.attributes, inputs))
        return [results[int(slot.formal)] for slot in node.outputs]

    def _by_evaluator(self, index: int, memory: Memory, held: dict[str, Any]) -> list[Any]:
        # A copy of what lies in memory, because the evaluator may keep it (in a sequence) when the memory is used again.
        node = self._nodes[index]
        feed = {slot.formal: _value(slot, memory, held, copy=True) for slot in node.inputs}
        try:
            return list(self._evaluator(index).run(None, feed))
        except Exception as error:  # the evaluator raises whatever the operator's NumPy code raises
            raise ModelError(f"{node}: ONNX's reference evaluator cannot run it: {error}") from error

    def _evaluator(self, index: int) -> Any:
        if index not in self._evaluators:
            from ansor_py.graph.reference import evaluator_of

            self._evaluators[index] = evaluator_of(self._models[index])
        return self._evaluators[index]


def _value(slot: Slot, memory: Memory, held: dict[str, Any], copy: bool = False) -> Any:
    """An input, where it lies or copied."""
    if slot.location is None:
        return held[slot.value]
    array = memory(slot.location, slot.shape, slot.dtype)
    return array.copy() if copy else array
