"""Loads of lanes whose elements lie a constant distance apart: a strided convolution or pooling reads its rows so.

Close elements are taken from vectors that cover them, with a shuffle for each vector after the first. The last vector ends with
the last element, so that nothing beyond it is read:

    x[0], x[2], x[4], x[6]   <-   x[0 1 2 3], x[3 4 5 6]

Where a CPU does not gather by itself others are loaded one by one, at constant distances from one address: LLVM would compute
a vector of addresses and take it apart again.
"""

from __future__ import annotations

from ansor_py.codegen.addresses import AddressEmitter, Value, memory_type
from ansor_py.te.expr import DTYPE_BYTES
from ansor_py.te.simplify import Linear
from ansor_py.te.tensor import Tensor

MOST_VECTORS = 4  # so many vectors and shuffles are fewer instructions than a load for each lane


def load_strided(
    emitter: AddressEmitter, tensor: Tensor, flat: Linear, stride: int, lanes: int, mask: Value | None, gathers: bool
) -> str | None:
    """The elements at `flat` and every `stride` on; of a mask that is a constant row of lanes those that it names, else zeros.

    None where a gather is better, or under another mask.
    """
    present = range(lanes) if mask is None else _present(mask)
    if not present:
        return None
    span = (len(present) - 1) * abs(stride) + 1
    base = emitter.address(tensor, flat)
    if abs(stride) <= MOST_VECTORS and span >= lanes:
        return _from_vectors(emitter, tensor, base, stride, lanes, present)
    return None if gathers else _one_by_one(emitter, tensor, base, stride, lanes, present)


def _present(mask: Value) -> range:
    """The lanes of a mask if it is a constant and they stand side by side; else none."""
    if not mask.name.startswith("<"):
        return range(0)
    words = mask.name.strip("<>").split(", ")
    count = words.count("i1 true")
    first = words.index("i1 true") if count else 0
    return range(first, first + count) if all(word == "i1 true" for word in words[first : first + count]) else range(0)


def _from_vectors(emitter: AddressEmitter, tensor: Tensor, base: str, stride: int, lanes: int, present: range) -> str:
    kind, size, text = memory_type(tensor.dtype), DTYPE_BYTES[tensor.dtype], emitter.text
    vector = f"<{lanes} x {kind}>"
    ends = (present[0] * stride, present[-1] * stride)  # of the elements, counted from that of lane 0
    starts = [min(start, max(ends) + 1 - lanes) for start in range(min(ends), max(ends) + 1, lanes)]
    result = ""
    taken = [False] * lanes
    for number, start in enumerate(starts):
        address = text.emit(f"getelementptr inbounds {kind}, ptr {base}, i64 {start}")
        loaded = text.emit(f"load {vector}, ptr {address}, align {size}")
        order: list[int] = []
        for lane in range(lanes):
            element = lane * stride - start
            is_here = lane in present and not taken[lane] and 0 <= element < lanes
            order.append(element + (lanes if number else 0) if is_here else lane if taken[lane] else -1)
            taken[lane] |= is_here
        words = ", ".join("i32 poison" if index < 0 else f"i32 {index}" for index in order)
        first, second = (result, loaded) if number else (loaded, "poison")
        result = text.emit(f"shufflevector {vector} {first}, {vector} {second}, <{lanes} x i32> <{words}>")
    if len(present) == lanes:
        return result
    exists = ", ".join(f"i1 {'true' if lane in present else 'false'}" for lane in range(lanes))
    return text.emit(f"select <{lanes} x i1> <{exists}>, {vector} {result}, {vector} zeroinitializer")


def _one_by_one(emitter: AddressEmitter, tensor: Tensor, base: str, stride: int, lanes: int, present: range) -> str:
    kind, size, text = memory_type(tensor.dtype), DTYPE_BYTES[tensor.dtype], emitter.text
    vector = f"<{lanes} x {kind}>"
    result = "zeroinitializer" if len(present) < lanes else "poison"
    for lane in present:
        address = text.emit(f"getelementptr inbounds {kind}, ptr {base}, i64 {lane * stride}") if lane else base
        loaded = text.emit(f"load {kind}, ptr {address}, align {size}")
        result = text.emit(f"insertelement {vector} {result}, {kind} {loaded}, i64 {lane}")
    return result
