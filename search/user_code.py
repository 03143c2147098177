"""Functions in a user's own files: `my_objectives.py:worst_network`, or `package.module:name` for what can be imported.

load_function("my_objectives.py:worst_network", "objective")
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ansor_py.errors import OptionError, PlugInError, line_of_error, words_of_error


def load_function(text: str, what: str) -> Callable[..., Any]:
    """The function that `FILE.py:FUNCTION` or `MODULE:FUNCTION` names; `what` is its role, for messages.

    Raises OptionError for a file or module that cannot be read or run, and for a name that is not defined in it or no function.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise OptionError(f"{what} '{text}': write FILE.py:FUNCTION or MODULE:FUNCTION")
    module = load_module(place, what)
    function = getattr(module, name, None)
    if not callable(function):
        own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
        known = sorted(key for key, value in own.items() if callable(value))
        raise OptionError(f"{what} '{text}': there is no function '{name}'; known are {', '.join(known) or 'none'}")
    return function  # type: ignore[no-any-return]


def load_module(place: str, what: str) -> ModuleType:
    """Run a Python file, or import a module. Raises OptionError for whatever goes wrong in it."""
    path = Path(place).resolve()
    if place.endswith(".py") and not path.is_file():
        raise OptionError(f"{what} '{place}': there is no such file")
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        name = f"_user_{path.stem}"  # which no module of anybody has
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # where dataclasses look up the module of a class
        specification.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code may do anything
        line = line_of_error(error, str(path))
        where = f", line {line}," if line is not None else ""
        text = f"{type(error).__name__}: {error.msg}" if isinstance(error, SyntaxError) else words_of_error(error)
        raise PlugInError(f"{what} '{place}'{where} cannot be loaded: {text}") from error
    return module
