"""Processes that only spin, beside which a study measures what a user gets on a machine where other things run.

    with busy_processes(1):     # none of them outlives the block, however it ends, nor this process
        time_something()

They are not pinned: the system puts them where it likes, as it would any other program. A sibling module of the scripts in this
folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# The system kills it with its parent (PR_SET_PDEATHSIG, SIGKILL): one that is left over would spoil all later measurements.
_SPIN = "import ctypes; ctypes.CDLL(None).prctl(1, 9); print(flush=True)\nwhile True: pass"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that do nothing but spin, from when all of them do until the block ends."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            stack.callback(_end, process)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # from here on it spins
        yield


def beside(count: int) -> str:
    """What is said of a figure that was taken beside busy processes; nothing where there were none."""
    return f", beside {count} busy process{'es' * (count > 1)}" if count else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
