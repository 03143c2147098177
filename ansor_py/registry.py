"""Registries: the strategies of one kind by their names, filled by decorators, those of users like the built-in ones.

Each kind (policies, cost models, sketch rules, ...) has one registry and one decorator, in the module that defines the kind.
A name belongs to whoever registered it first; the same file or notebook cell may register it again.

    POLICIES: Registry[PolicyFactory] = Registry("policy")
    POLICIES.add("beam", BeamPolicy, BeamOptions)
    POLICIES.find("baem")       # OptionError: there is no policy 'baem'; known are beam, evolution, ...
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ansor_py.errors import OptionError
from ansor_py.strategy_options import StrategyOptions

Item = TypeVar("Item")
SEE_MODULE = "See the module"  # how a docstring refers to that of its module
USER_MODULE = "_user_"  # how the names of modules begin that are loaded from files


class Registry(dict[str, Item], Generic[Item]):
    """What is registered, by name. `kind` is the word for one of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._options: dict[str, type[StrategyOptions]] = {}
        self._definitions: dict[str, Any] = {}
        _REGISTRIES.append(self)

    def add(
        self,
        name: str,
        item: Item,
        options: type[StrategyOptions] | None = None,
        replace: bool = False,
        definition: Any = None,
    ) -> None:
        """Register an item under a name, with the class of its options if it has any.

        `replace` is for items that take the place of another one on purpose; `definition` is the function or class that was
        decorated, where that is not the item itself. Raises OptionError for a name that is no text or that somebody else has
        taken, and for options that are no class of options.
        """
        defined = item if definition is None else definition
        if not isinstance(name, str) or not name:
            raise OptionError(f"{self.kind} {name!r:.60}: its name must be a text")
        if options is not None and not (isinstance(options, type) and issubclass(options, StrategyOptions)):
            raise OptionError(
                f"{self.kind} '{name}': its options are {options!r:.60}; give a class that extends StrategyOptions"
            )
        if name in self and not replace and _origin(self.definition_of(name)) != _origin(defined):
            place = _place(self.definition_of(name))
            raise OptionError(f"{self.kind} '{name}' is there already, in {place}; choose another name")
        self[name] = item
        self._definitions[name] = defined
        self._options.pop(name, None)
        if options is not None:
            self._options[name] = options

    def find(self, name: str) -> Item:
        """The item of that name; raises OptionError that lists the names."""
        if name not in self:
            raise OptionError(f"there is no {self.kind} '{name}'; known are {', '.join(sorted(self))}")
        return self[name]

    def options_of(self, name: str) -> type[StrategyOptions] | None:
        """The class of the options of that item, if it has any."""
        return self._options.get(name) if name in self else None

    def definition_of(self, name: str) -> Any:
        """The function or class that was registered under that name."""
        return self._definitions.get(name, self[name])


_REGISTRIES: list[Registry[Any]] = []  # all that were made, in the order in which their modules were loaded


@dataclass(frozen=True)
class Registered:
    """What is known of one item of a registry: its kind and name, its module or file, docstring and class of options."""

    kind: str
    name: str
    module: str
    text: str
    options: type[StrategyOptions] | None


def all_registries() -> tuple[Registry[Any], ...]:
    """The registries of all kinds, as far as the modules that define them are loaded."""
    return tuple(sorted(_REGISTRIES, key=lambda registry: registry.kind))


def all_registered() -> Iterator[Registered]:
    """Everything that is registered, by kind and name."""
    for registry in all_registries():
        for name in sorted(registry):
            defined = registry.definition_of(name)
            yield Registered(registry.kind, name, _place(defined), _text(defined), registry.options_of(name))


def _place(item: Any) -> str:
    """The module of what defines an item, or the file of one that was loaded from a file."""
    name = _origin(item)[0]
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if file is not None and name.startswith(USER_MODULE) else name


def _text(item: Any) -> str:
    """The docstring of what defines an item, or that of its module where it refers to that."""
    text = inspect.cleandoc(_defining(item).__doc__ or "")
    if not text.startswith(SEE_MODULE):
        return text
    return inspect.cleandoc(getattr(sys.modules.get(_origin(item)[0]), "__doc__", None) or "")


def _defining(item: Any) -> Any:
    """The function or class that defines an item: itself, what `functools.partial` is of, or the class of an object."""
    return item if hasattr(item, "__qualname__") else getattr(item, "func", type(item))


def _origin(item: Any) -> tuple[str, str]:
    """The module and the name of what defines an item, by which the same thing defined again is known."""
    defined = _defining(item)
    return str(getattr(defined, "__module__", "")), str(getattr(defined, "__qualname__", ""))
