"""The sketch rules that a search tries, by what `--rules` names: presets, and rules that are registered.

Rules that are named are tried before those of the presets, in their order; a preset that is a plug-in's gives any other order.
Workers need no plug-ins: what they measure, and what a record holds, are concrete steps.

    chosen_rules([])                              # "default"
    chosen_rules(["my_rule"])                     # ("my_rule", "always_inline", ...)
    chosen_rules(["my_rule", "ansor"])            # the same before the paper's rules
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.errors import OptionError
from ansor_py.sketch_rules import PRESETS, RULES
from ansor_py.sketch_rules.derivation import find_rules

DEFAULT_PRESET = "default"


def chosen_rules(names: Sequence[str], preset: str = DEFAULT_PRESET) -> str | tuple[str, ...]:
    """The rules for `SearchOptions.rules`; `preset` is used where `names` has none. Raises OptionError for an unknown name."""
    presets = [name for name in names if name in PRESETS] or [preset]
    single = [name for name in names if name not in PRESETS]
    for name in [*single, *presets]:
        if name not in RULES and name not in PRESETS:
            hint = "; load a file by --import" if name.endswith(".py") else ""
            known = f"presets are {', '.join(PRESETS)}, rules {', '.join(sorted(RULES))}"
            raise OptionError(f"--rules '{name}': there is no such preset or rule; {known}{hint}")
    if not single and len(presets) == 1:
        return presets[0]
    listed = [rule for name in presets for rule in PRESETS[name]]
    chosen = tuple(dict.fromkeys([*(name for name in single if name not in listed), *listed]))
    find_rules(chosen)
    return chosen
