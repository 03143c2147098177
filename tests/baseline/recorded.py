"""The folder of recorded programs as text: for each target and workload one file of programs, for each target one of hashes.

`programs/avx2/nrm.txt` has a program's name at the margin and below it its genes and its transform steps, one a line as in
records; the default schedule has no genes. `hashes/avx2.txt` has a line a program: the first 64 bits of the SHA-256 of its LLVM
text, the number of lines of that text, workload and name. So a change of code generation touches the hashes alone.

    for program in read_programs("avx2", "nrm"):
        print(program.title, read_hashes("avx2")[program.title])    # nrm: default 55b6e2d9c8f1a730    117

Nothing here needs the engine: `compare.py` reads the folder while two engines are at work in child processes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PROGRAMS, HASHES = FOLDER / "programs", FOLDER / "hashes"
DEFAULT = "default"
_INDENT, _GENES, _DIGITS = "  ", "genes", 16
_BLOCKS = re.compile(rf"\n(?!{_INDENT})")


@dataclass(frozen=True)
class Program:
    """A program that is recorded: where it belongs, its name there, what it was drawn as, and its concrete steps as JSON."""

    target: str  # a name in `tests/targets.py`
    workload: str
    name: str  # "default", or the sketch's name and the program's number among those of the sketch
    genes: tuple[int, ...]
    steps: tuple[list[Any], ...]

    @property
    def sketch(self) -> str:
        """The name of the sketch; empty for the default schedule."""
        return self.name.rpartition(" #")[0]

    @property
    def title(self) -> str:
        """What tells the program from the others of its target."""
        return f"{self.workload}: {self.name}"

    def lines(self) -> Iterator[str]:
        """The program as it stands in its file."""
        yield self.name
        if self.sketch:
            yield f"{_INDENT}{_GENES} {' '.join(map(str, self.genes))}"
        for step in self.steps:
            yield f"{_INDENT}{json.dumps(step)}"


def recorded_targets() -> list[str]:
    """The names of the targets that the folder has programs for."""
    return sorted(path.name for path in PROGRAMS.iterdir())


def recorded_workloads(target: str) -> list[str]:
    """The names of the workloads that the folder has programs of, for a target."""
    return sorted(path.stem for path in (PROGRAMS / target).glob("*.txt"))


def programs_path(target: str, workload: str) -> Path:
    """The file of the programs of a workload for a target."""
    return PROGRAMS / target / f"{workload}.txt"


def hashes_path(target: str) -> Path:
    """The file of the hashes of a target's programs."""
    return HASHES / f"{target}.txt"


def read_programs(target: str, workload: str) -> list[Program]:
    """The recorded programs of a workload for a target, the default schedule first."""
    found = []
    for block in _BLOCKS.split(programs_path(target, workload).read_text(encoding="utf-8").rstrip("\n")):
        name, *lines = (line.strip() for line in block.splitlines())
        words = lines.pop(0).split()[1:] if lines and lines[0].startswith(_GENES) else []
        found.append(Program(target, workload, name, tuple(map(int, words)), tuple(map(json.loads, lines))))
    return found


def programs_text(programs: Iterable[Program]) -> str:
    """What `read_programs` reads."""
    return "".join(f"{line}\n" for program in programs for line in program.lines())


def digest(text: str) -> str:
    """What is recorded of an LLVM text: its hash and its number of lines."""
    return f"{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]} {text.count(chr(10)):6d}"


def read_hashes(target: str) -> dict[str, str]:
    """The recorded digest of every program of a target, by the program's title."""
    lines = hashes_path(target).read_text(encoding="utf-8").splitlines()
    width = len(digest(""))
    return {line[width:].strip(): line[:width] for line in lines}


def hashes_text(digests: Mapping[str, str]) -> str:
    """What `read_hashes` reads."""
    return "".join(f"{value}  {title}\n" for title, value in digests.items())
