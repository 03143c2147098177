"""The networks that are tuned together, as arrays: how often each runs each task, and which tasks may take others' place.

networks = describe_networks(tasks, [Network("a", {key: 4}, alternatives=(Alternatives("b", ({first: 2}, {second: 1})),))])
networks.seconds(latencies)          # of every network, with the faster one of alternatives
networks.open_shares(progress)       # which alternatives are worth further trials
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError
from ansor_py.schedule.task import Task

if TYPE_CHECKING:
    from ansor_py.search.scheduler.strategies import TaskProgress

Floats = NDArray[np.float64]
# A task without a valid program may still get one, as fast as any, for so many rounds.
HOPEFUL_ROUNDS = 3


@dataclass(frozen=True)
class Alternatives:
    """Sets of tasks that compute the same, of which a network runs one: by workload key how often it calls each. The first
    is taken where nothing is known."""

    name: str
    weights: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Network:
    """A network among those that are tuned together: by workload key how often it runs each task, whatever is decided between
    `alternatives`, and as far as it is known the seconds that a call of the default schedule takes inside it."""

    name: str
    weights: Mapping[str, float]
    default_seconds: Mapping[str, float] = field(default_factory=dict)
    alternatives: tuple[Alternatives, ...] = ()

    def most_calls(self, key: str) -> float:
        """How often it may run a task."""
        possible = (max(weights.get(key, 0.0) for weights in choice.weights) for choice in self.alternatives)
        return self.weights.get(key, 0.0) + sum(possible)


@dataclass(frozen=True)
class Fork:
    """Alternatives of the network of this number: float64[alternatives, tasks], how often each runs a task."""

    network: int
    weights: Floats


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
        forks: alternatives, whose tasks `weights` leaves out; an objective sees none, but weights in which they are shared out.
    """

    names: tuple[str, ...]
    weights: Floats
    targets: Floats
    references: Floats
    histories: tuple[tuple[float, ...], ...] = ()
    defaults: Floats | None = None
    forks: tuple[Fork, ...] = ()

    def seconds(self, latencies: Floats) -> Floats:
        """Latency of every network, float64[networks], from those of the tasks, float64[tasks]."""
        return self.known_seconds(latencies.tolist()) if self.forks else self.weights @ latencies

    def known_seconds(self, latencies: Sequence[float | None]) -> Floats:
        """The same where None stands for unknown: infinite for a network with such a task."""
        known = _finite(latencies)
        seconds = _sums(self.weights, known)
        for fork in self.forks:
            seconds[fork.network] += _sums(fork.weights, known).min()
        return seconds

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
        ratios = np.where(np.isfinite(ratios), ratios, 1.0)
        forks = tuple(replace(fork, weights=fork.weights * ratios[fork.network]) for fork in self.forks)
        return replace(self, weights=self.weights * ratios, forks=forks)

    def shares(self, latencies: Sequence[float | None]) -> list[Floats]:
        """Of each fork 1 for the alternative that is faster by these latencies, the first of equals, and 0 for the others."""
        known = _finite(latencies)
        sums = [_sums(fork.weights, known) for fork in self.forks]
        return [np.eye(len(each))[int(np.argmin(each))] for each in sums]

    def open_shares(self, tasks: Sequence[TaskProgress]) -> list[Floats]:
        """Of each fork an equal share for every alternative that may still become the fastest, and 0 for the others.

        After some rounds a task is expected to become at best so much faster: four times before its first round, then 1.75,
        1.43, 1.3 times.
        """
        now = np.array([task.latency for task in tasks])
        best = np.array([hoped_latency(task) for task in tasks])
        found = []
        for fork in self.forks:
            sums, hopes = _sums(fork.weights, now), _sums(fork.weights, best)
            still = (hopes < sums.min()) | (np.arange(len(sums)) == np.argmin(sums))
            found.append(still / still.sum())
        return found

    def folded(self, shares: Sequence[Floats]) -> Networks:
        """Without forks: the tasks of their alternatives are in the weights by these shares."""
        weights = self.weights.copy()
        for fork, share in zip(self.forks, shares, strict=True):
            weights[fork.network] += share @ fork.weights
        return replace(self, weights=weights, forks=())


def total_seconds(networks: Networks, latencies: Sequence[float | None]) -> float | None:
    """The latencies of all networks together, None while one is unknown."""
    total = float(networks.known_seconds(latencies).sum())
    return total if math.isfinite(total) else None


def hoped_latency(task: TaskProgress) -> float:
    """The least latency that further trials of a task may be expected to find, in seconds."""
    if task.dead or (not math.isfinite(task.latency) and task.rounds >= HOPEFUL_ROUNDS):
        return task.latency
    if not math.isfinite(task.latency):
        return 0.0
    return task.latency * (3 * task.rounds + 1) / (3 * task.rounds + 4)


def describe_networks(
    tasks: Sequence[Task], networks: Sequence[Network], targets: Sequence[float] = (), references: Sequence[float] = ()
) -> Networks:
    """The networks as arrays in the order of the tasks; without networks, all tasks belong to one with the tasks' weights.

    A single target or reference (seconds) holds for every network. Raises OptionError for another number of them, and for a
    network with a task that is not tuned.
    """
    networks = networks or [Network("", {task.workload_key: task.weight for task in tasks})]
    keys = [task.workload_key for task in tasks]

    def rows(*weights: Mapping[str, float]) -> Floats:
        return np.array([[row.get(key, 0.0) for key in keys] for row in weights], dtype=np.float64)

    for network in networks:
        named = [network.weights, *(weights for choice in network.alternatives for weights in choice.weights)]
        if unknown := set().union(*named) - set(keys):
            raise OptionError(f"network '{network.name}' has tasks that are not tuned: {', '.join(sorted(unknown))}")
    defaults = np.array([[network.default_seconds.get(key, np.nan) for key in keys] for network in networks], np.float64)
    return Networks(
        names=tuple(network.name for network in networks),
        weights=rows(*(network.weights for network in networks)),
        targets=_one_each(targets, len(networks), "target"),
        references=_one_each(references, len(networks), "reference"),
        defaults=defaults,
        forks=tuple(
            Fork(number, rows(*choice.weights)) for number, network in enumerate(networks) for choice in network.alternatives
        ),
    )


def _finite(latencies: Sequence[float | None]) -> Floats:
    return np.array([math.inf if latency is None else latency for latency in latencies], dtype=np.float64)


def _sums(weights: Floats, latencies: Floats) -> Floats:
    """Weighted sums, float64[rows], of latencies of which some may be infinite: what has weight 0 does not count."""
    return np.asarray(np.where(weights > 0, weights * np.where(weights > 0, latencies, 0.0), 0.0).sum(axis=1))


def _one_each(seconds: Sequence[float], count: int, what: str) -> Floats:
    """`seconds` for each of the networks."""
    if any(not (math.isfinite(value) and value > 0) for value in seconds):
        raise OptionError(f"a {what} latency must be more than 0 s, not {min(seconds):g} s")
    if len(seconds) == 1:
        return np.full(count, seconds[0])
    if len(seconds) not in (0, count):
        raise OptionError(f"{len(seconds)} {what} latencies are given for {count} networks; give one for all or one for each")
    return np.array(seconds, dtype=np.float64)
