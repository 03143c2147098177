"""What holds for every mutation, feature group, task scheduler and objective. See `ansor_py.testing`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.feature_groups import FEATURE_GROUPS
from ansor_py.cost_model.features import raw_features
from ansor_py.schedule.sketch import Population
from ansor_py.search.evolution.mutation import MUTATIONS, mutate
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.scheduler.networks import Network, Networks, describe_networks
from ansor_py.search.scheduler.objectives import OBJECTIVES, check_objective, evaluate, find_objective
from ansor_py.search.scheduler.strategies import STRATEGIES, TaskProgress, choose_task
from ansor_py.strategy_options import NO_OPTIONS, OptionSet
from ansor_py.target import Target
from ansor_py.testing.subjects import (
    PRODUCT,
    ROWS,
    SEARCH,
    SMALL,
    SPECS,
    TARGETS,
    Workload,
    check,
    programs,
    registered_as,
    sketches_of,
    task_of,
)

Floats = NDArray[np.float64]


class MutationConformance:
    """Subclass it and name the mutation.

    Attributes:
        name: under which it is registered.
        specs: operators; of the sketches of one at least it changes something.
        rules: that derive these sketches.
    """

    name: ClassVar[str]
    specs: ClassVar[tuple[Workload, ...]] = SPECS
    rules: ClassVar[str | tuple[str, ...]] = "default"

    def _spaces(self) -> list[Space]:
        return [
            Space(sketch, Target.parse(target), SEARCH)
            for spec in self.specs
            for target in TARGETS
            for sketch in sketches_of(spec, target, self.rules)
        ]

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring."""
        registered_as(MUTATIONS, self.name)

    def test_children_are_rows_of_genes_and_parents_stay_as_they_are(self) -> None:
        """`mutate` checks shapes, numbers and ranges; one row and no row are rows, too."""
        changes = False
        for space in self._spaces():
            rng = np.random.default_rng(0)
            genes = sample(space, 16, rng)
            for count in (len(genes), 1, 0):
                parents = genes[:count]
                before = parents.copy()
                children = mutate(space, self.name, parents, rng)
                check(np.array_equal(parents, before), "it changes the parents; it must return changed copies")
                changes |= children is not None and bool(np.any(children != before))
        check(changes, f"it changes nothing in any sketch of {', '.join(map(str, self.specs))}")

    def test_the_seed_decides(self) -> None:
        """All chance comes from the generator."""
        for space in self._spaces():
            genes = sample(space, 16, np.random.default_rng(0))
            first, second = (mutate(space, self.name, genes, np.random.default_rng(3)) for _ in range(2))
            same = first is second if first is None or second is None else np.array_equal(first, second)
            check(same, "the same rows and the same seed give different children")


class FeatureGroupConformance:
    """Subclass it and name the feature group.

    Attributes:
        name: under which it is registered.
        specs: operators whose programs it describes.
    """

    name: ClassVar[str]
    specs: ClassVar[tuple[str, ...]] = SPECS

    def _features(self, population: Population, target: str) -> NDArray[np.float32]:
        return raw_features(population, Target.parse(target), [FEATURE_GROUPS.find(self.name)]).rows

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring."""
        registered_as(FEATURE_GROUPS, self.name)

    def test_features_are_finite_and_the_same_each_time(self) -> None:
        """`raw_features` raises for a number that is negative or none; all columns are filled, whatever was there before."""
        for spec in self.specs:
            for target in TARGETS:
                for population in programs(spec, target):
                    first, second = self._features(population, target), self._features(population, target)
                    check(np.array_equal(first, second), f"features of programs of {spec} differ: is a column not filled?")

    def test_a_program_has_the_same_features_alone(self) -> None:
        """As among others."""
        for spec in self.specs:
            for population in programs(spec):
                whole = self._features(population, TARGETS[1])
                statements = len(whole) // len(population)
                for number in (0, len(population) - 1):
                    alone = self._features(Population(population.sketch, population.genes[number : number + 1]), TARGETS[1])
                    if len(alone) == statements and statements * len(population) == len(whole):
                        mine = whole[number * statements : (number + 1) * statements]
                        check(
                            np.allclose(alone, mine, rtol=1e-5),
                            f"a program of {spec} has other features alone than in company",
                        )


class TaskSchedulerConformance:
    """Subclass it and name the task scheduler.

    Attributes:
        name: under which it is registered.
        options: that it is called with.
    """

    name: ClassVar[str]
    options: ClassVar[OptionSet] = NO_OPTIONS

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring; its options have a default."""
        registered_as(STRATEGIES, self.name)

    def test_it_chooses_a_task_that_goes_on(self) -> None:
        """Whatever the histories: `choose_task` raises for anything else. Its arguments and the generator decide."""
        rng = np.random.default_rng(0)
        for number in range(200):
            tasks = [_some_progress(rng) for _ in range(int(rng.integers(1, 6)))]
            weights = rng.integers(1, 9, len(tasks)).astype(float)

            def value(latencies: Floats, weights: Floats = weights) -> float:
                return float(latencies @ weights)

            chosen = [choose_task(self.name, tasks, value, np.random.default_rng(number), self.options) for _ in range(2)]
            check(chosen[0] == chosen[1], "the same tasks and the same seed give different choices; it must keep no state")
            check((chosen[0] is None) == all(task.dead for task in tasks), "it chooses none of the tasks that go on")

    def test_a_search_of_two_tasks_ends_with_it(self) -> None:
        """Also when one of them has no more programs to try."""
        options = TuningOptions(
            trials=40, strategy=self.name, cost_model="random", batch=4, search=SEARCH.with_own(*self.options.own)
        )
        result = tune_tasks([task_of(PRODUCT), task_of(SMALL)], options, "simulated")
        check(len(result.records) == 40, f"a search with it stops after {len(result.records)} of 40 trials: {result.stopped}")


def _some_progress(rng: np.random.Generator) -> TaskProgress:
    """A task with any history."""
    rounds = int(rng.integers(1, 8))
    history = np.minimum.accumulate(10 ** rng.uniform(-6, 0, rounds))
    found = None if rng.random() < 0.3 else float(history[-1] * rng.uniform(1, 2)) if rng.random() < 0.8 else math.inf
    return TaskProgress(
        int(rng.integers(0, 10**9)), tuple(history.tolist()), str(rng.integers(0, 2)), found, bool(rng.random() < 0.3)
    )


class ObjectiveConformance:
    """Subclass it and name the objective.

    Attributes:
        name: under which it is registered.
        targets: latencies in seconds that two networks are to reach, if it needs such.
    """

    name: ClassVar[str]
    targets: ClassVar[tuple[float, ...]] = ()

    def _networks(self) -> Networks:
        tasks = [task_of(spec) for spec in (PRODUCT, ROWS, SMALL)]
        keys = [task.workload_key for task in tasks]
        networks = [Network("a", {keys[0]: 2.0, keys[1]: 1.0}), Network("b", {keys[1]: 3.0, keys[2]: 1.0})]
        histories = ((1e-2,) * 8, (1e-2, 5e-3), (1e-3,))  # one task stagnates
        return replace(describe_networks(tasks, networks, self.targets), histories=histories)

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring."""
        registered_as(OBJECTIVES, self.name)

    def test_it_is_a_finite_number_that_does_not_fall_when_a_latency_rises(self) -> None:
        """`evaluate` raises for what is no finite number, and for an objective that changes what it is given."""
        networks = self._networks()
        function = find_objective(self.name)
        check_objective(self.name, networks)
        rng = np.random.default_rng(0)
        for _ in range(100):
            latencies = 10 ** rng.uniform(-5, -1, 3)
            known = networks.compared_with((10 ** rng.uniform(-5, -1, 3)).tolist())
            before = evaluate(function, latencies, known)
            check(before == evaluate(function, latencies, known), "it gives another number for the same latencies")
            for task in range(3):
                slower = latencies.copy()
                slower[task] *= 2
                check(evaluate(function, slower, known) >= before, f"it falls from {before} when a latency rises")

    def test_a_search_minimises_it(self) -> None:
        """Of two tasks, to its end."""
        options = TuningOptions(
            trials=24, objective=self.name, cost_model="random", batch=4, search=SEARCH, target_latencies=self.targets[:1]
        )
        result = tune_tasks([task_of(PRODUCT), task_of(ROWS)], options, "simulated")
        check(result.records, "a search with it measures nothing")
