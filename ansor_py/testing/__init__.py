"""Conformance suites: what holds for every policy, cost model, sketch rule, ... as tests that a plug-in inherits.

In a test file, name what is registered; the test runner finds the inherited tests:

    import my_idea      # registers policy "droplet"
    from ansor_py.testing import PolicyConformance

    class TestDroplet(PolicyConformance):
        name = "droplet"

| suite | for | asks |
| --- | --- | --- |
| `PolicyConformance` | `@policy` | valid, new programs; seeds decide; spaces end; resumes; any finite scores |
| `CostModelConformance` | `@cost_model` | a finite number a program; hard data; seeds decide; save and load |
| `RuleConformance` | `@rule` | sketches on four targets, the same each time, whose programs compute the right thing |
| `HoleKindConformance` | `@hole_kind` | choices, neighbours, plain choices, repair that agrees with itself |
| `MutationConformance` | `@mutation` | rows of genes that exist, the parents untouched, seeds decide |
| `FeatureGroupConformance` | `@feature_group` | finite numbers of at least 0, the same for a program alone and among others |
| `TaskSchedulerConformance` | `@task_scheduler` | a task that goes on, from its arguments and the generator alone |
| `ObjectiveConformance` | `@objective` | a finite number that does not fall when a latency rises |
| `MeasurerConformance` | `@measurer` | a result for every program, ids, an end |
| `ObserverConformance` | `@observer` | a search that is the same with it and without |

The suites need no test runner of a kind: each test is a method that raises AssertionError with a sentence. What a strategy of
its own kind cannot promise it says by an attribute, which each suite lists.
"""

from ansor_py.testing.cost_models import CostModelConformance
from ansor_py.testing.functions import (
    FeatureGroupConformance,
    MutationConformance,
    ObjectiveConformance,
    TaskSchedulerConformance,
)
from ansor_py.testing.measuring import MeasurerConformance, ObserverConformance
from ansor_py.testing.policies import PolicyConformance
from ansor_py.testing.rules import HoleKindConformance, RuleConformance

__all__ = [
    "CostModelConformance",
    "FeatureGroupConformance",
    "HoleKindConformance",
    "MeasurerConformance",
    "MutationConformance",
    "ObjectiveConformance",
    "ObserverConformance",
    "PolicyConformance",
    "RuleConformance",
    "TaskSchedulerConformance",
]
