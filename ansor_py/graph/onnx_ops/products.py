"""ONNX matrix products."""

from __future__ import annotations

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, onnx_op
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


@onnx_op("MatMul", pattern=Pattern.COMPLEX)
def matrix_product(call: OperatorCall) -> Tensor:
    """Product by NumPy's rules: batch dimensions are broadcast."""
    return ops.matmul(call.x, call.tensor(1), name="matmul")


@onnx_op("Gemm", pattern=Pattern.COMPLEX)
def gemm(call: OperatorCall) -> Tensor:
    """alpha * A' * B' + beta * C, A' and B' transposed on request."""
    a, b, c = call.x, call.tensor(1), call.optional(2)
    trans_a, trans_b = bool(call.integer("transA", 0)), bool(call.integer("transB", 0))
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if trans_b and not trans_a:
        product = ops.dense(a, b)
    else:
        product = ops.matmul(a, b, transpose_a=trans_a, transpose_b=trans_b, name="gemm")
    if alpha != 1.0:
        product = ops.multiply(product, alpha, "gemm_scaled")
    if c is None or beta == 0.0:
        return product
    addend = c if beta == 1.0 else ops.multiply(c, beta, "gemm_addend")
    return ops.add(product, addend, "gemm_bias")
