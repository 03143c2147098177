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
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Native(Generic[Arguments, Result]):
    """A function that is compiled when it is first called. It must not call others of its kind."""

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self._function = function

    @functools.cached_property
    def compiled(self) -> Any:
        """Numba's dispatcher; division by zero gives inf or nan in it."""
        import numba

        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy")(self._function)
        except RuntimeError:  # no folder can be written in which code could be kept
            return numba.njit(nogil=True, error_model="numpy")(self._function)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Call the native code."""
        result: Result = self.compiled(*args, **kwargs)
        return result


def native(function: Callable[Arguments, Result]) -> Native[Arguments, Result]:
    """The decorator of such functions, see the module."""
    return Native(function)
