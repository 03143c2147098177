"""Sketch rules of the user's own: what `--rules` names, as the rules that a search tries.

A value is the name of a preset or a Python file. The rules that a file registers are tried before those of the presets, in the
order in which the file defines them; one with a built-in rule's name takes that rule's place instead. A file may also add a
preset, for any other order. Workers need no such file: what they measure, and what a record holds, are concrete steps.

    chosen_rules([])                              # "default"
    chosen_rules(["my_rules.py"])                 # ("my_rule", "always_inline", ...)
    chosen_rules(["my_rules.py", "ansor"])        # the same before the paper's rules
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from ansor_py.errors import OptionError
from ansor_py.search.user_code import load_module
from ansor_py.sketch_rules import PRESETS, RULES, Rule
from ansor_py.sketch_rules.derivation import find_rules

DEFAULT_PRESET = "default"


def chosen_rules(values: Sequence[str], preset: str = DEFAULT_PRESET) -> str | tuple[str, ...]:
    """The rules for `SearchOptions.rules`; `preset` is used where `values` name none.

    Raises OptionError for an unknown preset, and for a file that cannot be run or that registers neither rule nor preset.
    """
    own: list[str] = []
    for value in values:  # all files first, as they may add presets
        if value.endswith(".py"):
            own += _rules_of_file(value)
    presets = [value for value in values if not value.endswith(".py")] or [preset]
    for name in presets:
        if name not in PRESETS:
            raise OptionError(f"--rules '{name}': there is no such preset; known are {', '.join(PRESETS)}; a file ends in .py")
    if not own and len(presets) == 1:
        return presets[0]
    listed = [rule for name in presets for rule in PRESETS[name]]
    chosen = tuple(dict.fromkeys([*(name for name in own if name not in listed), *listed]))
    find_rules(chosen)
    return chosen


def _rules_of_file(path: str) -> list[str]:
    before = dict(PRESETS)
    module = load_module(path, "--rules")
    names = [cls.name for cls in _rule_classes(module) if RULES.get(getattr(cls, "name", "")) is cls]
    if not names and all(PRESETS[name] is before.get(name) for name in PRESETS):
        raise OptionError(f"--rules '{path}' registers no rule; write @rule(\"name\") above a class that extends Rule")
    return names


def _rule_classes(module: ModuleType) -> list[type[Rule]]:
    """The rules that a module itself defines, in order."""
    values = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Rule)]
    return [cls for cls in values if cls.__module__ == module.__name__]
