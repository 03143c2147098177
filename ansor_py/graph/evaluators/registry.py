"""The registry of evaluators: operators that are not compiled, computed with NumPy as the standard's text has it.

ONNX's reference evaluator runs what has no compiled form. Where it ignores an attribute, an input or a version, a function
here takes its place, for all versions of the operator or for those before or from one on. A function gets an `EvaluatorCall`
and returns the outputs in order; what a node does not name may be left out at the end.

    @evaluator("Softmax", before=13)
    def softmax(call: EvaluatorCall) -> tuple[Any, ...]:
        ...

    evaluator_for("", "Softmax", 11)       # the registration, or None: ONNX's own implementation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[Any]
MACHINE_LEARNING = "ai.onnx.ml"


@dataclass(frozen=True, eq=False)
class EvaluatorCall:
    """One run of an operator. `version` is the operator's (`since_version` of its schema), `outputs` counts what the node
    names; an input that is left out and an attribute that has neither value nor default are None. A graph as attribute is an
    evaluator of its own, which `run_graph` calls with what the graph takes from outside."""

    op_type: str
    version: int
    inputs: Sequence[Any]
    attributes: Mapping[str, Any]
    outputs: int
    context: Mapping[str, Any] = field(default_factory=dict)
    linked: Mapping[str, Any] | None = None  # attributes of the function whose body the node stands in

    @property
    def x(self) -> Numbers:
        """The first input."""
        return self.array(0)

    def array(self, index: int) -> Numbers:
        """An input that the standard requires. ValueError if it is left out."""
        found = self.optional(index)
        if found is None:
            raise ValueError(f"input {index} is missing")
        return np.asarray(found)

    def optional(self, index: int) -> Any:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def number(self, index: int) -> Any:
        """The only element of an input of rank 0 or 1, or None if it is left out. ValueError for several elements."""
        found = self.optional(index)
        return None if found is None else np.asarray(found).reshape(-1).item()

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; `default` where it has neither value nor a default of the standard."""
        value = self.attributes.get(name)
        return default if value is None else value

    def run_graph(self, name: str, feed: Mapping[str, Any]) -> list[Any]:
        """Run the graph that is attribute `name`."""
        results: list[Any] = self.attributes[name].run(None, {**self.context, **feed}, attributes=self.linked)
        return results


Evaluator: TypeAlias = Callable[[EvaluatorCall], tuple[Any, ...]]


@dataclass(frozen=True)
class EvaluatorDefinition:
    """A registered function with the versions of the operator that it computes."""

    function: Evaluator
    since: int
    before: int | None

    def covers(self, version: int) -> bool:
        """Whether it computes this version of the operator."""
        return self.since <= version and (self.before is None or version < self.before)


_DEFINITIONS: dict[tuple[str, str], EvaluatorDefinition] = {}


def evaluator(*op_types: str, domain: str = "", since: int = 1, before: int | None = None) -> Callable[[Evaluator], Evaluator]:
    """Register a function for operators of a domain, for versions from `since` on and before `before`."""

    def register(function: Evaluator) -> Evaluator:
        for op_type in op_types:
            _DEFINITIONS[domain, op_type] = EvaluatorDefinition(function, since, before)
        return function

    return register


def evaluator_for(domain: str, op_type: str, version: int) -> EvaluatorDefinition | None:
    """What computes a version of an operator here; None if nothing does."""
    from ansor_py.graph import evaluators  # noqa: F401  (importing the package registers them all)

    found = _DEFINITIONS.get((domain, op_type))
    return found if found is not None and found.covers(version) else None


def evaluated_operators() -> tuple[tuple[str, str], ...]:
    """Domain and name of every operator that has an evaluator here, sorted."""
    from ansor_py.graph import evaluators  # noqa: F401

    return tuple(sorted(_DEFINITIONS))
