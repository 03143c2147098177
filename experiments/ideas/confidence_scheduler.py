"""A task scheduler by upper confidence bounds: the tasks are the arms of a bandit, a round's gain is the reward.

    python -m ansor_py.search squeezenet.onnx --import experiments/ideas/confidence_scheduler.py --scheduler confidence

The reward of a round is the share by which it lowered the objective. Old rewards count less, as a task runs dry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.search import OptionSet, StrategyOptions, TaskProgress, option, task_scheduler

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ConfidenceOptions(StrategyOptions, name="confidence"):
    """Constants of the bounds."""

    exploration: float = option(0.02, "weight of the bound beside the gain, a share of the objective", least=0)
    memory: float = option(0.7, "what a reward counts when another round has passed", above=0, most=1)


@task_scheduler("confidence", options=ConfidenceOptions)
def confidence(
    tasks: Sequence[TaskProgress], value: Callable[[Floats], float], options: OptionSet, rng: np.random.Generator
) -> int:
    """The task with the highest bound on what its next round gains."""
    own = options.of(ConfidenceOptions)
    now = np.array([task.latency if np.isfinite(task.latency) else 0.0 for task in tasks])
    rounds = sum(task.rounds for task in tasks)
    bounds = np.full(len(tasks), -np.inf)
    for number, task in enumerate(tasks):
        if task.dead:
            continue
        gain, weight = 0.0, 0.0
        for before, after in zip(task.history, task.history[1:], strict=False):
            earlier, later = now.copy(), now.copy()
            earlier[number], later[number] = before if np.isfinite(before) else after, after
            gain = own.memory * gain + (value(earlier) - value(later)) / max(abs(value(earlier)), 1e-12)
            weight = own.memory * weight + 1
        bounds[number] = gain / max(weight, 1) + own.exploration * np.sqrt(np.log(rounds + 1) / max(task.rounds, 1))
    return int(rng.choice(np.flatnonzero(bounds == bounds.max())))
