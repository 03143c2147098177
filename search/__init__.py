"""Search: sampling, evolutionary tuning, policies, the task scheduler and the tuning loop.

    result = ansor_py.search.tune(task, trials=256, seed=0)
    result.best, result.curve, result.records

| folder | holds |
| --- | --- |
| `sampling/` | the space of a sketch as arrays, random programs, validity |
| `evolution/` | generations, mutation, crossover |
| `policies/` | who proposes programs: the interface and the built-in ones, one file each; templates |
| `scheduler/` | which task is next, and by which objective |
| `loop/` | rounds, records, curve, re-timing, the run directory |
| `command_line/` | settings and runs of `python -m ansor_py.search` |

The names of the table below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansor_py.search.loop.accuracy import RoundAccuracy
    from ansor_py.search.loop.events import DriftMeasured, Event, Progress, Restored, Stopped, Subscriber, TrialsMeasured
    from ansor_py.search.loop.results import CurvePoint, TaskResult, TuningResult
    from ansor_py.search.loop.round_times import RoundTimes
    from ansor_py.search.loop.run_directory import RunDirectory, read_curve
    from ansor_py.search.loop.tuning import tune, tune_tasks
    from ansor_py.search.loop.tuning_options import TuningOptions
    from ansor_py.search.options import SearchOptions
    from ansor_py.search.policies.policy import Policy, create_policy
    from ansor_py.search.sampling.candidates import Candidate
    from ansor_py.search.scheduler.networks import Alternatives, Network, Networks
    from ansor_py.search.scheduler.objectives import register_objective
    from ansor_py.search.scheduler.strategies import SchedulerOptions, TaskProgress, register_strategy

__all__ = [
    "Alternatives",
    "Candidate",
    "CurvePoint",
    "DriftMeasured",
    "Event",
    "Network",
    "Networks",
    "Policy",
    "Progress",
    "Restored",
    "RoundAccuracy",
    "RoundTimes",
    "RunDirectory",
    "SchedulerOptions",
    "SearchOptions",
    "Stopped",
    "Subscriber",
    "TaskProgress",
    "TaskResult",
    "TrialsMeasured",
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
    "DriftMeasured": "loop.events",
    "Event": "loop.events",
    "Progress": "loop.events",
    "Restored": "loop.events",
    "Stopped": "loop.events",
    "Subscriber": "loop.events",
    "TrialsMeasured": "loop.events",
    "RoundAccuracy": "loop.accuracy",
    "RoundTimes": "loop.round_times",
    "Candidate": "sampling.candidates",
    "CurvePoint": "loop.results",
    "Alternatives": "scheduler.networks",
    "Network": "scheduler.networks",
    "Networks": "scheduler.networks",
    "Policy": "policies.policy",
    "RunDirectory": "loop.run_directory",
    "SchedulerOptions": "scheduler.strategies",
    "SearchOptions": "options",
    "TaskProgress": "scheduler.strategies",
    "TaskResult": "loop.results",
    "TuningOptions": "loop.tuning_options",
    "TuningResult": "loop.results",
    "create_policy": "policies.policy",
    "read_curve": "loop.run_directory",
    "register_objective": "scheduler.objectives",
    "register_strategy": "scheduler.strategies",
    "tune": "loop.tuning",
    "tune_tasks": "loop.tuning",
}


def __getattr__(name: str) -> object:
    if name not in _OWNERS:
        raise AttributeError(f"module 'ansor_py.search' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(f"ansor_py.search.{_OWNERS[name]}"), name)
    globals()[name] = value
    return value
