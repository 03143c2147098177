"""What `--help-strategy NAME` shows: what a strategy does, where it is defined, and its options with defaults and meanings.

console.print(strategy_help("beam"))
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ansor_py.errors import OptionError
from ansor_py.registry import Registered, all_registered
from ansor_py.strategy_options import StrategyOptions, described


def strategy_help(name: str) -> RenderableType:
    """All that is registered under a name. Raises OptionError that lists the names of every kind."""
    found = [item for item in all_registered() if item.name == name]
    if not found:
        kinds: dict[str, list[str]] = {}
        for item in all_registered():
            kinds.setdefault(item.kind, []).append(item.name)
        known = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        raise OptionError(f"there is no strategy '{name}'; known are {known}")
    return Group(*(part for item in found for part in _parts(item)))


def _parts(item: Registered) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(f"{item.kind} {item.name} ({item.module})", style="bold"),
        *map(Text, paragraphs(item.text)),
    ]
    if item.options is None:
        return [*parts, Text("It has no options of its own."), Text("")]
    return [*parts, Text(f"Options, set by --search {item.options.name}.NAME=VALUE:"), options_table(item.options), Text("")]


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, each as one line; what is indented, such as code, stays as it is."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return [block if block.startswith(" ") else " ".join(block.split()) for block in blocks]


def options_table(options: type[StrategyOptions]) -> Table:
    """Name, default, range and meaning of every option."""
    table = Table(box=None, pad_edge=False)
    for title in ("option", "default", "values", "meaning"):
        table.add_column(title, overflow="fold")
    for field, meaning in described(options):
        default = getattr(options(), field.name)
        text = (
            "each its own"
            if isinstance(default, Mapping)
            else ",".join(map(str, default))
            if isinstance(default, tuple)
            else str(default)
        )
        table.add_row(field.name, text, " | ".join(meaning.choices) or meaning.range, meaning.text)
    return table
