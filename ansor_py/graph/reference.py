"""The evaluator that runs what is not compiled: ONNX's reference evaluator, corrected and restrained.

Operators for which ONNX's evaluator (onnx 1.23) does not follow the standard are computed by `ansor_py.graph.evaluators`
instead. A node that neither does right (`ansor_py.graph.fallback_limits`) is refused when the evaluator is made, wherever it
stands: in the model, in a subgraph, in a function body. It also gives the outputs that compiled code is checked against.

    evaluator_of(model).run(None, {"x": array})
    expected = reference_outputs(model, {"data_0": image})
    expected = reference_outputs(model, {"data_0": image}, names=["fc6_1"])     # any values of the model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, defs, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ansor_py.errors import ModelError
from ansor_py.graph.evaluators.registry import EvaluatorCall, EvaluatorDefinition, evaluator_for
from ansor_py.graph.fallback_limits import refusal
from ansor_py.graph.ir import Array


class CheckedEvaluator(ReferenceEvaluator):  # type: ignore[misc,unused-ignore]
    """ONNX's evaluator with our operators in the place of its own. ModelError for a node that it would not do right."""

    def _load_impl(self, node: NodeProto, input_types: Any = None) -> Any:
        """The class of a node's operator; ONNX's evaluator asks for it, for the nodes of subgraphs and functions too."""
        opset = self.opsets.get(node.domain, 0)
        try:
            schema = defs.get_schema(node.op_type, opset, node.domain)
        except defs.SchemaError:
            return super()._load_impl(node, input_types)  # a function of the model, or unknown
        reason = refusal(node, schema)
        if reason is not None:
            title = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ModelError(f"node '{node.name}' (operator {title}, opset {opset}) cannot be evaluated: {reason}")
        definition = evaluator_for(node.domain, node.op_type, schema.since_version)
        if definition is None:
            return super()._load_impl(node, input_types)
        return partial(_OwnOperator, definition=definition, schema=schema)


class _OwnOperator(OpRun):  # type: ignore[misc,unused-ignore]
    """An operator of ours as ONNX's evaluator wants one; attributes that are not given have their version's defaults."""

    def __init__(self, node: NodeProto, parameters: dict[str, Any], definition: EvaluatorDefinition, schema: Any) -> None:
        super().__init__(node, parameters, schema)
        self._definition = definition
        self._version = schema.since_version

    def need_context(self) -> bool:
        """Whether the values around the node are needed: for the graphs among its attributes."""
        return bool(self.has_subgraph)

    def _run(
        self, *inputs: Any, context: Any = None, attributes: Any = None, bindings: Any = None, **values: Any
    ) -> tuple[Any, ...]:
        plain = {name: _plain(value) for name, value in values.items()}
        outputs = len(self.onnx_node.output)
        call = EvaluatorCall(self.onnx_node.op_type, self._version, inputs, plain, outputs, context or {}, attributes)
        with np.errstate(all="ignore"):
            return self._definition.function(call)[:outputs]

    def _check_and_fix_outputs(self, results: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arrays for scalars; None is an optional value that is empty."""
        return tuple(np.asarray(item) if np.isscalar(item) else item for item in results)


def _plain(value: Any) -> Any:
    """An attribute's float32 numbers as Python's, so that they do not decide the dtype of a result."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, np.floating) else value


def evaluator_of(model: bytes | ModelProto | FunctionProto) -> CheckedEvaluator:
    """The evaluator for a model or function. Raises ModelError for a node that it would not do right."""
    return CheckedEvaluator(ModelProto.FromString(model) if isinstance(model, bytes) else model)


def reference_outputs(model: ModelProto, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Array]:
    """The model's outputs for the given inputs, or the values `names` inside of it."""
    evaluator = evaluator_of(model if names is None else _with_outputs(model, names))
    results = evaluator.run(None, dict(feed))
    return {name: np.asarray(result) for name, result in zip(evaluator.output_names, results, strict=True)}


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with other outputs, and only the nodes that they need."""
    needed = set(names)
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    cut = ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[:]
    cut.graph.node.extend(reversed(kept))
    del cut.graph.output[:]
    cut.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return cut
