"""What the task scheduler minimises: f1 to f4 of the paper's Table 2, and functions of the user's own.

An objective is a function of the tasks' latencies and of the networks that the tasks belong to. It must give a finite number
that does not fall when a latency rises.

    @objective("worst-network")
    def worst_network(latencies, networks):
        return networks.seconds(latencies).max()

`--import my_objectives.py --objective worst-network` takes it from a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError, PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.search.scheduler.networks import Networks

STAGNATION_ROUNDS = 5  # after which f4 expects nothing more of a task
_LEVEL = 1e-3  # a fall of the latency by less than this share in those rounds counts as none

Floats = NDArray[np.float64]


Objective = Callable[[Floats, Networks], float]

OBJECTIVES: Registry[Objective] = Registry("objective")


def objective(name: str) -> Callable[[Objective], Objective]:
    """Make an objective known by name (`--objective`). Raises OptionError for a name that is taken."""

    def register(function: Objective) -> Objective:
        OBJECTIVES.add(name, function)
        return function

    return register


def find_objective(name: str) -> Objective:
    """An objective by its name. Raises OptionError naming the known ones."""
    return OBJECTIVES.find(name)


@objective("latency-sum")
def latency_sum(latencies: Floats, networks: Networks) -> float:
    """f1: the latencies of all networks together."""
    return float(networks.seconds(latencies).sum())


@objective("latency-targets")
def latency_targets(latencies: Floats, networks: Networks) -> float:
    """f2: as f1, but a network that has reached its target latency gains nothing by becoming faster still."""
    if not len(networks.targets):
        raise OptionError("objective 'latency-targets' needs the latency that every network is to reach; give --target-latency")
    return float(np.maximum(networks.seconds(latencies), networks.targets).sum())


@objective("geomean-speedup")
def geomean_speedup(latencies: Floats, networks: Networks) -> float:
    """f3: minus the geometric mean over the networks of the speed-up over their reference latencies."""
    seconds = networks.seconds(latencies)
    known = seconds > 0  # a network none of whose tasks ever ran has no speed-up
    return -float(np.exp(np.mean(np.log(networks.references[known] / seconds[known])))) if known.any() else 0.0


@objective("early-stopping")
def early_stopping(latencies: Floats, networks: Networks) -> float:
    """f4: as f1, but a task that stagnated is expected to stay where it is: the paper's ES(g, t) is `stagnation_floor`."""
    floors = np.array([stagnation_floor(history) for history in networks.histories])
    return float(networks.seconds(np.maximum(latencies, floors)).sum())


def stagnation_floor(history: Sequence[float]) -> float:
    """The latency (seconds) of a task that has not become faster in its last rounds, 0 for one that has."""
    if len(history) <= STAGNATION_ROUNDS or not math.isfinite(history[-1]):
        return 0.0
    return history[-1] if history[-1] > (1 - _LEVEL) * history[-1 - STAGNATION_ROUNDS] else 0.0


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
    networks = networks.folded(networks.shares([1.0] * networks.weights.shape[1]))
    tasks = networks.weights.shape[1]
    trial = replace(networks.compared_with([1.0] * tasks), histories=((1.0,),) * tasks)
    evaluate(function, np.ones(tasks), trial)
    return function
