"""Running the nodes of a compiled model that are not compiled, by ONNX's reference evaluator.

    evaluator = FallbackEvaluator(plan.fallback.nodes, models)       # imports onnx when the first node runs
    evaluator.run(index, memory, held)

`memory(location, shape, dtype)` gives the array at a place of compiled code's memory; `held` are the dynamic values by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ModelError
from ansor_py.graph.plan import FallbackNode, Location, Slot

Memory: TypeAlias = Callable[[Location, tuple[int, ...], str], NDArray[Any]]


class FallbackEvaluator:
    """The evaluators of the fallback nodes, each made when it is first needed."""

    def __init__(self, nodes: Sequence[FallbackNode], models: Sequence[bytes]) -> None:
        self._nodes = nodes
        self._models = models
        self._evaluators: dict[int, Any] = {}

    def run(self, index: int, memory: Memory, held: dict[str, Any]) -> None:
        """Run one node: it reads memory and `held`, and its results go there. ModelError when the evaluator fails."""
        node = self._nodes[index]
        feed = {slot.formal: _value(slot, memory, held) for slot in node.inputs}
        try:
            results = self._evaluator(index).run(None, feed)
        except Exception as error:  # the evaluator raises whatever the operator's NumPy code raises
            raise ModelError(f"{node} cannot be evaluated: {error}") from error
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

    def _evaluator(self, index: int) -> Any:
        if index not in self._evaluators:
            from ansor_py.graph.reference import evaluator_of

            self._evaluators[index] = evaluator_of(self._models[index])
        return self._evaluators[index]


def _value(slot: Slot, memory: Memory, held: dict[str, Any]) -> Any:
    """An input; a copy, because the evaluator may keep it (in a sequence) when the memory is used for another value."""
    return held[slot.value] if slot.location is None else memory(slot.location, slot.shape, slot.dtype).copy()
