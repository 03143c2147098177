"""The ONNX operators, one file a family; importing the package registers them all."""

from ansor_py.graph.onnx_ops import convolution, elementwise, layout, normalisation, pooling, products, reduction

__all__ = ["convolution", "elementwise", "layout", "normalisation", "pooling", "products", "reduction"]
