"""Plug-ins: Python files, modules and installed packages that register strategies by the decorators of the built-in ones.

    load_plug_ins(["my_policy.py", "package.rules"])    # what `--import` names

An installed package is one as well by an entry point of the group `ansor_py.plug_ins` that names a module; such ones are loaded
by every command line.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from ansor_py.errors import OptionError, PlugInError, line_of_error, words_of_error
from ansor_py.registry import USER_MODULE

ENTRY_POINTS = "ansor_py.plug_ins"


def load_plug_ins(places: Iterable[str]) -> None:
    """Load what is installed as a plug-in, then files (`FILE.py`) and modules by their names.

    Raises OptionError for a file that is not there, PlugInError for what cannot be loaded.
    """
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        load_module(point.module, f"the installed plug-in '{point.name}':")
    for place in places:
        load_module(place, "--import")


def load_module(place: str, what: str) -> ModuleType:
    """Run a Python file, or import a module. Raises OptionError for whatever goes wrong in it."""
    path = Path(place).resolve()
    if place.endswith(".py") and not path.is_file():
        raise OptionError(f"{what} '{place}': there is no such file")
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        name = f"{USER_MODULE}{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # which no module of anybody has
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
