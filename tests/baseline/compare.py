"""What a change does to the LLVM texts of the recorded programs, line by line: the engine of a git revision beside today's.

    python tests/baseline/compare.py                      # beside the commit that last recorded hashes
    python tests/baseline/compare.py HEAD~3 --target avx2 --workload c2d_56 --most-programs 1

Both engines lower the programs that are recorded in this working tree, each in a process of its own that imports a copy of the
engine. The report has the programs that changed, by workload and target; the lines that went and came in all of these programs,
most frequent first, without the numbers of values and labels, which an instruction more or less shifts; and a diff of the
programs with the fewest such lines. Exit status 1: something changed; 2: nothing could be compared.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from recorded import FOLDER, HASHES, Program, read_programs, recorded_targets, recorded_workloads

ROOT = FOLDER.parents[1]
TEXTS = (FOLDER / "texts.py").relative_to(ROOT)
CONTEXT = 2
ERROR = "error: "
_NUMBERED = re.compile(r"(%[a-z]+|^[a-z]+)\d+")  # values, and labels where they stand


class Trouble(click.ClickException):
    """Nothing could be compared; another exit status than that of a change."""

    exit_code = 2


@dataclass(frozen=True)
class Difference:
    """A program and its texts by both engines."""

    program: Program
    before: str
    after: str

    @property
    def errors(self) -> list[str]:
        """Which engines cannot lower the program, and why."""
        texts = (("the revision", self.before), ("the working tree", self.after))
        return [f"{engine}: {text.removeprefix(ERROR)}" for engine, text in texts if text.startswith(ERROR)]

    @property
    def is_change(self) -> bool:
        """Whether the texts differ; one that could not be made is none that stayed as it was."""
        return self.before != self.after or bool(self.errors)

    @cached_property
    def lines(self) -> Counter[str]:
        """The lines that went (-) and came (+) with how many they are, without the numbers of values and labels."""
        counts = Counter(map(unnumbered, self.before.splitlines()))
        counts.subtract(map(unnumbered, self.after.splitlines()))
        return Counter({f"{'-' if n > 0 else '+'}{line}": abs(n) for line, n in counts.items() if n})


def unnumbered(line: str) -> str:
    """A line of LLVM text without the numbers of values and labels."""
    return _NUMBERED.sub(r"\1#", line)


def last_recording() -> str:
    """The commit that last changed a hash: its engine made the recorded ones."""
    commit = _git("log", "-1", "--format=%h", "--", str(HASHES.relative_to(ROOT))).decode().strip()
    if not commit:
        raise Trouble("no commit has recorded hashes yet; name a revision")
    return commit


def check_out(revision: str, folder: Path) -> None:
    """The files of a revision in a new folder."""
    with zipfile.ZipFile(io.BytesIO(_git("archive", "--format=zip", revision))) as archive:
        archive.extractall(folder)
    if not (folder / TEXTS).exists():
        raise Trouble(f"revision {revision} has no {TEXTS}, which lowers the programs; name a later one")


def texts_of(source: Path, folder: Path, programs: Sequence[Program]) -> list[str]:
    """The texts of programs by the engine of a source tree, of which an importable copy is made in `folder`."""
    packages = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    for package in sorted(packages):  # a package before its subpackages, which may lie elsewhere in the tree
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / packages[package], folder / package.replace(".", "/"), ignore=ignored, dirs_exist_ok=True)
    lines = [json.dumps({"target": p.target, "workload": p.workload, "steps": p.steps}) for p in programs]
    # Before an editable install, whose finder is asked last. The process itself makes sure that it imports nothing else.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    child = [sys.executable, str(source / TEXTS), str(folder)]
    done = subprocess.run(child, input="\n".join(lines), env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{TEXTS} of {source} ended with status {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(revision: str, programs: Sequence[Program]) -> list[Difference]:
    """Every program with its texts by the engines of a revision and of the working tree."""
    with TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        check_out(revision, source)
        before = texts_of(source, Path(scratch) / "before", programs)
        after = texts_of(ROOT, Path(scratch) / "after", programs)
    return [Difference(*item) for item in zip(programs, before, after, strict=True)]


def table(found: Sequence[Difference]) -> Iterator[str]:
    """The number of changed programs and of all, by workload and target; workloads in which nothing changed are left out."""
    every = Counter((item.program.workload, item.program.target) for item in found)
    changed = Counter((item.program.workload, item.program.target) for item in found if item.is_change)
    targets = list(dict.fromkeys(item.program.target for item in found))
    yield f"{'':16}" + "".join(f"{target:>12}" for target in targets)
    for workload in dict.fromkeys(item.program.workload for item in found if item.is_change):
        cells = (f"{changed[workload, target]} of {every[workload, target]}" for target in targets)
        yield f"{workload:16}" + "".join(f"{cell:>12}" for cell in cells)


def line_diff(before: str, after: str) -> Iterator[str]:
    """A unified diff in which lines are equal that differ in the numbers of values alone, unless nothing else differs."""
    old, new = before.splitlines(), after.splitlines()
    plain_old, plain_new = list(map(unnumbered, old)), list(map(unnumbered, new))
    matcher = SequenceMatcher(None, old, new) if plain_old == plain_new else SequenceMatcher(None, plain_old, plain_new)
    for group in matcher.get_grouped_opcodes(CONTEXT):
        yield f"@@ -{group[0][1] + 1} +{group[0][3] + 1} @@"
        for tag, i, j, k, m in group:
            yield from (f" {line}" for line in new[k:m] if tag == "equal")
            yield from (f"-{line}" for line in old[i:j] if tag != "equal")
            yield from (f"+{line}" for line in new[k:m] if tag != "equal")


def report(found: Sequence[Difference], most_programs: int, most_lines: int) -> Iterator[str]:
    """The report, line by line; a part of more than `most_lines` lines is cut there."""
    changed = [item for item in found if item.is_change]
    yield f"{len(changed)} of {len(found)} programs changed"
    if not changed:
        return
    yield from ("", *table(found))
    if errors := Counter(error for item in changed for error in item.errors):
        yield from ("", "not lowered by", *_at_most(most_lines, _counted(errors)))
    rewritten = sorted((item for item in changed if not item.errors), key=lambda item: item.lines.total())
    if totals := sum((item.lines for item in rewritten), Counter[str]()):
        yield from ("", "lines that went (-) and came (+)", *_at_most(most_lines, _counted(totals)))
    for item in rewritten[:most_programs]:
        yield from ("", f"{item.program.target} {item.program.title}")
        yield from _at_most(most_lines, line_diff(item.before, item.after))
    if len(rewritten) > most_programs:
        yield from ("", f"... and {len(rewritten) - most_programs} more programs; --most-programs shows them")


def _counted(counts: Counter[str]) -> Iterator[str]:
    return (f"{count:8d} x {text}" for text, count in counts.most_common())


def _at_most(count: int, lines: Iterator[str]) -> Iterator[str]:
    yield from islice(lines, count)
    if rest := sum(1 for _ in lines):
        yield f"... and {rest} more lines; --most-lines shows them"


def _git(*words: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise Trouble("the command git is needed, and was not found") from None
    except subprocess.CalledProcessError as error:
        raise Trouble(error.stderr.decode().strip()) from None


@click.command()
@click.argument("revision", required=False)
@click.option("--target", "targets", multiple=True, type=click.Choice(recorded_targets()), help="All by default. Repeatable.")
@click.option("--workload", "workloads", multiple=True, help="A workload's name; all by default. Repeatable.")
@click.option("--most-programs", default=3, show_default=True, help="Changed programs of which the lines are shown.")
@click.option("--most-lines", default=20, show_default=True, help="Lines that are shown of each.")
def main(
    revision: str | None, targets: tuple[str, ...], workloads: tuple[str, ...], most_programs: int, most_lines: int
) -> None:
    """Compare the texts by the engine of REVISION with those by the working tree's."""
    known = [(target, workload) for target in targets or recorded_targets() for workload in recorded_workloads(target)]
    if unknown := set(workloads) - {workload for _, workload in known}:
        raise Trouble(f"no programs of workload '{min(unknown)}' are recorded")
    chosen = [pair for pair in known if pair[1] in workloads or not workloads]
    programs = [program for target, workload in chosen for program in read_programs(target, workload)]
    revision = revision or last_recording()
    click.echo(f"the engine of {revision} beside that of the working tree")
    found = differences(revision, programs)
    click.echo("\n".join(report(found, most_programs, most_lines)))
    if any(item.is_change for item in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
