"""Policies: who decides which programs are measured next. The tuning loop owns measuring, a policy only proposes.

A policy is a class under `@policy("name")`. It gets the sketches of one task, a score function over populations (the cost
model behind feature extraction), its own random generator and the options:

    sketches = sketches_for("evolution", dag, target, SearchOptions())
    chosen = create_policy("evolution", sketches, target, score, np.random.default_rng(seed), SearchOptions())
    candidates = chosen.propose(64)
    chosen.observe(records)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from ansor_py.errors import NoSpaceError, PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.candidates import Candidates, Observation
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.strategy_options import StrategyOptions
from ansor_py.target import Target


class Policy(Protocol):
    """Proposes programs of one task and learns what they cost."""

    @property
    def sketches(self) -> Sequence[Sketch]:
        """The sketches that candidates refer to by number."""
        ...

    def propose(self, count: int) -> Candidates:
        """At most `count` programs that were not proposed before; fewer, or none, when the space is exhausted."""
        ...

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take notice of measured programs, whoever proposed them (also those of an earlier run)."""
        ...


@dataclass(frozen=True)
class RoundState:
    """The search as a policy may know it before it proposes. Times are seconds.

    `trials` are those of its task so far; `trials_left` (the whole search's) and `seconds_left` are None where nothing limits
    them; `default_seconds` and `best_seconds` are latencies of the task, None while they are not known.
    """

    round: int
    trials: int
    trials_left: int | None
    seconds_left: float | None
    default_seconds: float | None
    best_seconds: float | None


@runtime_checkable
class InformedPolicy(Protocol):
    """A policy that wants to know how the search stands."""

    def begin_round(self, state: RoundState) -> None:
        """Called before each `propose` of a search."""
        ...


def inform(policy: Policy, state: RoundState) -> None:
    """Tell a policy how the search stands, if it wants to know."""
    if isinstance(policy, InformedPolicy):
        policy.begin_round(state)


PolicyFactory = Callable[[Sequence[Sketch], Target, ScoreFunction, np.random.Generator, SearchOptions], Policy]
SketchSource = Callable[[ComputeDAG, Target, SearchOptions], list[Sketch]]
FactoryType = TypeVar("FactoryType", bound=PolicyFactory)


def derived_sketches(dag: ComputeDAG, target: Target, options: SearchOptions) -> list[Sketch]:
    """The sketches that the rules of the options derive: the search space of a policy that does not say otherwise."""
    return generate_sketches(dag, target, options.rules, options.rule_options)


POLICIES: Registry[PolicyFactory] = Registry("policy")
SKETCH_SOURCES: dict[str, SketchSource] = {}


def policy(
    name: str, sketches: SketchSource = derived_sketches, options: type[StrategyOptions] | None = None
) -> Callable[[FactoryType], FactoryType]:
    """Register a policy class (or function that makes one) under the name that `--policy` takes.

    `sketches` makes the search space of a task, where that is not what the sketch rules derive; `options` is the class of its
    own options, which it takes from what it is made with: `options.of(MyOptions)`. Raises OptionError for a name that is taken.
    """

    def register(factory: FactoryType) -> FactoryType:
        POLICIES.add(name, factory, options)
        SKETCH_SOURCES[name] = sketches
        return factory

    return register


def sketches_for(name: str, dag: ComputeDAG, target: Target, options: SearchOptions) -> list[Sketch]:
    """The search space in which the policy of that name works on a task.

    Raises OptionError that lists the names, NoSpaceError if the policy has no programs for such a task, and PlugInError for a
    source that fails.
    """
    find_policy(name)
    source = SKETCH_SOURCES[name]
    if source is derived_sketches:
        return derived_sketches(dag, target, options)  # whose errors name the rule
    with plug_in(f"policy '{name}': its search space", NoSpaceError):
        sketches = list(source(dag, target, options))
        if not sketches or not all(isinstance(sketch, Sketch) and sketch.dag is dag for sketch in sketches):
            raise PlugInError(
                f"policy '{name}': its search space is {sketches!s:.60}; it must be one sketch of the task or more"
            )
    return sketches


def create_policy(
    name: str,
    sketches: Sequence[Sketch],
    target: Target,
    score: ScoreFunction,
    rng: np.random.Generator,
    options: SearchOptions,
) -> Policy:
    """The policy of that name for sketches of `sketches_for`; raises OptionError that lists the names."""
    return find_policy(name)(sketches, target, score, rng, options)


def find_policy(name: str) -> PolicyFactory:
    """What makes the policy of that name; raises OptionError that lists the names."""
    return POLICIES.find(name)
