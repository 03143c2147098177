"""Search: sampling, evolutionary tuning, policies, the task scheduler and the tuning loop.

    result = ansor_py.search.tune(task, trials=256, seed=0)
    result.best, result.curve, result.records

The names of the table below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansor_py.search.candidates import Candidate
    from ansor_py.search.objectives import Network, Networks, register_objective
    from ansor_py.search.options import SearchOptions
    from ansor_py.search.policy import Policy, create_policy
    from ansor_py.search.results import CurvePoint, TaskResult, TuningResult
    from ansor_py.search.run_directory import RunDirectory, read_curve
    from ansor_py.search.scheduler import SchedulerOptions, TaskProgress, register_strategy
    from ansor_py.search.tuning import tune, tune_tasks
    from ansor_py.search.tuning_options import TuningOptions

__all__ = [
    "Candidate",
    "CurvePoint",
    "Network",
    "Networks",
    "Policy",
    "RunDirectory",
    "SchedulerOptions",
    "SearchOptions",
    "TaskProgress",
    "TaskResult",
    "TuningOptions",
    "TuningResult",
    "create_policy",
    "read_curve",
    "register_objective",
    "register_strategy",
    "tune",
    "tune_tasks",
]

_OWNERS = {
    "Candidate": "candidates",
    "CurvePoint": "results",
    "Network": "objectives",
    "Networks": "objectives",
    "Policy": "policy",
    "RunDirectory": "run_directory",
    "SchedulerOptions": "scheduler",
    "SearchOptions": "options",
    "TaskProgress": "scheduler",
    "TaskResult": "results",
    "TuningOptions": "tuning_options",
    "TuningResult": "results",
    "create_policy": "policy",
    "read_curve": "run_directory",
    "register_objective": "objectives",
    "register_strategy": "scheduler",
    "tune": "tuning",
    "tune_tasks": "tuning",
}


def __getattr__(name: str) -> object:
    if name not in _OWNERS:
        raise AttributeError(f"module 'ansor_py.search' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(f"ansor_py.search.{_OWNERS[name]}"), name)
    globals()[name] = value
    return value
