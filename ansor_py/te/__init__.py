"""Tensor expressions: tensors, scalar expressions and the operators built from them."""
