"""The settings of a search as a whole; those of the policies stand in `options.py`.

TuningOptions(trials=400, seed=1, policy="random").batch_size(tasks=10)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ansor_py.cost_model.interface import create_cost_model
from ansor_py.errors import OptionError
from ansor_py.measure import MeasureOptions
from ansor_py.search.evolution.mutation import mutation_weights
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import find_policy
from ansor_py.search.scheduler.objectives import Objective, find_objective
from ansor_py.search.scheduler.strategies import find_strategy

DEFAULT_TRIALS = 256
LARGEST_BATCH = 64
SMALLEST_BATCH = 8
TRIALS_PER_SECOND = 8  # a guess, for searches that only time limits
ROUNDS_PER_TASK = 4  # that many at least, as long as batches do not become smaller than the smallest


@dataclass(frozen=True)
class TuningOptions:
    """Settings of a search. `trials` counts all measured candidates, those of a search that is continued included.

    The search ends after `trials` (None: no limit), after `time_budget` seconds of this session with the final re-timing, or
    when every network has its latency of `target_latencies` (seconds; one for all or one for each), whatever is first.
    Programs use as many threads as the target has cores. `objective` is a name or a function of latencies and networks;
    `reference_latencies` (seconds) are what it compares with, by default the latencies of the default schedules.
    """

    trials: int | None = DEFAULT_TRIALS
    seed: int = 0
    batch: int | None = None  # candidates a round; None: from trials and tasks
    policy: str = "evolution"
    cost_model: str = "lightgbm-roofline"
    cost_model_from: str | None = None  # a run (or its records.jsonl) to learn from first, or a saved model
    database: str | None = None  # a directory with the best programs of earlier searches, which gets those of this one
    strategy: str = "gradient"
    objective: str | Objective = "latency-sum"
    time_budget: float | None = None
    target_latencies: tuple[float, ...] = ()
    reference_latencies: tuple[float, ...] = ()
    search: SearchOptions = field(default_factory=SearchOptions)
    measure: MeasureOptions = field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 0:
            raise OptionError(f"trials is {self.trials}; give 0 or more")
        if self.trials is None and self.time_budget is None:
            raise OptionError("neither trials nor a time budget limit the search; give one of them")
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"batch is {self.batch}; a round needs at least one candidate")
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}; give 0 or more")

    def batch_size(self, tasks: int) -> int:
        """Candidates a round: a quarter of a task's share of the trials, at least 8, at most 64 and at most the share.

        Without a limit to the trials their number is guessed from the time budget.
        """
        if self.batch is not None:
            return self.batch
        trials = self.trials if self.trials is not None else int((self.time_budget or 0.0) * TRIALS_PER_SECOND)
        share = trials // max(tasks, 1)
        return max(min(LARGEST_BATCH, max(SMALLEST_BATCH, share // ROUNDS_PER_TASK), share), 1)

    def check_names(self) -> None:
        """Raise OptionError for a policy, cost model, strategy, objective or mutation that is not registered."""
        if isinstance(self.objective, str):
            find_objective(self.objective)
        find_strategy(self.strategy)
        find_policy(self.policy)
        create_cost_model(self.cost_model, self.seed, self.search)
        mutation_weights(self.search)
