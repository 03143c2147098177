"""What a builder does with one program: steps in, object code or a typed error out.

The functions run in worker processes, because LLVM may end the process on a malformed module. Which function compiles is an
option (`MeasureOptions.builder`), so that another code generator can be measured with the same search.

    reply = perform_build(BuildJob(dag.workload_key, steps, target, threads=2, builder=build_program), dag)
    reply.kernel.object_code if reply.kernel else reply.result.error_text
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Union

from ansor_py.errors import OptionError
from ansor_py.measure.reference import relative_tolerance
from ansor_py.measure.result import MeasureResult, Span
from ansor_py.te.tensor import Compute

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.codegen.llvm import ObjectCode
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.schedule.steps import Step
    from ansor_py.target import Target

Builder = Callable[["ComputeDAG", Sequence["Step"], "Target", int], "CompiledKernel"]

REMEMBERED_TEXTS = 64
TEXT_LIMIT = 512  # characters of an error message that are kept in a record


@dataclass(frozen=True)
class BuildJob:
    """A program to compile; its DAG travels separately, once a worker."""

    workload_key: str
    steps: tuple[Step, ...]
    target: Target
    threads: int
    builder: Builder


@dataclass(frozen=True)
class BuildReply:
    """A compiled kernel, or None; `result` says when it was built, and why there is none.

    `tolerance` is the relative tolerance at which outputs of the task's programs may differ.
    """

    kernel: Union[CompiledKernel, None]
    result: MeasureResult
    tolerance: float = 0.0


def build_program(dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> CompiledKernel:
    """The standard builder: lower the steps and compile. Raises ScheduleError, LoweringError or CodegenError.

    Programs that differ in steps often have the same text: what was compiled last is remembered, and takes no time.
    """
    from ansor_py.codegen.kernel import build_kernel

    return build_kernel(dag, steps, target, threads, compile_text=_compiled_once)


def _compiled_once(ir_text: str, target: Target) -> ObjectCode:
    before = _compiled.cache_info().hits
    code = _compiled(ir_text, target)
    return code if _compiled.cache_info().hits == before else replace(code, phases={})


@functools.lru_cache(maxsize=REMEMBERED_TEXTS)
def _compiled(ir_text: str, target: Target) -> ObjectCode:
    from ansor_py.codegen.llvm import compile_module

    return compile_module(ir_text, target)


def build_reference(dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> CompiledKernel:
    """The naive program of the DAG, whatever the steps: every operation a nest of serial scalar loops, in order."""
    return build_program(dag, naive_steps(dag), target, 1)


def naive_steps(dag: ComputeDAG) -> tuple[Step, ...]:
    """Reductions run outside of the last spatial loop, which is seldom strided; each sum keeps the order of its definition."""
    from ansor_py.schedule.steps import Reorder

    steps: list[Step] = []
    for tensor in dag.tensors:
        if isinstance(tensor.op, Compute) and tensor.op.axes and tensor.op.reduce_axes:
            *outer, last = (axis.name for axis in tensor.op.axes)
            steps.append(Reorder(tensor.name, (*outer, *(axis.name for axis in tensor.op.reduce_axes), last)))
    return tuple(steps)


def perform_build(job: BuildJob, dag: ComputeDAG) -> BuildReply:
    """Run the job's builder; every exception becomes a reply with error `build`."""
    started = time.time()
    try:
        kernel = job.builder(dag, job.steps, job.target, job.threads)
        tolerance = relative_tolerance(dag)
    except Exception as error:
        span = Span(started, time.time())
        return BuildReply(None, MeasureResult(error="build", error_text=error_text(error), error_stage="build", build=span))
    return BuildReply(kernel, MeasureResult(build=Span(started, time.time(), dict(kernel.build_phases))), tolerance)


def module_of(builder: Callable[..., object]) -> str:
    """The module that a child has to import for a builder: a function, a `partial` of one, or an object with `__call__`."""
    function = builder.func if isinstance(builder, partial) else builder
    definition = function if hasattr(function, "__qualname__") else type(function)
    module, name = definition.__module__, definition.__qualname__
    if module == "__main__" or "<" in name:
        raise OptionError(
            f"builder '{name}' cannot be found by a worker process; define it at the top of a module that can be imported"
        )
    return module


def error_text(error: BaseException) -> str:
    """An exception in one short text: its type and message."""
    message = str(error)
    text = (f"{type(error).__name__}: {message}" if message else type(error).__name__)[:TEXT_LIMIT]
    return text.encode(errors="replace").decode()  # a part of a file's name may be no text, and no JSON
