"""Options of strategies: constants that stand beside the policy, model or rule that reads them, in its own file.

A strategy's options are a frozen dataclass whose fields are made by `option`: a default, a meaning, and what values it may
have. The class has a name of its own, by which the command line sets its fields (`--search droplet.after=10`) and
`--help-strategy` shows them. Options of several strategies travel together, in an `OptionSet`.

    @dataclass(frozen=True)
    class DropletOptions(StrategyOptions, name="droplet"):
        after: int = option(100, "trials before the descent begins", least=0)

    options = OptionSet().with_own(DropletOptions(after=10))
    options.of(DropletOptions).after        # 10; of a set without any, the default
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from ansor_py.errors import OptionError


@dataclass(frozen=True)
class Meaning:
    """What an option means and which values it may have; of a table or a list, each of them."""

    text: str
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    choices: tuple[str, ...] = ()

    def complaint(self, value: Any) -> str:
        """What is wrong with a value; empty if nothing is."""
        if self.choices:
            return "" if value in self.choices else f"is one of {', '.join(self.choices)}, not '{value}'"
        if isinstance(value, str | bool):
            return ""
        if not (self.least <= value <= self.most and value > self.above):  # nan, too
            return f"must be {self.range}, not {value}"
        return ""

    @property
    def range(self) -> str:
        """The numbers that it may have, in words; empty if any."""
        if self.above > -math.inf:
            return f"above {self.above:g}" + (f" and at most {self.most:g}" if self.most < math.inf else "")
        if self.least > -math.inf:
            return f"{self.least:g} to {self.most:g}" if self.most < math.inf else f"{self.least:g} or more"
        return f"at most {self.most:g}" if self.most < math.inf else ""


class Table(Mapping[str, float]):
    """Numbers by name that never change, so that options with such a table can be compared and be keys."""

    def __init__(self, numbers: Mapping[str, float] | None = None) -> None:
        self._numbers = dict(numbers or {})

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __hash__(self) -> int:
        return hash(frozenset(self._numbers.items()))

    def __repr__(self) -> str:
        return repr(self._numbers)


def option(
    default: Any,
    meaning: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    choices: Sequence[str] = (),
) -> Any:
    """A field of a class of options: its default, its meaning in a few words, and the values that it may have.

    The default is a number, a text, a truth value, a tuple of numbers, or a mapping of names to numbers.
    """
    metadata = {"meaning": Meaning(meaning, least, most, above, tuple(choices))}
    return field(default=Table(default) if isinstance(default, Mapping) else default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(option, field))
class StrategyOptions:
    """Base of a class of options: a frozen dataclass with fields made by `option`, known by the name that it is given."""

    name: ClassVar[str]

    def __init_subclass__(cls, name: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if not name.isidentifier():
            raise OptionError(
                f"options {cls.__name__}: their name is '{name}'; write class {cls.__name__}(StrategyOptions, name=...)"
            )
        known = OPTION_CLASSES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise OptionError(f"there are options of the name '{name}' already, in {known.__module__}; choose another name")
        cls.name = name
        OPTION_CLASSES[name] = cls

    def __post_init__(self) -> None:
        for item, meaning in described(type(self)):
            value = getattr(self, item.name)
            is_table = isinstance(value, Mapping)
            if is_table and not isinstance(value, Table):
                object.__setattr__(self, item.name, Table(value))
            values = (
                value.items() if is_table else [("", part) for part in value] if isinstance(value, tuple) else [("", value)]
            )
            for key, part in values:
                if complaint := meaning.complaint(part):
                    raise OptionError(f"search option '{self.name}.{item.name}{'.' * is_table}{key}' {complaint}")


# By name: filled by the classes themselves.
OPTION_CLASSES: dict[str, type[StrategyOptions]] = {}
Options = TypeVar("Options", bound=StrategyOptions)


def described(options: type[StrategyOptions]) -> list[tuple[dataclasses.Field[Any], Meaning]]:
    """The fields of a class of options with their meanings, in order. Raises OptionError for a class that is not made so."""
    if "__dataclass_fields__" not in vars(options):
        raise OptionError(f"options {options.__name__}: write @dataclass(frozen=True) above the class")
    found = []
    for item in dataclasses.fields(options):  # type: ignore[arg-type]
        if "meaning" not in item.metadata:
            raise OptionError(f"options {options.__name__}: make field '{item.name}' by option(default, meaning)")
        found.append((item, item.metadata["meaning"]))
    return found


@dataclass(frozen=True)
class OptionSet:
    """Options of any number of strategies, at most one object of a class. Those that are not here have their defaults."""

    own: tuple[StrategyOptions, ...] = ()

    def of(self, kind: type[Options]) -> Options:
        """The options of a class."""
        for item in self.own:
            if isinstance(item, kind):
                return item
        return kind()

    def with_own(self, *options: StrategyOptions) -> Self:
        """The set with other options of the classes of these. Raises OptionError for what are no options."""
        for item in options:
            if not isinstance(item, StrategyOptions):
                raise OptionError(
                    f"{item!r:.60} are no options of a strategy; give objects of classes that extend StrategyOptions"
                )
        kept = tuple(item for item in self.own if type(item) not in {type(other) for other in options})
        return dataclasses.replace(self, own=(*kept, *options))


NO_OPTIONS = OptionSet()
