"""The settings of a search as a whole; those of the policies stand in `options.py`.

TuningOptions(trials=400, seed=1, policy="random").batch_size(tasks=10)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ansor_py.cost_model.interface import create_cost_model
from ansor_py.errors import OptionError
from ansor_py.measure import MeasureOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.policy import find_policy
from ansor_py.search.scheduler import Objective, SchedulerOptions, find_objective, find_strategy

LARGEST_BATCH = 64
SMALLEST_BATCH = 8
ROUNDS_PER_TASK = 4  # that many at least, as long as batches do not become smaller than the smallest


@dataclass(frozen=True)
class TuningOptions:
    """Settings of a search. `trials` counts all measured candidates, those of a search that is continued included.

    Programs use as many threads as the target has cores. `objective` is a name or a function of latencies and weights.
    """

    trials: int = 256
    seed: int = 0
    batch: int | None = None  # candidates a round; None: from trials and tasks
    policy: str = "evolution"
    cost_model: str = "lightgbm"
    strategy: str = "gradient"
    objective: str | Objective = "latency-sum"
    search: SearchOptions = field(default_factory=SearchOptions)
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise OptionError(f"trials is {self.trials}; give 0 or more")
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"batch is {self.batch}; a round needs at least one candidate")
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}; give 0 or more")

    def batch_size(self, tasks: int) -> int:
        """Candidates a round: a quarter of a task's share of the trials, at least 8, at most 64 and at most the share."""
        if self.batch is not None:
            return self.batch
        share = self.trials // max(tasks, 1)
        return max(min(LARGEST_BATCH, max(SMALLEST_BATCH, share // ROUNDS_PER_TASK), share), 1)

    def check_names(self) -> None:
        """Raise OptionError for a policy, cost model, strategy or objective that is not registered."""
        if isinstance(self.objective, str):
            find_objective(self.objective)
        find_strategy(self.strategy)
        find_policy(self.policy)
        create_cost_model(self.cost_model, self.seed)
