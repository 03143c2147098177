"""An ONNX backend, so that everything which speaks `onnx.backend.base` (its conformance tests, for one) can run on ansor-py.

    prepared = AnsorBackend.prepare(model)
    (y,) = prepared.run([x])
    (y,) = AnsorBackend.run_model(model, [x])

Kernels get default schedules, one thread, and are compiled in this process. A model is compiled for the shapes that it is
run with, and for the values of the inputs that have to be known at compile time (the shape fed to a Reshape, the axes
fed to a reduction): other shapes or values are compiled when they come, and the last ones are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType

from ansor_py.errors import AnsorError, FeedError, StaticInputError
from ansor_py.graph.compilation import compile_partition
from ansor_py.graph.compiled import CompiledModel
from ansor_py.graph.ir import Graph
from ansor_py.graph.model_tasks import partition_graph
from ansor_py.graph.onnx_import import import_model
from ansor_py.graph.passes import run_passes

# Compiled variants of a model (shapes, values of inputs known at compile time) that are kept.
KEPT_VARIANTS = 16

Inputs: TypeAlias = "Sequence[Any] | Mapping[str, Any]"


class AnsorRep(BackendRep):  # type: ignore[misc,unused-ignore]
    """A model that is ready to run; compiled when its shapes are known, at the latest by the first run."""

    def __init__(self, model: ModelProto, fallback: bool = True) -> None:
        self.model = model
        self.fallback = fallback
        self.input_names = _fed_names(model)
        self.output_names = [info.name for info in model.graph.output]
        self._wanted: frozenset[str] = frozenset()
        self._variants: OrderedDict[tuple[Any, ...], CompiledModel] = OrderedDict()

    @property
    def variants(self) -> tuple[CompiledModel, ...]:
        """The variants that are compiled so far."""
        return tuple(self._variants.values())

    def run(self, inputs: Inputs, **options: Any) -> list[Any]:  # type: ignore[override,unused-ignore]
        """The outputs in the model's order, for inputs in its order or by name. Raises FeedError for a wrong number of them."""
        feed = self._feed(inputs)
        compiled = self.compiled_for(feed)
        known = {*(port.name for port in compiled.inputs), *_dynamic_inputs(compiled)}
        results = compiled.run({name: value for name, value in feed.items() if name in known})
        return [results[name] for name in self.output_names]

    def compiled_for(self, feed: Mapping[str, Any]) -> CompiledModel:
        """The compiled model for inputs like these."""
        key = self._key(feed)
        if key not in self._variants:
            graph = self._graph(feed)
            key = self._key(feed)  # importing may have found inputs whose values matter
            self._variants[key] = compile_partition(partition_graph(graph), threads=1, workers=0)
        self._variants.move_to_end(key)
        while len(self._variants) > KEPT_VARIANTS:
            self._variants.popitem(last=False)
        return self._variants[key]

    def _feed(self, inputs: Inputs) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return dict(inputs)
        if len(inputs) != len(self.input_names):
            names = ", ".join(self.input_names)
            raise FeedError(f"the model takes {len(self.input_names)} inputs ({names}), not {len(inputs)}")
        return dict(zip(self.input_names, inputs, strict=True))

    def _key(self, feed: Mapping[str, Any]) -> tuple[Any, ...]:
        shapes = tuple((name, np.shape(value)) for name, value in feed.items() if isinstance(value, np.ndarray))
        return shapes, tuple((name, np.asarray(feed[name]).tobytes()) for name in sorted(self._wanted) if name in feed)

    def _graph(self, feed: Mapping[str, Any]) -> Graph:
        """The model's graph with the inputs that have to be known as constants."""
        while True:
            known = {name: np.asarray(feed[name]) for name in self._wanted if name in feed}
            try:
                graph = import_model(specialised(self.model, feed, known), fallback=self.fallback)
                wanted = graph.wanted - self._wanted
                if not wanted:
                    return run_passes(graph)
            except StaticInputError as error:
                wanted = (error.origins & set(self.input_names)) - self._wanted
                if not wanted:
                    raise
            self._wanted |= wanted


class AnsorBackend(Backend):  # type: ignore[misc,unused-ignore]
    """ansor-py as an ONNX backend, for CPUs."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **options: Any) -> bool:
        """Whether the model can be run at all, with fallback nodes if need be."""
        try:
            import_model(model, fallback=True)
        except AnsorError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **options: Any) -> AnsorRep:
        """The model. `fallback=False` refuses what cannot be compiled, when it is compiled."""
        return AnsorRep(model, fallback=bool(options.get("fallback", True)))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Inputs, device: str = "CPU", **options: Any) -> tuple[Any, ...]:
        """Prepare and run once."""
        return tuple(cls.prepare(model, device, **options).run(inputs))

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Inputs,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, Sequence[int]]] | None = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """Run one node. `opset_version` among the options is the version of its operator set (default: the newest)."""
        names = [name for name in node.input if name]
        given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        infos = [_info(name, np.asarray(value)) for name, value in given.items()]
        results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        for info, (dtype, shape) in zip(results, outputs_info or (), strict=False):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            info.CopyFrom(helper.make_tensor_value_info(info.name, kind, shape))
        version = int(options.get("opset_version", _newest_opset()))
        graph = helper.make_graph([node], "node", infos, results)
        model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return tuple(AnsorRep(_with_output_types(model), fallback=bool(options.get("fallback", True))).run(given))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only CPUs."""
        return bool(Device(device).type == DeviceType.CPU)


def specialised(model: ModelProto, feed: Mapping[str, Any], constants: Mapping[str, NDArray[Any]]) -> ModelProto:
    """The model with the shapes of the fed arrays for its dynamic dimensions, and some inputs turned into constants."""
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = []
    for info in copy.graph.input:
        if info.name in constants:
            continue
        value = feed.get(info.name)
        if isinstance(value, np.ndarray) and info.type.HasField("tensor_type") and _has_unknown_extents(info):
            info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, value.shape))
        kept.append(info)
    if len(kept) < len(copy.graph.input):
        kept = [type(info).FromString(info.SerializeToString()) for info in kept]
        del copy.graph.input[:]
        copy.graph.input.extend(kept)
    copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return copy


def _has_unknown_extents(info: Any) -> bool:
    kind = info.type.tensor_type
    return not kind.HasField("shape") or not all(dimension.HasField("dim_value") for dimension in kind.shape.dim)


def _fed_names(model: ModelProto) -> list[str]:
    given = {tensor.name for tensor in model.graph.initializer}
    return [info.name for info in model.graph.input if info.name not in given]


def _dynamic_inputs(compiled: CompiledModel) -> tuple[str, ...]:
    return compiled.plan.fallback.dynamic_inputs if compiled.plan.fallback is not None else ()


def _info(name: str, value: NDArray[Any]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _newest_opset() -> int:
    from onnx import defs

    return int(defs.onnx_opset_version())


def _with_output_types(model: ModelProto) -> ModelProto:
    """The model with the types of its outputs filled in where they are not stated."""
    from onnx import shape_inference

    inferred = {info.name: info for info in shape_inference.infer_shapes(model, data_prop=True).graph.output}
    for info in model.graph.output:
        if not info.type.WhichOneof("value"):
            info.CopyFrom(inferred[info.name])
        if not info.type.WhichOneof("value"):
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    return model
