"""Loading object code into this process, through LLVM's LLJIT.

Object code comes from `ansor_py.codegen.llvm`, usually compiled in another process. Several objects can be linked as one
library, such as all kernels of a model. The code stays mapped while the `LoadedObject` lives and is released with it.

    loaded = load_object([code.code], ["kernel"])
    kernel = ctypes.CFUNCTYPE(ctypes.c_int32, ...)(loaded.address("kernel"))
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import llvmlite.binding as llvm

from ansor_py.codegen.llvm import initialise_native
from ansor_py.errors import CodegenError

_LIBRARY_NUMBERS = itertools.count()  # LLJIT never lets a library name be used twice


class LoadedObject:
    """Machine code in memory. Addresses are valid while this object is referenced."""

    def __init__(self, tracker: Any, symbols: Sequence[str]) -> None:
        self._addresses = {symbol: int(tracker[symbol]) for symbol in symbols}
        self._release = weakref.finalize(self, tracker.close)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The exported symbols, in the order in which they were asked for."""
        return tuple(self._addresses)

    def address(self, symbol: str) -> int:
        """Where a function starts. Raises CodegenError when the symbol was not asked for at loading, or after `close`."""
        if not self._release.alive:
            raise CodegenError(f"symbol '{symbol}' belongs to object code that has been released; load it again")
        if symbol not in self._addresses:
            known = ", ".join(self._addresses) or "none"
            raise CodegenError(f"symbol '{symbol}' was not exported when the object was loaded; exported: {known}")
        return self._addresses[symbol]

    def close(self) -> None:
        """Unmap the code now. Calling one of its functions afterwards is a crash."""
        self._release()


def load_object(
    objects: Sequence[bytes], symbols: Sequence[str], provided: Mapping[str, int] = MappingProxyType({})
) -> LoadedObject:
    """Link objects with each other, with functions that are `provided` (addresses by name) and with the symbols of this process
    (libm), and export `symbols`. Kernels are loaded by `ansor_py.codegen.thread_pool.load_kernels`, which provides the runtime.

    Raises CodegenError when an object is malformed, or when a symbol is missing or defined twice.
    """
    builder = llvm.JITLibraryBuilder()
    for code in objects:
        builder.add_object_img(code)
    for name, address in provided.items():
        builder.import_symbol(name, address)
    builder.add_current_process()
    for symbol in symbols:
        builder.export_symbol(symbol)
    try:
        tracker = builder.link(_compiler(), f"ansor{next(_LIBRARY_NUMBERS)}")
    except RuntimeError as error:
        message = str(error).splitlines()[0] if str(error) else "no message"
        if "materialize" in message:  # LLJIT does not say which symbol
            message += "; they call a function that neither they nor the libraries of this process define"
        raise CodegenError(f"cannot link object code exporting {', '.join(symbols)}: {message}") from error
    return LoadedObject(tracker, symbols)


@functools.cache
def _compiler() -> Any:
    initialise_native()
    return llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
