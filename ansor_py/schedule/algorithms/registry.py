"""What an algorithm is: another way to compute what a stage computes, written as tensor expressions.

It is a function from the stage's tensor to an equal tensor, or to None where it does not apply. What it returns may rest on new
tensors, which become stages like all others: they are tiled, packed, vectorised and fused by the same rules. A choice of
algorithm is a step of the schedule (`UseAlgorithm`), and a sketch rule (`choose_algorithm`) offers it.

A new one is a function in a file of its own, imported where its neighbours are, or anywhere in a user's program:

    @algorithm("reversed_sum")
    def reversed_sum(tensor: Tensor) -> Tensor | None: ...

An `exact` one orders the operations anew and does nothing else, so that the result is the same up to rounding of a sum. One
that is not, such as Winograd's, is admitted where the user said `math="fast"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from ansor_py.errors import OptionError, ScheduleError
from ansor_py.te.tensor import Tensor

Build = Callable[[Tensor], Tensor | None]
# Which algorithms are admitted: those that do no more than order operations anew, or all.
MATH = ("exact", "fast")


@dataclass(frozen=True)
class Algorithm:
    """`build` makes of a stage's tensor an equal one, of the same shape and dtype, or None where it does not apply."""

    name: str
    exact: bool
    build: Build

    def built(self, tensor: Tensor) -> Tensor | None:
        """What computes the tensor by this algorithm; the same object whenever it is asked for the same tensor.

        Raises ScheduleError for an algorithm that makes something of another shape or dtype.
        """
        result = _built(self.build, tensor)
        if result is not None and (result.shape, result.dtype) != (tensor.shape, tensor.dtype):
            raise ScheduleError(
                f"algorithm '{self.name}' makes {result.dtype}{list(result.shape)} of stage '{tensor.name}', which is "
                f"{tensor.dtype}{list(tensor.shape)}; it must return a tensor of the same shape and dtype"
            )
        return result


ALGORITHMS: dict[str, Algorithm] = {}


def check_math(math: str) -> None:
    """Raise OptionError for a word that does not say which algorithms are admitted."""
    if math not in MATH:
        raise OptionError(f"math is one of {', '.join(MATH)}, not {math!r:.40}")


def admitted(math: str) -> list[Algorithm]:
    """The registered algorithms that may be used."""
    return [item for item in ALGORITHMS.values() if item.exact or math == "fast"]


def are_exact(names: Iterable[str]) -> bool:
    """Whether none of the algorithms named has larger rounding errors than the definition; unknown ones may have them."""
    return all(name in ALGORITHMS and ALGORITHMS[name].exact for name in names)


def algorithm(name: str, exact: bool = True) -> Callable[[Build], Build]:
    """Register a function as an algorithm under the name that steps call it by; a later one of the same name replaces it."""

    def register(build: Build) -> Build:
        ALGORITHMS[name] = Algorithm(name, exact, build)
        return build

    return register


@lru_cache(maxsize=512)
def _built(build: Build, tensor: Tensor) -> Tensor | None:
    return build(tensor)
