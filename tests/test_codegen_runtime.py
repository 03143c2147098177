"""The runtime under generated code: compiling, loading, timing, aborting, guarded memory."""

from __future__ import annotations

import ctypes
import gc
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest

from ansor_py.codegen.jit import LoadedObject, load_object
from ansor_py.codegen.llvm import compile_module, emit_assembly
from ansor_py.codegen.memory import GuardedBuffer, aligned_array, buffer_table
from ansor_py.codegen.thread_pool import load_kernels
from ansor_py.codegen.timing import AbortFlag, evict, measure_kernel, time_kernel
from ansor_py.errors import CodegenError, MeasureError
from ansor_py.target import Target

# buffers[1][i] = 2 * buffers[0][i] for 1000 floats in parallel; buffers[2][0] counts the calls.
DOUBLE = """
declare void @ansor_parallel(ptr, ptr, i64, i32)
define internal void @body(ptr %buffers, i64 %begin, i64 %end, i64 %participant) {
entry:
  %x = load ptr, ptr %buffers
  %y.at = getelementptr ptr, ptr %buffers, i64 1
  %y = load ptr, ptr %y.at
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %from = getelementptr float, ptr %x, i64 %i
  %to = getelementptr float, ptr %y, i64 %i
  %value = load float, ptr %from
  %twice = fadd float %value, %value
  store float %twice, ptr %to
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {
  call void @ansor_parallel(ptr @body, ptr %buffers, i64 1000, i32 2)
  %count.at = getelementptr ptr, ptr %buffers, i64 2
  %counter = load ptr, ptr %count.at
  %count = load i64, ptr %counter
  %more = add i64 %count, 1
  store i64 %more, ptr %counter
  ret i32 0
}
"""
# Runs until the flag is raised: a kernel that is slow enough for every deadline.
ENDLESS = """
define i32 @endless(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {
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


def _load(ir_text: str, symbol: str) -> LoadedObject:
    return load_kernels([compile_module(ir_text, Target.baseline()).code], [symbol])


def _double_arguments() -> tuple[list[np.ndarray], np.ndarray]:
    arrays = [aligned_array((1000,), "float32"), aligned_array((1000,), "float32"), np.zeros(1, np.int64)]
    arrays[0][:] = np.arange(1000)
    return arrays, buffer_table(arrays)


def test_parallel_kernel_computes_and_is_timed() -> None:
    loaded = _load(DOUBLE, "kernel")
    arrays, table = _double_arguments()
    block = time_kernel(loaded.address("kernel"), table.ctypes.data, 0, threads=2, number=3)
    assert (block.status, block.completed) == (0, 3)
    assert block.seconds > 0
    np.testing.assert_array_equal(arrays[1], 2 * arrays[0])
    assert arrays[2][0] == 3


def test_measure_kernel_takes_blocks_of_many_calls() -> None:
    loaded = _load(DOUBLE, "kernel")
    arrays, table = _double_arguments()
    timing = measure_kernel(loaded.address("kernel"), table.ctypes.data, 0, 2, min_block_seconds=1e-3, budget_seconds=5.0)
    assert len(timing.seconds) == 5
    assert min(timing.seconds) * timing.number > 0.8e-3
    assert arrays[2][0] > 5 * timing.number  # the warm-up and the growing blocks come on top
    assert not timing.aborted


def test_budget_leaves_one_sample() -> None:
    loaded = _load(DOUBLE, "kernel")
    _, table = _double_arguments()
    timing = measure_kernel(loaded.address("kernel"), table.ctypes.data, 0, 2, min_block_seconds=1e-4, budget_seconds=0.0)
    assert len(timing.seconds) == 1


def test_cold_measurement_evicts_before_every_call() -> None:
    loaded = _load(DOUBLE, "kernel")
    arrays, table = _double_arguments()
    regions = [(array.ctypes.data, array.nbytes) for array in arrays]
    timing = measure_kernel(loaded.address("kernel"), table.ctypes.data, 0, 2, cold_regions=regions, budget_seconds=5.0)
    assert timing.number == 1
    assert len(timing.seconds) == 50
    assert arrays[2][0] == 51
    evict(regions)
    np.testing.assert_array_equal(arrays[1], 2 * arrays[0])


def test_abort_flag_cuts_a_long_kernel() -> None:
    loaded = _load(ENDLESS, "endless")
    flag = AbortFlag()
    with flag.deadline(0.05):
        timing = measure_kernel(loaded.address("endless"), 0, 0, 1, flag.pointer)
    assert timing.aborted
    assert timing.status == 1
    assert timing.seconds == ()
    assert 0.05 <= timing.lower_bound <= timing.elapsed
    assert not flag.raised


def test_deadline_counts_from_the_first_call() -> None:
    loaded = _load(ENDLESS, "endless")
    flag = AbortFlag()
    with flag.deadline(0.02):
        time.sleep(0.05)
        block = time_kernel(loaded.address("endless"), 0, 0, 1, flag.pointer)
    assert block.status == 1
    assert block.seconds >= 0.02


def test_deadline_not_reached_leaves_the_flag_down() -> None:
    flag = AbortFlag()
    with flag.deadline(30.0):
        assert not flag.raised


def test_abort_flag_is_an_int32_that_is_set_and_cleared() -> None:
    flag = AbortFlag()
    word = ctypes.c_int32.from_address(flag.pointer)
    states = [word.value]
    for change in (flag.set, flag.clear):
        change()
        states.append(word.value)
    assert states == [0, 1, 0]


def test_objects_of_one_library_share_a_load() -> None:
    texts = [f"define i32 @f{n}() {{ ret i32 {n} }}" for n in range(3)]
    loaded = load_object([compile_module(text, Target.baseline()).code for text in texts], ["f0", "f1", "f2"])
    values = [ctypes.CFUNCTYPE(ctypes.c_int32)(loaded.address(symbol))() for symbol in loaded.symbols]
    assert values == [0, 1, 2]


def test_many_loads_release_their_memory() -> None:
    text = "@table = internal global [4000000 x i8] zeroinitializer\ndefine ptr @f() { ret ptr @table }"
    code = compile_module(text, Target.baseline()).code

    def virtual_bytes() -> int:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[0]) * 4096

    load_object([code], ["f"])
    before = virtual_bytes()
    for _ in range(30):
        load_object([code], ["f"])
    gc.collect()
    assert virtual_bytes() - before < 60_000_000


def test_released_code_has_no_address() -> None:
    loaded = _load(ENDLESS, "endless")
    loaded.close()
    with pytest.raises(CodegenError, match="released"):
        loaded.address("endless")


def test_missing_and_duplicate_symbols_are_errors() -> None:
    code = compile_module("define i32 @one() { ret i32 1 }", Target.baseline()).code
    with pytest.raises(CodegenError, match="two"):
        load_object([code], ["two"])
    with pytest.raises(CodegenError, match="duplicate"):
        load_object([code, code], ["one"])
    with pytest.raises(CodegenError, match="not exported"):
        load_object([code], ["one"]).address("two")
    unresolved = compile_module(
        "declare void @no_such_function()\ndefine void @f() { call void @no_such_function() ret void }", Target.baseline()
    ).code
    with pytest.raises(CodegenError, match="call a function that neither"):
        load_object([unresolved], ["f"])


@pytest.mark.parametrize("code", [b"", b"not an object", b"\x7fELF" + b"\0" * 100])
def test_malformed_object_is_an_error(code: bytes) -> None:
    with pytest.raises(CodegenError):
        load_object([code], ["f"])


def test_bad_ir_is_an_error_with_the_place() -> None:
    with pytest.raises(CodegenError, match="undefined value '%y'"):
        compile_module("define i32 @k() { ret i32 %y }", Target.baseline())
    with pytest.raises(CodegenError, match="does not dominate"):
        compile_module(
            "define i32 @k() {\n br label %b\nb:\n %x = add i32 %y, 1\n %y = add i32 %x, 1\n ret i32 %x }", Target.baseline()
        )


def test_unknown_cpu_does_not_end_the_process() -> None:
    for triple in ("x86_64-unknown-linux-gnu", "amd64-unknown-linux-gnu"):
        target = replace(Target.parse("x86-64"), cpu="no-such-cpu", triple=triple)
        assert compile_module("define i32 @one() { ret i32 1 }", target).code


def test_foreign_assembly_can_be_inspected() -> None:
    text = "define <4 x float> @k(<4 x float> %a) {\n %b = fadd <4 x float> %a, %a\n ret <4 x float> %b }"
    assert "fadd\tv0.4s" in emit_assembly(text, Target.parse("aarch64 cpu=neoverse-v1"))
    assert "addps" in emit_assembly(text, Target.parse("x86-64"))


def test_pipeline_keeps_loops_as_written() -> None:
    assembly = emit_assembly(DOUBLE, Target.parse("x86-64"))
    assert "addss" in assembly
    assert "addps" not in assembly


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4096, 5000, 9 << 20])
def test_guarded_buffer_is_aligned_and_ends_near_its_guard(size: int) -> None:
    buffer = GuardedBuffer(size)
    view = buffer.array((size,), "uint8")
    assert buffer.address % 64 == 0
    assert -(buffer.address + size) % 4096 < 64
    assert not view.any()
    view[:] = 1
    assert buffer.check() is None


def test_guarded_buffer_reports_what_was_overwritten() -> None:
    buffer = GuardedBuffer(100)
    ctypes.memset(buffer.address + 102, 0, 3)
    report = buffer.check()
    assert report is not None
    assert "3 bytes written after" in report
    assert "first 2 after" in report
    other = GuardedBuffer(100)
    ctypes.memset(other.address - 8, 0, 4)
    assert "4 bytes written before" in (other.check() or "")
    assert "nearest 5 before" in (other.check() or "")
    with pytest.raises(MeasureError, match="needs 104 bytes"):
        buffer.array((26,), "float32")


def test_views_keep_guarded_memory_alive() -> None:
    view = GuardedBuffer(4000).array((10, 100), "float32")
    gc.collect()
    view[:] = 3
    assert view.sum() == 3000


@pytest.mark.parametrize("offset", ["size + 64", "-buffer.address % 4096 - 4096 - 1"])
def test_access_beyond_a_guard_is_a_segmentation_fault(offset: str) -> None:
    program = f"""
        import ctypes
        from ansor_py.codegen.memory import GuardedBuffer
        size = 1000
        buffer = GuardedBuffer(size)
        print("alive", flush=True)
        ctypes.memset(buffer.address + ({offset}), 0, 1)
        print("survived", flush=True)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert child.stdout == "alive\n"
    assert child.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("alignment", [64, 4096])
def test_aligned_array(alignment: int) -> None:
    array = aligned_array((3, 5), "float64", alignment)
    assert array.shape == (3, 5)
    assert array.dtype == np.float64
    assert array.ctypes.data % alignment == 0
    assert aligned_array((0, 4), "float32").size == 0
