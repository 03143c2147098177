"""The operators that can be named in text, such as `conv2d:1,64,56,56,64,3,stride=1,pad=1`.

A workload builder is an ordinary function that makes placeholders and returns the output tensor; its signature is the
syntax of the text. Positional parameters are the extents, a `*shape` takes any number of them, and keyword-only
parameters with an integer default are options.

    @operator("matmul", example="matmul:512,512,512")
    def matmul_workload(n: int, m: int, k: int) -> Tensor:
        "Matrix product of A[n, k] and B[k, m]."
        ...

    from_spec("matmul:512,512,512")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ansor_py.errors import OptionError, SizeError
from ansor_py.te.tensor import MOST_ITERATIONS, Tensor

Builder = Callable[..., Tensor]


@dataclass(frozen=True)
class Operator:
    """An operator by name: how it is written, what it does, and the function that builds it."""

    name: str
    example: str
    help: str
    build: Builder
    extents: tuple[str, ...]
    variadic: bool
    options: Mapping[str, int]

    @property
    def signature(self) -> str:
        """The syntax, for messages: `conv2d:n,c,h,w,f,k[,stride=1][,pad=0]`."""
        extents = ",".join(self.extents) + (",..." if self.variadic else "")
        return f"{self.name}:{extents}" + "".join(f"[,{name}={default}]" for name, default in self.options.items())


_OPERATORS: dict[str, Operator] = {}


def operator(name: str, example: str, summary: str | None = None) -> Callable[[Builder], Builder]:
    """Register a workload builder under `name`; its docstring (or `summary`) is the help text."""

    def register(build: Builder) -> Builder:
        parameters = inspect.signature(build).parameters.values()
        extents = tuple(p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY)
        variadic = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        text = summary or (inspect.getdoc(build) or name).splitlines()[0]
        _OPERATORS[name] = Operator(name, example, text, build, extents, variadic, MappingProxyType(options))
        return build

    return register


def operators() -> Mapping[str, Operator]:
    """All operators that can be named in text, by name."""
    return MappingProxyType(dict(sorted(_OPERATORS.items())))


def build_operator(name: str, extents: tuple[int, ...], options: Mapping[str, int] | None = None) -> Tensor:
    """The operator `name` on placeholders of the given extents (elements).

    Raises `OptionError` for an unknown operator, a wrong number of extents, an unknown option or an extent below one.
    """
    known = _OPERATORS.get(name)
    if known is None:
        raise OptionError(f"unknown operator '{name}'; known are {', '.join(operators())}")
    enough = len(extents) >= 1 if known.variadic else len(extents) == len(known.extents)
    if not enough:
        raise OptionError(f"operator '{name}' was given {len(extents)} extents; expected {known.signature}")
    if any(extent < 1 for extent in extents):
        raise OptionError(f"operator '{name}': extents must be at least 1, got {', '.join(map(str, extents))}")
    for option in options or {}:
        if option not in known.options:
            raise OptionError(f"operator '{name}' has no option '{option}'; expected {known.signature}")
    return known.build(*extents, **(options or {}))


def from_spec(text: str) -> Tensor:
    """The output tensor of an operator written as `name:extent,extent,...,option=value,...`.

    Raises `OptionError` for nonsense, `ExpressionError` where the operator refuses the shapes, `SizeError` for too large ones.
    """
    name, _, rest = text.strip().partition(":")
    extents: list[int] = []
    options: dict[str, int] = {}
    for word in filter(None, (word.strip() for word in rest.split(","))):
        key, equals, value = word.rpartition("=")
        if not equals and options:
            raise OptionError(f"operator '{text}': the extent '{word}' follows an option; extents come first")
        if key in options:
            raise OptionError(f"operator '{text}': the option '{key}' is given twice")
        try:
            number = int(value)
        except ValueError:
            raise OptionError(f"operator '{text[:80]}': '{value[:40]}' is not a whole number") from None
        if abs(number) > MOST_ITERATIONS:
            raise SizeError(f"operator '{text[:80]}': {value[:40]} is too large; nothing has more than 2^60 elements")
        if equals:
            options[key] = number
        else:
            extents.append(number)
    try:
        return build_operator(name, tuple(extents), options)
    except SizeError as error:
        raise SizeError(f"operator '{text[:80]}': {error}") from error
