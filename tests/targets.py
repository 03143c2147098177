"""The CPUs that tests are run for: four that tests of structure name, and those on which this host can execute kernels.

    @pytest.mark.parametrize("target", structure_targets("cores=2"))     # sse2, avx2, avx512, neon: nothing is executed
    @pytest.mark.parametrize("target", executed_targets("cores=2"))      # host, and the host cut down to less

A test that names no target means none. `make test` ends with the number of tests that ran for each.
"""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from ansor_py.target import Target

FOUR_TARGETS = {
    "sse2": "x86-64",
    "avx2": "x86-64 cpu=haswell",
    "avx512": "x86-64 cpu=skylake-avx512",
    "neon": "aarch64 cpu=neoverse-n1",
}
# What a host with wider vectors can be cut down to, by the bytes of a vector.
CUT_DOWN = {"host-avx2": ("cpu=haswell", 32), "host-sse2": ("cpu=x86-64", 16)}


def four_targets(words: str = "") -> dict[str, Target]:
    """The four targets by name, with further words of target text such as `cores=2`."""
    return {name: Target.parse(f"{text} {words}") for name, text in FOUR_TARGETS.items()}


def host_targets(words: str = "") -> dict[str, Target]:
    """This host, and this host cut down to the narrower vectors of its architecture."""
    host = Target.parse(f"host {words}")
    smaller = {
        name: Target.parse(f"host {text} {words}")
        for name, (text, vector_bytes) in CUT_DOWN.items()
        if host.architecture == "x86-64" and vector_bytes < host.vector_bytes
    }
    return {"host": host, **smaller}


def structure_targets(words: str = "") -> list[ParameterSet]:
    """Parameters for a test of structure."""
    return _parameters(four_targets(words))


def executed_targets(words: str = "") -> list[ParameterSet]:
    """Parameters for a test that executes kernels."""
    return _parameters(host_targets(words))


def _parameters(targets: dict[str, Target]) -> list[ParameterSet]:
    return [pytest.param(target, id=name, marks=pytest.mark.runs_for(name)) for name, target in targets.items()]
