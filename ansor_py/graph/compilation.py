"""From a model to a compiled model.

import -> passes -> fusion -> partition -> schedules (best records, else default) -> kernels -> plan -> link

compiled = compile("m.onnx", records="runs/x/records.jsonl", threads=2)
tasks = extract_tasks("m.onnx", Target.detect())
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from ansor_py.codegen.default_schedule import default_steps
from ansor_py.codegen.llvm import compile_module
from ansor_py.errors import CodegenError, RecordError, ScheduleError, TargetError
from ansor_py.graph.compiled import CompiledModel
from ansor_py.graph.execution_order import execution_order
from ansor_py.graph.kernel_builds import BuildRequest, KernelBuilder
from ansor_py.graph.model_tasks import Model, partition_model, target_of
from ansor_py.graph.partition import Partition, Subgraph, TaskUnit
from ansor_py.graph.planning import make_plan, pack_weights
from ansor_py.graph.run_function import run_function_ir
from ansor_py.measure.records import Record, best_records, read_records
from ansor_py.target import Target

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.graph.onnx_import import Shapes
    from ansor_py.schedule.steps import Step

Records: TypeAlias = "Union[str, os.PathLike[str], Iterable[Record]]"
DEFAULT_SCHEDULE = "default"


def compile(
    model: Model,
    records: Records | None = None,
    threads: int | None = None,
    target: Target | str | None = None,
    shapes: Shapes | None = None,
    *,
    fallback: bool = True,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModel:
    """Compile an ONNX model (path, bytes or `ModelProto`) for the CPU `target` (default: this machine).

    `records` (a file, or `Record`s) give the best measured schedule of each task; tasks without one get the default
    schedule. `threads` is how many a run uses (default: the target's cores). `shapes` fixes dynamic dimensions. With
    `fallback`, nodes that cannot be compiled run by ONNX's reference evaluator (`CompiledModel.fallback_nodes` lists them);
    without it they are an error. Operators with a library kernel (`CompiledModel.library_nodes`) are always accepted.
    `workers` is the number of compiling child processes (default: one a core; 0: compile in this process). `progress` is told
    what happens. Raises ModelError for a model that cannot be compiled, RecordError for records of another target or number
    of threads, TargetError for a nonsensical target.
    """
    parts = partition_model(model, shapes, fallback=fallback)
    return compile_partition(parts, records, threads, target, workers=workers, progress=progress)


def compile_partition(
    parts: Partition,
    records: Records | None = None,
    threads: int | None = None,
    target: Target | str | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModel:
    """`compile` for a model that is already partitioned, as after extracting its tasks."""
    machine = target_of(target)
    used = machine.cores if threads is None else threads
    if used < 1:
        raise TargetError(f"threads must be at least 1, not {used}")
    tell = progress or (lambda text: None)
    choices = choose_schedules(parts.tasks, best_for_machine(records, machine, used, tell), machine, used, tell)
    kernels, schedules = build_choices(choices, machine, used, workers, tell)
    planned = make_plan(parts, kernels, machine, used, schedules)
    objects = {kernel.symbol: kernel.object_code for kernel in kernels.values()}
    objects["run"] = compile_module(run_function_ir(planned.plan), machine).code
    compiled = CompiledModel(planned.plan, objects, pack_weights(parts.graph, planned), _fallback_models(parts))
    if compiled.fallback_nodes:
        listed = ", ".join(str(node) for node in compiled.fallback_nodes)
        tell(f"not compiled, but run by ONNX's reference evaluator: {listed}")
    return compiled


def _fallback_models(parts: Partition) -> list[bytes]:
    """The ONNX models of the nodes that are left to the evaluator, in order of execution."""
    return [step.model for step in execution_order(parts) if not isinstance(step, Subgraph) and not step.library]


@dataclass(frozen=True, eq=False)
class Choice:
    """The schedule of one task: steps, and where they come from."""

    unit: TaskUnit
    steps: tuple[Step, ...]
    source: str

    @property
    def symbol(self) -> str:
        """The name of the kernel's function, unique among different computations."""
        return f"kernel_{self.unit.workload_key}"


def choose_schedules(
    units: Iterable[TaskUnit], best: Mapping[str, Record], target: Target, threads: int, tell: Callable[[str], None]
) -> list[Choice]:
    """The best record's steps for each task that has one, else the default schedule."""
    choices = []
    for unit in units:
        record = best.get(unit.workload_key)
        if record is not None:
            try:
                choices.append(Choice(unit, record.concrete_steps(), f"trial {record.trial}"))
                continue
            except ScheduleError as error:
                tell(f"task '{unit.name}': the steps of trial {record.trial} cannot be read ({error}); using the default")
        choices.append(_default(unit, target, threads))
    return choices


def _default(unit: TaskUnit, target: Target, threads: int) -> Choice:
    return Choice(unit, default_steps(unit.dag, target, threads), DEFAULT_SCHEDULE)


def build_choices(
    choices: list[Choice], target: Target, threads: int, workers: int | None, progress: Callable[[str], None]
) -> tuple[dict[str, CompiledKernel], dict[str, str]]:
    """Kernels and the origins of their schedules, by workload key. A recorded program that no longer builds falls back to
    the default schedule; CodegenError names the task when that fails too."""
    kernels: dict[str, CompiledKernel] = {}
    schedules: dict[str, str] = {}
    with KernelBuilder(target, threads, workers) as builder:
        while choices:
            progress(f"compiling {len(choices)} kernels")
            results = builder.build([BuildRequest(choice.symbol, choice.unit.dag, choice.steps) for choice in choices])
            again = []
            for choice, result in zip(choices, results, strict=True):
                if not isinstance(result, str):
                    kernels[choice.unit.workload_key] = result
                    schedules[choice.unit.workload_key] = choice.source
                elif choice.source == DEFAULT_SCHEDULE:
                    raise CodegenError(f"task '{choice.unit.name}' cannot be compiled with its default schedule: {result}")
                else:
                    progress(f"task '{choice.unit.name}': {choice.source} cannot be compiled ({result}); using the default")
                    again.append(_default(choice.unit, target, threads))
            choices = again
    return kernels, schedules


def best_for_machine(records: Records | None, target: Target, threads: int, tell: Callable[[str], None]) -> dict[str, Record]:
    """The best record of each workload key that was measured on this target with so many threads; lost lines are told."""
    if records is None:
        return {}
    if isinstance(records, (str, os.PathLike)):
        given, lost = read_records(Path(records))
        for line in lost:
            tell(f"records file '{os.fspath(records)}' {line}; it is ignored, the other records are used")
    else:
        given = list(records)
    machines = {text: _same_cpu(text, target) for text in {record.target for record in given}}
    fitting = [record for record in given if machines[record.target] and record.threads == threads]
    if given and not fitting:
        measured = sorted({f"'{record.target}' with {record.threads} threads" for record in given})
        raise RecordError(f"no record is for target '{target}' with {threads} threads; they are for {', '.join(measured[:3])}")
    return best_records(fitting)


def _same_cpu(text: str, target: Target) -> bool:
    """Whether a record's target text means the same CPU; its number of cores is compared as the record's threads."""
    try:
        return Target.parse(text).with_cores(target.cores) == target
    except TargetError:
        return False
