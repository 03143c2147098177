"""Library kernels: operators that NumPy computes between native segments, because a loop nest cannot in good time.

Selecting and sorting depend on the data in a way that loops over all elements pay for: as a tensor expression TopK compares
every pair. What is registered here is neither compiled nor left to ONNX's reference evaluator: it is code of this package,
needs no ONNX while a model runs, and takes the time of the standard algorithm. `--no-fallback` accepts it.

    @library_kernel("TopK", shape_inputs=(1,))
    def top_k(call: LibraryCall) -> tuple[Array, ...]:
        return values, places                      # one array an output

The kernels are in `ansor_py.graph.library_ops`, one file a family. Attributes are plain numbers, strings and lists of them,
because a compiled model stores them as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ModelError

Attribute: TypeAlias = "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"


@dataclass(frozen=True, eq=False)
class LibraryCall:
    """One run of a library kernel: how messages name the node, its opset, its attributes, and its inputs by position."""

    title: str
    opset: int
    attributes: Mapping[str, Attribute]
    inputs: Sequence[NDArray[Any] | None]

    def array(self, index: int) -> NDArray[Any]:
        """A required input."""
        found = self.optional(index)
        if found is None:
            raise ModelError(f"{self.title}: input {index} is missing")
        return found

    def optional(self, index: int) -> NDArray[Any] | None:
        """An input that may be omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value: Any = self.attributes.get(name, default)
        return int(value)

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        value: Any = self.attributes.get(name, default)
        return float(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, made non-negative; ModelError where there is no such axis."""
        axis = self.integer("axis", default)
        if not -rank <= axis < rank:
            raise ModelError(f"{self.title}: axis {axis} does not exist in {rank} dimensions")
        return axis % rank


Kernel: TypeAlias = Callable[[LibraryCall], tuple[NDArray[Any], ...]]


@dataclass(frozen=True)
class LibraryKernel:
    """What is known of an operator's kernel. `shape_inputs` are the inputs whose values decide the shapes of the results."""

    op_type: str
    function: Kernel
    shape_inputs: tuple[int, ...] = ()


_KERNELS: dict[str, LibraryKernel] = {}


def library_kernel(*op_types: str, shape_inputs: Sequence[int] = ()) -> Callable[[Kernel], Kernel]:
    """Register a function as the kernel of one or more operators of ONNX's standard domain, in all their versions."""

    def register(function: Kernel) -> Kernel:
        for op_type in op_types:
            _KERNELS[op_type] = LibraryKernel(op_type, function, tuple(shape_inputs))
        return function

    return register


def kernel_of(op_type: str, domain: str = "") -> LibraryKernel | None:
    """The library kernel of an operator, or None."""
    _load_kernels()
    return _KERNELS.get(op_type) if domain in ("", "ai.onnx") else None


def kernel_operators() -> tuple[str, ...]:
    """All operators that have a library kernel, sorted."""
    _load_kernels()
    return tuple(sorted(_KERNELS))


def run_kernel(op_type: str, call: LibraryCall) -> tuple[NDArray[Any], ...]:
    """All results of an operator. Raises ModelError, which names the node, for inputs that the operator does not allow."""
    kernel = kernel_of(op_type)
    if kernel is None:
        raise ModelError(f"{call.title} has no library kernel in this version; compile the model again")
    with np.errstate(all="ignore"):  # what overflows or is not a number is a result like any other
        return kernel.function(call)


def _load_kernels() -> None:
    """Import the files that register kernels; the import statement makes this happen once."""
    from ansor_py.graph import library_ops  # noqa: F401
