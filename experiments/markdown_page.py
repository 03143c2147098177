"""Pages of `docs/` that are generated from measurements: tables, numbers, and the command that they come from.

    markdown_table(["model", "ms"], [["squeezenet", "1.2"]])
    command_line()                             # "python experiments/bench_networks.py --trials 200"

A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_NOT_SHOWN = ("--markdown", "--json", "--chart", "--out", "--note", "--cache")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = (0,)) -> str:
    """A Markdown table; the columns `texts` are aligned to the left, the others (numbers) to the right."""
    marks = ["---" if index in texts else "---:" for index in range(len(header))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, marks, *rows))


def text_of(path: Path) -> str:
    """What a page holds; nothing if it is not there yet."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def with_section(page: str, section: str) -> str:
    """The page with a section, which begins with `## TITLE`, in place of the one of the same title, or at the end."""
    title = section.partition("\n")[0]
    parts = [part for part in split_sections(page) if part.partition("\n")[0] != title]
    return "\n\n".join(part.strip("\n") for part in (*parts, section) if part.strip()) + "\n"


def split_sections(page: str) -> list[str]:
    """What stands before the first section, and the sections."""
    first, *rest = f"\n{page}".split("\n## ")
    return [first.removeprefix("\n"), *(f"## {part}" for part in rest)]


def command_line() -> str:
    """The command that runs now, as it is typed in the repository's root; where its results go is left out."""
    words, skip = [], False
    for word in sys.argv[1:]:
        if not skip and word not in _NOT_SHOWN:
            words.append(shlex.quote(word))
        skip = not skip and word in _NOT_SHOWN
    return " ".join(["python", f"experiments/{Path(sys.argv[0]).name}", *words])


def number(value: float | None, digits: int = 3) -> str:
    """A number with some significant digits (all of its whole ones) and no exponent; a dash for what is not known."""
    if value is None:
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):.12f}".rstrip("0").rstrip(".")
