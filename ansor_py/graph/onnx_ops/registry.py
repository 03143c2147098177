"""The registry of ONNX operators: what each one computes, as a tensor expression.

An operator is one decorated function; it is called with an `OperatorCall` and returns the output tensor. `static`
names inputs whose values must be known at compile time: the importer turns them into attributes of these names, so that
opsets which gave them as attributes and opsets which give them as inputs look the same to the function.

    @onnx_op("Clip", Pattern.ELEMENTWISE, static={1: "min", 2: "max"})
    def clip(call: OperatorCall) -> Tensor:
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ansor_py.errors import AnsorError, BroadcastError, ModelError, RefusedModelError, SizeError, words_of_error
from ansor_py.graph.ir import OperatorNode, Pattern
from ansor_py.te.expr import Axis
from ansor_py.te.tensor import Compute, Tensor, tensor_from_body


@dataclass(frozen=True, eq=False)
class OperatorCall:
    """One operator and the tensors given to it; accessors give attributes with their defaults, or a clear error."""

    node: OperatorNode
    inputs: tuple[Tensor | None, ...]

    @property
    def opset(self) -> int:
        """Version of the operator set that the node belongs to."""
        return self.node.opset

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.tensor(0)

    def tensor(self, index: int) -> Tensor:
        """A required input."""
        found = self.optional(index)
        if found is None:
            raise ModelError(f"{describe(self.node)}: input {index} is missing")
        return found

    def optional(self, index: int) -> Tensor | None:
        """An input that may be omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self.node.attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute (also from a static scalar input)."""
        return int(self._scalar(name, default))

    def number(self, name: str, default: float | None = None) -> float:
        """A float attribute (also from a static scalar input)."""
        return float(self._scalar(name, default))

    def scalar(self, name: str, default: float | None = None) -> float:
        """A number of the first input's dtype: an integer stays one, exact however large it is."""
        return self._scalar(name, default)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.node.attributes.get(name, default))

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of integers (also from a static 1-D input)."""
        value = self.node.attributes.get(name)
        if value is None:
            if default is None:
                raise ModelError(f"{describe(self.node)}: attribute '{name}' is missing")
            return tuple(default)
        return tuple(int(item) for item in np.asarray(value).reshape(-1).tolist())

    def axes(self, name: str = "axes", rank: int | None = None, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """Axis numbers, negative ones counted from the end of `rank` dimensions (default: the first input's)."""
        dimensions = len(self.x.shape) if rank is None else rank
        return tuple(self.checked_axis(axis, dimensions) for axis in self.integers(name, default))

    def axis(self, default: int, name: str = "axis") -> int:
        """One axis number of the first input, made non-negative."""
        return self.checked_axis(self.integer(name, default), len(self.x.shape))

    def checked_axis(self, axis: int, rank: int) -> int:
        """`axis` in 0..rank-1, or an error that names the node: whoever else evaluates it, the axis has no meaning."""
        if not -rank <= axis < rank:
            raise RefusedModelError(f"{describe(self.node)}: axis {axis} does not exist in {rank} dimensions")
        return axis % rank

    def _scalar(self, name: str, default: float | None) -> float:
        value = self.node.attributes.get(name)
        if value is None:
            if default is None:
                raise ModelError(f"{describe(self.node)}: attribute '{name}' is missing")
            return default
        array = np.asarray(value)
        if array.size != 1:
            raise ModelError(f"{describe(self.node)}: '{name}' must be one number, not shape {list(array.shape)}")
        number: float = array.reshape(-1)[0].item()
        return number


Expression: TypeAlias = Callable[[OperatorCall], Tensor]


@dataclass(frozen=True)
class OperatorDefinition:
    """What is known of an operator type. `static`: input index -> attribute name; `optional_static`: made an attribute
    only where it is one constant number; `view`: the output has the first input's bytes."""

    op_type: str
    function: Expression
    pattern: Pattern
    static: Mapping[int, str] = field(default_factory=dict)
    optional_static: Mapping[int, str] = field(default_factory=dict)
    view: bool = False


_DEFINITIONS: dict[str, OperatorDefinition] = {}


def onnx_op(
    *op_types: str,
    pattern: Pattern,
    static: Mapping[int, str] | None = None,
    optional_static: Mapping[int, str] | None = None,
    view: bool = False,
) -> Callable[[Expression], Expression]:
    """Register a function as the meaning of one or more operator types."""

    def register(function: Expression) -> Expression:
        for op_type in op_types:
            _DEFINITIONS[op_type] = OperatorDefinition(
                op_type, function, pattern, dict(static or {}), dict(optional_static or {}), view
            )
        return function

    return register


def registered(op_type: str) -> bool:
    """Whether the operator type has a tensor expression."""
    _load_operators()
    return op_type in _DEFINITIONS


def registered_operators() -> tuple[str, ...]:
    """All operator types that have a tensor expression, sorted."""
    _load_operators()
    return tuple(sorted(_DEFINITIONS))


def definition_of(node: OperatorNode) -> OperatorDefinition:
    """The registration of a node's operator; ModelError if there is none."""
    _load_operators()
    if node.op_type not in _DEFINITIONS:
        raise ModelError(f"{describe(node)} is not supported; supported are {', '.join(sorted(_DEFINITIONS))}")
    return _DEFINITIONS[node.op_type]


def expression_of(node: OperatorNode, inputs: Sequence[Tensor | None]) -> Tensor:
    """The node's result over the given tensors; a scalar result has shape [1], because a loop nest needs a loop.

    Errors of the expression layer are reported with the node's name, as ModelErrors but for SizeErrors, as what is too large
    to be compiled is too large for any other evaluator.
    """
    try:
        result = definition_of(node).function(OperatorCall(node, tuple(inputs)))
        if not result.shape and isinstance(result.op, Compute):
            return tensor_from_body(result.name, (Axis("i0", 1),), result.op.body)
        return result
    except ModelError:
        raise
    except SizeError as error:
        raise SizeError(f"{describe(node)}: {error}") from error
    except BroadcastError as error:
        raise RefusedModelError(f"{describe(node)}: {error}; correct the model's shapes") from error
    except AnsorError as error:
        raise ModelError(f"{describe(node)}: {error}") from error
    except Exception as error:  # of numbers that no definition foresees: what an attribute may hold, the standard rarely says
        raise ModelError(f"{describe(node)} has no meaning for its inputs and attributes: {words_of_error(error)}") from error


def describe(node: OperatorNode) -> str:
    """How messages name a node: its name, operator and opset."""
    domain = f"{node.domain}." if node.domain else ""
    return f"node '{node.name}' (operator {domain}{node.op_type}, opset {node.opset})"


def _load_operators() -> None:
    """Import the files that register operators; the import statement makes this happen once."""
    from ansor_py.graph import onnx_ops  # noqa: F401
