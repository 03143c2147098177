"""The exception types of ansor-py.

Every error that a user can cause is an `AnsorError`. Its message names the thing that is wrong and the remedy, so
that the command line can print it as one line and stop with exit status 2. Anything else that escapes is a defect.

    raise ScheduleError("split of stage 'C': there is no iterator 'k.3'; the stage has i, j, k")
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MOST_WORDS = 400  # characters of a message that is quoted


class AnsorError(Exception):
    """Base of all errors that are reported to the user as one line.

    `result` is what a search had measured when the error ended it, a `TuningResult`; None elsewhere.
    """

    result: Any = None

    def __str__(self) -> str:
        """One line, whatever names of a file, or messages of a library or a plug-in, are quoted in it."""
        return " ".join(super().__str__().split())


class AnsorWarning(UserWarning):
    """Something that the user should know and that is no error; the command line prints it as one line."""


class ExpressionError(AnsorError):
    """A tensor expression that has no meaning: wrong shapes, a nested reduction, an unknown dtype."""


class BroadcastError(ExpressionError):
    """Operands whose shapes cannot be broadcast together: no code could compute the expression."""


class ScheduleError(AnsorError):
    """An illegal transform step; the message names the step, the stage and the iterator."""


class LoweringError(AnsorError):
    """A state that cannot be turned into loops."""


class CodegenError(AnsorError):
    """LLVM refused a module, or a type or function has no translation."""


class MissingRuntimeError(AnsorError):
    """A shared library that a dependency needs is not installed."""


class TargetError(AnsorError):
    """A target text that cannot be parsed, or code that was compiled for another CPU."""


class ModelError(AnsorError):
    """A model file that cannot be read, or that holds something which cannot be compiled."""


class RefusedModelError(ModelError):
    """A model that is refused with and without fallback: it has no meaning, or one that nothing here computes rightly."""


class StaticInputError(ModelError):
    """An operator's input that has to be known when the model is compiled, but depends on what the model is fed with.

    `value` is the name of that input, `origins` are all values that it is computed from, as far as they are known.
    """

    def __init__(self, message: str, value: str) -> None:
        super().__init__(message)
        self.value = value
        self.origins: frozenset[str] = frozenset()


class ShapeConflictError(ModelError):
    """An operator that has no meaning for what it reads, by its expression and by the standard's inference."""


class FeedError(AnsorError):
    """Inputs given to a compiled model with a wrong name, shape or dtype."""


class MeasureError(AnsorError):
    """The measuring machinery itself failed (not a candidate program: that is a record with an error kind)."""


class RecordError(AnsorError):
    """A records file that cannot be used."""


class SizeError(AnsorError):
    """Something too large: for 64-bit addresses and counts, or for the memory of this machine."""


class OptionError(AnsorError):
    """A command-line or configuration value that makes no sense."""


class NoSpaceError(OptionError):
    """A policy that has no programs for a task, such as templates for an operator without one."""


class PlugInError(OptionError):
    """Code that was plugged in (a cost model, a policy, an objective, ...) failed or gave what it must not give."""


@contextmanager
def plug_in(what: str, *passing: type[Exception]) -> Iterator[None]:
    """Code that may be a user's own runs in the block: whatever it raises is a PlugInError that begins with `what`.

    Also a `sys.exit`, but not Ctrl-C, and no error that is `passing`. An error of this package speaks for itself, so that its
    message follows as it is.
    """
    passed: tuple[type[Exception], ...] = (PlugInError, *passing)
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):  # the latter ends this very generator
        raise
    except passed:
        raise
    except BaseException as error:  # a class of its own may derive from it, as that of a `sys.exit` does
        raise PlugInError(f"{what} failed{_place(error)}: {words_of_error(error)}") from error


def words_of_error(error: BaseException) -> str:
    """What an error of any code says, as one line of some length; its class goes first unless it is one of this package."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # `__str__` may be the user's own
        text = ""
    text = text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]} ..."
    name = type(error).__name__
    return text if isinstance(error, AnsorError) else f"{name}: {text}" if text else name


def _place(error: BaseException) -> str:
    """Where in the file of the plugged-in function an error arose, for messages; empty if it arose outside of it."""
    frames = traceback.extract_tb(error.__traceback__)[2:]  # after the guard's own and that of its block
    line = line_of_error(error, frames[0].filename) if frames else None
    return f" in {frames[0].filename}, line {line}" if line is not None else ""


def line_of_error(error: BaseException, file: str) -> int | None:
    """The innermost line of a file at which an error arose, for files of the user's; None if it arose elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
