"""What a model states of its values' shapes and dtypes, outputs included, and how far that is believed.

Exporters get it wrong: by an inference that is wrong itself, by extents of the example that was traced, by tools that change
nodes and leave annotations. So a statement is used only for what nothing else says: the result of a node that is not
compiled, where the standard's inference has no shape. Everything else is computed, and what differs is a note.

    stated = StatedTypes.of(model.graph, shapes={"batch": 1})
    stated.completing("y", inferred_type)      # Value, or None
    stated.differences(values)                 # ("the model states ...",)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto, TypeProto

from ansor_py.graph.input_shapes import Shapes
from ansor_py.graph.ir import Value
from ansor_py.graph.node_inference import static_value
from ansor_py.graph.onnx_nodes import any_dtype_name, supported_dtype

# A note lists so many values, and says how many more there are.
_LISTED = 3


@dataclass(frozen=True)
class StatedTypes:
    """Types by the name of the value; `shapes` are the extents that fix dynamic dimensions."""

    types: Mapping[str, TypeProto]
    shapes: Shapes

    @staticmethod
    def of(graph: GraphProto, shapes: Shapes) -> StatedTypes:
        """The statements of a graph; what it says of an output counts more than what it says of the value."""
        return StatedTypes({info.name: info.type for info in (*graph.value_info, *graph.output)}, shapes)

    def completing(self, name: str, inferred: TypeProto | None) -> Value | None:
        """The value as stated, if the inference knows no more of it than perhaps its dtype, and that is the same."""
        stated = static_value(name, self.types.get(name), self.shapes)
        if stated is None or inferred is None or inferred.WhichOneof("value") is None:
            return stated
        if not inferred.HasField("tensor_type") or inferred.tensor_type.HasField("shape"):
            return None
        dtype = supported_dtype(inferred.tensor_type.elem_type)
        return stated if dtype in (None, stated.dtype) else None

    def differences(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """A note on the values that are not what the model states, if there are any."""
        found = []
        for name, kind in self.types.items():
            if name in values and not _agrees(kind, values[name]):
                found.append(f"'{name}' is {values[name].dtype}{list(values[name].shape)}, not {_text(kind)}")
        if not found:
            return ()
        rest = f", and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        return (f"the model states wrong types, which are not used: {', '.join(found[:_LISTED])}{rest}",)


def _agrees(kind: TypeProto, value: Value) -> bool:
    """Whether all that is stated holds; a dimension with a name, or of -1, states nothing."""
    if not kind.HasField("tensor_type"):
        return kind.WhichOneof("value") is None
    tensor = kind.tensor_type
    if tensor.elem_type and supported_dtype(tensor.elem_type) != value.dtype:
        return False
    if not tensor.HasField("shape"):
        return True
    extents = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim]
    return len(extents) == len(value.shape) and all(e in (None, v) for e, v in zip(extents, value.shape, strict=True))


def _text(kind: TypeProto) -> str:
    """A stated type as messages give it, such as `float32[batch, 3]`."""
    if not kind.HasField("tensor_type"):
        return str(kind.WhichOneof("value")).removesuffix("_type")
    tensor = kind.tensor_type
    dtype = any_dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return dtype
    extents = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    return f"{dtype}[{', '.join(extents)}]"
