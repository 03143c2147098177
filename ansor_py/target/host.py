"""What Linux tells of the machine that this process runs on: caches, and cores that it may use."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

# Bytes; for a CPU given as text without sizes, and for a host that does not tell.
DEFAULT_CACHES = {"l1": 32 * 1024, "l2": 1024 * 1024, "l3": 8 * 1024 * 1024}

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20, "G": 1 << 30, "GIB": 1 << 30}
_CPU_FOLDER = Path("/sys/devices/system/cpu")


def size_of(text: str) -> int | None:
    """Bytes of a size such as `48K` or `32KiB`; None if it is none."""
    match = re.fullmatch(r"(\d+)([A-Za-z]*)", text)
    return int(match[1]) * _UNITS[match[2].upper()] if match is not None and match[2].upper() in _UNITS else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def host_caches() -> tuple[dict[str, int], int]:
    """Bytes of each level as one core sees it, and of a line; the defaults where the system does not tell."""
    sizes, line = {}, 64
    for index in sorted((_CPU_FOLDER / "cpu0" / "cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        known = size_of(size or "")
        if level in ("1", "2", "3") and kind in ("Data", "Unified") and known:
            sizes[f"l{level}"] = known
            line = int(_read(index / "coherency_line_size") or line)
    return ({"l3": 0} if sizes else {}) | {
        key: value for key, value in DEFAULT_CACHES.items() if not sizes or key != "l3"
    } | sizes, line


def host_cores() -> int:
    """Physical cores that this process may run on, and no more than a container's CPU quota pays for."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = (_read(_CPU_FOLDER / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in allowed)
    cores = len(set(siblings))
    quota, _, period = (_read(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    return max(1, min(cores, math.ceil(int(quota) / int(period)))) if quota.isdigit() and period else cores
