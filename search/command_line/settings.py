"""Settings of the command line: where they come from and what they become.

A batch file holds the options of the command line as TOML, with the same names; what the command line says goes first.

    models = ["resnet.onnx", "bert.onnx"]
    trials = 1000
    threads = 2
    out = "runs/batch"

    [shape]
    batch = 1

    [search]            # the fields of SearchOptions
    population = 1024

    [search.space]      # of SpaceOptions, the constants of the sketch rules
    unroll_limits = [0, 64]

    [search.model]      # of ModelOptions, those of the cost models; and so for the options of any other strategy
    trees = 200
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansor_py.errors import OptionError
from ansor_py.search.options import SearchOptions
from ansor_py.strategy_options import OPTION_CLASSES

Shapes = dict[str, "int | list[int]"]


# What an option of the command line takes: a switch nothing, `bool`.
Kind = type[bool] | type[int] | type[str]
TABLES = ("shape", "search")


@dataclasses.dataclass(frozen=True)
class BatchKey:
    """What a batch file may say of one option: a value of a kind, or a list of such where it can be given several times."""

    parameter: str  # its name in Python
    kind: Kind
    several: bool


def read_batch_file(path: str | Path, known: Mapping[str, BatchKey]) -> dict[str, Any]:
    """The options of a batch file by parameter name; `known` are the options by the names that the command line has for them.

    Raises OptionError for an unreadable file, for an unknown key and for a value of another kind than its option has.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise OptionError(f"cannot read '{path}': {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"'{path}' is not valid TOML: {error}") from error
    options: dict[str, Any] = {}
    for key, value in content.items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise OptionError(f"'{path}': there is no option '{key}'; known are {', '.join(sorted(known))}")
        name = option.parameter
        if isinstance(value, dict) and name not in TABLES:
            raise OptionError(f"'{path}': option '{key}' is not a table; write {key} = ...")
        if isinstance(value, dict):
            options[name] = _assignments(value)
        elif option.several:
            items = value if isinstance(value, list) else [value]
            options[name] = [_of_kind(item, option.kind, f"'{path}': option '{key}'") for item in items]
        else:
            options[name] = _of_kind(value, option.kind, f"'{path}': option '{key}'")
    return options


def _of_kind(value: Any, kind: Kind, label: str) -> Any:
    """A TOML value as the command line has it: a number is a text too. Raises OptionError for a value of another kind."""
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", str: "a text"}
        raise OptionError(f"{label} must be {words[kind]}, not {value!r:.80}")
    return value


def parse_shapes(assignments: Sequence[str]) -> Shapes:
    """`NAME=4` fixes a dynamic dimension, `NAME=1x3x224x224` all extents of an input. Raises OptionError for nonsense."""
    shapes: Shapes = {}
    for text in assignments:
        name, _, value = text.rpartition("=")
        if not name or not re.fullmatch(r"\d+([x,]\d+)*", value):
            raise OptionError(f"--shape '{text}': write NAME=EXTENT for a dimension or NAME=1x3x224x224 for an input")
        if re.search(r"\d{19}", value):
            raise OptionError(f"--shape '{text[:80]}': an extent has at most 18 digits")
        extents = [int(extent) for extent in re.split("[x,]", value)]
        shapes[name] = extents if len(extents) > 1 else extents[0]
    return shapes


def parse_search_options(assignments: Sequence[str]) -> SearchOptions:
    """SearchOptions from `name=value` texts; a list is written `1,2,4`. Raises OptionError for nonsense.

    `space.NAME=value` sets a constant of the sketch rules, `OPTIONS.NAME=value` one of a strategy's own options, such as
    `model.trees=50`, and `OPTIONS.TABLE.NAME=value` one number of a table, such as `evolution.mutation_weights.parallel=0.5`.
    """
    import ansor_py.cost_model
    import ansor_py.search.policies
    import ansor_py.search.scheduler.strategies  # noqa: F401  # all options that are built in are known then

    defaults = SearchOptions()
    values: dict[str, Any] = {}
    space: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for text in assignments:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        group, _, inner = name.partition(".")
        if not inner:
            values[name] = _value("", name, value, defaults)
        elif group == "space":
            space[inner] = _value("space.", inner, value, defaults.space)
        elif group in OPTION_CLASSES:
            known = OPTION_CLASSES[group]()
            field, _, key = inner.partition(".")
            if key and isinstance(table := getattr(known, field, None), Mapping):
                numbers = own.setdefault(group, {}).setdefault(field, dict(table))
                numbers[key] = _number(f"search option '{name}'", value, float)
            else:
                own.setdefault(group, {})[inner] = _value(f"{group}.", inner, value, known)
        else:
            raise OptionError(f"there is no search option '{name}'; known are those of {_strategies()}")
    options = SearchOptions(**values, space=dataclasses.replace(defaults.space, **space))
    return options.with_own(*(OPTION_CLASSES[group](**fields) for group, fields in own.items()))


def _strategies() -> str:
    return ", ".join(f"{name}.NAME" for name in ["space", *sorted(OPTION_CLASSES)])


def folder_names(names: Sequence[str]) -> list[str]:
    """A distinct folder name for each of several runs."""
    taken: set[str] = set()
    chosen = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "run"
        candidate, number = plain, 2
        while candidate in taken:
            candidate, number = f"{plain}-{number}", number + 1
        taken.add(candidate)
        chosen.append(candidate)
    return chosen


def free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or with a number behind if there is such a folder already."""
    path, number = parent / name, 2
    while path.exists():
        path, number = parent / f"{name}-{number}", number + 1
    return path


def _assignments(table: Mapping[str, Any]) -> list[str]:
    """A TOML table as the texts that the command line would have."""
    texts = []
    for key, value in table.items():
        if isinstance(value, dict):
            texts += [f"{key}.{inner}" for inner in _assignments(value)]
        else:
            texts.append(f"{key}={'x'.join(map(str, value)) if isinstance(value, list) else value}")
    return texts


def _value(prefix: str, name: str, text: str, defaults: Any) -> Any:
    """The value of a field of a dataclass of constants, of the kind that its default has."""
    default = None if name == "own" else getattr(defaults, name, None)
    label = f"search option '{prefix}{name}'"
    match default:
        case str():
            return text.strip()
        case bool():
            return _truth(label, text)
        case int() | float():
            return _number(label, text, type(default))
        case tuple():
            return tuple(_number(label, item, type(default[0])) for item in re.split("[,x]", text))
        case _:
            values = {
                field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults) if field.name != "own"
            }
            single = (int, float, str, tuple)
            more = "" if prefix else f", and those of {_strategies()}"
            known = ", ".join(
                prefix + (name if isinstance(value, single) else f"{name}.NAME") for name, value in values.items()
            )
            raise OptionError(f"there is no {label}; known are {known}{more}")


def _truth(label: str, text: str) -> bool:
    words = {"true": True, "false": False}
    if text.strip().lower() not in words:
        raise OptionError(f"{label} must be true or false, not '{text.strip()}'")
    return words[text.strip().lower()]


def _number(label: str, text: str, kind: type[Any]) -> Any:
    try:
        value = kind(text)
        if not math.isfinite(value):  # no range check below would notice nan
            raise ValueError
        return value
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise OptionError(f"{label} must be {word}, not '{text.strip()}'") from None
