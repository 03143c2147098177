"""The shapes of a model's inputs: all of them known, with what the user says of the dynamic ones.

fixed = with_fixed_shapes(model, {"batch": 1, "image": (1, 3, 224, 224)})
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from ansor_py.errors import ModelError, SizeError
from ansor_py.graph.ir import Value
from ansor_py.graph.onnx_nodes import dtype_name
from ansor_py.te.tensor import MOST_ITERATIONS

# What fixes dynamic dimensions: by the dimension's name (an extent) or by an input's name (all its extents).
Shapes = Mapping[str, int | Sequence[int]]


def fed_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller has to feed: those without an initialiser."""
    given = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in given]


def is_numeric(info: ValueInfoProto) -> bool:
    """Whether an input is a tensor, and not of strings."""
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type != TensorProto.STRING


def value_of_input(info: ValueInfoProto) -> Value:
    """The value of a tensor of known shape. Raises ModelError for an unsupported dtype, SizeError for an impossible size."""
    kind = info.type.tensor_type
    extents = tuple(dimension.dim_value for dimension in kind.shape.dim)
    return Value(info.name, extents, dtype_name(kind.elem_type, f"input '{info.name}'"))


def with_fixed_shapes(model: ModelProto, shapes: Shapes) -> ModelProto:
    """The model with every dimension of its inputs a number, before inference counts elements.

    Raises ModelError naming those that are still unknown, SizeError for impossible ones.
    """
    extents = {name: _extents(name, given) for name, given in shapes.items()}
    fixed = ModelProto()
    fixed.CopyFrom(model)
    unused, unknown = set(shapes), list[str]()
    numeric = [info for info in fed_inputs(fixed.graph) if is_numeric(info)]
    for info in numeric:
        kind = info.type.tensor_type
        if info.name in extents:
            unused.discard(info.name)
            _set_extents(info, extents[info.name])
        elif not kind.HasField("shape"):
            unknown.append(f"input '{info.name}' (give all its extents under its name)")
        for index, dimension in enumerate(kind.shape.dim):
            if _is_known(dimension):
                continue
            name = dimension.dim_param
            if name in extents and len(extents[name]) == 1:
                unused.discard(name)
                dimension.dim_value = extents[name][0]
            else:
                unknown.append(f"'{name}'" if name else f"dimension {index} of input '{info.name}'")
    if unknown:
        listed = ", ".join(dict.fromkeys(unknown))
        raise ModelError(
            f"the model has dynamic shapes: {listed}; fix them with shapes={{'NAME': extent}} (--shape NAME=EXTENT)"
        )
    if unused:
        raise ModelError(
            f"shapes are given for {', '.join(sorted(unused))}, but the model has no such dynamic dimension or input"
        )
    for info in numeric:
        value_of_input(info)
    return _without_symbols(fixed, extents)


def _extents(name: str, given: int | Sequence[int]) -> list[int]:
    """The extents that are given under a name, checked."""
    try:
        extents = [operator.index(extent) for extent in (given if isinstance(given, Sequence) else [given])]
    except TypeError:
        raise ModelError(f"shapes: '{name}' is {given!r}; give a whole number, or one for each dimension") from None
    for extent in extents:
        if not 0 <= extent <= MOST_ITERATIONS:
            raise SizeError(f"shapes: the extent {extent} of '{name}' must lie between 0 and 2^60")
    return extents


def _is_known(dimension: object) -> bool:
    """Whether a dimension is a number; -1 is how some exporters write that it is not."""
    return dimension.HasField("dim_value") and dimension.dim_value >= 0  # type: ignore[attr-defined,no-any-return]


def _set_extents(info: ValueInfoProto, extents: Sequence[int]) -> None:
    kind = info.type.tensor_type
    rank = len(kind.shape.dim) if kind.HasField("shape") else len(extents)
    if rank != len(extents):
        raise ModelError(f"input '{info.name}' has {rank} dimensions, but {len(extents)} extents are given: {extents}")
    for index, dimension in enumerate(list(kind.shape.dim)):
        if _is_known(dimension) and dimension.dim_value != extents[index]:
            raise ModelError(
                f"input '{info.name}' has {dimension.dim_value} in dimension {index}, but {extents[index]} is given"
            )
    del kind.shape.dim[:]
    for extent in extents:
        kind.shape.dim.add().dim_value = extent


def _without_symbols(model: ModelProto, extents: Mapping[str, Sequence[int]]) -> ModelProto:
    """The model without shape annotations that still name a dimension: inference works them out again."""
    for info in model.graph.output:
        if info.type.HasField("tensor_type"):
            for dimension in info.type.tensor_type.shape.dim:
                given = extents.get(dimension.dim_param, ()) if dimension.dim_param else ()
                if len(given) == 1:
                    dimension.dim_value = given[0]
    kept = [info for info in model.graph.value_info if not any(d.dim_param for d in info.type.tensor_type.shape.dim)]
    if len(kept) < len(model.graph.value_info):
        copies = [ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
        del model.graph.value_info[:]
        model.graph.value_info.extend(copies)
    return model
