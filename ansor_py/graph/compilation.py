"""From a model to a compiled model.

import -> passes -> fusion -> partition -> schedules (best records, else default) -> kernels -> plan -> link

compiled = compile("m.onnx", records="runs/x/records.jsonl", threads=2)
tasks = extract_tasks("m.onnx", Target.detect())
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.machine_memory import require_memory
from ansor_py.errors import OptionError, TargetError
from ansor_py.graph.compiled import CompiledModel
from ansor_py.graph.execution_order import execution_order
from ansor_py.graph.model_tasks import Model, partition_model, target_of
from ansor_py.graph.partition import Partition, Subgraph
from ansor_py.graph.partition_choice import choices_by_records, choices_by_roofline, distinct_choices, wide_keys
from ansor_py.graph.planning import least_memory, make_plan, pack_weights
from ansor_py.graph.run_function import run_function_ir
from ansor_py.graph.schedule_choice import BuiltSchedules, Records, build_schedules, records_of_tasks, stored_records
from ansor_py.measure.database import Database
from ansor_py.schedule.algorithms import check_math
from ansor_py.target import Target

if TYPE_CHECKING:
    from ansor_py.graph.input_shapes import Shapes
    from ansor_py.graph.partition import TaskUnit
    from ansor_py.graph.plan import FusionChoice
    from ansor_py.measure.records import Record


def compile(
    model: Model,
    records: Records | None = None,
    threads: int | None = None,
    target: Target | str | None = None,
    shapes: Shapes | None = None,
    *,
    database: str | os.PathLike[str] | None = None,
    fallback: bool = True,
    fusion: str = "wide",
    math: str = "exact",
    allow_untuned: bool = False,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModel:
    """Compile an ONNX model (path, bytes or `ModelProto`) for the CPU `target` (default: this machine).

    `records` (a file, or `Record`s) give the best measured schedule of each task; where only some tasks have one, a warning
    (`AnsorWarning`) says how many, and records of none of them are an error, unless `allow_untuned`. Instead of them
    `database`, a directory of the search's `--database`, gives the best schedules that any search has stored there; what it has
    none of gets its default schedule. `threads` is how many a run uses (default: the target's cores). `shapes` fixes dynamic
    dimensions. With `fallback`, nodes that cannot be compiled run by ONNX's reference evaluator (`CompiledModel.fallback_nodes`
    lists them); without it they are an error. With `math` "fast", schedules may use algorithms with larger rounding errors
    (`CompiledModel.algorithms` lists those that are used), such as Winograd's; with "exact", records that do are an error. With
    `fusion` "wide", one kernel takes the place of several where rows stay together, such as attention's, and measured seconds
    in the records, or else the roofline, say that it is faster (`CompiledModel.choices`); with "narrow" never. Operators with
    a library kernel
    (`CompiledModel.library_nodes`) are always accepted. What is wrong with the file but had no consequences is in
    `CompiledModel.notes`. `workers` is the number of compiling child processes (default: one a core; 0: compile in this
    process). `progress` is told what happens. Raises ModelError for a model that cannot be compiled, RecordError for records of
    another target, number of threads or model, TargetError for a nonsensical target, OptionError for an unknown kind of fusion
    and for a directory that is no database.
    """
    if records is not None and database is not None:
        raise OptionError("compile was given records and a database; give one of them")
    stored = None if database is None else Database(database)
    parts = partition_model(model, shapes, fallback=fallback, fusion=fusion)
    if stored is not None:
        machine = target_of(target)
        records = stored_records(stored, parts.all_tasks, machine, machine.cores if threads is None else threads, math)
    return compile_partition(
        parts, records, threads, target, math=math, allow_untuned=allow_untuned, workers=workers, progress=progress
    )


def compile_partition(
    parts: Partition,
    records: Records | None = None,
    threads: int | None = None,
    target: Target | str | None = None,
    *,
    math: str = "exact",
    allow_untuned: bool = False,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModel:
    """`compile` for a model that is already partitioned, as after extracting its tasks."""
    machine = target_of(target)
    used = machine.cores if threads is None else threads
    if used < 1:
        raise TargetError(f"threads must be at least 1, not {used}")
    check_math(math)
    tell = progress or (lambda text: None)
    for note in parts.graph.notes:
        tell(f"note: {note}")
    wide = parts.decided(choice.key for choice in parts.choices)  # which needs the least
    require_memory(least_memory(wide), f"model '{parts.graph.name}'")

    def needed(found: Mapping[str, Sequence[Record]]) -> Sequence[TaskUnit]:
        return parts.decided(wide_keys(choices_by_records(parts, found))).tasks

    known = records_of_tasks(records, parts.all_tasks, machine, used, allow_untuned, math, needed)
    choices = choices_by_records(parts, known)
    parts = parts.decided(wide_keys(choices))
    undecided = [key for key in distinct_choices(parts) if key not in choices]
    wanted = {*(unit.workload_key for unit in parts.tasks), *undecided}
    units = [unit for unit in parts.all_tasks if unit.workload_key in wanted]
    built = build_schedules(units, known, machine, used, workers, tell, math, undecided)
    choices |= choices_by_roofline(parts, built[0], undecided)
    compiled = link_partition(parts, built, machine, used, choices)
    if compiled.fallback_nodes:
        listed = ", ".join(str(node) for node in compiled.fallback_nodes)
        tell(f"not compiled, but run by ONNX's reference evaluator: {listed}")
    return compiled


def link_partition(
    parts: Partition,
    built: BuiltSchedules,
    target: Target,
    threads: int,
    choices: Mapping[str, FusionChoice] = MappingProxyType({}),
) -> CompiledModel:
    """The compiled model of a partition, decided by `choices` if there are any, and one kernel for each of its tasks, as
    `build_schedules` makes them.

    Raises SizeError for one that needs more memory than there is.
    """
    parts = parts.decided(wide_keys(choices)) if choices else parts
    keys = [unit.workload_key for unit in parts.tasks]
    kernels, schedules = {key: built[0][key] for key in keys}, {key: built[1][key] for key in keys}
    planned = make_plan(parts, kernels, target, threads, schedules, tuple(choices.values()))
    require_memory(planned.plan.memory, f"model '{parts.graph.name}'")
    objects = {kernel.symbol: kernel.object_code for kernel in kernels.values()}
    objects["run"] = compile_module(run_function_ir(planned.plan), target).code
    return CompiledModel(planned.plan, objects, pack_weights(parts.graph, planned), _fallback_models(parts))


def _fallback_models(parts: Partition) -> list[bytes]:
    """The ONNX models of the nodes that are left to the evaluator, in order of execution."""
    return [step.model for step in execution_order(parts) if not isinstance(step, Subgraph) and not step.library]
