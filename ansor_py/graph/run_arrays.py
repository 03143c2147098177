"""The arrays of a call: the caller's inputs, checked and read where they lie, and outputs in memory that is there already.

    arrays = RunArrays(plan)
    inputs = arrays.inputs(feed)                 # the caller's own arrays, unless they are not contiguous
    outputs = arrays.outputs()                   # memory of outputs that the caller has dropped, or new memory

Fresh memory costs a page fault for every 4 KiB, which is more than many a kernel takes. So the memory of an output is used
again when nobody holds it any more: every array, view, memoryview and DLPack capsule of it refers in the end to the array that
owns the memory, whose reference count says so.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.memory import ALIGNMENT, aligned_array
from ansor_py.errors import FeedError
from ansor_py.graph.plan import Plan, Port

Array = NDArray[np.generic]
# A loop such as `y = model.run(x)["y"]` holds the last result while the next one is computed.
_KEPT_OUTPUTS = 2
_NumPyArray = np.ndarray  # itself and no subclass


@dataclass(frozen=True, eq=False, slots=True)
class _OutputMemory:
    """Memory of one output: the array that owns it, and the output as a view of it that nobody else gets."""

    owner: NDArray[np.uint8]
    view: Array

    @staticmethod
    def of(port: Port) -> _OutputMemory:
        owner = np.empty(port.bytes + ALIGNMENT, np.uint8)
        skip = -owner.ctypes.data % ALIGNMENT
        return _OutputMemory(owner, owner[skip : skip + port.bytes].view(port.dtype).reshape(port.shape))

    def references(self) -> int:
        """How many there are to the memory, by whomsoever."""
        return sys.getrefcount(self.owner)


class RunArrays:
    """Inputs and outputs of a model's calls. Not for two threads at once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._inputs = tuple((port.name, port.shape, np.dtype(port.dtype)) for port in plan.inputs)
        self._dynamic = plan.fallback.dynamic_inputs if plan.fallback is not None else ()
        self._copies: dict[str, Array] = {}
        self._memory: list[list[_OutputMemory]] = [[] for _ in plan.outputs]
        self._unshared = [_OutputMemory.of(port).references() for port in plan.outputs]

    def inputs(self, feed: Mapping[str, Any], keep: bool = False) -> list[Array]:
        """The inputs in the plan's order, contiguous. Raises FeedError for a wrong name, shape or dtype.

        What has to be copied is overwritten by the next call, unless it is to be kept.
        """
        arrays: list[Array] = []
        if len(feed) != len(self._inputs) + len(self._dynamic):
            self._check_names(feed)
        for name, shape, dtype in self._inputs:
            try:
                value = feed[name]
            except KeyError:
                self._check_names(feed)
                raise
            array = value if type(value) is _NumPyArray else _as_array(value, name)
            if array.shape != shape:
                raise FeedError(f"input '{name}' has shape {list(array.shape)}, but the model takes {list(shape)}")
            if array.dtype != dtype:
                raise FeedError(f"input '{name}' has dtype {array.dtype}, but the model takes {dtype}; convert it with astype")
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                array = self._copied(name, array, keep)
            arrays.append(array)
        return arrays

    def outputs(self) -> list[Array]:
        """Arrays for the outputs, of which nobody holds any part."""
        return [self._output(index) for index in range(len(self._memory))]

    def outputs_into(self, given: Mapping[str, Any], inputs: Sequence[Array]) -> list[Array]:
        """The caller's arrays for some outputs, memory of ours for the others. Raises FeedError for arrays that do not do."""
        names = [port.name for port in self._plan.outputs]
        for name in given:
            if name not in names:
                raise FeedError(f"out: the model has no numeric output '{name}'; it has {', '.join(names) or 'none'}")
        taken: list[tuple[str, Array]] = [(f"input '{p.name}'", a) for p, a in zip(self._plan.inputs, inputs, strict=True)]
        arrays: list[Array] = []
        for index, port in enumerate(self._plan.outputs):
            if port.name not in given:
                arrays.append(self._output(index))
                continue
            array = _as_array(given[port.name], port.name)
            _check_output(array, port)
            for what, other in taken:
                if np.may_share_memory(array, other):
                    raise FeedError(f"out['{port.name}'] overlaps {what}; give memory of its own")
            taken.append((f"out['{port.name}']", array))
            arrays.append(array)
        return arrays

    def _output(self, index: int) -> Array:
        kept = self._memory[index]
        for memory in kept:
            if memory.references() == self._unshared[index]:
                return memory.view.view()
        if len(kept) == _KEPT_OUTPUTS:
            del kept[0]  # it is the caller's now
        kept.append(_OutputMemory.of(self._plan.outputs[index]))
        return kept[-1].view.view()

    def _copied(self, name: str, array: Array, keep: bool) -> Array:
        if keep or name not in self._copies:
            copy = aligned_array(array.shape, array.dtype)
            if not keep:
                self._copies[name] = copy
        else:
            copy = self._copies[name]
        copy[...] = array
        return copy

    def _check_names(self, feed: Mapping[str, Any]) -> None:
        """Raise FeedError if a name of the feed is unknown, or one is missing."""
        ports = self._plan.inputs
        expected = ", ".join(f"{port.name}: {port.dtype}{list(port.shape)}" for port in ports) or "nothing"
        expected += "".join(f", {name}: not a numeric tensor" for name in self._dynamic)
        names = [*(port.name for port in ports), *self._dynamic]
        for name in feed:
            if name not in names:
                raise FeedError(f"the model has no input '{name}'; it takes {expected}")
        for name in names:
            if name not in feed:
                raise FeedError(f"input '{name}' is missing; the model takes {expected}")


def _as_array(value: Any, name: str) -> Array:
    """What is given as an array: in place if it is one of another library that speaks DLPack."""
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (BufferError, RuntimeError, ValueError, TypeError) as error:
        raise FeedError(f"'{name}' cannot be read as a NumPy array: {error}") from error


def _check_output(array: Array, port: Port) -> None:
    where = f"out['{port.name}']"
    if array.shape != port.shape or array.dtype != np.dtype(port.dtype):
        raise FeedError(f"{where} is {array.dtype}{list(array.shape)}, but the output is {port.dtype}{list(port.shape)}")
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
        raise FeedError(f"{where} must be contiguous, aligned to its elements and writeable")
