"""Ansor, the auto-scheduler, as a Python package: an ONNX file in, a tuned native model and its search curve out.

The names below are imported when they are first used, so that `import ansor_py` costs milliseconds and a measuring
worker never loads the graph layer.

    compiled = ansor_py.compile("m.onnx", records="runs/x/records.jsonl", threads=2)
    outputs = compiled.run({"input": array})

    task = ansor_py.Task.from_compute(ansor_py.te.matmul(512, 512, 512), ansor_py.Target.detect())
    result = ansor_py.search.tune(task, trials=256, seed=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansor_py import codegen, cost_model, errors, graph, lower, measure, schedule, search, sketch_rules, te
    from ansor_py.codegen.thread_pool import limit_threads
    from ansor_py.graph import compile, load
    from ansor_py.measure.tasks import load_tasks, task_of_record
    from ansor_py.schedule.task import Task
    from ansor_py.target import Target

__version__ = "0.1.0"

__all__ = [
    "Target",
    "Task",
    "__version__",
    "codegen",
    "compile",
    "cost_model",
    "errors",
    "graph",
    "limit_threads",
    "load",
    "load_tasks",
    "lower",
    "measure",
    "schedule",
    "search",
    "sketch_rules",
    "task_of_record",
    "te",
]

_OWNERS = {
    "Target": "ansor_py.target",
    "Task": "ansor_py.schedule.task",
    "compile": "ansor_py.graph",
    "limit_threads": "ansor_py.codegen.thread_pool",
    "load": "ansor_py.graph",
    "load_tasks": "ansor_py.measure.tasks",
    "task_of_record": "ansor_py.measure.tasks",
}


def __getattr__(name: str) -> object:
    if name in _OWNERS:
        value: object = getattr(importlib.import_module(_OWNERS[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"ansor_py.{name}")
    else:
        raise AttributeError(f"module 'ansor_py' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
