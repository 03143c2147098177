"""Element-wise and broadcasting ONNX operators: arithmetic, functions, comparisons, logic, bits, casts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansor_py.errors import ModelError, RefusedModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_nodes import dtype_name
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import expr, ops
from ansor_py.te.ops.checks import axes_of, broadcast_index, broadcast_shape
from ansor_py.te.tensor import Tensor, tensor_from_body


def _unary(op_type: str, function: Callable[[Tensor], Tensor]) -> None:
    onnx_op(op_type, pattern=Pattern.ELEMENTWISE)(lambda call: function(call.x))


def _binary(op_type: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    onnx_op(op_type, pattern=Pattern.BROADCAST)(lambda call: function(call.tensor(0), call.tensor(1)))


def _compared(op: str, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: ops.broadcast(lambda x, y: expr.compare(op, x, y), a, b, name)


_unary("Exp", ops.exp)
_unary("Log", ops.log)
_unary("Sqrt", ops.sqrt)
_unary("Erf", ops.erf)
_unary("Floor", ops.floor)
_unary("Ceil", ops.ceil)
_unary("Round", ops.round)
_unary("Abs", lambda x: ops.map_elements(x, lambda v: v, "abs") if x.dtype == "uint8" else ops.abs(x))
_unary("Neg", ops.neg)
_unary("Sign", ops.sign)
_unary("Reciprocal", ops.reciprocal)
_unary("IsNaN", ops.is_nan)
_unary("Not", lambda x: ops.map_elements(x, expr.logical_not, "not"))
_unary("BitwiseNot", ops.bitwise_not)
_unary("Identity", lambda x: ops.map_elements(x, lambda v: v, "identity"))
_unary("Sin", ops.sin)
_unary("Cos", ops.cos)
_unary("Tan", ops.tan)
_unary("Asin", ops.asin)
_unary("Acos", ops.acos)
_unary("Atan", ops.atan)
_unary("Sinh", ops.sinh)
_unary("Cosh", ops.cosh)
_unary("Asinh", ops.asinh)
_unary("Acosh", ops.acosh)
_unary("Atanh", ops.atanh)

_binary("Add", ops.add)
_binary("Sub", ops.subtract)
_binary("Mul", ops.multiply)
_binary("Div", lambda a, b: ops.divide(a, b) if a.dtype in expr.FLOAT_DTYPES else ops.truncated_divide(a, b, "divide"))
_binary("Less", _compared("lt", "less"))
_binary("LessOrEqual", _compared("le", "less_or_equal"))
_binary("Greater", _compared("gt", "greater"))
_binary("GreaterOrEqual", _compared("ge", "greater_or_equal"))
_binary("Equal", _compared("eq", "equal"))
_binary("And", lambda a, b: ops.broadcast(expr.logical_and, a, b, "and"))
_binary("Or", lambda a, b: ops.broadcast(expr.logical_or, a, b, "or"))
_binary("Xor", _compared("ne", "xor"))
_binary("BitwiseAnd", ops.bitwise_and)
_binary("BitwiseOr", ops.bitwise_or)
_binary("BitwiseXor", ops.bitwise_xor)
_binary("PRelu", lambda x, slope: ops.broadcast(lambda v, s: expr.select(v < 0, v * s, v), x, slope, "prelu"))


@onnx_op("IsInf", pattern=Pattern.ELEMENTWISE)
def is_infinite(call: OperatorCall) -> Tensor:
    """Whether infinite, of the signs asked for."""
    return ops.is_inf(call.x, bool(call.integer("detect_negative", 1)), bool(call.integer("detect_positive", 1)))


@onnx_op("Mod", pattern=Pattern.BROADCAST)
def modulo(call: OperatorCall) -> Tensor:
    """What a division leaves: of the divisor's sign, or of the dividend's with `fmod`."""
    return (ops.fmod if call.integer("fmod", 0) else ops.remainder)(call.tensor(0), call.tensor(1))


@onnx_op("BitShift", pattern=Pattern.BROADCAST)
def bit_shift(call: OperatorCall) -> Tensor:
    """Bits moved up or down."""
    function = ops.shift_left if call.text("direction", "LEFT") == "LEFT" else ops.shift_right
    return function(call.tensor(0), call.tensor(1))


@onnx_op("Pow", pattern=Pattern.BROADCAST, optional_static={1: "exponent"})
def power(call: OperatorCall) -> Tensor:
    """Power of the base's dtype; a known exponent that is one number may become a product or a square root.

    Whole powers of integers are exact; others of integers go through float64.
    """
    x, exponent = call.x, call.optional(1)
    known = None if exponent is not None else call.scalar("exponent")
    if x.dtype not in expr.FLOAT_DTYPES:
        return _power_of_integers(x, exponent, known)
    if known is not None:
        if expr.converted(known, x.dtype) == known:
            return ops.power(x, known)
        return ops.cast(ops.power(ops.cast(x, "float64", "base"), known), x.dtype)
    assert exponent is not None
    # An exponent beyond 2**24 must not be rounded: whether it is odd decides the sign.
    dtype = x.dtype if exponent.dtype in (x.dtype, "int8", "uint8") else "float64"
    wide = x if dtype == x.dtype else ops.cast(x, dtype, "base")
    value = ops.power(wide, exponent if exponent.dtype == dtype else ops.cast(exponent, dtype))
    return value if dtype == x.dtype else ops.cast(value, x.dtype)


def _power_of_integers(x: Tensor, exponent: Tensor | None, known: float | None) -> Tensor:
    if known is not None:
        if float(known).is_integer():
            return ops.integer_power(x, int(known))
        return ops.cast(ops.power(ops.cast(x, "float64", "base"), known), x.dtype)
    assert exponent is not None
    if exponent.dtype not in expr.FLOAT_DTYPES:
        return ops.integer_power(x, exponent)
    return ops.cast(ops.power(ops.cast(x, "float64", "base"), ops.cast(exponent, "float64")), x.dtype)


@onnx_op("Sum", "Max", "Min", "Mean", pattern=Pattern.BROADCAST)
def variadic(call: OperatorCall) -> Tensor:
    """Any number of operands, broadcast against each other."""
    tensors = [tensor for tensor in call.inputs if tensor is not None]
    operator = {"Max": "max", "Min": "min"}.get(call.node.op_type, "add")
    axes = axes_of(broadcast_shape(call.node.op_type, [tensor.shape for tensor in tensors], *tensors))
    body = _combined(operator, [tensor[broadcast_index(tensor.shape, axes)] for tensor in tensors])
    if call.node.op_type == "Mean":
        body = body / len(tensors)
    return tensor_from_body(call.node.op_type.lower(), axes, body)


def _combined(operator: str, operands: Sequence[expr.Expr]) -> expr.Expr:
    """All operands by one associative operator, in halves: hundreds of them are no deep tree."""
    if len(operands) == 1:
        return operands[0]
    middle = (len(operands) + 1) // 2
    return expr.binary(operator, _combined(operator, operands[:middle]), _combined(operator, operands[middle:]))


@onnx_op("Where", pattern=Pattern.BROADCAST)
def where(call: OperatorCall) -> Tensor:
    """The second operand where the first is true, else the third."""
    tensors = [call.tensor(index) for index in range(3)]
    axes = axes_of(broadcast_shape("where", [tensor.shape for tensor in tensors], *tensors))
    condition, then, otherwise = (tensor[broadcast_index(tensor.shape, axes)] for tensor in tensors)
    return tensor_from_body("where", axes, expr.select(condition, then, otherwise))


@onnx_op("Clip", pattern=Pattern.BROADCAST, optional_static={1: "min", 2: "max"})
def clip(call: OperatorCall) -> Tensor:
    """Limited to min..max, which may be computed; where min is above max, all is max."""
    axes = axes_of(call.x.shape)
    value = call.x[axes]
    for index, name, limit in ((1, "min", expr.maximum), (2, "max", expr.minimum)):
        tensor = call.optional(index)
        if tensor is not None:
            if tensor.size != 1:
                shape = list(tensor.shape)
                raise RefusedModelError(f"{describe(call.node)}: '{name}' has the shape {shape}; it must be a scalar")
            value = limit(value, tensor[(0,) * len(tensor.shape)])
        elif call.has(name):
            value = limit(value, expr.const(call.scalar(name), call.x.dtype))
    return tensor_from_body("clip", axes, value)


@onnx_op("Cast", pattern=Pattern.ELEMENTWISE)
def cast(call: OperatorCall) -> Tensor:
    """Another dtype; to bool is "not zero"."""
    return _converted(call.x, dtype_name(call.integer("to"), f"the result of {describe(call.node)}"))


@onnx_op("CastLike", pattern=Pattern.ELEMENTWISE)
def cast_like(call: OperatorCall) -> Tensor:
    """The dtype of the second input."""
    return _converted(call.x, call.tensor(1).dtype)


def _converted(x: Tensor, dtype: str) -> Tensor:
    if dtype == "bool" and x.dtype != "bool":
        return ops.map_elements(x, lambda v: expr.compare("ne", v, 0), "cast")
    return ops.cast(x, dtype)


@onnx_op("Dropout", pattern=Pattern.ELEMENTWISE, static={1: "ratio", 2: "training_mode"})
def dropout(call: OperatorCall) -> Tensor:
    """Nothing, at inference; its mask is all true (before opset 10 all 1, of the input's dtype)."""
    is_random = call.number("ratio", 0.5) != 0
    if call.opset < 7 and is_random and not call.integer("is_test", 0):
        raise RefusedModelError(
            f"{describe(call.node)} is in training mode ('is_test' is not 1); export the model for inference"
        )
    if call.has("training_mode") and call.integer("training_mode") and is_random:
        raise ModelError(f"{describe(call.node)} is in training mode; export the model for inference")
    if call.node.output_index == 1:
        kind = "bool" if call.opset >= 10 else call.x.dtype
        return ops.map_elements(call.x, lambda v: expr.const(1, kind), "dropout_mask")
    return ops.map_elements(call.x, lambda v: v, "dropout")
