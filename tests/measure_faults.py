"""Builders of programs with known faults, for the tests of measuring: LLVM IR written by hand.

A "program" here is one word in place of the steps; the task is `B[i] = 2 * A[i]` on 100 elements. What comes of the words is in
`PROGRAM_FAULTS`, which docs/faults.md lists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansor_py.codegen.kernel import CompiledKernel, buffer_specs
from ansor_py.codegen.llvm import compile_module
from ansor_py.measure import MeasureOptions, Measurer, create_measurer
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.target import Target
from ansor_py.te.tensor import compute, placeholder

ELEMENTS = 100


@dataclass(frozen=True)
class ProgramFault:
    """What a program does wrong, and the error of its trial. A measurer in the same process survives what is `harmless`."""

    title: str
    error: str
    stage: str
    harmless: bool = True


PROGRAM_FAULTS = {
    "build-error": ProgramFault("cannot be built", "build", "build"),
    "bad-object": ProgramFault("is no object code", "run", "load"),
    "missing-symbol": ProgramFault("calls a function that does not exist", "run", "load"),
    "status": ProgramFault("ends with a status", "run", "warm-up"),
    "wrong": ProgramFault("computes something else", "wrong-result", "check"),
    "incomplete": ProgramFault("leaves an element out", "wrong-result", "check"),
    "overrun": ProgramFault("writes behind its output", "out-of-bounds", "check"),
    "underrun": ProgramFault("writes before its output", "out-of-bounds", "check"),
    "workspace": ProgramFault("writes before its workspace", "out-of-bounds", "check"),
    "corrupts-input": ProgramFault("writes into its input", "wrong-result", "check"),
    "crash": ProgramFault("reads an address that is not there", "crash", "run", harmless=False),
    "trap": ProgramFault("executes an illegal instruction", "crash", "run", harmless=False),
    "build-crash": ProgramFault("makes the compiler abort", "crash", "build", harmless=False),
    "build-exit": ProgramFault("makes the compiler end its process", "crash", "build", harmless=False),
    "hang": ProgramFault("never ends", "run-timeout", "run", harmless=False),
    "build-hang": ProgramFault("makes the compiler run for ever", "build-timeout", "build", harmless=False),
}


_LOOP = """
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {{
entry:
  %out_at = getelementptr ptr, ptr %buffers, i64 1
  %in = load ptr, ptr %buffers
  %out = load ptr, ptr %out_at
  {prologue}
  br label %loop
loop:
  %i = phi i64 [ {first}, %entry ], [ %next, %loop ]
  %from = getelementptr float, ptr %in, i64 %i
  %value = load float, ptr %from
  %result = fmul float %value, {factor}
  %to = getelementptr float, ptr %out, i64 %i
  store float %result, ptr %to
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {last}
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}}
"""

_SPIN = """
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {
entry:
  br label %loop
loop:
  %flag = load volatile i32, ptr %abort
  %up = icmp ne i32 %flag, 0
  br i1 %up, label %done, label %loop
done:
  ret i32 1
}
"""

_DEAF = """
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {
entry:
  br label %loop
loop:
  %flag = load volatile i32, ptr %abort
  br label %loop
}
"""


_UNRESOLVED = """
declare i32 @nobody_has_this()
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {
  %status = call i32 @nobody_has_this()
  ret i32 %status
}
"""


def _ir(word: str) -> str:
    parts: dict[str, Any] = {"first": 0, "last": ELEMENTS, "factor": "2.0", "prologue": ""}
    match word:
        case "good":
            pass
        case "wrong":
            parts["factor"] = "2.5"
        case "incomplete":
            parts["last"] = ELEMENTS - 1
        case "overrun":
            parts["last"] = ELEMENTS + 2
        case "underrun":
            parts["prologue"] = "%before = getelementptr i8, ptr %out, i64 -4\n  store i32 7, ptr %before"
        case "workspace":
            parts["prologue"] = "%before = getelementptr i8, ptr %workspace, i64 -4\n  store i32 7, ptr %before"
        case "corrupts-input":
            parts["prologue"] = "store float 5.0, ptr %in"
        case "crash":
            parts["prologue"] = "store volatile i32 7, ptr inttoptr (i64 4096 to ptr)"  # a page that is never mapped
        case "trap":
            parts["prologue"] = "call void @llvm.trap()"
        case "status":
            return "define i32 @kernel(ptr %b, ptr %w, i32 %t, ptr %a) { ret i32 3 }"
        case "spin":
            return _SPIN
        case "hang":
            return _DEAF
        case "missing-symbol":
            return _UNRESOLVED
        case _:
            raise ValueError(f"no such program '{word}'")
    return "declare void @llvm.trap()\n" + _LOOP.format(**parts)


def build_word(dag: ComputeDAG, steps: Sequence[Any], target: Target, threads: int) -> CompiledKernel:
    word = str(steps[0])
    match word:
        case "build-error":
            raise ValueError("this program cannot be built")
        case "build-crash":
            os.abort()
        case "build-hang":
            time.sleep(3600)
        case "build-exit":
            raise SystemExit(3)
        case "bad-object":
            return CompiledKernel(b"rubbish", "kernel", 0, buffer_specs(dag), "cpu", threads, {})
    code = compile_module(_ir(word), target)
    return CompiledKernel(code.code, "kernel", 64, buffer_specs(dag), "cpu", threads, {"compile": sum(code.phases.values())})


def build_good(dag: ComputeDAG, steps: Sequence[Any], target: Target, threads: int) -> CompiledKernel:
    return build_word(dag, ("good",), target, threads)


def build_crashing_reference(dag: ComputeDAG, steps: Sequence[Any], target: Target, threads: int) -> CompiledKernel:
    return build_word(dag, ("crash",), target, threads)


def build_failing_reference(dag: ComputeDAG, steps: Sequence[Any], target: Target, threads: int) -> CompiledKernel:
    raise ValueError("no reference today")


class MeasurerCache:
    """One measurer a kind, made on first use with the options given then, for one thread."""

    def __init__(self) -> None:
        self._made: dict[str, Measurer] = {}

    def get(self, kind: str, options: MeasureOptions) -> Measurer:
        if kind not in self._made:
            self._made[kind] = create_measurer(kind, target=Target.detect(), threads=1, options=options)
        return self._made[kind]

    def close(self, kind: str | None = None) -> None:
        for name in [kind] if kind is not None else list(self._made):
            self._made.pop(name).close()


def doubling_dag() -> ComputeDAG:
    source = placeholder((ELEMENTS,), name="A")
    return ComputeDAG.from_outputs(compute((ELEMENTS,), lambda i: source[i] * 2.0, name="B"))
