"""Loop nests in docstrings of steps and sketch rules: the loops before, and below an empty line those after.

A docstring says

    Before, and after `Split("D", "i", (8,))`:

        for i in 20:
          D[i] = exp(A[i])

        for i.0 in 3:
          for i.1 in 8:
            D[i] = exp(A[i])

What stands in the backquotes is a step. A rule says "Before, and after on stage `C`:"; it may lead to several sketches, whose
nests stand below each other, each under what the rule adds to the sketch's name. The tests compare. After a change of what is
printed on purpose:

    python tests/docstring_nests.py          # writes the nests into the docstrings
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansor_py.schedule.state import State

_EXAMPLE = re.compile(
    r"^ *Before, and after (?:on stage )?`(?P<subject>.+)`:\n\n(?P<nests>(?: {8}.*\n|\n(?= {8}))+)", re.MULTILINE
)


@dataclass(frozen=True)
class DocumentedNests:
    """What a docstring shows: the words in the backquotes, and the nests before and after."""

    subject: str
    nests: tuple[str, ...]


def documented(cls: type) -> DocumentedNests:
    """The nests of a class's docstring; fails where there are none."""
    found = _EXAMPLE.search(inspect.getsource(cls))
    assert found is not None, f"the docstring of {cls.__name__} shows no nests; see tests/docstring_nests.py for their form"
    blocks = textwrap.dedent(found["nests"]).rstrip("\n").split("\n\n")
    return DocumentedNests(found["subject"], tuple(blocks))


def nest_of(state: State) -> str:
    """The printed nests of a state, without the lines of its placeholders."""
    return "\n".join(line for line in str(state).splitlines() if not line.startswith("placeholder "))


def write(cls: type, nests: Sequence[str]) -> None:
    """Put nests into the docstring of a class, in its source file."""
    path = Path(inspect.getfile(cls))
    source = path.read_text(encoding="utf-8")
    found = _EXAMPLE.search(source, source.index(f"class {cls.__name__}("))
    assert found is not None, f"the docstring of {cls.__name__} has no place for nests"
    text = textwrap.indent("\n\n".join(nests), " " * 8) + "\n"
    path.write_text(source[: found.start("nests")] + text + source[found.end("nests") :], encoding="utf-8")


if __name__ == "__main__":
    import test_rule_nests
    import test_step_nests

    for documented_class, printed in (*test_step_nests.printed_nests(), *test_rule_nests.printed_nests()):
        write(documented_class, printed)
