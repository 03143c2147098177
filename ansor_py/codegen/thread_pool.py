"""The pool of threads of this process, and how many of them a call may use.

    loaded = load_kernels([compiled.object_code], ["kernel"])      # linked with the pool of this process
    with limit_threads(1):
        model.run(feed)                                            # on the calling thread alone

The pool's code is `ansor_py.codegen.parallel_runtime`. Its workers start when a parallel loop first wants them.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ansor_py.codegen.jit import LoadedObject, load_object
from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.parallel_runtime import FORGET, MOST_THREADS, PARALLEL, STOP, runtime_ir
from ansor_py.errors import OptionError
from ansor_py.target import Target

# The most threads of a call where `limit_threads` says nothing.
THREADS_VARIABLE = "ANSOR_PY_NUM_THREADS"


@dataclass(frozen=True)
class ThreadPool:
    """The pool of this process: its code, in which workers may be until it is stopped."""

    code: LoadedObject

    def stop(self) -> None:
        """End the workers; regions that begin later run on their caller alone."""
        ctypes.CFUNCTYPE(None)(self.code.address(STOP))()

    def forget(self) -> None:
        """Begin with an empty pool, in a child made by fork."""
        ctypes.CFUNCTYPE(None)(self.code.address(FORGET))()


@functools.cache
def thread_pool() -> ThreadPool:
    """The pool of this process, compiled at the first call. Its workers start with the first region that wants them."""
    target = Target.baseline()
    code = compile_module(runtime_ir(target, cores=os.cpu_count() or 1), target)
    pool = ThreadPool(load_object([code.code], (PARALLEL, STOP, FORGET)))
    os.register_at_fork(after_in_child=pool.forget)
    atexit.register(pool.stop)  # before the code is released, which was registered earlier
    return pool


def load_kernels(objects: Sequence[bytes], symbols: Sequence[str]) -> LoadedObject:
    """`load_object` for code with parallel loops: the pool's entry point is provided. Raises CodegenError like it."""
    return load_object(objects, symbols, {PARALLEL: thread_pool().code.address(PARALLEL)})


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Calls in the block (of this thread or asynchronous task) use at most so many threads, also where a model has more.

    Raises OptionError if `threads` is less than 1.
    """
    before = _limit.set(_checked(threads, "limit_threads"))
    try:
        yield
    finally:
        _limit.reset(before)


def allowed_threads(threads: int) -> int:
    """How many of the `threads` of a kernel a call may use here and now."""
    limit = _limit.get()
    return min(threads, _limit_of_process() if limit is None else limit)


@functools.cache
def _limit_of_process() -> int:
    """What the environment says, once and for all. Raises OptionError if it is no number of threads."""
    text = os.environ.get(THREADS_VARIABLE)
    return _checked(text, f"the environment variable {THREADS_VARIABLE}") if text else MOST_THREADS


def _checked(threads: int | str, what: str) -> int:
    try:
        number = int(threads)
    except ValueError:
        number = 0
    if number < 1:
        raise OptionError(f"{what}: '{threads}' is not a number of threads; give at least 1")
    return number


_limit: ContextVar[int | None] = ContextVar("limit_threads", default=None)
