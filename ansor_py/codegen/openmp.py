"""The parallel runtime: OpenMP's `libgomp`, which runs the outlined bodies of parallel loops.

A compiled parallel loop calls `GOMP_parallel(body, data, threads, 0)`. The symbol is found in the current process when
an object is linked, so the library has to be loaded with its symbols global before any kernel is.

    load_openmp()          # once; later calls do nothing
    threads_here(4)        # 4, and 1 in a child that was forked after that: the runtime's threads are not in it
"""

from __future__ import annotations

import ctypes
import functools
import os

from ansor_py.errors import MissingRuntimeError

LIBRARY = "libgomp.so.1"
# A thread that waits for the others spins for about a millisecond before it sleeps. The runtime's own ten milliseconds turn
# 15 ms of a network into 200 ms where another process takes part of a core: the spinning thread keeps out the one it waits for.
SPIN_COUNT = "30000"


def threads_here(threads: int) -> int:
    """How many of `threads` a kernel may use in this process.

    A process that was forked when the runtime was loaded has a copy of its books but none of its threads, and would wait for
    them for ever; there a kernel runs on the calling thread alone.
    """
    return threads if os.getpid() == _process_of_runtime() else 1


@functools.cache
def _process_of_runtime() -> int:
    return os.getpid()


@functools.cache
def load_openmp(library: str = LIBRARY) -> ctypes.CDLL:
    """Load the OpenMP runtime into this process with global symbols.

    Unless the user has set GOMP_SPINCOUNT or OMP_WAIT_POLICY, waiting threads spin `SPIN_COUNT` times (it has no effect when
    another library has loaded the runtime before). Raises MissingRuntimeError, naming the library and the package that
    holds it, when it is not installed.
    """
    _process_of_runtime()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        runtime = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        runtime.GOMP_parallel  # noqa: B018  (an AttributeError if it is some other library)
    except (OSError, AttributeError) as error:
        raise MissingRuntimeError(
            f"parallel kernels need the OpenMP runtime '{library}', which cannot be loaded ({error}); "
            "install it: `apt-get install libgomp1` (Debian, Ubuntu) or `dnf install libgomp` (Fedora)"
        ) from error
    return runtime
