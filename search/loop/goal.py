"""What a search is for: the objective by which the next task is chosen, and the conditions under which it ends.

goal = Goal(tasks, networks, options)
goal.next_task(searches, rng)                   # the place of a task, None when all have ended
goal.reason_to_stop(searches, 40, 12.5, 0.5)    # "", or in words
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.task import Task
from ansor_py.search.loop.stopping import StopConditions
from ansor_py.search.loop.task_search import TaskSearch
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.scheduler.objectives import Network, check_objective, describe_networks, evaluate
from ansor_py.search.scheduler.strategies import choose_task


class Goal:
    """Objective and conditions over the networks of some tasks. Raises OptionError for an objective that does not fit them."""

    def __init__(self, tasks: Sequence[Task], networks: Sequence[Network], options: TuningOptions) -> None:
        self._options = options
        self._networks = describe_networks(tasks, networks, options.target_latencies, options.reference_latencies)
        self._objective = check_objective(options.objective, self._networks)
        self._conditions = StopConditions(options.trials, options.time_budget, self._networks.targets)

    def next_task(self, searches: Sequence[TaskSearch], rng: np.random.Generator) -> int | None:
        """Which of the tasks gets the next round."""
        progress = [search.progress() for search in searches]
        defaults = [search.default_seconds for search in searches]
        networks = replace(
            self._networks.in_place(defaults).compared_with(defaults),
            histories=tuple(task.history for task in progress),
        )

        def value(latencies: NDArray[np.float64]) -> float:
            return evaluate(self._objective, latencies, networks)

        return choose_task(self._options.strategy, progress, value, rng, self._options.scheduler)

    def reason_to_stop(self, searches: Sequence[TaskSearch], trials: int, elapsed: float, still_needed: float) -> str:
        """Why no further round should begin; empty when it should. For the arguments see `StopConditions.reason`."""
        networks = self._networks.in_place([search.default_seconds for search in searches])
        latencies = networks.known_seconds([search.result().latency for search in searches])
        return self._conditions.reason(trials, elapsed, still_needed, latencies)
