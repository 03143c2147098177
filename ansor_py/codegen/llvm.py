"""From LLVM IR text to object code, through llvmlite.

The emitter writes a whole module as text; this file parses and verifies it, simplifies each function (LLVM's O2 function
simplification), and emits an ELF object as bytes. They can be stored, sent to another process, and loaded by
`ansor_py.codegen.jit` in 2-5 ms.

Where loops carry values in registers (register tiles; the emitter says so by the attribute REGISTER_LOOPS) LLVM's loop strength
reduction is off. It takes a third to two thirds of code generation there and moves address arithmetic into registers that
accumulators need. (The simplification of such functions is as dear, and is needed: without all of it but the combination of
instructions 12 of 200 good programs took 1.2 to 2.8 times as long.)

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

REGISTER_LOOPS = "loops-carry-registers"  # attribute of a function whose loops carry values in registers
_REMEMBERED = 64  # modules
_MESSAGE_LINES = 4  # of an LLVM message, enough to see the instruction it is about


@dataclass(frozen=True)
class ObjectCode:
    """Relocatable machine code (an ELF object) and the seconds spent on `parse`, `passes` and `code_generation`; none if it was
    remembered."""

    code: bytes
    phases: Mapping[str, float] = field(default_factory=dict)


def compile_module(ir_text: str, target: Target) -> ObjectCode:
    """Compile LLVM IR text for `target` into position-independent object code.

    The module needs neither a triple nor a data layout; both are set from the target. Raises CodegenError with the
    first lines of LLVM's message when the text does not parse or verify, or when LLVM cannot generate code for it.
    Programs of a search that differ in steps often have the same text: what was compiled last is remembered.
    """
    started = time.perf_counter()
    compiled = _compiled(ir_text, target)
    remembered = time.perf_counter() - started < sum(compiled.phases.values())
    return ObjectCode(compiled.code) if remembered else compiled


@functools.lru_cache(maxsize=_REMEMBERED)
def _compiled(ir_text: str, target: Target) -> ObjectCode:
    machine = target_machine(target)
    started = time.perf_counter()
    module = _parse(ir_text, machine)
    parsed = time.perf_counter()
    _optimise(module, machine)
    optimised = time.perf_counter()
    try:
        with _code_generation(module, target):
            code = bytes(machine.emit_object(module))
    except RuntimeError as error:
        raise _code_error("LLVM cannot generate code for the module", error) from error
    done = time.perf_counter()
    phases = {"parse": parsed - started, "passes": optimised - parsed, "code_generation": done - optimised}
    return ObjectCode(code, phases)


def forget_modules() -> None:
    """Forget what was compiled, for studies that time builds."""
    _compiled.cache_clear()


def emit_assembly(ir_text: str, target: Target) -> str:
    """The optimised module as assembly text of the target, for inspection; the same pipeline as `compile_module`."""
    machine = target_machine(target)
    module = _parse(ir_text, machine)
    _optimise(module, machine)
    with _code_generation(module, target):
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


def _carries_registers(function: Any) -> bool:
    return any(REGISTER_LOOPS.encode() in attribute for attribute in function.attributes)


@contextmanager
def _code_generation(module: Any, target: Target) -> Iterator[None]:
    """LLVM's options while code is generated for the module.

    They are no options of a machine or function, only of the process: for others in it, they are as before again.
    """
    scheduling = target.overwrites_operands
    reduction = not any(_carries_registers(function) for function in module.functions)
    _set_options(scheduling, reduction)
    try:
        yield
    finally:
        _set_options(True, True)


def _set_options(scheduling: bool, strength_reduction: bool) -> None:
    llvm.set_option("ansor-py", f"-enable-misched={'true' if scheduling else 'false'}")
    llvm.set_option("ansor-py", f"-disable-lsr={'false' if strength_reduction else 'true'}")


def _code_error(what: str, error: RuntimeError) -> CodegenError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return CodegenError(f"{what}: " + "\n".join(lines[:_MESSAGE_LINES]))
