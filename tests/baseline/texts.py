"""The LLVM texts of recorded programs by the engine that this process imports.

`compare.py` runs this file, for a revision that revision's copy of it, with the folder that `ansor_py` has to come from:

    python tests/baseline/texts.py FOLDER <programs.jsonl >texts.jsonl

A line in is `{"target": "avx2", "workload": "nrm", "steps": [...]}`, a line out the text as a JSON string: `error: ` and
the reason where this engine cannot lower the program. These lines are the contract between revisions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subjects import TARGETS, workload_dag

from ansor_py.codegen.kernel import kernel_text
from ansor_py.schedule.steps import step_from_json


def program_text(target: str, workload: str, steps: Sequence[list[Any]]) -> str:
    """The LLVM text of a program."""
    machine = TARGETS[target]
    return kernel_text(workload_dag(workload), tuple(map(step_from_json, steps)), machine, machine.cores)


def _text_or_error(line: str) -> str:
    wanted = json.loads(line)
    try:
        return program_text(wanted["target"], wanted["workload"], wanted["steps"])
    except Exception as error:  # whatever it is, it is what this engine makes of the program
        return f"error: {type(error).__name__}: {error}"


def modules_from_elsewhere(folder: Path) -> list[str]:
    """The modules of `ansor_py` in this process that come from outside a folder."""
    modules = {name: str(module.__file__) for name, module in sys.modules.items() if name.partition(".")[0] == "ansor_py"}
    return [f"{name} from {file}" for name, file in modules.items() if not Path(file).resolve().is_relative_to(folder)]


if __name__ == "__main__":
    for item in sys.stdin:
        print(json.dumps(_text_or_error(item)))
    if elsewhere := modules_from_elsewhere(Path(sys.argv[1]).resolve()):
        sys.exit(f"error: {elsewhere[0]}, not from {sys.argv[1]}")
