"""From LLVM IR text to object code, through llvmlite.

The emitter writes a whole module as text; this file parses and verifies it, simplifies each function (LLVM's O2 function
simplification), and emits an ELF object as bytes. They can be stored, sent to another process, and loaded by
`ansor_py.codegen.jit` in 2-5 ms.

Instructions stay in the order in which they are emitted: LLVM's machine scheduler is off where an instruction has a destination
of its own. It moves loads of several steps of an unrolled tile before the first one, and then spills accumulators that fitted
the registers, which takes up to twice as long; cores of today find the order by themselves. (Where instructions overwrite
an operand, as on SSE2, its order needs fewer copies.)

The module passes that follow in LLVM's own O2 and O3 are left out: loop unrolling and vectorisation would undo a schedule,
and the others, which clean up after them, move address arithmetic so that padded convolutions run up to 30 % slower.

LLVM can end the process on an inconsistent target or on malformed IR that still parses, so untrusted programs
are compiled in a child process (the builders of `ansor_py.measure`).

    code = compile_module("define i32 @one() { ret i32 1 }", Target.detect())
    len(code.code), code.phases["parse"]
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import llvmlite.binding as llvm

from ansor_py.errors import CodegenError
from ansor_py.target import Target

_MESSAGE_LINES = 4  # of an LLVM message, enough to see the instruction it is about


@dataclass(frozen=True)
class ObjectCode:
    """Relocatable machine code (an ELF object) and the seconds spent on `parse`, `passes` and `code_generation`."""

    code: bytes
    phases: Mapping[str, float] = field(default_factory=dict)


def compile_module(ir_text: str, target: Target) -> ObjectCode:
    """Compile LLVM IR text for `target` into position-independent object code.

    The module needs neither a triple nor a data layout; both are set from the target. Raises CodegenError with the
    first lines of LLVM's message when the text does not parse or verify, or when LLVM cannot generate code for it.
    """
    machine = target_machine(target)
    started = time.perf_counter()
    module = _parse(ir_text, machine)
    parsed = time.perf_counter()
    _optimise(module, machine)
    optimised = time.perf_counter()
    try:
        with _scheduler(target):
            code = bytes(machine.emit_object(module))
    except RuntimeError as error:
        raise _code_error("LLVM cannot generate code for the module", error) from error
    done = time.perf_counter()
    phases = {"parse": parsed - started, "passes": optimised - parsed, "code_generation": done - optimised}
    return ObjectCode(code, phases)


def emit_assembly(ir_text: str, target: Target) -> str:
    """The optimised module as assembly text of the target, for inspection; the same pipeline as `compile_module`."""
    machine = target_machine(target)
    module = _parse(ir_text, machine)
    _optimise(module, machine)
    with _scheduler(target):
        return str(machine.emit_assembly(module))


def emit_optimised_ir(ir_text: str, target: Target) -> str:
    """The module as LLVM IR text after the passes, for inspection."""
    machine = target_machine(target)
    module = _parse(ir_text, machine)
    _optimise(module, machine)
    return str(module)


def target_machine(target: Target) -> Any:
    """LLVM's target machine for a target; made once per process and (triple, CPU, features)."""
    foreign = target.architecture != Target.baseline().architecture  # its assembly can be inspected, not run
    return _machine(target.triple, target.cpu, target.llvm_features, target.abi, foreign)


def initialise_native() -> None:
    """Register LLVM's code generator and assembly printer of this machine; cheap after the first call."""
    _initialise_once()


@functools.cache
def _initialise_once() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # without it a module with inline assembly ends the process


@functools.cache
def _initialise_all_once() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.lru_cache(maxsize=8)
def _machine(triple: str, cpu: str, features: str, abi: str, foreign: bool) -> Any:
    _initialise_once()
    if foreign:
        _initialise_all_once()
    try:
        kind = llvm.Target.from_triple(triple)
        return kind.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small", abiname=abi)
    except RuntimeError as error:
        raise _code_error(f"LLVM has no target for triple '{triple}', cpu '{cpu}'", error) from error


def _parse(ir_text: str, machine: Any) -> Any:
    try:
        module = llvm.parse_assembly(ir_text)
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise _code_error("LLVM refuses the module", error) from error
    return module


def _optimise(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    passes = builder.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


@contextmanager
def _scheduler(target: Target) -> Iterator[None]:
    """LLVM has no such option of a machine or function, only one of the process: for others in it, it is as before again."""
    llvm.set_option("ansor-py", f"-enable-misched={'true' if target.overwrites_operands else 'false'}")
    try:
        yield
    finally:
        llvm.set_option("ansor-py", "-enable-misched=true")


def _code_error(what: str, error: RuntimeError) -> CodegenError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return CodegenError(f"{what}: " + "\n".join(lines[:_MESSAGE_LINES]))
