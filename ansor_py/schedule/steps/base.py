"""What a transform step is: a frozen dataclass with `apply`, written to JSON as a list and read back.

A new primitive is one class under `@step`:

    @step("parallel")
    @dataclass(frozen=True)
    class Parallel(Step):
        stage: str
        iterator: str

        def apply(self, state: State) -> State: ...

Steps name stages and iterators by name, so that a step says the same thing whatever was inserted before it.

A step's docstring ends with an example: the loops before it and, below an empty line, those after it, as a `State` prints them.
The tests take the example from there; they also want errors that name what is wrong and what to do about it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from ansor_py.errors import ScheduleError
from ansor_py.schedule.state import Inlined, Stage, State

STEPS: dict[str, type[Step]] = {}
StepType = TypeVar("StepType", bound="type[Step]")


def step(kind: str) -> Callable[[StepType], StepType]:
    """Register a step class under the name that stands first in its JSON."""

    def register(cls: StepType) -> StepType:
        cls.kind = kind
        STEPS[kind] = cls
        return cls

    return register


@dataclass(frozen=True)
class Step(ABC):
    """A transform step. `kind` is its name in JSON; the first field is always the stage it works on."""

    kind: ClassVar[str]
    stage: str

    def __post_init__(self) -> None:
        """Raise ScheduleError for a field of another type than its class says, such as one length where a tuple is due."""
        hints = _field_types(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _fits(value, hints[field.name]):
                raise ScheduleError(f"step '{self.kind}': field '{field.name}' must be {field.type}, not {value!r:.80}")

    @abstractmethod
    def apply(self, state: State) -> State:
        """The transformed state; raises ScheduleError if the step is illegal there."""

    def to_json(self) -> list[Any]:
        """`[kind, field, ...]` with tuples as lists."""
        return [self.kind, *(_plain(getattr(self, field.name)) for field in dataclasses.fields(self))]

    @property
    def subject(self) -> str:
        """What the step is about, for messages: its stage, and its iterator if it has one."""
        iterator = getattr(self, "iterator", None)
        return f"stage '{self.stage}'" if iterator is None else f"iterator '{iterator}' of stage '{self.stage}'"

    @property
    def title(self) -> str:
        """What the step does to what, for messages."""
        return f"{self.kind} of {self.subject}"

    def error(self, reason: str) -> ScheduleError:
        """An error that names the step, the stage and the iterator."""
        return ScheduleError(f"{self.title}: {reason}")

    def find_stage(self, state: State) -> Stage:
        """The stage that the step is about."""
        if not state.has_stage(self.stage):
            raise self.error(f"there is no such stage; the stages are {_names(state)}")
        return state.stage(self.stage)

    def find_loops(self, state: State) -> Stage:
        """The stage that the step is about, for a step that changes its loops or says how they run."""
        stage = self.find_stage(state)
        if isinstance(stage.location, Inlined):
            raise self.error("the stage is inlined and has no loops; compute_root gives it some")
        return stage

    def find_other(self, state: State, name: str) -> Stage:
        """Another stage that the step names."""
        if not state.has_stage(name):
            raise self.error(f"there is no stage '{name}'; the stages are {_names(state)}")
        return state.stage(name)

    def find_iterator(self, stage: Stage, name: str) -> int:
        """Position of an iterator among the loops of a stage."""
        names = [item.name for item in stage.iterators]
        if name not in names:
            raise self.error(f"there is no iterator '{name}'; stage '{stage.name}' has {', '.join(names) or 'none'}")
        return names.index(name)


def _names(state: State) -> str:
    return ", ".join(stage.name for stage in state.stages)


def step_from_json(data: Sequence[Any]) -> Step:
    """Read a step back; raises ScheduleError for an unknown kind and for fields of a wrong number or type."""
    if not isinstance(data, (list, tuple)):
        raise ScheduleError(f"a transform step is a list that begins with its kind, not {data!r}")
    if not data or not isinstance(data[0], str) or data[0] not in STEPS:
        raise ScheduleError(f"unknown transform step {data[0] if data else data!r}; known are {', '.join(STEPS)}")
    cls = STEPS[data[0]]
    fields = dataclasses.fields(cls)
    if len(data) - 1 != len(fields):
        raise ScheduleError(f"step '{data[0]}' takes {len(fields)} fields but {len(data) - 1} are given: {list(data)}")
    return cls(*map(_tupled, data[1:]))


@cache
def _field_types(cls: type[Step]) -> dict[str, Any]:
    return get_type_hints(cls)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type: a class, a union, or a tuple of such."""
    arguments = get_args(hint)
    if get_origin(hint) is not tuple:
        return any(type(value) is kind for kind in (arguments or (hint,)))
    if not isinstance(value, tuple):
        return False
    if arguments[-1] is Ellipsis:
        return all(_fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(_fits, value, arguments))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        raise ScheduleError(f"a step with an open decision ({value}) cannot be written; concretise the sketch first")
    return value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value
