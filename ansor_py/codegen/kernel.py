"""Kernels: from a compute DAG and transform steps to object code, and from object code to a callable.

compiled = build_kernel(dag, steps, target, threads=2)       # bytes; can be sent to another process
outputs = LoadedKernel(compiled).run([a, b])                 # NumPy arrays
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.llvm import ObjectCode, compile_module
from ansor_py.codegen.memory import aligned_array, buffer_table
from ansor_py.codegen.module_text import module_text
from ansor_py.codegen.thread_pool import allowed_threads, load_kernels
from ansor_py.codegen.timing import time_kernel
from ansor_py.errors import FeedError
from ansor_py.lower.lower import lower
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import Step, algorithms_of
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor

Role = Literal["input", "constant", "output", "prepacked"]


@dataclass(frozen=True)
class BufferSpec:
    """One buffer of a kernel, in ABI order: inputs of the DAG, outputs, then what is prepacked once from constants."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role


@dataclass(frozen=True)
class CompiledKernel:
    """Object code and what a caller needs to know: buffers, workspace (bytes, 64-byte aligned, for `threads` threads).

    `buffers` are inputs and outputs. After them the kernel takes the `prepacked` buffers, which `prepack_symbol` (same ABI, to
    be called once when the constants are known; empty if there is nothing to prepack) fills; constants in `unread` are read
    only there. `build_phases` are seconds spent on replaying the steps, lowering, writing IR text, and in LLVM. `algorithms`
    are those that the steps name.
    """

    object_code: bytes
    symbol: str
    workspace_bytes: int
    buffers: tuple[BufferSpec, ...]
    target: str
    threads: int
    build_phases: dict[str, float] = field(default_factory=dict)
    prepacked: tuple[BufferSpec, ...] = ()
    prepack_symbol: str = ""
    unread: frozenset[str] = frozenset()
    algorithms: tuple[str, ...] = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        """The entry points of the object code."""
        return (self.symbol, self.prepack_symbol) if self.prepack_symbol else (self.symbol,)


def buffer_specs(dag: ComputeDAG) -> tuple[BufferSpec, ...]:
    """The buffers of a kernel for the DAG, in ABI order."""

    def spec(tensor: Tensor, role: Role) -> BufferSpec:
        return BufferSpec(tensor.name, tensor.shape, tensor.dtype, role)

    inputs = (spec(t, "constant" if t.is_constant else "input") for t in dag.inputs)
    return (*inputs, *(spec(t, "output") for t in dag.outputs))


def build_kernel(
    dag: ComputeDAG,
    steps: Sequence[Step],
    target: Target,
    threads: int,
    symbol: str = "kernel",
    compile_text: Callable[[str, Target], ObjectCode] = compile_module,
) -> CompiledKernel:
    """Compile the DAG under the schedule `steps`. Raises ScheduleError, LoweringError or CodegenError.

    `compile_text` makes object code of LLVM IR.
    """
    clock = time.perf_counter
    begin = clock()
    state = State.initial(dag).replay(steps)
    replayed = clock()
    program = lower(state, target)
    lowered = clock()
    specs = buffer_specs(dag)
    module = module_text(program, [spec.name for spec in specs], target, threads, symbol)
    written = clock()
    code = compile_text(module.text, target)
    phases = {"replay": replayed - begin, "lower": lowered - replayed, "text": written - lowered, **code.phases}
    prepacked = tuple(BufferSpec(tensor.name, tensor.shape, tensor.dtype, "prepacked") for tensor in module.prepacked)
    return CompiledKernel(
        code.code,
        symbol,
        module.workspace_bytes,
        specs,
        str(target),
        threads,
        phases,
        prepacked,
        module.prepack_symbol,
        module.unread,
        algorithms_of(steps),
    )


def kernel_text(dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int, symbol: str = "kernel") -> str:
    """The LLVM IR of a kernel before optimisation, for inspection."""
    program = lower(State.initial(dag).replay(steps), target)
    return module_text(program, [spec.name for spec in buffer_specs(dag)], target, threads, symbol).text


class LoadedKernel:
    """Object code that has been loaded into this process."""

    def __init__(self, compiled: CompiledKernel) -> None:
        self.compiled = compiled
        self._library = load_kernels([compiled.object_code], compiled.symbols)
        self.address = self._library.address(compiled.symbol)

    def prepack(self, arrays: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """The prepacked buffers from 64-byte aligned arrays in ABI order, of which only the constants are read."""
        prepacked = [aligned_array(spec.shape, spec.dtype) for spec in self.compiled.prepacked]
        if self.compiled.prepack_symbol:
            workspace = aligned_array((max(1, self.compiled.workspace_bytes),), "uint8")
            table = buffer_table([*arrays, *prepacked])
            address = self._library.address(self.compiled.prepack_symbol)
            time_kernel(address, table.ctypes.data, workspace.ctypes.data, allowed_threads(self.compiled.threads))
        return prepacked

    def run(self, inputs: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Outputs for the given inputs (in ABI order); raises FeedError if a shape or dtype is not the kernel's."""
        wanted = [spec for spec in self.compiled.buffers if spec.role != "output"]
        if len(inputs) != len(wanted):
            raise FeedError(f"the kernel takes {len(wanted)} inputs but {len(inputs)} were given")
        arrays: list[NDArray[np.generic]] = []
        for spec, given in zip(wanted, inputs, strict=True):
            if given.shape != spec.shape or given.dtype != np.dtype(spec.dtype):
                raise FeedError(
                    f"input '{spec.name}' must be {spec.dtype}{list(spec.shape)}, not {given.dtype}{list(given.shape)}"
                )
            array = aligned_array(spec.shape, spec.dtype)
            array[...] = given
            arrays.append(array)
        outputs = [aligned_array(spec.shape, spec.dtype) for spec in self.compiled.buffers if spec.role == "output"]
        workspace = aligned_array((max(1, self.compiled.workspace_bytes),), "uint8")
        prepacked = self.prepack([*arrays, *outputs])
        table = buffer_table([*arrays, *outputs, *prepacked])  # addresses only: the arrays have to outlive the call
        time_kernel(self.address, table.ctypes.data, workspace.ctypes.data, allowed_threads(self.compiled.threads))
        return outputs
