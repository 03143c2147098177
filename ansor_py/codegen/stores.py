"""Stores to LLVM instructions, where an expression emitter stands: of one element, of a vector, of the lanes of a mask.

    store(emitter, tensor, indices, value, predicate=None)

Lanes next to each other are stored as vectors, others are scattered. Where a target has no masks of its own and it is known
that the first lanes are meant, those are parts of the vector.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.codegen.addresses import Value, memory_type
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.codegen.vector_operations import intrinsic_suffix, shaped
from ansor_py.te.expr import DTYPE_BYTES, Expr
from ansor_py.te.simplify import Linear
from ansor_py.te.tensor import Tensor


def store(at: ExpressionEmitter, tensor: Tensor, indices: Sequence[Expr], value: Value, predicate: Value | None) -> None:
    """Store a value at the current position, in all lanes where the predicate holds."""
    flat = at.flat_index(tensor, indices)
    stride = flat.stride(at.lane_variable) if at.lanes else 0
    kind, size = memory_type(tensor.dtype), DTYPE_BYTES[tensor.dtype]
    if not at.lanes:
        stored = _to_memory(at, value)
        if predicate is None:
            at.text.do(f"store {kind} {stored}, ptr {at.address(tensor, flat)}, align {size}")
            return
        with at.text.when(predicate.name):
            address = at.text.emit(f"getelementptr {kind}, ptr {at.pointers[tensor.name]}, i64 {at.linear_here(flat)}")
            at.text.do(f"store {kind} {stored}, ptr {address}, align {size}")
        return
    lanes = at.lanes
    stored = _to_memory(at, at.broadcast(value, lanes))
    vector = f"<{lanes} x {kind}>"
    if stride == 1 and predicate is None:
        at.text.do(f"store {vector} {stored}, ptr {at.address(tensor, flat)}, align {size}")
        return
    mask = at.broadcast(predicate or Value("true", "bool"), lanes)
    suffix = intrinsic_suffix(vector)
    first = _first_lanes(mask)
    if stride == 1 and first is not None and not at.target.masks_freely:
        _store_first(at, tensor, flat, kind, stored, lanes, first)
        return
    if stride == 1:
        at.text.call(
            "void",
            f"llvm.masked.store.{suffix}.p0",
            f"{vector} {stored}, ptr align {size} {at.address(tensor, flat)}, {mask.type} {mask.name}",
            f"{vector}, ptr, {mask.type}",
        )
        return
    addresses = at.lane_addresses(tensor, flat, stride)
    at.text.call(
        "void",
        f"llvm.masked.scatter.{suffix}.v{lanes}p0",
        f"{vector} {stored}, <{lanes} x ptr> align {size} {addresses}, {mask.type} {mask.name}",
        f"{vector}, <{lanes} x ptr>, {mask.type}",
    )


def store_run(
    at: ExpressionEmitter, tensor: Tensor, indices: Sequence[Expr], vector: str, width: int, mask: Value | None
) -> None:
    """Store a vector of `width`, or those elements of the mask, to consecutive elements from the current position on."""
    kind, size = memory_type(tensor.dtype), DTYPE_BYTES[tensor.dtype]
    address = at.address(tensor, at.flat_index(tensor, indices))
    if mask is None:
        at.text.do(f"store <{width} x {kind}> {vector}, ptr {address}, align {size}")
        return
    at.text.call(
        "void",
        f"llvm.masked.store.{intrinsic_suffix(f'<{width} x {kind}>')}.p0",
        f"<{width} x {kind}> {vector}, ptr align {size} {address}, {mask.type} {mask.name}",
        f"<{width} x {kind}>, ptr, {mask.type}",
    )


def store_first(at: ExpressionEmitter, tensor: Tensor, indices: Sequence[Expr], vector: str, width: int, count: int) -> None:
    """Store the first `count` elements of a vector of `width`, to consecutive elements from the current position on."""
    if at.target.masks_freely and count < width:
        store_run(at, tensor, indices, vector, width, at.lanes_below(str(count), 0, width))
    else:
        _store_first(at, tensor, at.flat_index(tensor, indices), memory_type(tensor.dtype), vector, width, count)


def _store_first(at: ExpressionEmitter, tensor: Tensor, flat: Linear, kind: str, vector: str, width: int, count: int) -> None:
    """Store them as parts of the vector whose lengths are powers of two."""
    begin, size = 0, DTYPE_BYTES[tensor.dtype]
    while begin < count:
        part = 1 << (count - begin).bit_length() - 1
        order = ", ".join(f"i32 {lane}" for lane in range(begin, begin + part))
        whole = f"shufflevector <{width} x {kind}> {vector}, <{width} x {kind}> poison, <{part} x i32> <{order}>"
        piece = vector if part == width else at.text.emit(whole)
        address = at.address(tensor, flat.plus(Linear((), begin)))
        at.text.do(f"store <{part} x {kind}> {piece}, ptr {address}, align {size}")
        begin += part


def _to_memory(at: ExpressionEmitter, value: Value) -> str:
    if value.dtype != "bool":
        return value.name
    return at.text.emit(f"zext {value.type} {value.name} to {shaped('i8', value.lanes)}")


def _first_lanes(mask: Value) -> int | None:
    """How many lanes a mask names, if that is known and they are the first ones."""
    if not mask.name.startswith("<"):
        return None
    words = mask.name.strip("<>").split(", ")
    count = words.count("i1 true")
    return count if all(word == "i1 true" for word in words[:count]) else None
