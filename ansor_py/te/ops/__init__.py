"""The operators as tensor expressions, one file a family; each function returns its output `Tensor`.

Operators that can be named in text are registered by `@operator`: `operators()` lists them, `from_spec` builds one.

    y = conv2d(x, weight, bias, stride=2, padding=1)
    y = from_spec("conv2d:1,64,56,56,64,3,stride=1,pad=1")
"""

from __future__ import annotations

from ansor_py.te.ops.convolution import conv2d
from ansor_py.te.ops.elementwise import (
    abs,
    add,
    broadcast,
    cast,
    ceil,
    clip,
    divide,
    erf,
    exp,
    floor,
    gelu,
    hard_sigmoid,
    leaky_relu,
    log,
    map_elements,
    maximum,
    minimum,
    multiply,
    neg,
    power,
    relu,
    sigmoid,
    silu,
    sqrt,
    subtract,
    tanh,
)
from ansor_py.te.ops.layout import broadcast_to, concat, flatten, pad, reshape, strided_slice, transpose
from ansor_py.te.ops.matrix import dense, matmul
from ansor_py.te.ops.normalization import batch_norm, layer_norm, lrn
from ansor_py.te.ops.pooling import average_pool2d, global_average_pool, global_max_pool, max_pool2d
from ansor_py.te.ops.reduction import log_softmax, reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_sum, softmax
from ansor_py.te.ops.registry import Operator, build_operator, from_spec, operator, operators

__all__ = [
    "Operator",
    "abs",
    "add",
    "average_pool2d",
    "batch_norm",
    "broadcast",
    "broadcast_to",
    "build_operator",
    "cast",
    "ceil",
    "clip",
    "concat",
    "conv2d",
    "dense",
    "divide",
    "erf",
    "exp",
    "flatten",
    "floor",
    "from_spec",
    "gelu",
    "global_average_pool",
    "global_max_pool",
    "hard_sigmoid",
    "layer_norm",
    "leaky_relu",
    "log",
    "log_softmax",
    "lrn",
    "map_elements",
    "matmul",
    "max_pool2d",
    "maximum",
    "minimum",
    "multiply",
    "neg",
    "operator",
    "operators",
    "pad",
    "power",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "relu",
    "reshape",
    "sigmoid",
    "silu",
    "softmax",
    "sqrt",
    "strided_slice",
    "subtract",
    "tanh",
    "transpose",
]
