"""Values of one dtype as values of another one, in LLVM instructions.

converted(Value("%v1", "int32", 8), "float32", text)      # Value("%v2", "float32", 8)
"""

from __future__ import annotations

from ansor_py.codegen.addresses import REGISTER_TYPES, Value
from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.vector_operations import constant, intrinsic_suffix, shaped
from ansor_py.te.expr import DTYPE_BYTES, FLOAT_DTYPES


def converted(value: Value, dtype: str, text: FunctionText) -> Value:
    """The value as a number of another dtype, in as many lanes; a float beyond an integer's range becomes its end."""
    source, kind = value.dtype, shaped(REGISTER_TYPES[dtype], value.lanes)
    if source == dtype:
        return value
    if dtype == "bool":
        zero = constant(0, value.type)
        test = "fcmp une" if source in FLOAT_DTYPES else "icmp ne"
        return Value(text.emit(f"{test} {value.type} {value.name}, {zero}"), dtype, value.lanes)
    unsigned = source in ("uint8", "bool")
    if source in FLOAT_DTYPES and dtype in FLOAT_DTYPES:
        word = "fpext" if DTYPE_BYTES[dtype] > DTYPE_BYTES[source] else "fptrunc"
    elif source in FLOAT_DTYPES:
        sign = "u" if dtype == "uint8" else "s"
        name = f"llvm.fpto{sign}i.sat.{intrinsic_suffix(kind)}.{intrinsic_suffix(value.type)}"
        return Value(text.call(kind, name, f"{value.type} {value.name}", value.type), dtype, value.lanes)
    elif dtype in FLOAT_DTYPES:
        word = "uitofp" if unsigned else "sitofp"
    elif REGISTER_TYPES[source] == REGISTER_TYPES[dtype]:
        return Value(value.name, dtype, value.lanes)
    elif DTYPE_BYTES[dtype] > DTYPE_BYTES[source] or source == "bool":
        word = "zext" if unsigned else "sext"
    else:
        word = "trunc"
    return Value(text.emit(f"{word} {value.type} {value.name} to {kind}"), dtype, value.lanes)
