"""Micro-kernels: what the innermost tile of a stage computes in one step of its reduction, one file for each kind."""

from ansor_py.schedule.micro_kernels import outer_products  # noqa: F401  # they register themselves
from ansor_py.schedule.micro_kernels.interface import (
    FORMULA,
    MICRO_KERNELS,
    MicroKernel,
    UpdateWriter,
    micro_kernel,
    micro_kernel_for,
)

__all__ = ["FORMULA", "MICRO_KERNELS", "MicroKernel", "UpdateWriter", "micro_kernel", "micro_kernel_for"]
