"""Values of operators whose inputs are known, by NumPy: the arithmetic on shapes that exporters leave in models.

    known_result(node, [array, None, axes])      # the result, or None for an operator that is not among these

Only what is the same in every version of an operator is computed here; constant folding asks ONNX's reference evaluator,
which takes a millisecond a node, for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ansor_py.graph.ir import Array, OperatorNode
from ansor_py.te.expr import DTYPE_BYTES
from ansor_py.te.interpreter import saturating_cast
from ansor_py.te.ops.indexing import progression_length

Known: TypeAlias = NDArray[Any]
_NUMPY_BROADCAST_OPSET = 7  # before it, broadcasting was an attribute


@dataclass(frozen=True)
class _Call:
    """A node with its known inputs; parameters may be attributes or inputs, which depends on the opset."""

    node: OperatorNode
    inputs: Sequence[Known | None]

    def __getitem__(self, index: int) -> Known:
        found = self.optional(index)
        if found is None:
            raise _UnknownError
        return found

    def optional(self, index: int) -> Known | None:
        """An input that may be omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def all(self) -> list[Known]:
        return [self[index] for index in range(len(self.inputs))]

    def integers(self, name: str, index: int) -> tuple[int, ...] | None:
        value: Any = self.node.attributes.get(name)
        if value is None and index < len(self.inputs):
            value = self.inputs[index]
        return None if value is None else tuple(int(item) for item in np.asarray(value).reshape(-1).tolist())

    def needed(self, name: str, index: int) -> tuple[int, ...]:
        found = self.integers(name, index)
        if found is None:
            raise _UnknownError
        return found

    def flag(self, name: str, default: int) -> int:
        value: Any = self.node.attributes.get(name, default)
        return int(value)


class _UnknownError(Exception):
    """The operator's result is left to the reference evaluator."""


def known_result(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    """The node's result for known inputs, or None if the operator or this use of it is not among the simple ones."""
    function = _FUNCTIONS.get(node.op_type)
    if function is None or node.domain or (node.output_count > 1 and node.op_type not in _SEVERAL):
        return None
    if node.opset < _NUMPY_BROADCAST_OPSET and len(inputs) > 1:
        return None
    if any(array is not None and str(array.dtype) not in DTYPE_BYTES for array in inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function(_Call(node, inputs)))
    except (_UnknownError, ValueError, IndexError, TypeError, KeyError):
        return None  # the reference evaluator says what is wrong with it
    return result if str(result.dtype) in DTYPE_BYTES else None


def _same_dtype(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    """An operator on arrays of one dtype that it keeps."""
    return lambda call: reduce(function, call.all).astype(call[0].dtype, copy=False)


def _truth(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    return lambda call: function(*call.all)


def _float_only(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    def apply(call: _Call) -> Any:
        if not np.issubdtype(call[0].dtype, np.floating):
            raise _UnknownError
        return np.asarray(function(call[0]), dtype=call[0].dtype)

    return apply


def _divide(call: _Call) -> Any:
    a, b = call[0], call[1]
    if np.issubdtype(a.dtype, np.floating):
        return a / b
    if not b.all():
        raise _UnknownError
    quotient, rest = np.divmod(a, b)  # integers are divided towards zero; the smallest has no absolute value
    return (quotient + ((rest != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


def _cast(call: _Call) -> Any:
    return _converted(call[0], _dtype_of(call.flag("to", 0)))


def _converted(array: Known, dtype: np.dtype[Any]) -> Known:
    if np.issubdtype(dtype, np.integer) and not np.isfinite(array).all():
        raise _UnknownError  # undefined
    return array.astype(dtype)


def _modulo(call: _Call) -> Any:
    a, b = call[0], call[1]
    truncated = call.flag("fmod", 0)
    if (np.issubdtype(a.dtype, np.floating) and not truncated) or not b.all():
        raise _UnknownError
    return (np.fmod if truncated else np.mod)(a, b).astype(a.dtype)


def _slice(call: _Call) -> Any:
    data, starts, ends = call[0], call.needed("starts", 1), call.needed("ends", 2)
    axes = call.integers("axes", 3) or tuple(range(len(starts)))
    steps = call.integers("steps", 4) or (1,) * len(starts)
    cuts = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        extent = data.shape[axis]
        first = min(max(start + extent if start < 0 else start, 0), extent if step > 0 else extent - 1)
        last = end + extent if end < 0 else end
        last = min(max(last, 0 if step > 0 else -1), extent)
        cuts[axis] = slice(first, None if last < 0 else last, step)
    return data[tuple(cuts)]


def _pad(call: _Call) -> Any:
    data, pads, mode = call[0], call.needed("pads", 1), call.node.attributes.get("mode", "constant")
    axes = call.integers("axes", 3) or tuple(range(data.ndim))
    if mode != "constant" or min(pads, default=0) < 0:
        raise _UnknownError
    given = call.inputs[2] if len(call.inputs) > 2 else None
    fill: Any = call.node.attributes.get("value", 0) if given is None else given.reshape(-1)[0]
    widths = [(0, 0)] * data.ndim
    for position, axis in enumerate(axes):
        widths[axis] = (pads[position], pads[position + len(axes)])
    return np.pad(data, widths, constant_values=fill)


def _trilu(call: _Call) -> Any:
    diagonal = (call.integers("k", 1) or (0,))[0]
    return np.triu(call[0], diagonal) if call.flag("upper", 1) else np.tril(call[0], diagonal)


def _squeeze(call: _Call) -> Any:
    axes = call.integers("axes", 1)
    return np.squeeze(call[0], axis=axes)


def _reshape(call: _Call) -> Any:
    data, wanted = call[0], call.needed("shape", 1)
    keeps_zero = call.flag("allowzero", 0)
    return data.reshape([data.shape[axis] if extent == 0 and not keeps_zero else extent for axis, extent in enumerate(wanted)])


def _expand(call: _Call) -> Any:
    return np.broadcast_to(call[0], np.broadcast_shapes(call[0].shape, call.needed("shape", 1)))


def _range(call: _Call) -> Any:
    start, limit, delta = (item.reshape(-1)[0] for item in call.all)
    if delta == 0:
        raise _UnknownError
    count = progression_length(start.item(), limit.item(), delta.item())
    return (start + np.arange(count, dtype=call[0].dtype) * delta).astype(call[0].dtype)


def _reduction(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    def apply(call: _Call) -> Any:
        axes = call.integers("axes", 1)
        if not axes and call.flag("noop_with_empty_axes", 0):
            return call[0]
        result = function(call[0], axis=axes or None, keepdims=bool(call.flag("keepdims", 1)))
        return np.asarray(result, dtype=call[0].dtype)

    return apply


def _transpose(call: _Call) -> Any:
    return np.transpose(call[0], call.integers("perm", len(call.inputs)))


def _power(call: _Call) -> Any:
    if not np.issubdtype(call[0].dtype, np.floating):
        raise _UnknownError
    return np.power(call[0], call[1]).astype(call[0].dtype)


def _dequantize(call: _Call) -> Any:
    x, scale, zero = call[0], call[1], call.optional(2)
    code = call.flag("output_dtype", 0)
    factor = scale if code == 0 else scale.astype(_dtype_of(code))
    value = x.astype(np.int32)
    if zero is not None:
        value = value - _spread(call, zero.astype(np.int32), x)
    return value.astype(factor.dtype) * _spread(call, factor, x)


def _quantize(call: _Call) -> Any:
    x, scale, zero = call[0], call[1], call.optional(2)
    code = call.flag("output_dtype", 0)
    target = str(zero.dtype) if zero is not None else str(_dtype_of(code)) if code else "uint8"
    if target not in ("uint8", "int8"):
        raise _UnknownError
    precision = call.flag("precision", 0)
    wide = _dtype_of(precision) if precision else scale.dtype
    value = np.round(x.astype(wide) / _spread(call, scale.astype(wide), x))
    if zero is not None:
        value = value + _spread(call, zero.astype(wide), x)
    return saturating_cast(value, target)


def _spread(call: _Call, parameter: Known, x: Known) -> Known:
    """A scale or zero point in a shape that goes with x: one number, one an element of an axis, or one a block of it."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = call.flag("axis", 1) % x.ndim
    if parameter.ndim == 1:
        if parameter.size != x.shape[axis]:
            raise _UnknownError
        return parameter.reshape([-1 if position == axis else 1 for position in range(x.ndim)])
    return np.repeat(parameter, call.flag("block_size", 0), axis=axis)[(slice(None),) * axis + (slice(x.shape[axis]),)]


def _dynamic_quantize(call: _Call) -> Any:
    """The standard's formula: the range of x, widened to hold 0, on 0..255."""
    x = call[0]
    low, high = min(x.min(), x.dtype.type(0)), max(x.max(), x.dtype.type(0))
    scale = (high - low) / x.dtype.type(255)
    zero = saturating_cast(np.round(np.clip(-low / scale, 0, 255)), "uint8")
    results = (saturating_cast(np.round(x / scale) + zero.astype(x.dtype), "uint8"), np.asarray(scale), zero)
    return results[call.node.output_index]


def _dtype_of(code: int) -> np.dtype[Any]:
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(code)


# Operators with several results, of which these functions give the one asked for.
_SEVERAL = frozenset({"DynamicQuantizeLinear"})
_FUNCTIONS: Mapping[str, Callable[[_Call], Any]] = {
    "Add": _same_dtype(np.add),
    "Sub": _same_dtype(np.subtract),
    "Mul": _same_dtype(np.multiply),
    "Max": _same_dtype(np.maximum),
    "Min": _same_dtype(np.minimum),
    "Sum": _same_dtype(np.add),
    "Div": _divide,
    "Pow": _power,
    "Equal": _truth(np.equal),
    "Greater": _truth(np.greater),
    "GreaterOrEqual": _truth(np.greater_equal),
    "Less": _truth(np.less),
    "LessOrEqual": _truth(np.less_equal),
    "And": _truth(np.logical_and),
    "Or": _truth(np.logical_or),
    "Xor": _truth(np.logical_xor),
    "Not": _truth(np.logical_not),
    "Neg": lambda call: np.negative(call[0]),
    "Abs": lambda call: np.abs(call[0]),
    "Sqrt": _float_only(np.sqrt),
    "Reciprocal": _float_only(np.reciprocal),
    "Exp": _float_only(np.exp),
    "Log": _float_only(np.log),
    "Floor": _float_only(np.floor),
    "Ceil": _float_only(np.ceil),
    "Cos": _float_only(np.cos),
    "Sin": _float_only(np.sin),
    "Tanh": _float_only(np.tanh),
    "Cast": _cast,
    "CastLike": lambda call: _converted(call[0], call[1].dtype),
    "Mod": _modulo,
    "Concat": lambda call: np.concatenate(call.all, axis=call.flag("axis", 0)),
    "Gather": lambda call: np.take(call[0], call[1], axis=call.flag("axis", 0)),
    "Slice": _slice,
    "Pad": _pad,
    "Trilu": _trilu,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "Transpose": _transpose,
    "Range": _range,
    "Where": lambda call: np.where(*call.all),
    "Tile": lambda call: np.tile(call[0], call.needed("repeats", 1)),
    "NonZero": lambda call: np.stack(np.nonzero(call[0])).astype(np.int64) if call[0].ndim else _leave(),
    "Shape": lambda call: np.asarray(call[0].shape, np.int64)[call.flag("start", 0) : _end(call)],
    "Size": lambda call: np.asarray(call[0].size, np.int64),
    "MatMul": lambda call: np.matmul(call[0], call[1]).astype(call[0].dtype),
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "ReduceSum": _reduction(np.sum),
    "ReduceProd": _reduction(np.prod),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
}


def _leave() -> Any:
    raise _UnknownError


def _end(call: _Call) -> int:
    return call.flag("end", call[0].ndim)
