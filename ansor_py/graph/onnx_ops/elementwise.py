"""Element-wise and broadcasting ONNX operators: arithmetic, activations, comparisons, casts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ansor_py.errors import ModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_nodes import dtype_name
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import expr, ops
from ansor_py.te.expr import Expr
from ansor_py.te.ops.checks import axes_of, broadcast_index, broadcast_shape
from ansor_py.te.tensor import Tensor, tensor_from_body


def _unary(op_type: str, function: Callable[[Tensor], Tensor]) -> None:
    onnx_op(op_type, pattern=Pattern.ELEMENTWISE)(lambda call: function(call.x))


def _binary(op_type: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    onnx_op(op_type, pattern=Pattern.BROADCAST)(lambda call: function(call.tensor(0), call.tensor(1)))


def _pointwise(name: str, function: Callable[[Expr], Expr]) -> Callable[[Tensor], Tensor]:
    return lambda x: ops.map_elements(x, function, name)


def _compared(op: str, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: ops.broadcast(lambda x, y: expr.compare(op, x, y), a, b, name)


_unary("Relu", ops.relu)
_unary("Sigmoid", ops.sigmoid)
_unary("Tanh", ops.tanh)
_unary("Exp", ops.exp)
_unary("Log", ops.log)
_unary("Sqrt", ops.sqrt)
_unary("Erf", ops.erf)
_unary("Floor", ops.floor)
_unary("Ceil", ops.ceil)
_unary("Abs", ops.abs)
_unary("Neg", ops.neg)
_unary("Reciprocal", _pointwise("reciprocal", lambda v: 1 / v))
_unary("Round", _pointwise("round", lambda v: expr.call("round", v)))
_unary("Sin", _pointwise("sin", lambda v: expr.call("sin", v)))
_unary("Cos", _pointwise("cos", lambda v: expr.call("cos", v)))
_unary("Not", _pointwise("not", expr.logical_not))
_unary("Identity", _pointwise("identity", lambda v: v))

_binary("Add", ops.add)
_binary("Sub", ops.subtract)
_binary("Mul", ops.multiply)
_binary("Less", _compared("lt", "less"))
_binary("LessOrEqual", _compared("le", "less_or_equal"))
_binary("Greater", _compared("gt", "greater"))
_binary("GreaterOrEqual", _compared("ge", "greater_or_equal"))
_binary("Equal", _compared("eq", "equal"))
_binary("And", lambda a, b: ops.broadcast(expr.logical_and, a, b, "and"))
_binary("Or", lambda a, b: ops.broadcast(expr.logical_or, a, b, "or"))
_binary("PRelu", lambda x, slope: ops.broadcast(lambda v, s: expr.select(v < 0, v * s, v), x, slope, "prelu"))


@onnx_op("Div", pattern=Pattern.BROADCAST)
def div(call: OperatorCall) -> Tensor:
    """Quotient; integers round towards zero, as in ONNX."""
    a, b = call.tensor(0), call.tensor(1)
    if a.dtype in expr.FLOAT_DTYPES:
        return ops.divide(a, b)

    def truncated(x: Expr, y: Expr) -> Expr:
        floored = x // y
        exact = expr.equal(floored * y, x)
        return expr.select(expr.logical_or(exact, expr.compare("ge", floored, 0)), floored, floored + 1)

    return ops.broadcast(truncated, a, b, "divide")


@onnx_op("Pow", pattern=Pattern.BROADCAST, optional_static={1: "exponent"})
def power(call: OperatorCall) -> Tensor:
    """Power; a known exponent that is one number may become a product or a square root."""
    if not call.has("exponent"):
        return ops.power(call.x, call.tensor(1))
    exponent = np.asarray(call.node.attributes["exponent"])
    if exponent.size != 1:
        raise ModelError(f"{describe(call.node)}: a constant exponent must be one number, not shape {list(exponent.shape)}")
    return ops.power(call.x, float(exponent.reshape(())))


@onnx_op("Sum", "Max", "Min", "Mean", pattern=Pattern.BROADCAST)
def variadic(call: OperatorCall) -> Tensor:
    """Any number of operands, broadcast against each other."""
    tensors = [tensor for tensor in call.inputs if tensor is not None]
    operator = {"Max": "max", "Min": "min"}.get(call.node.op_type, "add")
    axes = axes_of(broadcast_shape(call.node.op_type, [tensor.shape for tensor in tensors], *tensors))
    body = tensors[0][broadcast_index(tensors[0].shape, axes)]
    for tensor in tensors[1:]:
        body = expr.binary(operator, body, tensor[broadcast_index(tensor.shape, axes)])
    if call.node.op_type == "Mean":
        body = body * (1.0 / len(tensors))
    return tensor_from_body(call.node.op_type.lower(), axes, body)


@onnx_op("Where", pattern=Pattern.BROADCAST)
def where(call: OperatorCall) -> Tensor:
    """The second operand where the first is true, else the third."""
    tensors = [call.tensor(index) for index in range(3)]
    axes = axes_of(broadcast_shape("where", [tensor.shape for tensor in tensors], *tensors))
    condition, then, otherwise = (tensor[broadcast_index(tensor.shape, axes)] for tensor in tensors)
    return tensor_from_body("where", axes, expr.select(condition, then, otherwise))


@onnx_op("LeakyRelu", pattern=Pattern.ELEMENTWISE)
def leaky_relu(call: OperatorCall) -> Tensor:
    """x where positive, else alpha * x."""
    return ops.leaky_relu(call.x, call.number("alpha", 0.01))


@onnx_op("Elu", pattern=Pattern.ELEMENTWISE)
def elu(call: OperatorCall) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1)."""
    alpha = call.number("alpha", 1.0)
    return ops.map_elements(call.x, lambda v: expr.select(v < 0, (expr.call("exp", v) - 1) * alpha, v), "elu")


@onnx_op("HardSigmoid", pattern=Pattern.ELEMENTWISE)
def hard_sigmoid(call: OperatorCall) -> Tensor:
    """alpha * x + beta, limited to 0..1."""
    return ops.hard_sigmoid(call.x, call.number("alpha", 0.2), call.number("beta", 0.5))


@onnx_op("Gelu", pattern=Pattern.ELEMENTWISE)
def gelu(call: OperatorCall) -> Tensor:
    """x times the normal distribution function of x, exact or by the tanh approximation."""
    if call.text("approximate", "none") == "none":
        return ops.gelu(call.x)
    scale = math.sqrt(2 / math.pi)
    return ops.map_elements(call.x, lambda v: v * 0.5 * (expr.call("tanh", (v + v * v * v * 0.044715) * scale) + 1.0), "gelu")


@onnx_op("Clip", pattern=Pattern.ELEMENTWISE, static={1: "min", 2: "max"})
def clip(call: OperatorCall) -> Tensor:
    """Limited to min..max; where min is above max, all is max."""
    low = call.number("min") if call.has("min") else None
    high = call.number("max") if call.has("max") else None
    if low is not None and high is not None and low > high:
        low = high
    return ops.clip(call.x, low, high)


@onnx_op("Cast", pattern=Pattern.ELEMENTWISE)
def cast(call: OperatorCall) -> Tensor:
    """Another dtype; to bool is "not zero"."""
    dtype = dtype_name(call.integer("to"), f"the result of {describe(call.node)}")
    if dtype == "bool" and call.x.dtype != "bool":
        return ops.map_elements(call.x, lambda v: expr.compare("ne", v, 0), "cast")
    return ops.cast(call.x, dtype)


@onnx_op("Dropout", pattern=Pattern.ELEMENTWISE, static={1: "ratio", 2: "training_mode"})
def dropout(call: OperatorCall) -> Tensor:
    """Nothing, at inference; its mask is all true."""
    if call.has("training_mode") and call.integer("training_mode"):
        raise ModelError(f"{describe(call.node)} is in training mode; export the model for inference")
    if call.node.output_index == 1:
        return ops.map_elements(call.x, lambda v: expr.const(True, "bool"), "dropout_mask")
    return ops.map_elements(call.x, lambda v: v, "dropout")
