"""Loops over programs as native code: a function of plain loops over arrays, compiled by Numba when it is first called.

The feature groups of this package are such loops; they read like the definitions in docs/features.md. Numba is loaded by the
first call and not before, so that importing this package stays cheap. What it compiles is kept on disk, in `__pycache__` or
Numba's own folder of the user, for the next process.

    @native
    def doubled(values: Floats, out: Floats) -> None:
        for program in range(len(values)):
            out[program] = 2.0 * values[program]

Arrays are contiguous and numbers always of the same type, int or float, because every other combination is compiled anew.
The code that was kept knows only the file of its function: a constant of another module is to be an argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def native(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function as native code. It must not call others under this decorator; division by zero gives inf or nan."""

    @functools.cache
    def compiled() -> Callable[Arguments, Result]:
        import numba

        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            made: Callable[Arguments, Result] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder can be written in which code could be kept
            made = numba.njit(**options)(function)
        return made

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return compiled()(*args, **kwargs)

    return call
