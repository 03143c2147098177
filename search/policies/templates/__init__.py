"""Templates: hand-written schedules with knobs, one file a kind of operator, as in AutoTVM.

sketches = template_sketches(dag, target)      # those of the template that fits the DAG; OptionError if none does
"""

from ansor_py.search.policies.templates import convolution, depthwise, matmul, softmax  # noqa: F401  # they register themselves
from ansor_py.search.policies.templates.registry import TEMPLATES, Template, template, template_sketches

__all__ = ["TEMPLATES", "Template", "template", "template_sketches"]
