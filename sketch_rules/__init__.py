"""Sketch rules: how sketches are derived, one file a rule, registered by decorator.

sketches = generate_sketches(dag, target)                  # the preset "default"
sketches = generate_sketches(dag, target, rules="ansor")   # the paper's rules
"""

from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.presets import PRESETS
from ansor_py.sketch_rules.rule import RULES, Derived, Rule, Verdict, rule

__all__ = ["PRESETS", "RULES", "Derived", "PartialSketch", "Rule", "Verdict", "generate_sketches", "rule"]
