"""How much memory there is, and one clear error for what needs more.

What cannot fit is refused before anything is made of it: an allocation that the system grants without having the memory ends
with a killed process.

    require_memory({"inputs": 8 * 10**12, "outputs": 4 * 10**12}, "task 'matmul:1000000,1000000,1000000'")
    # SizeError: task '...' needs 10.9 TiB of memory (inputs 7.28 TiB, outputs 3.64 TiB); there are 23.5 GiB; ...
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ansor_py.errors import SizeError

# The limits of a container, in the second and the first version of control groups; "max" or a huge number where there is none.
_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def machine_memory() -> int:
    """The bytes that this process can have at most: the machine's, or what a container or `ulimit` leaves of them."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _GROUP_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits)


def require_memory(needed: Mapping[str, int], what: str, remedy: str = "make it smaller") -> None:
    """Raise SizeError, saying what is needed for what and what there is, if the sum of bytes is more than the machine has."""
    total, available = sum(needed.values()), machine_memory()
    if total > available:
        parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in needed.items() if size)
        raise SizeError(f"{what} needs {human_bytes(total)} of memory ({parts}); there are {human_bytes(available)}; {remedy}")


def human_bytes(size: int) -> str:
    """A number of bytes for a person, such as `3.64 TiB`."""
    value, unit = float(size), 0
    while value >= 1024 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"
