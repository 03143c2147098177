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
from ansor_py.search.scheduler.networks import Network, Networks, describe_networks, total_seconds
from ansor_py.search.scheduler.objectives import check_objective, evaluate
from ansor_py.search.scheduler.strategies import choose_task


class Goal:
    """Objective and conditions over the networks of some tasks. Raises OptionError for an objective that does not fit them."""

    def __init__(self, tasks: Sequence[Task], networks: Sequence[Network], options: TuningOptions) -> None:
        self._options = options
        self._networks = describe_networks(tasks, networks, options.target_latencies, options.reference_latencies)
        self._objective = check_objective(options.objective, self._networks)
        self._conditions = StopConditions(options.trials, options.time_budget, self._networks.targets)

    @property
    def networks(self) -> Networks:
        """What is tuned."""
        return self._networks

    def next_task(self, searches: Sequence[TaskSearch], rng: np.random.Generator) -> int | None:
        """Which of the tasks gets the next round. Tasks that may still win against others count by an equal share."""
        progress = [search.progress() for search in searches]
        defaults = [search.default_seconds for search in searches]
        networks = self._networks.in_place(defaults).compared_with(defaults)
        networks = replace(networks.folded(networks.open_shares(progress)), histories=tuple(task.history for task in progress))

        def value(latencies: NDArray[np.float64]) -> float:
            return evaluate(self._objective, latencies, networks)

        return choose_task(self._options.strategy, progress, value, rng, self._options.search)

    def superfluous(self, searches: Sequence[TaskSearch]) -> list[TaskSearch]:
        """The tasks that go on though no network will run them: what can take their place is faster, whatever they find."""
        if not self._networks.forks:
            return []
        networks = self._networks.in_place([search.default_seconds for search in searches])
        folded = networks.folded(networks.open_shares([search.progress() for search in searches]))
        calls = folded.weights.sum(axis=0).tolist()
        return [search for search, often in zip(searches, calls, strict=True) if not often and not search.ended]

    def total_seconds(self, latencies: Sequence[float | None]) -> float | None:
        """The latencies of all networks together, None while one is unknown."""
        return total_seconds(self._networks, latencies)

    def reason_to_stop(self, searches: Sequence[TaskSearch], trials: int, elapsed: float, still_needed: float) -> str:
        """Why no further round should begin; empty when it should. For the arguments see `StopConditions.reason`."""
        networks = self._networks.in_place([search.default_seconds for search in searches])
        latencies = networks.known_seconds([search.result().latency for search in searches])
        return self._conditions.reason(trials, elapsed, still_needed, latencies)
