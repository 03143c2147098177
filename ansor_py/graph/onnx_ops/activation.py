"""ONNX activation functions."""

from __future__ import annotations

from collections.abc import Callable

from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, onnx_op
from ansor_py.te import ops
from ansor_py.te.tensor import Tensor


def _activation(op_type: str, function: Callable[..., Tensor], **defaults: float) -> None:
    """`function` of the input and the attributes that `defaults` names, in their order."""

    @onnx_op(op_type, pattern=Pattern.ELEMENTWISE)
    def activation(call: OperatorCall) -> Tensor:
        """Element by element."""
        return function(call.x, *(call.number(name, default) for name, default in defaults.items()))


_activation("Relu", ops.relu)
_activation("Sigmoid", ops.sigmoid)
_activation("Tanh", ops.tanh)
_activation("LeakyRelu", ops.leaky_relu, alpha=0.01)
_activation("ThresholdedRelu", ops.thresholded_relu, alpha=1.0)
_activation("HardSigmoid", ops.hard_sigmoid, alpha=0.2, beta=0.5)
_activation("HardSwish", ops.hard_swish)
_activation("Swish", ops.silu, alpha=1.0)
_activation("Elu", ops.elu, alpha=1.0)
_activation("Celu", ops.celu, alpha=1.0)
_activation("Selu", ops.selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875)
_activation("Softplus", ops.softplus)
_activation("Softsign", ops.softsign)
_activation("Mish", ops.mish)
_activation("Shrink", ops.shrink, lambd=0.5, bias=0.0)


@onnx_op("Gelu", pattern=Pattern.ELEMENTWISE)
def gelu(call: OperatorCall) -> Tensor:
    """x times the normal distribution function of x, exact or by the tanh approximation."""
    return ops.gelu(call.x, tanh_approximation=call.text("approximate", "none") == "tanh")
