"""What the task scheduler minimises: f1 to f4 of the paper's Table 2, and functions of the user's own.

An objective is a function of the tasks' latencies and of the networks that the tasks belong to. It must give a finite number
that does not fall when a latency rises.

    @register_objective("worst-network")
    def worst_network(latencies, networks):
        return networks.seconds(latencies).max()

`--objective my_objectives.py:worst_network` names a function in a file, `--objective package.module:name` one in a module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError, PlugInError, plug_in
from ansor_py.schedule.task import Task
from ansor_py.search.user_code import load_function

STAGNATION_ROUNDS = 5  # after which f4 expects nothing more of a task
_LEVEL = 1e-3  # a fall of the latency by less than this share in those rounds counts as none

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """A network among those that are tuned together: by workload key how often it runs each task, and as far as it is known
    the seconds that a call of the default schedule takes inside it."""

    name: str
    weights: Mapping[str, float]
    default_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Networks:
    """What an objective knows beside the latencies.

    Attributes:
        names: of the networks.
        weights: float64[networks, tasks], how often a network runs a task.
        targets: float64[networks], seconds, the latencies that are asked for; empty when none are.
        references: float64[networks], seconds, the latencies to compare with; those of the default schedules if not given.
        histories: of every task its least latency known, in seconds: before its first round, then after each.
        defaults: float64[networks, tasks], seconds of the default schedules' calls inside a network, NaN where unknown.
    """

    names: tuple[str, ...]
    weights: Floats
    targets: Floats
    references: Floats
    histories: tuple[tuple[float, ...], ...] = ()
    defaults: Floats | None = None

    def seconds(self, latencies: Floats) -> Floats:
        """Latency of every network, float64[networks], from those of the tasks, float64[tasks]."""
        return self.weights @ latencies

    def known_seconds(self, latencies: Sequence[float | None]) -> Floats:
        """The same where None stands for unknown: infinite for a network with such a task."""
        unknown = np.array([latency is None for latency in latencies], dtype=bool)
        seconds = self.seconds(np.array([latency or 0.0 for latency in latencies]))
        return np.where((self.weights[:, unknown] > 0).any(axis=1), np.inf, seconds)

    def compared_with(self, defaults: Sequence[float | None]) -> Networks:
        """With the latencies of the default schedules as references where none are given (1 s for what is unknown)."""
        if len(self.references):
            return self
        seconds = self.known_seconds(defaults)
        return replace(self, references=np.where(np.isfinite(seconds) & (seconds > 0), seconds, 1.0))

    def in_place(self, alone: Sequence[float | None]) -> Networks:
        """With weights that turn latencies of kernels alone, as they are measured, into those inside the networks.

        A task counts as much more or less as its default schedule takes inside the network, `alone` being what that takes by
        itself, in seconds; None is unknown.
        """
        if self.defaults is None:
            return self
        ratios = self.defaults / np.array([np.nan if seconds is None else seconds for seconds in alone])
        return replace(self, weights=self.weights * np.where(np.isfinite(ratios), ratios, 1.0))


Objective = Callable[[Floats, Networks], float]

OBJECTIVES: dict[str, Objective] = {}


def register_objective(name: str) -> Callable[[Objective], Objective]:
    """Make an objective known by name (`--objective`)."""

    def register(function: Objective) -> Objective:
        OBJECTIVES[name] = function
        return function

    return register


def find_objective(name: str) -> Objective:
    """An objective by its name, or as `FILE.py:FUNCTION` or `MODULE:FUNCTION`. Raises OptionError naming the known ones."""
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if ":" in name:
        return load_function(name, "objective")
    known = ", ".join(sorted(OBJECTIVES))
    raise OptionError(f"there is no objective '{name}'; known are {known}, and functions of your own as FILE.py:FUNCTION")


@register_objective("latency-sum")
def latency_sum(latencies: Floats, networks: Networks) -> float:
    """f1: the latencies of all networks together."""
    return float(networks.seconds(latencies).sum())


@register_objective("latency-targets")
def latency_targets(latencies: Floats, networks: Networks) -> float:
    """f2: as f1, but a network that has reached its target latency gains nothing by becoming faster still."""
    if not len(networks.targets):
        raise OptionError("objective 'latency-targets' needs the latency that every network is to reach; give --target-latency")
    return float(np.maximum(networks.seconds(latencies), networks.targets).sum())


@register_objective("geomean-speedup")
def geomean_speedup(latencies: Floats, networks: Networks) -> float:
    """f3: minus the geometric mean over the networks of the speed-up over their reference latencies."""
    seconds = networks.seconds(latencies)
    known = seconds > 0  # a network none of whose tasks ever ran has no speed-up
    return -float(np.exp(np.mean(np.log(networks.references[known] / seconds[known])))) if known.any() else 0.0


@register_objective("early-stopping")
def early_stopping(latencies: Floats, networks: Networks) -> float:
    """f4: as f1, but a task that stagnated is expected to stay where it is: the paper's ES(g, t) is `stagnation_floor`."""
    floors = np.array([stagnation_floor(history) for history in networks.histories])
    return float((networks.weights @ np.maximum(latencies, floors)).sum())


def stagnation_floor(history: Sequence[float]) -> float:
    """The latency (seconds) of a task that has not become faster in its last rounds, 0 for one that has."""
    if len(history) <= STAGNATION_ROUNDS or not math.isfinite(history[-1]):
        return 0.0
    return history[-1] if history[-1] > (1 - _LEVEL) * history[-1 - STAGNATION_ROUNDS] else 0.0


def describe_networks(
    tasks: Sequence[Task], networks: Sequence[Network], targets: Sequence[float] = (), references: Sequence[float] = ()
) -> Networks:
    """The networks as arrays in the order of the tasks; without networks, all tasks belong to one with the tasks' weights.

    A single target or reference (seconds) holds for every network. Raises OptionError for another number of them, and for a
    network with a task that is not tuned.
    """
    networks = networks or [Network("", {task.workload_key: task.weight for task in tasks})]
    keys = [task.workload_key for task in tasks]
    for network in networks:
        if unknown := set(network.weights) - set(keys):
            raise OptionError(f"network '{network.name}' has tasks that are not tuned: {', '.join(sorted(unknown))}")
    weights = np.array([[network.weights.get(key, 0.0) for key in keys] for network in networks], dtype=np.float64)
    defaults = np.array([[network.default_seconds.get(key, np.nan) for key in keys] for network in networks], np.float64)
    return Networks(
        names=tuple(network.name for network in networks),
        weights=weights,
        targets=_one_each(targets, len(networks), "target"),
        references=_one_each(references, len(networks), "reference"),
        defaults=defaults,
    )


def evaluate(objective: Objective, latencies: Floats, networks: Networks) -> float:
    """The value of an objective. Raises PlugInError when it fails or is not a finite number."""
    name = getattr(objective, "__name__", type(objective).__name__)
    given = latencies.copy()
    for array in (given, networks.weights, networks.targets, networks.references):
        array.setflags(write=False)  # what an objective changes, the search would go on with
    with plug_in(f"objective '{name}'"):
        gave: object = objective(given, networks)
        if not isinstance(gave, Real | np.ndarray) or np.asarray(gave).size != 1:
            raise PlugInError(f"objective '{name}' gave {gave!r:.60}; it must give one finite number")
        value = float(np.asarray(gave).item())
    if not math.isfinite(value):
        raise PlugInError(f"objective '{name}' gave {value} for latencies of {latencies.tolist()} s; it must be finite")
    return value


def check_objective(objective: str | Objective, networks: Networks) -> Objective:
    """The objective, tried once. Raises OptionError for an unknown name and for what `evaluate` refuses."""
    function = find_objective(objective) if isinstance(objective, str) else objective
    tasks = networks.weights.shape[1]
    trial = replace(networks.compared_with([1.0] * tasks), histories=((1.0,),) * tasks)
    evaluate(function, np.ones(tasks), trial)
    return function


def _one_each(seconds: Sequence[float], count: int, what: str) -> Floats:
    """`seconds` for each of the networks."""
    if any(not (math.isfinite(value) and value > 0) for value in seconds):
        raise OptionError(f"a {what} latency must be more than 0 s, not {min(seconds):g} s")
    if len(seconds) == 1:
        return np.full(count, seconds[0])
    if len(seconds) not in (0, count):
        raise OptionError(f"{len(seconds)} {what} latencies are given for {count} networks; give one for all or one for each")
    return np.array(seconds, dtype=np.float64)
