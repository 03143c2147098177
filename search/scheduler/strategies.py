"""The task scheduler: which task gets the next round of trials (paper section 6.2, reference section 8).

A strategy is a function of what is known about every task; it keeps no state, so that a resumed search continues as
the original one would have. Adding a strategy is a function with a decorator. What falls is an objective (`objectives.py`),
here a function of the tasks' latencies alone.

    tasks = [TaskProgress(flops=10**9, history=(3e-3, 2e-3)) for _ in range(2)]
    weights = np.array([4.0, 1.0])
    choose_task("gradient", tasks, lambda latencies: latencies @ weights, np.random.default_rng(0))     # 0: the heavier
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.strategy_options import NO_OPTIONS, OptionSet, StrategyOptions, option

GOLDEN_RATIO = 1.618  # FLOP counts within one power of it are similar
EXPULSION_ROUNDS = 5
_RELATIVE_STEP = 1e-3  # of the numerical derivative of the objective

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SchedulerOptions(StrategyOptions, name="scheduler"):
    """Constants of the task scheduler (paper 6.2); the defaults are Ansor's."""

    alpha: float = option(
        0.2, "weight of the past in the gradient; the rest is that of the guess at the future", least=0, most=1
    )
    beta: float = option(2.0, "a task is expected to reach 1/beta of the best throughput of similar tasks", above=0)
    backward_window: int = option(3, "rounds over which the past is looked at", least=1)
    epsilon: float = option(
        0.05, "share of the rounds that go to any task (as in Ansor's paper; its code has none)", least=0, most=1
    )
    early_stopping: int = option(
        0, "with any scheduler: trials without a better program after which a task gets no more; 0: never", least=0
    )


@dataclass(frozen=True)
class TaskProgress:
    """What the scheduler knows about a task.

    `history` holds the least latency known, in seconds: before the first round (the default schedule's), then after each
    round; infinite while no program was valid. `found` is the least latency of a program that the search itself made, the
    default schedule left out; infinite when there is none, and None when that makes no difference. Tasks of the same
    non-empty `group` are similar. A dead task gets nothing.
    """

    flops: int
    history: tuple[float, ...]
    group: str = ""
    found: float | None = None
    dead: bool = False

    @property
    def rounds(self) -> int:
        """Number of rounds the task has had."""
        return max(len(self.history) - 1, 0)

    @property
    def latency(self) -> float:
        """Best latency in seconds; infinite when nothing was valid."""
        return self.history[-1] if self.history else math.inf


Value = Callable[[Floats], float]  # the objective as a function of the tasks' latencies, float64[tasks], seconds, finite
Strategy = Callable[[Sequence[TaskProgress], Value, OptionSet, np.random.Generator], int]

STRATEGIES: Registry[Strategy] = Registry("task scheduler")


def task_scheduler(name: str, options: type[StrategyOptions] | None = None) -> Callable[[Strategy], Strategy]:
    """Make a strategy known by name (`--scheduler`), with the class of its options (`options.of(MyOptions)`) if it has any.

    Raises OptionError for a name that is taken.
    """

    def register(function: Strategy) -> Strategy:
        STRATEGIES.add(name, function, options)
        return function

    return register


def find_strategy(name: str) -> Strategy:
    """A strategy by name; raises OptionError naming the known ones."""
    return STRATEGIES.find(name)


def choose_task(
    strategy: str,
    tasks: Sequence[TaskProgress],
    value: Value,
    rng: np.random.Generator,
    options: OptionSet = NO_OPTIONS,
) -> int | None:
    """The index of the task to give the next round, or None when all are dead.

    Warm-up comes first: every task gets one round, in order. A task without any valid program is then tried again until the
    tuning loop declares it dead, because an objective has no value without it. Raises OptionError for an unknown strategy,
    PlugInError for one that fails or chooses what cannot be chosen.
    """
    decide = find_strategy(strategy)
    alive = [index for index, task in enumerate(tasks) if not task.dead]
    if not alive:
        return None
    for index in alive:
        if tasks[index].rounds == 0:
            return index
    for index in alive:
        if not math.isfinite(tasks[index].latency):
            return index

    def checked(latencies: Floats) -> float:
        given = np.asarray(latencies, dtype=np.float64)
        if given.shape != (len(tasks),) or not np.isfinite(given).all():
            raise PlugInError(
                f"task scheduler '{strategy}' asks for the value of {latencies!r:.60}; it must give {len(tasks)} finite seconds"
            )
        return value(given)

    with plug_in(f"task scheduler '{strategy}'"):
        chosen = decide(tuple(tasks), checked, options, rng)
        if isinstance(chosen, bool) or not isinstance(chosen, (int, np.integer)) or chosen not in alive:
            listed = ", ".join(map(str, alive))
            raise PlugInError(f"task scheduler '{strategy}' chose {chosen!r:.60}; it must choose a task that goes on: {listed}")
        return int(chosen)


@task_scheduler("gradient", options=SchedulerOptions)
def by_gradient(tasks: Sequence[TaskProgress], value: Value, options: OptionSet, rng: np.random.Generator) -> int:
    """The task whose next round promises the steepest fall of the objective; sometimes, or when all promise the same, any."""
    gradients = task_gradients(tasks, value, options)
    alive = np.array([index for index, task in enumerate(tasks) if not task.dead])
    if np.ptp(gradients[alive]) == 0 or rng.random() < options.of(SchedulerOptions).epsilon:
        return int(rng.choice(alive))
    return int(alive[np.argmin(gradients[alive])])


@task_scheduler("round-robin")
def by_turns(tasks: Sequence[TaskProgress], value: Value, options: OptionSet, rng: np.random.Generator) -> int:
    """The living task with the fewest rounds, the first of equals."""
    return min((index for index, task in enumerate(tasks) if not task.dead), key=lambda index: (tasks[index].rounds, index))


@task_scheduler("random")
def by_chance(tasks: Sequence[TaskProgress], value: Value, options: OptionSet, rng: np.random.Generator) -> int:
    """Any living task."""
    return int(rng.choice([index for index, task in enumerate(tasks) if not task.dead]))


def task_gradients(tasks: Sequence[TaskProgress], value: Value, options: OptionSet = NO_OPTIONS) -> Floats:
    """Expected change of the objective by one more round, float64[tasks], at most 0; 0 for dead tasks.

    chain * (alpha * backward + (1 - alpha) * forward): `chain` is the numerical derivative of the objective with respect to the
    task's latency, `backward` its fall a round over the last rounds, `forward` the optimistic guess that the latency falls by
    1/rounds, or that the task reaches 1/beta of the best throughput of similar tasks (paper, Appendix A). Latencies of
    tasks without a valid program count as 0 in the objective.
    """
    own = options.of(SchedulerOptions)
    latencies = np.array([task.latency if math.isfinite(task.latency) else 0.0 for task in tasks])
    now = value(latencies)
    gradients = np.zeros(len(tasks))
    for index, task in enumerate(tasks):
        if task.dead or latencies[index] == 0:
            continue
        step = _RELATIVE_STEP * latencies[index]
        changed = latencies.copy()
        changed[index] -= step
        chain = (now - value(changed)) / step
        forward = min(_by_time(task, own.backward_window), _by_similarity(index, tasks, own.beta)) - task.latency
        expected = own.alpha * _backward(task, own.backward_window) + (1 - own.alpha) * forward
        gradients[index] = min(chain * expected, 0.0)
    return gradients


def similarity_group(dag: ComputeDAG) -> str:
    """Tasks of one group compute the same thing on sizes of a similar number of FLOPs: the DAG's text without its numbers."""
    magnitude = int(math.log(dag.flops + 1, GOLDEN_RATIO))
    return f"{magnitude}:{expression_family(dag)}"


def expression_family(dag: ComputeDAG) -> str:
    """Equal for tasks that compute the same thing on whatever sizes."""
    return re.sub(r"[0-9]+", "", str(dag))


def _backward(task: TaskProgress, window: int) -> float:
    """Change of the latency a round over the last `window` rounds, at most 0; 0 when there were fewer."""
    if task.rounds < window or not math.isfinite(task.history[-1 - window]):
        return 0.0
    return (task.history[-1] - task.history[-1 - window]) / window


def _by_time(task: TaskProgress, window: int) -> float:
    """The latency if what the search found falls by 1/rounds, as in the paper, and never above the latency that is known.

    The paper's search starts from random programs; ours has the default schedule, which may be as good as the space allows. A
    task whose own programs are far behind it after a few rounds (as many as the past is looked at) promises nothing.
    """
    found = task.latency if task.found is None or task.rounds <= window else task.found
    return min(found - found / max(task.rounds, 1), task.latency) if math.isfinite(found) else task.latency


def _by_similarity(index: int, tasks: Sequence[TaskProgress], beta: float) -> float:
    """Latency at 1/beta of the best throughput of the group; infinite without one or when the task cannot keep up with it."""
    task = tasks[index]
    members = [other for other in tasks if task.group and other.group == task.group and math.isfinite(other.latency)]
    if len(members) < 2 or not task.flops:
        return math.inf
    best = max(other.flops / other.latency for other in members)
    others = max(other.rounds for number, other in enumerate(tasks) if number != index and other.group == task.group)
    if task.flops / task.latency < best / beta and task.rounds > EXPULSION_ROUNDS + others:
        return math.inf
    return beta * task.flops / best
