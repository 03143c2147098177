"""How a measured program's output is judged: seeded inputs, and a comparison with the naive program's output.

Inputs are normal values of small magnitude, so that sums of any length stay near 1 and `exp` stays finite. Two programs of
one task sum in different orders; with random signs their difference grows with the root of the number of summands.

    tolerance = relative_tolerance(dag)
    fill_input(array, seed=0, position=0)
    difference(output, expected, tolerance)      # None, or a sentence about the worst element
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ansor_py.te.tensor import Compute

if TYPE_CHECKING:
    from ansor_py.schedule.dag import ComputeDAG

INPUT_SCALE = 0.1
_PART = 1 << 14  # elements that are compared at a time
INTEGER_LIMIT = 4  # integer inputs are 0 to 3, which is a valid index into nearly every axis
_EPSILONS = 64.0  # roundings and approximations of functions, in units of the float type's epsilon
_EPSILONS_OF_SUMS = 8.0
# Programs with algorithms that are not exact may differ by this share of the output's largest magnitude.
INEXACT_TOLERANCE = 1e-4


def relative_tolerance(dag: ComputeDAG) -> float:
    """Allowed difference relative to the larger of an element and the output's mean magnitude: (64 + 8 sqrt(n)) epsilon.

    n is the number of summands along the DAG, counting every reduction; epsilon is that of the least precise float type.
    """
    summands = 0
    for tensor in dag.tensors:
        if isinstance(tensor.op, Compute) and tensor.op.reduce_axes:
            summands += math.prod(axis.extent for axis in tensor.op.reduce_axes)
    floats = [np.finfo(tensor.dtype).eps for tensor in dag.tensors if tensor.dtype in ("float32", "float64")]
    return float(max(floats, default=0.0)) * (_EPSILONS + _EPSILONS_OF_SUMS * math.sqrt(summands))


def memory_to_measure(dag: ComputeDAG) -> dict[str, int]:
    """Bytes by what a runner needs them for: the buffers, the reference output, and all that the naive program keeps."""
    outputs = sum(tensor.bytes for tensor in dag.outputs)
    return {
        "inputs": sum(tensor.bytes for tensor in dag.inputs),
        "outputs": outputs,
        "reference outputs": outputs,
        "the naive program's intermediates": sum(tensor.bytes for tensor in dag.computed) - outputs,
    }


def fill_input(array: np.ndarray, seed: int, position: int) -> None:
    """Fill an input in place with values that depend on the seed, its position among the buffers and its shape only."""
    generator = np.random.default_rng([seed, position])
    if array.dtype == np.float32 or array.dtype == np.float64:
        generator.standard_normal(out=array, dtype=array.dtype.type)
        array *= INPUT_SCALE
    else:
        limit = 2 if array.dtype == np.bool_ else INTEGER_LIMIT
        array[...] = generator.integers(0, limit, array.shape)


def poison(array: np.ndarray) -> None:
    """Fill an output in place with a value that no program computes by accident: NaN, or a bit pattern."""
    if np.issubdtype(array.dtype, np.floating):
        array.fill(np.nan)
    else:
        array.view(np.uint8).fill(0x5A)


def largest_error(output: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two arrays of floats in units of the largest magnitude that is expected; of finite elements."""
    with np.errstate(all="ignore"):
        error, magnitude = np.abs(output - expected), np.abs(expected)
    finite = np.isfinite(error) & np.isfinite(magnitude)
    largest = float(magnitude[finite].max(initial=0.0))
    return float(error[finite].max(initial=0.0)) / largest if largest > 0 else 0.0


def _agree(output: np.ndarray, expected: np.ndarray, tolerance: float, of_largest: bool) -> bool:
    """Whether floats are near enough, as `difference` says, in parts that stay in a cache; False if one is not finite."""
    if not np.issubdtype(output.dtype, np.floating):
        return False
    found, wanted = output.reshape(-1), expected.reshape(-1)
    parts = [slice(start, start + _PART) for start in range(0, len(wanted), _PART)]
    magnitude, error = (np.empty(min(_PART, len(wanted)), wanted.dtype) for _ in range(2))
    reduce = np.max if of_largest else np.sum
    with np.errstate(all="ignore"):
        sizes = [float(reduce(np.abs(wanted[part], out=magnitude[: len(wanted[part])]))) for part in parts]
        typical = max(sizes) if of_largest else sum(sizes) / len(wanted)
        if not math.isfinite(typical):
            return False
        for part in parts:
            allowed, distance = magnitude[: len(wanted[part])], error[: len(wanted[part])]
            np.multiply(np.maximum(np.abs(wanted[part], out=allowed), typical, out=allowed), tolerance, out=allowed)
            np.abs(np.subtract(found[part], wanted[part], out=distance), out=distance)
            if not np.all(distance <= allowed):
                return False
    return True


def difference(output: np.ndarray, expected: np.ndarray, tolerance: float, of_largest: bool = False) -> str | None:
    """None if `output` agrees with `expected`, else a sentence that counts the wrong elements and shows the worst.

    The tolerance is relative to the larger of an element and the mean magnitude, or, if `of_largest`, to the largest one.
    Infinite and undefined values have to be in the same places. Integers have to be equal.
    """
    if output.size == 0 or _agree(output, expected, tolerance, of_largest):
        return None
    if not np.issubdtype(output.dtype, np.floating):
        wrong = output.view(np.uint8) != expected.view(np.uint8) if output.dtype == np.bool_ else output != expected
        excess = wrong.astype(np.float32)
    else:
        with np.errstate(all="ignore"):
            magnitude = np.abs(expected)
            finite = np.isfinite(magnitude)
            typical = float(magnitude.mean() if finite.all() else magnitude[finite].mean() if finite.any() else 0.0)
            if of_largest:
                typical = float(magnitude[finite].max(initial=0.0))
            excess = np.abs(output - expected) - tolerance * np.maximum(magnitude, typical)
            wrong = ~(excess <= 0)  # also where the difference is undefined
            if wrong.any():
                wrong &= ~((output == expected) | (np.isnan(output) & np.isnan(expected)))
    if not wrong.any():
        return None
    excess = np.where(np.isnan(excess), np.inf, excess)
    worst = np.unravel_index(int(np.argmax(np.where(wrong, excess, -np.inf))), output.shape)
    place = ", ".join(str(int(index)) for index in worst)
    return (
        f"{int(wrong.sum())} of {output.size} elements differ by more than {tolerance:.1e} (relative); "
        f"at [{place}] the program gives {output[worst]:.9g} and the reference {expected[worst]:.9g}"
    )
