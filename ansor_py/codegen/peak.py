"""What the machine can do: the peak rate of fused multiply-adds, and the speed of copying memory.

Both are measured with generated kernels through the path that tuned kernels take (LLVM, LLJIT, the thread pool, the
native timer), so they are the yardstick for a kernel's GFLOP/s on the same target and threads.

    measure_peak(Target.detect(), threads=1)               # float32 GFLOP/s of independent vector FMAs
    measure_copy_bandwidth(Target.detect(), threads=2)     # GB/s, bytes read and bytes written both counted
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.memory import aligned_array, buffer_table
from ansor_py.codegen.parallel_runtime import PARALLEL
from ansor_py.codegen.thread_pool import load_kernels
from ansor_py.codegen.timing import measure_kernel
from ansor_py.codegen.vector_operations import Vector
from ansor_py.errors import CodegenError, MeasureError

if TYPE_CHECKING:
    from ansor_py.target import Target

_ITERATIONS = 50_000
_ROUNDS = 4  # multiply-adds of every chain in one iteration
_STREAM_STEPS = 4  # vectors of every stream in one iteration
_SMALLEST_COPY, _LARGEST_COPY = 64 << 20, 256 << 20

# The kernel ABI around a body of one thread, which does not share its work: the parallel loop has an iteration a thread.
_KERNEL_IR = """
declare void @PARALLEL(ptr, ptr, i64, i32)
{declarations}
define internal void @share(ptr %buffers, i64 %thread) noinline {{
{body}
}}
define internal void @body(ptr %buffers, i64 %low, i64 %high, i64 %participant) noinline {{
entry:
  br label %loop
loop:
  %thread = phi i64 [ %low, %entry ], [ %next, %loop ]
  call void @share(ptr %buffers, i64 %thread)
  %next = add i64 %thread, 1
  %more = icmp ult i64 %next, %high
  br i1 %more, label %loop, label %done
done:
  ret void
}}
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {{
  %iterations = zext i32 %threads to i64
  call void @PARALLEL(ptr @body, ptr %buffers, i64 %iterations, i32 %threads)
  ret i32 0
}}
""".replace("@PARALLEL", f"@{PARALLEL}")


def measure_peak(target: Target, threads: int = 1, seconds: float = 0.2) -> float:
    """float32 GFLOP/s of `threads` threads that do nothing but independent vector FMAs; an FMA counts as 2.

    Spends about `seconds`; the fastest block counts. Raises CodegenError if `threads` < 1.
    """
    chains = peak_chains(target)
    lanes = target.vector_bytes // 4
    factors = np.array([0.5, 1.0], np.float32)  # every chain converges to 2: no overflow, no subnormals
    best = _best_seconds(peak_ir(target), target, [factors, _sinks(threads)], threads, seconds)
    return threads * _ITERATIONS * _ROUNDS * chains * lanes * 2 / best / 1e9


def measure_copy_bandwidth(target: Target, threads: int = 1, size: int | None = None, seconds: float = 0.3) -> float:
    """GB/s (1e9 bytes read or written a second) of copying `size` bytes, by default four times the last-level cache.

    The default lies between 64 and 256 MiB. Raises CodegenError if `threads` < 1.
    """
    wanted = min(max(4 * max(target.l3, target.l2), _SMALLEST_COPY), _LARGEST_COPY) if size is None else size
    share = max(wanted // target.vector_bytes // max(threads, 1) // _STREAM_STEPS, 1) * _STREAM_STEPS
    count = share * max(threads, 1) * target.vector_bytes
    source, copy = aligned_array((count,), "uint8"), aligned_array((count,), "uint8")
    source[:], copy[:] = 1, 0
    best = _best_seconds(copy_ir(target), target, [source, copy, np.array([share], np.int64)], threads, seconds)
    if copy[-1] != 1:
        raise MeasureError(f"the copy kernel did not reach the end of its {count} bytes with {threads} threads")
    return 2 * count / best / 1e9


def peak_chains(target: Target) -> int:
    """Independent accumulators: enough to hide the latency of two FMA units, few enough to stay in registers."""
    return min(target.vector_registers - 4, 24)


def peak_ir(target: Target) -> str:
    """A kernel whose threads run `peak_chains` independent chains of float32 FMAs."""
    text = FunctionText(set())
    v = Vector(f"<{target.vector_bytes // 4} x float>", text)
    factors = text.emit("load ptr, ptr %buffers")
    factor, term = (_splat(v, text.emit(f"getelementptr float, ptr {factors}, i64 {place}")) for place in (0, 1))
    chains = [(v.type, v.constant(number)) for number in range(peak_chains(target))]
    with text.loop("0", str(_ITERATIONS), chains, certain=True) as loop:
        for _ in range(_ROUNDS):
            loop.updated = [v.multiply_add(value, factor, term) for value in loop.updated]
    total = loop.results[0]
    for value in loop.results[1:]:
        total = v.add(total, value)
    sinks = text.emit(f"load ptr, ptr {text.emit('getelementptr ptr, ptr %buffers, i64 1')}")
    sink = text.emit(f"getelementptr [64 x i8], ptr {sinks}, i64 %thread")  # 64 bytes a thread
    text.do(f"store {v.type} {total}, ptr {sink}, align 4")
    return _kernel_ir(text)


def copy_ir(target: Target) -> str:
    """A kernel that copies buffer 0 to buffer 1, every thread `buffers[2][0]` vectors of its own."""
    return stream_ir(target, 1, 1)


def stream_ir(target: Target, reads: int, writes: int) -> str:
    """A kernel that reads some streams from end to end and writes others, the fastest loop that memory allows.

    Buffers: those read, those written, and one int64, the number of vectors of every stream that are a thread's own.
    Every vector that is written is the sum of those read at its place. Without a stream to write, one buffer of 64 bytes a
    thread takes the sum of everything that was read.
    """
    vector, size = f"<{target.vector_bytes // 4} x float>", target.vector_bytes
    text = FunctionText(set())
    places = [text.emit(f"getelementptr ptr, ptr %buffers, i64 {number}") for number in range(reads + max(writes, 1) + 1)]
    pointers = [text.emit(f"load ptr, ptr {place}") for place in places]
    share = text.emit(f"load i64, ptr {pointers.pop()}")
    begin = text.emit(f"mul i64 %thread, {share}")
    end = text.emit(f"add i64 {begin}, {share}")
    carried = [] if writes else [(vector, "zeroinitializer")] * _STREAM_STEPS
    with text.loop(begin, end, carried, _STREAM_STEPS, certain=True) as loop:
        for step in range(_STREAM_STEPS):
            at = text.emit(f"add i64 {loop.index}, {step}")
            addresses = [text.emit(f"getelementptr {vector}, ptr {pointer}, i64 {at}") for pointer in pointers]
            values = [text.emit(f"load {vector}, ptr {address}, align {size}") for address in addresses[:reads]]
            total = values[0] if values else "zeroinitializer"
            for value in values[1:]:
                total = text.emit(f"fadd {vector} {total}, {value}")
            for address in addresses[reads:] if writes else []:
                text.do(f"store {vector} {total}, ptr {address}, align {size}")
            if not writes:
                loop.updated[step] = text.emit(f"fadd {vector} {loop.carried[step]}, {total}")
    if not writes:
        total = loop.results[0]
        for other in loop.results[1:]:
            total = text.emit(f"fadd {vector} {total}, {other}")
        sink = text.emit(f"getelementptr [64 x i8], ptr {pointers[reads]}, i64 %thread")
        text.do(f"store {vector} {total}, ptr {sink}, align 4")
    return _kernel_ir(text)


def _splat(v: Vector, address: str) -> str:
    """The float at an address, in all lanes."""
    one = v.emit(f"load float, ptr {address}")
    first = v.emit(f"insertelement {v.type} poison, float {one}, i64 0")
    return v.emit(f"shufflevector {v.type} {first}, {v.type} poison, <{v.lanes} x i32> zeroinitializer")


def _kernel_ir(text: FunctionText) -> str:
    declarations = "\n".join(sorted(text.declarations))
    return _KERNEL_IR.format(declarations=declarations, body="\n".join(["entry:", *text.written(), "  ret void"]))


def _sinks(threads: int) -> np.ndarray:
    return aligned_array((max(threads, 1), 16), "float32")


def _best_seconds(ir_text: str, target: Target, arrays: Sequence[np.ndarray], threads: int, seconds: float) -> float:
    if threads < 1:
        raise CodegenError(f"a kernel runs on at least one thread, not {threads}")
    loaded = load_kernels([compile_module(ir_text, target).code], ["kernel"])
    table = buffer_table(arrays)
    timing = measure_kernel(
        loaded.address("kernel"), table.ctypes.data, 0, threads, budget_seconds=seconds, max_repeats=max(int(seconds / 6e-3), 1)
    )
    return min(timing.seconds)
