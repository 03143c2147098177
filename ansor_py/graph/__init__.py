"""Graphs: ONNX import, the graph IR and its passes, fusion, partition into tasks, and the compiled model.

    compiled = compile("m.onnx")
    tasks = extract_tasks("m.onnx", Target.detect())
    compiled = load("m.ansor")

Names are imported when they are first used: `load` needs neither ONNX nor the measuring machinery.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansor_py.graph.compilation import compile, compile_partition
    from ansor_py.graph.compiled import BenchmarkStats, CompiledModel, load
    from ansor_py.graph.in_place import build_variants, choose_in_place
    from ansor_py.graph.model_tasks import extract_tasks, network_of, partition_model
    from ansor_py.graph.onnx_import import import_model
    from ansor_py.graph.task_model import compile_task

__all__ = [
    "BenchmarkStats",
    "CompiledModel",
    "build_variants",
    "choose_in_place",
    "compile",
    "compile_partition",
    "compile_task",
    "extract_tasks",
    "import_model",
    "load",
    "network_of",
    "partition_model",
]

_OWNERS = {
    "BenchmarkStats": "compiled",
    "CompiledModel": "compiled",
    "load": "compiled",
    "build_variants": "in_place",
    "choose_in_place": "in_place",
    "compile": "compilation",
    "compile_partition": "compilation",
    "compile_task": "task_model",
    "extract_tasks": "model_tasks",
    "network_of": "model_tasks",
    "partition_model": "model_tasks",
    "import_model": "onnx_import",
}


def __getattr__(name: str) -> object:
    if name not in _OWNERS:
        raise AttributeError(f"module 'ansor_py.graph' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(f"ansor_py.graph.{_OWNERS[name]}"), name)
    globals()[name] = value
    return value
