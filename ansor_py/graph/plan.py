"""The execution plan: the kernel calls of a model in order, and where each of their buffers lies.

A location is a place in one of four regions: the caller's inputs and outputs (by index), the arena of intermediates,
and the weights (by byte offset). The plan is plain data that is stored as JSON in a compiled model.

    plan = make_plan(parts, kernels, target, threads, schedules).plan
    plan.calls[0]      # Call(kernel="kernel_1f..", buffers=(Location("input", 0), Location("weights", 64), ...))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ansor_py.errors import ModelError
from ansor_py.graph.library_kernels import Attribute

if TYPE_CHECKING:
    from ansor_py.schedule.dag import ComputeDAG

Region = Literal["input", "output", "arena", "weights"]


@dataclass(frozen=True)
class Location:
    """A buffer: an index among the inputs or outputs (and a byte in that one), or a byte of the arena or the weights."""

    region: Region
    at: int
    byte: int = 0

    def shifted(self, by: int) -> Location:
        """The location so many bytes further on."""
        if self.region in ("input", "output"):
            return replace(self, byte=self.byte + by)
        return replace(self, at=self.at + by)


@dataclass(frozen=True)
class Call:
    """One kernel call; `buffers` in the order of the kernel's ABI."""

    kernel: str
    buffers: tuple[Location, ...]


@dataclass(frozen=True)
class Work:
    """What one call of a kernel does: its task's name, operations, bytes of all inputs and outputs, and the result's dtype."""

    task: str
    flops: int
    bytes: int
    dtype: str

    @staticmethod
    def of(task: str, dag: ComputeDAG) -> Work:
        """The work of a compute DAG."""
        size = sum(tensor.bytes for tensor in (*dag.inputs, *dag.outputs))
        return Work(task, dag.flops, size, dag.outputs[0].dtype)


@dataclass(frozen=True)
class FusionChoice:
    """What was decided between one kernel and several that compute the same: `task` is the one's name, `parts` the others'.

    `occurrences` is how often the model has it and `wide` whether it took the one. The seconds are those of one occurrence,
    None for what is not known; `by` says from where: "roofline" predicted them, "records" hold what kernels took alone, and
    "in place" is inside the model.
    """

    task: str
    parts: tuple[str, ...]
    occurrences: int
    wide: bool
    wide_seconds: float | None
    narrow_seconds: float | None
    by: str

    @property
    def ratio(self) -> float | None:
        """How many times as long what was not taken takes."""
        if not self.wide_seconds or not self.narrow_seconds:
            return None
        return self.narrow_seconds / self.wide_seconds if self.wide else self.wide_seconds / self.narrow_seconds

    def __str__(self) -> str:
        taken, other = ("one kernel", "several") if self.wide else ("several kernels", "one")
        name = self.task if self.occurrences == 1 else f"{self.task}, {self.occurrences} times"
        compared = f", {self.ratio:.2f} times as fast as {other}" if self.ratio else ""
        return f"{name}: {taken}{compared} ({self.by})"


@dataclass(frozen=True)
class Copy:
    """Bytes of an input, a constant or another output that an output repeats; done after all calls."""

    source: Location
    destination: Location
    bytes: int


@dataclass(frozen=True)
class Port:
    """An input or output of the model: its name, shape (elements) and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Slot:
    """An input or output of a fallback node: the name in its ONNX model (its position, for a library kernel), and the value
    of the graph that it is.

    `location`, `shape` and `dtype` are those of a value in compiled code's memory; a dynamic value has no location and is
    held by name while the model runs.
    """

    formal: str
    value: str
    location: Location | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class FallbackNode:
    """A node that is run after the first `after_calls` kernel calls: by a library kernel with `attributes` if `library`, else
    by ONNX's reference evaluator; `reason` says why it is not compiled."""

    name: str
    op_type: str
    domain: str
    opset: int
    reason: str
    after_calls: int
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    library: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __str__(self) -> str:
        operator = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        return f"node '{self.name}' (operator {operator}, opset {self.opset})"


@dataclass(frozen=True)
class Fallback:
    """What a model that is not compiled completely needs besides: its uncompiled nodes in order of execution, its dynamic
    inputs, and its dynamic outputs (public name -> value)."""

    nodes: tuple[FallbackNode, ...]
    dynamic_inputs: tuple[str, ...] = ()
    dynamic_outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that is needed to run a model but its machine code and its weights. Sizes are bytes.

    `live_bytes` is the largest sum of intermediates that are alive at once, below which no arena can be. `schedules` says for
    each kernel where its schedule comes from: "default", or the trial of a record; `work` says what it does. `fallback` is None
    for a model that is compiled completely. `notes` are remarks on the model file. `algorithms` are those that kernels use,
    `choices` what was decided between wider and narrower kernels.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calls: tuple[Call, ...]
    copies: tuple[Copy, ...]
    arena_bytes: int
    live_bytes: int
    weights_bytes: int
    workspace_bytes: int
    threads: int
    target: Mapping[str, str | int]
    schedules: Mapping[str, str]
    work: Mapping[str, Work] = field(default_factory=dict)
    fallback: Fallback | None = None
    notes: tuple[str, ...] = ()
    algorithms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choices: tuple[FusionChoice, ...] = ()

    @property
    def memory(self) -> dict[str, int]:
        """The bytes that a run needs, by what for."""
        return {
            "inputs": sum(port.bytes for port in self.inputs),
            "outputs": sum(port.bytes for port in self.outputs),
            "intermediates": self.arena_bytes,
            "weights": self.weights_bytes,
            "workspace": self.workspace_bytes,
        }

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`; ModelError where the data is not a plan."""
        try:
            fields = dict(data)
            for key in ("inputs", "outputs"):
                fields[key] = tuple(Port(port["name"], tuple(port["shape"]), port["dtype"]) for port in data[key])
            fields["calls"] = tuple(Call(call["kernel"], tuple(map(_location, call["buffers"]))) for call in data["calls"])
            fields["copies"] = tuple(
                Copy(_location(copy["source"]), _location(copy["destination"]), copy["bytes"]) for copy in data["copies"]
            )
            fields["work"] = {symbol: Work(**item) for symbol, item in data["work"].items()}
            fields["fallback"] = _fallback(data.get("fallback"))
            fields["notes"] = tuple(data.get("notes", ()))
            fields["algorithms"] = {symbol: tuple(names) for symbol, names in data.get("algorithms", {}).items()}
            choices = ({**item, "parts": tuple(item["parts"])} for item in data.get("choices", ()))
            fields["choices"] = tuple(FusionChoice(**item) for item in choices)
            return Plan(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"the plan of the compiled model is not one of this version: {error}") from error


def _location(data: Mapping[str, Any]) -> Location:
    return Location(data["region"], data["at"], data.get("byte", 0))


def _fallback(data: Mapping[str, Any] | None) -> Fallback | None:
    if data is None:
        return None
    nodes = []
    for node in data["nodes"]:
        slots = {key: tuple(_slot(slot) for slot in node[key]) for key in ("inputs", "outputs")}
        attributes = {key: tuple(item) if isinstance(item, list) else item for key, item in node["attributes"].items()}
        nodes.append(FallbackNode(**{**node, **slots, "attributes": attributes}))
    return Fallback(tuple(nodes), tuple(data["dynamic_inputs"]), dict(data["dynamic_outputs"]))


def _slot(data: Mapping[str, Any]) -> Slot:
    location = None if data["location"] is None else _location(data["location"])
    return Slot(data["formal"], data["value"], location, tuple(data["shape"]), data["dtype"])


def kernels_of(plan: Plan) -> Sequence[str]:
    """The symbols that the plan calls, each once."""
    return list(dict.fromkeys(call.kernel for call in plan.calls))
