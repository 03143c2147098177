"""Policy `template`: hand-written templates with knobs, searched as AutoTVM does.

`TemplateOptions.search` says how: `annealing` (simulated annealing on the cost model's scores, the default), `genetic`
(on measured costs alone), `grid` (knob after knob) or `random`. An operator without a template is refused.

    sketches = sketches_of_templates(dag, target, options)
    policy = template_policy(sketches, target, score, rng, options)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.annealing import AnnealingSearch
from ansor_py.search.policies.genetic import GeneticSearch
from ansor_py.search.policies.grid import GridSearch
from ansor_py.search.policies.policy import Policy, PolicyFactory, policy
from ansor_py.search.policies.random_sampling import RandomPolicy
from ansor_py.search.policies.templates import template_sketches
from ansor_py.strategy_options import StrategyOptions, option
from ansor_py.target import Target

SEARCHES: dict[str, PolicyFactory] = {
    "annealing": AnnealingSearch,
    "genetic": GeneticSearch,
    "grid": GridSearch,
    "random": RandomPolicy,
}


@dataclass(frozen=True)
class TemplateOptions(StrategyOptions, name="template"):
    """Constants of the searches of templates; those of the single ones are their own."""

    search: str = option("annealing", "how the knobs are searched", choices=tuple(SEARCHES))


def sketches_of_templates(dag: ComputeDAG, target: Target, options: SearchOptions) -> list[Sketch]:
    """The sketches of the template that fits, whatever rules `options` name. Raises NoSpaceError if none does."""
    return template_sketches(dag, target, options.rule_options)


@policy("template", sketches=sketches_of_templates, options=TemplateOptions)
def template_policy(
    sketches: Sequence[Sketch],
    target: Target,
    score: ScoreFunction,
    rng: np.random.Generator,
    options: SearchOptions,
) -> Policy:
    """The search that the options name, in the space of a template."""
    return SEARCHES[options.of(TemplateOptions).search](sketches, target, score, rng, options)
