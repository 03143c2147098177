"""Builders that go wrong in a worker; a module of its own, because workers import it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ansor_py.codegen.kernel import CompiledKernel
from ansor_py.graph.kernel_builds import build_named
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import Step
from ansor_py.target import Target


def crash_for_bad(symbol: str, dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> CompiledKernel:
    """Ends the process for a symbol that begins with `bad`, as LLVM does on malformed code."""
    if symbol.startswith("bad"):
        os.abort()
    return build_named(symbol, dag, steps, target, threads)
