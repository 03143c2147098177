"""The built-in policies, one file each: importing this package registers them.

| name | searches | in |
| --- | --- | --- |
| `evolution` | the sketches of the rules, by evolution under the cost model | `evolution.py` |
| `random` | the same, at random | `random_sampling.py` |
| `beam` | the same, decision after decision with early pruning | `beam.py` |
| `limited` | a space about as small as that of manual templates, by evolution | `limited.py` |
| `template` | hand-written templates, by the search that `template.search` names | `template.py` |
"""

from ansor_py.search.policies.beam import BeamPolicy
from ansor_py.search.policies.evolution import EvolutionPolicy
from ansor_py.search.policies.limited import LimitedPolicy
from ansor_py.search.policies.random_sampling import RandomPolicy
from ansor_py.search.policies.sampler import ProgramSampler
from ansor_py.search.policies.template import template_policy

__all__ = ["BeamPolicy", "EvolutionPolicy", "LimitedPolicy", "ProgramSampler", "RandomPolicy", "template_policy"]
