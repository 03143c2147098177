"""The processes that a process has started, as the kernel knows them, for tests that kill some and miss none."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

GONE_SECONDS = 30.0


def descendants(root: int) -> dict[int, str]:
    """The names of all living processes below one, by process id."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))) is not None:
            names[int(entry.name)], state, parents[int(entry.name)] = fields
            if state == "Z":
                parents.pop(int(entry.name))
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: names[pid] for pid in sorted(found - {root})}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    fields = _fields(pid)
    return fields is not None and fields[1] != "Z"


def wait_until_gone(pids: Iterable[int]) -> None:
    """Fail if one of the processes outlives the time in which it should end."""
    limit = time.monotonic() + GONE_SECONDS
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < limit, f"processes that should have ended: {left}"
        time.sleep(0.05)


def _fields(pid: int) -> tuple[str, str, int] | None:
    """Name, state and parent of a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1 :].rsplit(")", 1)
    state, parent = rest.split()[:2]
    return name, state, int(parent)
