"""The runner `simulated`: a model of a CPU instead of a CPU, for studies of algorithms and for tests.

It answers in milliseconds, needs neither LLVM nor the machine that the target describes, and gives the same answer to the same
program always. The answers scatter by a few percent like those of a real machine; the scatter of a program follows from the
seed in `MeasureOptions.run` and from the program, so it does not depend on what was measured before.

    with create_measurer("simulated", target=target, threads=8) as measurer:
        [result] = measurer.measure([MeasureInput(key, dag, steps, target, threads=8)])
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from ansor_py.errors import AnsorError
from ansor_py.measure.build import error_text
from ansor_py.measure.interface import MeasureInput, MeasureOptions, Measurer, measurer
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.virtual import VirtualMeasurer

if TYPE_CHECKING:
    from ansor_py.target import Target

# Standard deviations of the logarithms: what the model does not know of a program, and the scatter of its repeats.
PROGRAM_SCATTER, REPEAT_SCATTER = 0.03, 0.005
REPEATS = 3


class SimulatedMeasurer(VirtualMeasurer):
    """Answers from the model in `cpu_simulation.py`, with scatter."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def answer(self, program: MeasureInput) -> MeasureResult:
        """Simulated seconds; what cannot be lowered fails as it does in a real build."""
        from ansor_py.measure.cpu_simulation import simulate  # runners of real programs do without

        try:
            seconds = simulate(program.dag, program.steps, program.target, program.threads)
        except AnsorError as error:
            return MeasureResult(error="build", error_text=error_text(error), error_stage="build")
        rng = np.random.default_rng([self._seed, _fingerprint(program)])
        seconds *= float(np.exp(PROGRAM_SCATTER * rng.standard_normal()))
        costs = tuple(float(f"{seconds * scatter:.6g}") for scatter in np.exp(REPEAT_SCATTER * rng.standard_normal(REPEATS)))
        if program.cut_seconds is not None and min(costs) > program.cut_seconds:
            text = f"stopped by the abort flag after {program.cut_seconds * 1e3:.3g} ms of one call"
            return MeasureResult((program.cut_seconds,), "cut", text, "time")
        return MeasureResult(costs)


def _fingerprint(program: MeasureInput) -> int:
    """A number that follows from the program alone, in every process."""
    steps = [step.to_json() for step in program.steps]
    text = json.dumps([program.workload_key, str(program.target), program.threads, steps])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@measurer("simulated", virtual=True)
def simulated_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer for any target, on any machine."""
    return SimulatedMeasurer(options.run.seed)
