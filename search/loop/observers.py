"""Observers: plug-ins that are told what happens in a search, chosen by name with `--observer`.

    @observer("best-so-far")
    class BestSoFar:
        def __init__(self, options: OptionSet, folder: Path) -> None:
            self._file = folder / "best.txt"

        def __call__(self, event: Event) -> None:
            if isinstance(event, TrialsMeasured):
                ...

An observer is a subscriber (`events.py`) that is made for one search, whose run directory it may write to. What it raises
ends the search with an error that names it; what was measured is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ansor_py.errors import PlugInError, plug_in
from ansor_py.registry import Registry
from ansor_py.search.loop.events import Event, Subscriber
from ansor_py.strategy_options import NO_OPTIONS, OptionSet, StrategyOptions

ObserverFactory = Callable[[OptionSet, Path], Subscriber]
FactoryType = TypeVar("FactoryType", bound=ObserverFactory)

OBSERVERS: Registry[ObserverFactory] = Registry("observer")


def observer(name: str, options: type[StrategyOptions] | None = None) -> Callable[[FactoryType], FactoryType]:
    """Register a class or function that makes a subscriber from an `OptionSet` and the folder of a run.

    Raises OptionError for a name that is taken.
    """

    def register(factory: FactoryType) -> FactoryType:
        OBSERVERS.add(name, factory, options)
        return factory

    return register


def create_observer(name: str, folder: Path, options: OptionSet = NO_OPTIONS) -> Subscriber:
    """The observer of that name. Raises OptionError for an unknown name; PlugInError, then or later, for one that fails."""
    make = OBSERVERS.find(name)
    with plug_in(f"observer '{name}': its construction"):
        tell = make(options, folder)
    if not callable(tell):
        raise PlugInError(f"observer '{name}': it is {tell!r:.60}, which cannot be called with an event")

    return _Observer(name, tell)


class _Observer:
    """An observer as the search calls it. One that has failed is told no more, so that the search can end in good order."""

    def __init__(self, name: str, tell: Subscriber) -> None:
        self._name = name
        self._tell = tell
        self._failed = False

    def __call__(self, event: Event) -> None:
        if self._failed:
            return
        self._failed = True
        with plug_in(f"observer '{self._name}'"):
            self._tell(event)
        self._failed = False
