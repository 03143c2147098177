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
| `data_set/` | measured programs of many runs, split and in Parquet; cost models trained and judged on them |
| `ask_and_tell/` | a task's space for a loop of one's own |
| `command_line/` | settings and runs of `python -m ansor_py.search` |

The names of the table below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansor_py.schedule.sketch import Genes, Population, Sketch
    from ansor_py.search.ask_and_tell.search_space import SearchSpace
    from ansor_py.search.evolution.evolution_options import EvolutionOptions
    from ansor_py.search.evolution.generations import evolve
    from ansor_py.search.evolution.mutation import mutation
    from ansor_py.search.evolution.scores import ScoreFunction
    from ansor_py.search.loop.accuracy import RoundAccuracy
    from ansor_py.search.loop.events import Begun, DriftMeasured, Event, Progress, Restored, Stopped, Subscriber, TrialsMeasured
    from ansor_py.search.loop.observers import observer
    from ansor_py.search.loop.results import CurvePoint, TaskResult, TuningResult
    from ansor_py.search.loop.round_times import RoundTimes
    from ansor_py.search.loop.run_directory import RunDirectory, read_curve
    from ansor_py.search.loop.tuning import tune, tune_tasks
    from ansor_py.search.loop.tuning_options import TuningOptions
    from ansor_py.search.options import SearchOptions
    from ansor_py.search.policies.evolution import EvolutionPolicy
    from ansor_py.search.policies.policy import Policy, RoundState, create_policy, policy
    from ansor_py.search.policies.sampler import ProgramSampler
    from ansor_py.search.sampling.candidates import Candidate, Observation
    from ansor_py.search.sampling.gene_space import GeneSpace
    from ansor_py.search.sampling.sampler import sample
    from ansor_py.search.sampling.space import Space
    from ansor_py.search.sampling.validity import accepts, repair
    from ansor_py.search.scheduler.networks import Alternatives, Network, Networks
    from ansor_py.search.scheduler.objectives import objective
    from ansor_py.search.scheduler.strategies import SchedulerOptions, TaskProgress, task_scheduler
    from ansor_py.search.user_code import load_plug_ins
    from ansor_py.strategy_options import OptionSet, StrategyOptions, option

__all__ = [
    "Alternatives",
    "Begun",
    "Candidate",
    "CurvePoint",
    "DriftMeasured",
    "Event",
    "EvolutionOptions",
    "EvolutionPolicy",
    "GeneSpace",
    "Genes",
    "Network",
    "Networks",
    "Observation",
    "OptionSet",
    "Policy",
    "Population",
    "ProgramSampler",
    "Progress",
    "Restored",
    "RoundAccuracy",
    "RoundState",
    "RoundTimes",
    "RunDirectory",
    "SchedulerOptions",
    "ScoreFunction",
    "SearchOptions",
    "SearchSpace",
    "Sketch",
    "Space",
    "Stopped",
    "StrategyOptions",
    "Subscriber",
    "TaskProgress",
    "TaskResult",
    "TrialsMeasured",
    "TuningOptions",
    "TuningResult",
    "accepts",
    "create_policy",
    "evolve",
    "load_plug_ins",
    "mutation",
    "objective",
    "observer",
    "option",
    "policy",
    "read_curve",
    "repair",
    "sample",
    "task_scheduler",
    "tune",
    "tune_tasks",
]

_OWNERS = {
    "GeneSpace": "ansor_py.search.sampling.gene_space",
    "SearchSpace": "ansor_py.search.ask_and_tell.search_space",
    "EvolutionPolicy": "ansor_py.search.policies.evolution",
    "evolve": "ansor_py.search.evolution.generations",
    "sample": "ansor_py.search.sampling.sampler",
    "repair": "ansor_py.search.sampling.validity",
    "accepts": "ansor_py.search.sampling.validity",
    "Sketch": "ansor_py.schedule.sketch",
    "Genes": "ansor_py.schedule.sketch",
    "Population": "ansor_py.schedule.sketch",
    "Alternatives": "ansor_py.search.scheduler.networks",
    "Begun": "ansor_py.search.loop.events",
    "Candidate": "ansor_py.search.sampling.candidates",
    "CurvePoint": "ansor_py.search.loop.results",
    "DriftMeasured": "ansor_py.search.loop.events",
    "Event": "ansor_py.search.loop.events",
    "EvolutionOptions": "ansor_py.search.evolution.evolution_options",
    "Network": "ansor_py.search.scheduler.networks",
    "Networks": "ansor_py.search.scheduler.networks",
    "Observation": "ansor_py.search.sampling.candidates",
    "OptionSet": "ansor_py.strategy_options",
    "Policy": "ansor_py.search.policies.policy",
    "ProgramSampler": "ansor_py.search.policies.sampler",
    "Progress": "ansor_py.search.loop.events",
    "Restored": "ansor_py.search.loop.events",
    "RoundAccuracy": "ansor_py.search.loop.accuracy",
    "RoundState": "ansor_py.search.policies.policy",
    "RoundTimes": "ansor_py.search.loop.round_times",
    "RunDirectory": "ansor_py.search.loop.run_directory",
    "SchedulerOptions": "ansor_py.search.scheduler.strategies",
    "ScoreFunction": "ansor_py.search.evolution.scores",
    "SearchOptions": "ansor_py.search.options",
    "Space": "ansor_py.search.sampling.space",
    "Stopped": "ansor_py.search.loop.events",
    "StrategyOptions": "ansor_py.strategy_options",
    "Subscriber": "ansor_py.search.loop.events",
    "TaskProgress": "ansor_py.search.scheduler.strategies",
    "TaskResult": "ansor_py.search.loop.results",
    "TrialsMeasured": "ansor_py.search.loop.events",
    "TuningOptions": "ansor_py.search.loop.tuning_options",
    "TuningResult": "ansor_py.search.loop.results",
    "create_policy": "ansor_py.search.policies.policy",
    "load_plug_ins": "ansor_py.search.user_code",
    "mutation": "ansor_py.search.evolution.mutation",
    "objective": "ansor_py.search.scheduler.objectives",
    "observer": "ansor_py.search.loop.observers",
    "option": "ansor_py.strategy_options",
    "policy": "ansor_py.search.policies.policy",
    "read_curve": "ansor_py.search.loop.run_directory",
    "task_scheduler": "ansor_py.search.scheduler.strategies",
    "tune": "ansor_py.search.loop.tuning",
    "tune_tasks": "ansor_py.search.loop.tuning",
}


def __getattr__(name: str) -> object:
    if name not in _OWNERS:
        raise AttributeError(f"module 'ansor_py.search' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(_OWNERS[name]), name)
    globals()[name] = value
    return value
