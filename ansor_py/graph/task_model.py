"""A single task as a compiled model: the placeholders of its compute DAG are the inputs, its outputs the outputs.

    task = Task.from_operator("matmul", (64, 64, 64))
    compiled = compile_task(task, records="runs/matmul/records.jsonl")
    compiled.run({"A": a, "B": b})["matmul"]

A task has no values for its constants, so they are inputs like all others, and what a kernel prepacks from constants
(packed weights) is prepacked in every run. What comes out saves, loads and benchmarks as the model of an ONNX file does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.machine_memory import require_memory
from ansor_py.codegen.memory import aligned, aligned_array
from ansor_py.errors import TargetError
from ansor_py.graph.compiled import CompiledModel
from ansor_py.graph.partition import TaskUnit
from ansor_py.graph.plan import Call, Location, Plan, Port, Work
from ansor_py.graph.run_function import run_function_ir
from ansor_py.graph.schedule_choice import Records, build_schedules, records_of_tasks
from ansor_py.schedule.task import Task

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.schedule.dag import ComputeDAG


def compile_task(
    task: Task,
    records: Records | None = None,
    threads: int | None = None,
    *,
    math: str = "exact",
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModel:
    """Compile one task by its best measured schedule in `records`, else by the default schedule, for the task's target.

    Inputs and outputs have the names, shapes (elements) and dtypes of the DAG's tensors. `threads`, `math`, `workers` and
    `progress` are as for `compile`. Raises CodegenError where the task cannot be compiled, RecordError for records of another
    target, number of threads or math, TargetError for fewer than one thread, SizeError for more memory than there is.
    """
    used = task.target.cores if threads is None else threads
    if used < 1:
        raise TargetError(f"threads must be at least 1, not {used}")
    tell = progress or (lambda text: None)
    require_memory(least_memory_of_task(task.dag), f"'{task.name}'")
    unit = TaskUnit(task.name, task.dag, ())
    known = records_of_tasks(records, [unit], task.target, used, math=math)
    kernels, schedules = build_schedules([unit], known, task.target, used, workers, tell, math)
    kernel = kernels[task.workload_key]
    plan = _plan(task, kernel, used, schedules[task.workload_key])
    objects = {kernel.symbol: kernel.object_code, "run": compile_module(run_function_ir(plan), task.target).code}
    return CompiledModel(plan, objects, aligned_array((0,), "uint8"))


def least_memory_of_task(dag: ComputeDAG) -> dict[str, int]:
    """Bytes that a run needs whatever the schedule, by what for."""
    return {"inputs": sum(tensor.bytes for tensor in dag.inputs), "outputs": sum(tensor.bytes for tensor in dag.outputs)}


def _plan(task: Task, kernel: CompiledKernel, threads: int, schedule: str) -> Plan:
    """One call, whose buffers are the caller's inputs and outputs; before it, one that fills the prepacked buffers if any."""
    inputs = tuple(Port(spec.name, spec.shape, spec.dtype) for spec in kernel.buffers if spec.role != "output")
    outputs = tuple(Port(spec.name, spec.shape, spec.dtype) for spec in kernel.buffers if spec.role == "output")
    places = [Location("input", index) for index in range(len(inputs))]
    places += [Location("output", index) for index in range(len(outputs))]
    end = 0
    for spec in kernel.prepacked:
        places.append(Location("arena", end))
        end += aligned(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize)
    symbols = [kernel.prepack_symbol, kernel.symbol] if kernel.prepack_symbol else [kernel.symbol]
    return Plan(
        name=task.name,
        inputs=inputs,
        outputs=outputs,
        calls=tuple(Call(symbol, tuple(places)) for symbol in symbols),
        copies=(),
        arena_bytes=end,
        live_bytes=end,
        weights_bytes=0,
        workspace_bytes=kernel.workspace_bytes,
        threads=threads,
        target=task.target.to_json(),
        schedules={kernel.symbol: schedule},
        work={kernel.symbol: Work.of(task.name, task.dag)},
        algorithms={kernel.symbol: kernel.algorithms} if kernel.algorithms else {},
    )
