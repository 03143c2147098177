"""The inputs of a model that a caller has to feed, and the extents of each, with dynamic dimensions fixed.

fed_inputs(graph)                            # those without an initialiser
input_extents(graph, {"batch": 1})           # {"x": (1, 3, 224, 224)}
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from onnx import GraphProto, TensorProto, TensorShapeProto, ValueInfoProto

from ansor_py.errors import ModelError, SizeError
from ansor_py.te.tensor import MOST_ITERATIONS

# `shapes` fixes dynamic dimensions: by the dimension's name (an extent) or by an input's name (all its extents).
Shapes = Mapping[str, int | Sequence[int]]


def fed_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller has to feed: those without an initialiser."""
    given = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in given]


def is_numeric(info: ValueInfoProto) -> bool:
    """Whether an input is a tensor, and not of strings."""
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type != TensorProto.STRING


def input_extents(graph: GraphProto, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The extents of every numeric input.

    Raises ModelError naming the dimensions that are still unknown, SizeError for an extent that cannot be.
    """
    extents, unused, unknown = dict[str, tuple[int, ...]](), set(shapes), list[str]()
    fixed = {name: _checked(name, given) for name, given in shapes.items()}
    for info in fed_inputs(graph):
        if not is_numeric(info):
            continue
        kind, given = info.type.tensor_type, fixed.get(info.name)
        if given is not None:
            unused.discard(info.name)
            extents[info.name] = _given_extents(info, given)
            continue
        if not kind.HasField("shape"):
            unknown.append(f"input '{info.name}' (give all its extents under its name)")
        found = []
        for index, dimension in enumerate(kind.shape.dim):
            known = [dimension.dim_value] if _is_fixed(dimension) else fixed.get(dimension.dim_param, [])
            if len(known) == 1:
                unused.discard(dimension.dim_param)
                found.append(known[0])
            else:
                unknown.append(
                    f"'{dimension.dim_param}'" if dimension.dim_param else f"dimension {index} of input '{info.name}'"
                )
        extents[info.name] = tuple(found)
    if unknown:
        listed = ", ".join(dict.fromkeys(unknown))
        raise ModelError(
            f"the model has dynamic shapes: {listed}; fix them with shapes={{'NAME': extent}} (--shape NAME=EXTENT)"
        )
    if unused:
        raise ModelError(
            f"shapes are given for {', '.join(sorted(unused))}, but the model has no such dynamic dimension or input"
        )
    return extents


def _checked(name: str, given: int | Sequence[int]) -> list[int]:
    """The extents that are given under a name."""
    try:
        extents = [operator.index(extent) for extent in (given if isinstance(given, Sequence) else [given])]
    except TypeError:
        raise ModelError(f"shapes: '{name}' is {given!r}; give a whole number, or one for each dimension") from None
    for extent in extents:
        if not 0 <= extent <= MOST_ITERATIONS:
            raise SizeError(f"shapes: the extent {extent} of '{name}' must lie between 0 and 2^60")
    return extents


def _is_fixed(dimension: TensorShapeProto.Dimension) -> bool:
    """Whether a dimension is a number; some exporters write -1 for one that is not known."""
    return dimension.HasField("dim_value") and dimension.dim_value >= 0


def _given_extents(info: ValueInfoProto, extents: list[int]) -> tuple[int, ...]:
    kind = info.type.tensor_type
    stated = kind.shape.dim if kind.HasField("shape") else None
    if stated is not None and len(stated) != len(extents):
        raise ModelError(f"input '{info.name}' has {len(stated)} dimensions, but {len(extents)} extents are given: {extents}")
    for index, dimension in enumerate(stated or ()):
        if _is_fixed(dimension) and dimension.dim_value != extents[index]:
            raise ModelError(
                f"input '{info.name}' has {dimension.dim_value} in dimension {index}, but {extents[index]} is given"
            )
    return tuple(extents)
