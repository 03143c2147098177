"""The micro-kernels of floats: outer products by multiply-add, of a column of broadcasts and a row of vectors.

Where a CPU has a fused multiply-add LLVM takes it, elsewhere a multiplication and an addition (`llvm.fmuladd`).
"""

from __future__ import annotations

from ansor_py.schedule.micro_kernels.interface import MicroKernel, UpdateWriter, micro_kernel


def multiply_add(writer: UpdateWriter, accumulator: str) -> str:
    """The accumulator and the product of the operands."""
    return writer.intrinsic("llvm.fmuladd", writer.operand(0), writer.operand(1), accumulator)


FLOAT32 = micro_kernel(MicroKernel("float32 outer product", ("float32", "float32"), ("rows", "lanes"), "float32", multiply_add))
FLOAT64 = micro_kernel(MicroKernel("float64 outer product", ("float64", "float64"), ("rows", "lanes"), "float64", multiply_add))
