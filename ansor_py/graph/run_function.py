"""The native `run` function of a model: LLVM IR text that calls every kernel in order, without Python between them.

    int32 model_run(void** ports, void* arena, void* weights, void* workspace, int32 threads, volatile int32* abort,
                    int64* stamps)

`ports` are the inputs, then the outputs. Each call's table of buffers is filled on the stack. A kernel's non-zero status
(aborted) ends the run with that status. `stamps`, unless it is null, gets two readings of the monotonic clock (nanoseconds) for
every call, before and after it. `model_kernel` is the same with a kernel's own ABI, for the native timer: its
buffers are the arena, the weights and the ports.

    code = compile_module(run_function_ir(plan), target)

A model with nodes that are not compiled has a function for each run of kernels between them instead: `model_segment0` and
so on.
"""

from __future__ import annotations

from ansor_py.graph.plan import Call, Copy, Location, Plan, kernels_of

RUN_SYMBOL = "model_run"
KERNEL_SYMBOL = "model_kernel"
SEGMENT_SYMBOL = "model_segment"
_REGIONS = "ptr %ports, ptr %arena, ptr %weights, ptr %workspace"
# `timespec` is two 64-bit words on every 64-bit Linux; clock 1 is CLOCK_MONOTONIC.
_STAMP = """
declare i32 @clock_gettime(i32, ptr)
define internal void @stamp(ptr %stamps, i64 %index) noinline {
  %none = icmp eq ptr %stamps, null
  br i1 %none, label %done, label %read
read:
  %time = alloca [2 x i64], align 16
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %whole = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %scaled = mul i64 %whole, 1000000000
  %now = add i64 %scaled, %rest
  %at = getelementptr i64, ptr %stamps, i64 %index
  store i64 %now, ptr %at
  br label %done
done:
  ret void
}
"""


def segments_of(plan: Plan) -> list[range]:
    """The calls before, between and after the nodes that are not compiled: a segment more than these, some may be empty."""
    ends = [node.after_calls for node in plan.fallback.nodes] if plan.fallback is not None else []
    return [range(begin, end) for begin, end in zip([0, *ends], [*ends, len(plan.calls)], strict=True)]


def entry_points(plan: Plan) -> list[str]:
    """The symbols of the functions that a run calls, in order."""
    return [RUN_SYMBOL] if plan.fallback is None else [f"{SEGMENT_SYMBOL}{index}" for index in range(len(segments_of(plan)))]


def run_function_ir(plan: Plan) -> str:
    """The module's text: declarations of the kernels, the entry points, and `model_kernel` for a complete model."""
    declarations = [f"declare i32 @{symbol}(ptr, ptr, i32, ptr)" for symbol in kernels_of(plan)]
    declarations.append("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    longest = max((len(call.buffers) for call in plan.calls), default=0)
    lines = [*declarations, ""]
    segments = segments_of(plan)
    for index, (symbol, segment) in enumerate(zip(entry_points(plan), segments, strict=True)):
        body = [f"  %table = alloca [{max(longest, 1)} x ptr], align 64"]
        for step in segment:
            body += _call(step, plan.calls[step], len(plan.inputs))
        if index == len(segments) - 1:
            for step, copy in enumerate(plan.copies):
                body += _copy(step, copy, len(plan.inputs))
        lines += [*_function(symbol, body), ""]
    return "\n".join([*lines, _STAMP, *(_timed_entry() if plan.fallback is None else []), ""])


def _function(symbol: str, body: list[str]) -> list[str]:
    return [f"define i32 @{symbol}({_REGIONS}, i32 %threads, ptr %abort, ptr %stamps) {{", "entry:", *body, "  ret i32 0", "}"]


def _call(step: int, call: Call, input_count: int) -> list[str]:
    lines = []
    for index, location in enumerate(call.buffers):
        lines += _address(f"c{step}.{index}", location, input_count)
        lines.append(f"  %c{step}.{index}.slot = getelementptr ptr, ptr %table, i64 {index}")
        lines.append(f"  store ptr %c{step}.{index}, ptr %c{step}.{index}.slot")
    lines.append(f"  call void @stamp(ptr %stamps, i64 {2 * step})")
    lines.append(f"  %s{step} = call i32 @{call.kernel}(ptr %table, ptr %workspace, i32 %threads, ptr %abort)")
    lines.append(f"  call void @stamp(ptr %stamps, i64 {2 * step + 1})")
    lines.append(f"  %f{step} = icmp ne i32 %s{step}, 0")
    lines.append(f"  br i1 %f{step}, label %stop{step}, label %next{step}")
    lines += [f"stop{step}:", f"  ret i32 %s{step}", f"next{step}:"]
    return lines


def _copy(step: int, copy: Copy, input_count: int) -> list[str]:
    return [
        *_address(f"from{step}", copy.source, input_count),
        *_address(f"to{step}", copy.destination, input_count),
        f"  call void @llvm.memcpy.p0.p0.i64(ptr %to{step}, ptr %from{step}, i64 {copy.bytes}, i1 false)",
    ]


def _address(name: str, location: Location, input_count: int) -> list[str]:
    """Instructions that set `%name` to where the buffer lies."""
    if location.region in ("input", "output"):
        index = location.at + (input_count if location.region == "output" else 0)
        return [
            f"  %{name}.port = getelementptr ptr, ptr %ports, i64 {index}",
            f"  %{name}.begin = load ptr, ptr %{name}.port",
            f"  %{name} = getelementptr i8, ptr %{name}.begin, i64 {location.byte}",
        ]
    base = "%arena" if location.region == "arena" else "%weights"
    return [f"  %{name} = getelementptr i8, ptr {base}, i64 {location.at}"]


def _timed_entry() -> list[str]:
    return [
        f"define i32 @{KERNEL_SYMBOL}(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {{",
        "  %arena = load ptr, ptr %buffers",
        "  %weights.slot = getelementptr ptr, ptr %buffers, i64 1",
        "  %weights = load ptr, ptr %weights.slot",
        "  %ports = getelementptr ptr, ptr %buffers, i64 2",
        f"  %status = call i32 @{RUN_SYMBOL}({_REGIONS}, i32 %threads, ptr %abort, ptr null)",
        "  ret i32 %status",
        "}",
    ]
