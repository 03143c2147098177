"""What a derivation rule is, and the registry of rules (paper, section 4.1).

A rule looks at one stage of a partial sketch and says whether it applies; if so it returns partial sketches, each with the
number of the stage to go on with. A new rule is one class in one file:

    @rule("keep_small_stages")
    class KeepSmallStages(Rule):
        def condition(self, sketch: PartialSketch, number: int) -> Verdict:
            return "apply_and_stop" if sketch.stage(number).tensor.size < 16 else "skip"

        def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
            return [(sketch, number - 1)]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

from ansor_py.errors import OptionError
from ansor_py.registry import Registry
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.strategy_options import StrategyOptions

# Not this rule; this rule and later ones too; this rule and no later one.
Verdict = Literal["skip", "apply", "apply_and_stop"]
# A partial sketch and the number of the stage to work on next; below 0 the sketch is complete.
Derived = tuple[PartialSketch, int]

RULES: Registry[type[Rule]] = Registry("sketch rule")
RuleType = TypeVar("RuleType", bound="type[Rule]")


class Rule(ABC):
    """A derivation rule. `name` is what presets and the command line call it."""

    name: ClassVar[str]

    @abstractmethod
    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        """Whether the rule applies to stage `number`, and whether later rules may be tried as well."""

    @abstractmethod
    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        """The sketches that the rule makes of it, each with the stage to go on with."""


def rule(name: str, options: type[StrategyOptions] | None = None, replace: bool = False) -> Callable[[RuleType], RuleType]:
    """Register a rule class under a name, with the class of its options (`sketch.options.of(MyOptions)`) if it has any.

    With `replace` it takes the place of the rule of that name, in presets too. Raises OptionError for a name that is taken
    otherwise, and for what is no rule class.
    """

    def register(cls: RuleType) -> RuleType:
        if not isinstance(name, str) or not isinstance(cls, type) or not issubclass(cls, Rule):
            raise OptionError(f'sketch rule {name!r:.60}: write @rule("name") above a class that extends Rule')
        RULES.add(name, cls, options, replace)
        cls.name = name
        return cls

    return register
