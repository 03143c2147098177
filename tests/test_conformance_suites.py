"""The conformance suites of `ansor_py.testing`: every built-in strategy passes them, and what is broken does not.

A class is made here for everything that the package registers, so that a new strategy is tested when it is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ansor_py import te
from ansor_py.cost_model import OptionSet, cost_model
from ansor_py.cost_model.feature_groups import FEATURE_GROUPS
from ansor_py.cost_model.interface import COST_MODELS
from ansor_py.measure.interface import MEASURERS
from ansor_py.registry import Registry, all_registered
from ansor_py.schedule.hole import HOLE_KINDS
from ansor_py.search import Candidate, Event, ProgramSampler, mutation, objective, observer, policy
from ansor_py.search.evolution.mutation import MUTATIONS
from ansor_py.search.policies.policy import POLICIES
from ansor_py.search.scheduler.objectives import OBJECTIVES
from ansor_py.search.scheduler.strategies import STRATEGIES
from ansor_py.sketch_rules import RULES, SpaceOptions
from ansor_py.te.tensor import Tensor
from ansor_py.testing import (
    CostModelConformance,
    FeatureGroupConformance,
    HoleKindConformance,
    MeasurerConformance,
    MutationConformance,
    ObjectiveConformance,
    ObserverConformance,
    PolicyConformance,
    RuleConformance,
    TaskSchedulerConformance,
)
from ansor_py.testing.subjects import CONVOLUTION, PRODUCT, ROWS, SMALL, SPECS


def product_of_transposed() -> Tensor:
    """As in attention: the heads stand behind the rows."""
    a, b = te.placeholder((3, 24, 2, 16), name="a"), te.placeholder((3, 2, 16, 20), name="b")
    turned = te.compute((3, 2, 24, 16), lambda i, j, m, k: a[i, m, j, k], name="turned")
    k = te.reduce_axis(16, "k")
    return te.compute((3, 2, 24, 20), lambda i, j, m, n: te.reduce_sum(turned[i, j, m, k] * b[i, j, k, n], k), name="product")


# To which operators a rule applies, and with which options, where they are others than those that the suites have.
RULE_SPECS: Mapping[str, tuple[Any, ...]] = {
    "add_parallel_rfactor": ("reduce_sum:4,70000,axis=1",),
    "add_row_blocks": ("attention:1,2,24,16",),
    "add_rfactor": ("reduce_sum:24,160,axis=1", ROWS),
    "choose_algorithm": ("conv2d:1,8,14,14,16,3,pad=1",),
    "inline_padding": ("depthwise_conv2d:1,8,14,14,3,pad=1",),
    "inline_transposition": (product_of_transposed,),
    "add_cache_write": (PRODUCT,),
}
RULE_OPTIONS = {"choose_algorithm": SpaceOptions(math="fast")}
HOLES: Mapping[str, Mapping[str, Any]] = {"rfactor": {"specs": ("reduce_sum:4,70000,axis=1",)}}
OBJECTIVE_TARGETS = {"latency-targets": (1e-4, 1e-3)}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "random": {"is_random": True},
    "roofline": {"learns": True},
    "lightgbm": {"learns": True},
    "lightgbm-rank": {"learns": True},
    "lightgbm-roofline": {"learns": True},
}
RUNNERS = ("inline", "process", "simulated")  # the others need more than a name: test_measure_ray.py, test_replay.py


def built_in(registry: Registry[Any]) -> list[str]:
    """The names that the package itself registers."""
    return [item.name for item in all_registered() if item.kind == registry.kind and item.module.startswith("ansor_py.")]


def suites(suite: type[Any], names: Sequence[str], of: Callable[[str], Mapping[str, Any]] = lambda name: {}) -> None:
    """A class that inherits a suite for each of some names."""
    for name in names:
        title = f"Test{suite.__name__}_{name.replace('-', '_')}"
        globals()[title] = type(title, (suite,), {"name": name, **of(name)})


suites(PolicyConformance, built_in(POLICIES), lambda name: {"small": "" if name == "template" else SMALL})
suites(CostModelConformance, built_in(COST_MODELS), MODELS.__getitem__)
suites(
    RuleConformance,
    built_in(RULES),
    lambda name: {"specs": RULE_SPECS.get(name, (CONVOLUTION,)), "options": RULE_OPTIONS.get(name, SpaceOptions())},
)
suites(HoleKindConformance, built_in(HOLE_KINDS), lambda name: HOLES.get(name, {"specs": SPECS}))
suites(MutationConformance, built_in(MUTATIONS))
suites(FeatureGroupConformance, built_in(FEATURE_GROUPS))
suites(TaskSchedulerConformance, built_in(STRATEGIES))
suites(ObjectiveConformance, built_in(OBJECTIVES), lambda name: {"targets": OBJECTIVE_TARGETS.get(name, ())})
suites(MeasurerConformance, RUNNERS)


def failures(suite: type[Any], **attributes: Any) -> dict[str, str]:
    """The tests of a suite that fail for the strategy of the name 'broken', and what they say."""
    tests = type("Suite", (suite,), {"name": "broken", **attributes})()
    found = {}
    for title in dir(tests):
        if title.startswith("test_"):
            try:
                getattr(tests, title)()
            except Exception as error:
                found[title] = f"{type(error).__name__}: {error}"
    return found


@pytest.mark.usefixtures("registries_as_before")
def test_a_policy_that_repeats_itself_and_rolls_dice_of_its_own_is_caught() -> None:
    @policy("broken")
    class Broken(ProgramSampler):
        def propose(self, count: int) -> list[Candidate]:
            self.rng = np.random.default_rng()
            self._seen.clear()
            return self.draw_random(count)

    found = failures(PolicyConformance)
    assert "no docstring" in found["test_it_is_registered_and_says_what_it_does"]
    assert "propose different programs" in found["test_the_seed_decides"]
    assert "test_a_space_of_few_programs_comes_to_its_end" in found
    assert "different programs" in found["test_a_search_uses_it"]
    assert "test_any_finite_scores_will_do" not in found


@pytest.mark.usefixtures("registries_as_before")
def test_a_model_that_compares_with_the_batch_and_sorts_what_it_is_given_is_caught() -> None:
    @cost_model("broken")
    class Broken:
        """It takes means over the batch."""

        def __init__(self, rng: np.random.Generator, options: OptionSet) -> None: ...

        def predict(self, batch: Any) -> Any:
            sums = np.add.reduceat(batch.rows.sum(axis=1), batch.offsets[:-1])
            with np.errstate(all="ignore"):
                return (sums - sums.mean()) / sums.std()

        def update(self, batch: Any, costs: Any, tasks: Any) -> None:
            costs.sort()

        def save(self, path: Path) -> None:
            path.write_text("nothing")

        def load(self, path: Path) -> None: ...

    found = failures(CostModelConformance, learns=True)
    assert "predict gave nan" in found["test_every_program_gets_a_finite_score_before_and_after_learning"]
    assert "depends on the batch" in found["test_a_score_is_that_of_the_program"]
    assert "changes the arrays" in found["test_what_it_is_given_stays_as_it_is"]
    assert "it loads a file that it has not written" in found["test_what_is_saved_can_be_loaded"]
    assert "test_the_seed_decides" not in found


@pytest.mark.usefixtures("registries_as_before")
def test_a_mutation_that_changes_its_parents_is_caught() -> None:
    @mutation("broken")
    def broken(space: Any, genes: Any, rng: Any) -> Any:
        """Every gene becomes 0."""
        genes[:] = 0
        return genes

    found = failures(MutationConformance)
    assert "changes the parents" in found["test_children_are_rows_of_genes_and_parents_stay_as_they_are"]


@pytest.mark.usefixtures("registries_as_before")
def test_an_objective_that_falls_is_caught() -> None:
    @objective("broken")
    def broken(latencies: Any, networks: Any) -> Any:
        """The slower the better."""
        return -latencies.sum()

    found = failures(ObjectiveConformance)
    assert "when a latency rises" in found["test_it_is_a_finite_number_that_does_not_fall_when_a_latency_rises"]


@pytest.mark.usefixtures("registries_as_before")
def test_an_observer_is_told_of_everything() -> None:
    @observer("broken")
    class Watchful:
        """It is not broken."""

        events: ClassVar[list[str]] = []

        def __init__(self, options: OptionSet, folder: Path) -> None: ...

        def __call__(self, event: Event) -> None:
            self.events.append(type(event).__name__)

    assert not failures(ObserverConformance)
    assert {"Progress", "TrialsMeasured", "RoundTimes", "Stopped"} <= set(Watchful.events)


def test_every_kind_of_strategy_has_a_suite() -> None:
    """A registry that is new wants one."""
    kinds = {item.kind for item in all_registered() if item.module.startswith("ansor_py.")}
    registries = [POLICIES, COST_MODELS, RULES, HOLE_KINDS, MUTATIONS, FEATURE_GROUPS, STRATEGIES, OBJECTIVES, MEASURERS]
    assert kinds <= {registry.kind for registry in registries} | {"observer"}
