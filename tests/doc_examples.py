"""The Python examples of a Markdown page: run in order in one namespace, their printed output compared with the page.

A fenced block `python` is code; a block `text` that follows it, with nothing but blank lines between, is what it prints.
After a change of what is printed on purpose:

    python tests/doc_examples.py docs/schedules.md       # writes the outputs into the page
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One block of code, the line it starts at, and its expected output with its place (begin, end) in the page, if any."""

    code: str
    line: int
    expected: str | None
    span: tuple[int, int] | None


def examples(page: str) -> Iterator[Example]:
    """The Python blocks of a page."""
    blocks = list(_FENCED.finditer(page))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block["language"] != "python":
            continue
        line = page.count("\n", 0, block.start("body")) + 1
        is_output = (
            following is not None and following["language"] == "text" and not page[block.end() : following.start()].strip()
        )
        if is_output and following is not None:
            yield Example(block["body"], line, following["body"], following.span("body"))
        else:
            yield Example(block["body"], line, None, None)


def run_examples(page: str, file: str, names: dict[str, object] | None = None) -> list[tuple[Example, str]]:
    """Run the examples of a page in order; returns each with what it printed. `names` are known to the examples."""
    space: dict[str, object] = {"__name__": "doc_examples", **(names or {})}
    results = []
    for example in examples(page):
        code = compile("\n" * (example.line - 1) + example.code, file, "exec")  # so that errors name the page's lines
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, space)
        results.append((example, printed.getvalue()))
    return results


def updated(page: str, file: str) -> str:
    """The page with the outputs as they are now."""
    for example, printed in reversed(run_examples(page, file)):
        if example.span is not None:
            begin, end = example.span
            page = page[:begin] + printed + page[end:]
    return page


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(updated(Path(name).read_text(encoding="utf-8"), name), encoding="utf-8")
