"""The library kernels, one file a family; importing the package registers them all."""

from ansor_py.graph.library_ops import sorting

__all__ = ["sorting"]
