"""Denormals flushed to zero in the threads that run kernels, as instructions by architecture.

A denormal (subnormal) operand costs x86 cores more than a hundred cycles, and a network meets them where activations fade
out. A thread's mode is set before a kernel's loops and put back after them, so that the caller's own arithmetic keeps its own.

    mode = flush_denormals(text, target)       # before the loops
    restore_denormals(text, target, mode)      # after them
"""

from __future__ import annotations

from ansor_py.codegen.function_text import FunctionText
from ansor_py.target import Target

# x86-64, register MXCSR: flush-to-zero (results) and denormals-are-zero (operands).
_MXCSR_FLUSH = 0x8040
# AArch64, register FPCR: the bit FZ, operands and results.
_FPCR_FLUSH = 1 << 24


def flush_denormals(text: FunctionText, target: Target) -> str:
    """Emit code that makes this thread flush denormals; returns what `restore_denormals` needs.

    Nothing is emitted where the architecture has no such mode: its denormals are computed as IEEE 754 says.
    """
    if target.architecture == "x86-64":
        old, new = text.emit("alloca i32"), text.emit("alloca i32")
        text.call("void", "llvm.x86.sse.stmxcsr", f"ptr {old}", "ptr")
        mode = text.emit(f"or i32 {text.emit(f'load i32, ptr {old}')}, {_MXCSR_FLUSH}")
        text.do(f"store i32 {mode}, ptr {new}")
        text.call("void", "llvm.x86.sse.ldmxcsr", f"ptr {new}", "ptr")
        return old
    if target.architecture == "aarch64":
        old = text.call("i64", "llvm.aarch64.get.fpcr", "", "")
        text.call("void", "llvm.aarch64.set.fpcr", f"i64 {text.emit(f'or i64 {old}, {_FPCR_FLUSH}')}", "i64")
        return old
    return ""


def restore_denormals(text: FunctionText, target: Target, mode: str) -> None:
    """Emit code that puts the thread's mode back as `flush_denormals` found it."""
    if target.architecture == "x86-64":
        text.call("void", "llvm.x86.sse.ldmxcsr", f"ptr {mode}", "ptr")
    elif target.architecture == "aarch64":
        text.call("void", "llvm.aarch64.set.fpcr", f"i64 {mode}", "i64")
