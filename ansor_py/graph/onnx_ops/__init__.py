"""The ONNX operators, one file a family; importing the package registers them all."""

from ansor_py.graph.onnx_ops import (
    activation,
    convolution,
    elementwise,
    indexing,
    layout,
    normalisation,
    pooling,
    products,
    quantization,
    reduction,
    resizing,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "layout",
    "normalisation",
    "pooling",
    "products",
    "quantization",
    "reduction",
    "resizing",
]
