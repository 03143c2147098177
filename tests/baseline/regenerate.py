"""Record the baseline anew: the programs that rules, sampler and default schedules give today, and the hashes of their texts.

    python tests/baseline/regenerate.py           # make baseline

It prints how many of them are not what was recorded before. `git diff tests/baseline` says which, and `compare.py` which lines.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import recorded
from drawing import draw_programs
from recorded import Program, digest, hashes_path, hashes_text, programs_path, programs_text, read_hashes, read_programs
from subjects import NAMES, TARGETS
from texts import program_text


def recording(target: str) -> dict[Path, str]:
    """The files of a target as they would be written today. Prints what that changes."""
    programs = {workload: draw_programs(target, workload) for workload in NAMES}
    every = [program for group in programs.values() for program in group]
    digests = {program.title: digest(program_text(target, program.workload, program.steps)) for program in every}
    print(f"{target}: {len(every)} programs, {changes(target, programs, digests)}", flush=True)
    files = {programs_path(target, workload): programs_text(group) for workload, group in programs.items()}
    return files | {hashes_path(target): hashes_text(digests)}


def changes(target: str, programs: Mapping[str, list[Program]], digests: Mapping[str, str]) -> str:
    """How much of a target is not as it was recorded before."""
    known = [item for w in programs if programs_path(target, w).exists() for item in read_programs(target, w)]
    steps, hashes = {item.title: item for item in known}, read_hashes(target) if hashes_path(target).exists() else {}
    drawn = sum(steps.get(item.title) != item for group in programs.values() for item in group)
    written = sum(hashes.get(title) != value for title, value in digests.items())
    return f"{drawn} of them new or drawn otherwise, {written} hashes new or changed"


def main() -> None:
    """Make everything, then replace what is recorded."""
    files: dict[Path, str] = {}
    for target in TARGETS:
        files |= recording(target)
    for folder in (recorded.PROGRAMS, recorded.HASHES):  # nothing stays of a workload or a target that is gone
        shutil.rmtree(folder, ignore_errors=True)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
