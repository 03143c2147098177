"""One value from all lanes of a vector.

across_lanes("sum", Value("%v1", "float32", 8), text)      # Value("%v2", "float32")
"""

from __future__ import annotations

from ansor_py.codegen.addresses import REGISTER_TYPES, Value
from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.vector_operations import constant, intrinsic_suffix
from ansor_py.te.expr import FLOAT_DTYPES


def across_lanes(combiner: str, value: Value, text: FunctionText) -> Value:
    """One value from all lanes, in any order."""
    operation = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}[combiner]
    scalar = REGISTER_TYPES[value.dtype]
    suffix = intrinsic_suffix(value.type)
    if value.dtype in FLOAT_DTYPES and combiner in ("sum", "prod"):
        neutral = constant(-0.0 if combiner == "sum" else 1.0, scalar)
        text.declarations.add(f"declare {scalar} @llvm.vector.reduce.f{operation}.{suffix}({scalar}, {value.type})")
        return Value(
            text.emit(
                f"call reassoc {scalar} @llvm.vector.reduce.f{operation}.{suffix}"
                f"({scalar} {neutral}, {value.type} {value.name})"
            ),
            value.dtype,
        )
    if value.dtype in FLOAT_DTYPES:
        name = f"llvm.vector.reduce.f{operation}imum.{suffix}"
        text.declarations.add(f"declare {scalar} @{name}({value.type})")
        return Value(text.emit(f"call nsz {scalar} @{name}({value.type} {value.name})"), value.dtype)
    if combiner in ("max", "min"):
        prefix = "u" if value.dtype in ("uint8", "bool") else "s"
    else:
        prefix = ""
    name = f"llvm.vector.reduce.{prefix}{operation}.{suffix}"
    return Value(text.call(scalar, name, f"{value.type} {value.name}", value.type), value.dtype)
