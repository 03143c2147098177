"""Memory for kernel arguments: aligned arrays, and buffers between guard pages.

A kernel that writes past its output must not pass for a fast one. A `GuardedBuffer` puts pages without access rights
before and after the array, and fills the bytes between array and pages with a pattern that is checked afterwards.

    output = GuardedBuffer(4 * 100)
    view = output.array((10, 10), "float32")     # 64-byte aligned, ends at most 63 bytes before the guard page
    ...                                          # run a kernel: an access beyond the page is a segmentation fault
    output.check()                               # None, or what was overwritten
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ansor_py.codegen.machine_memory import human_bytes
from ansor_py.errors import MeasureError, SizeError

ALIGNMENT = 64  # bytes, of every buffer that is ours: the widest vectors and the lines of nearly all caches
HUGE_PAGE_BYTES = 2 << 20
_CANARY = 0xA5
_PROT_NONE = 0


class GuardedBuffer:
    """`size` bytes of zeroed memory, 64-byte aligned, that ends as near to a guard page as the alignment allows.

    The memory is released when neither the buffer nor a view of it is referenced.
    """

    def __init__(self, size: int, alignment: int = ALIGNMENT) -> None:
        page = mmap.PAGESIZE
        if size < 0 or alignment <= 0 or page % alignment:
            raise MeasureError(f"guarded buffer of {size} bytes aligned to {alignment}: size >= 0, alignment divides {page}")
        body = max(-(-size // page), 1) * page
        self.size = size
        self._memory = mmap.mmap(-1, body + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self._body = slice(page, page + body)
        start = page + (body - size) // alignment * alignment
        self._data = slice(start, start + size)
        if body >= 2 * HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            self._advise_huge(page, body)
        self._bytes[self._body.start : self._data.start] = _CANARY
        self._bytes[self._data.stop : self._body.stop] = _CANARY
        base = self._bytes.ctypes.data
        for guard in (base, base + page + body):
            _protect(guard, page)

    @property
    def address(self) -> int:
        """Where the data starts."""
        return self._bytes.ctypes.data + self._data.start

    def array(self, shape: Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
        """A view of the data as a C-contiguous array; the array may be smaller than the buffer, not larger."""
        kind = np.dtype(dtype)
        needed = math.prod(shape) * kind.itemsize
        if needed > self.size:
            raise MeasureError(
                f"an array of shape {tuple(shape)} and dtype {kind} needs {needed} bytes, the buffer has {self.size}"
            )
        return self._bytes[self._data.start : self._data.start + needed].view(kind).reshape(tuple(shape))

    def check(self) -> str | None:
        """None if nothing outside the data was written, else a sentence saying how much and where."""
        before = np.flatnonzero(self._bytes[self._body.start : self._data.start] != _CANARY)
        after = np.flatnonzero(self._bytes[self._data.stop : self._body.stop] != _CANARY)
        if before.size:
            nearest = self._data.start - self._body.start - int(before[-1])
            return f"{before.size} bytes written before the buffer of {self.size} bytes, the nearest {nearest} before its start"
        if after.size:
            return f"{after.size} bytes written after the buffer of {self.size} bytes, the first {int(after[0])} after its end"
        return None

    def _advise_huge(self, start: int, length: int) -> None:
        try:
            self._memory.madvise(mmap.MADV_HUGEPAGE, start, length)
        except OSError:
            return  # a kernel without transparent huge pages: the buffer works as it is


def aligned(size: int) -> int:
    """`size` in bytes rounded up to the alignment of buffers."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_array(shape: Sequence[int], dtype: npt.DTypeLike, alignment: int = ALIGNMENT) -> np.ndarray:
    """An uninitialised C-contiguous array whose first element is aligned to `alignment` bytes.

    NumPy asks for transparent huge pages for allocations of 4 MB and more. Raises SizeError where there is no such memory.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    try:
        memory = np.empty(size + alignment, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: for more than NumPy can count
        raise SizeError(f"there is no memory for an array of {human_bytes(size)}, {kind}{list(shape)}") from error
    skip = -memory.ctypes.data % alignment
    return memory[skip : skip + size].view(kind).reshape(tuple(shape))


def data_address(array: np.ndarray) -> int:
    """Where an array's data begin: `array.ctypes.data`, five times faster.

    The address is the first field of NumPy's array object (`PyArrayObject_fields`), whose place is compiled into every
    extension module that uses NumPy.
    """
    if not _DATA_IS_FIRST_FIELD:
        return int(array.ctypes.data)
    return ctypes.c_void_p.from_address(id(array) + object.__basicsize__).value or 0


def buffer_table(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The `void** buffers` of the kernel ABI: an array of the addresses. The caller keeps the arrays alive."""
    return np.array([array.ctypes.data for array in arrays], dtype=np.uintp)


def _protect(address: int, length: int) -> None:
    if _mprotect()(address, length, _PROT_NONE) != 0:
        code = ctypes.get_errno()
        raise MeasureError(f"cannot protect a guard page: {os.strerror(code)}")


@functools.cache
def _mprotect() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function


def _data_is_first_field() -> bool:
    """Whether the arrays of this interpreter are as NumPy's C interface says."""
    sample = np.zeros(1)
    return sys.implementation.name == "cpython" and (
        ctypes.c_void_p.from_address(id(sample) + object.__basicsize__).value == sample.ctypes.data
    )


_DATA_IS_FIRST_FIELD = _data_is_first_field()
