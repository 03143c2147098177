"""A lowered program to the text of an LLVM module with the kernel's entry point.

The entry has the project's kernel ABI, `int32 f(void** buffers, void* workspace, int32 threads, volatile int32* abort)`.
Every region (a stage at root) becomes a function over a range of its parallel iterations, whose buffers are `noalias`
arguments; an outlined body sets the denormal mode, takes the thread's slice of the workspace, and calls it for a chunk of the
iterations. Regions with parallel loops are run by `ansor_py.codegen.parallel_runtime`.

Regions that depend on constants alone (a weight being packed) are not part of the kernel: they form a second entry point that
is called once, and what they produce are further buffers of the kernel, after its inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ansor_py.codegen.addresses import Coordinate
from ansor_py.codegen.denormals import flush_denormals, restore_denormals
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.memory import ALIGNMENT, aligned
from ansor_py.codegen.parallel_runtime import PARALLEL
from ansor_py.codegen.tiles import TileEmitter
from ansor_py.lower.ir import For, If, Node, Program, Region, Tile, tiles_of
from ansor_py.lower.nest import BufferPlace
from ansor_py.target import Target
from ansor_py.te.expr import Const, Expr, reads_of
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Tensor

# Temporaries up to this many bytes live on the stack of the function, where LLVM sees all of their uses.
STACK_BUFFER_BYTES = 16 * 1024
STACK_TOTAL_BYTES = 64 * 1024


@dataclass(frozen=True)
class ModuleText:
    """The module, and how many bytes of workspace the kernel needs for the number of threads it was made for.

    `prepacked` are the tensors that the entry point `prepack_symbol` computes from constants; `unread` the constants that only
    it reads.
    """

    text: str
    workspace_bytes: int
    prepacked: tuple[Tensor, ...]
    prepack_symbol: str
    unread: frozenset[str]


@dataclass(frozen=True)
class _Layout:
    """Where temporaries live: offsets in the shared part, offsets in each thread's part, names on the stack.

    `constants` are the buffers that no call changes, prepacked ones among them.
    """

    shared: dict[str, int]
    shared_bytes: int
    private: dict[str, int]
    private_bytes: int
    stack: frozenset[str]
    constants: frozenset[str]


def module_text(program: Program, buffers: Sequence[str], target: Target, threads: int, symbol: str) -> ModuleText:
    """The LLVM IR of a program whose ABI buffers are `buffers` in order."""
    regions = [number for number, region in enumerate(program.regions) if region.prepacked]
    prepacked = _prepacked_tensors(program, regions)
    layout = _layout(program, {tensor.name for tensor in prepacked})
    table = [*buffers, *(tensor.name for tensor in prepacked)]
    declarations = {"declare i32 @llvm.smin.i32(i32, i32)"}
    functions: list[str] = []
    for number, region in enumerate(program.regions):
        functions.append(_nest_function(program, region, number, layout, target, declarations))
        functions.append(_body_function(program, region, number, layout, table, target, declarations))
    prepack_symbol = f"{symbol}_prepare"
    run = [number for number in range(len(program.regions)) if number not in regions]
    functions.append(_entry_function(program, run, threads, symbol))
    if regions:
        functions.append(_entry_function(program, regions, threads, prepack_symbol))
    if any(region.parallel for region in program.regions):
        declarations.add(f"declare void @{PARALLEL}(ptr, ptr, i64, i32)")
    width = target.vector_bytes * 8
    attributes = f'attributes #0 = {{ nounwind noinline "prefer-vector-width"="{width}" "min-legal-vector-width"="{width}" }}'
    # Code around the nests runs once a call or once a thread: LLVM spends no time on it.
    once = "attributes #1 = { nounwind noinline optnone }"
    head = f'target triple = "{target.triple}"\n\n%context = type {{ ptr, ptr, ptr, i32 }}\n'
    text = "\n".join([head, *functions, *sorted(declarations), attributes, once, ""])
    read = {name for number in run for name in _used_buffers(program.regions[number].body)}
    unread = frozenset(name for name, place in program.buffers.items() if place.scope == "constant" and name not in read)
    workspace_bytes = layout.shared_bytes + threads * layout.private_bytes
    return ModuleText(text, workspace_bytes, prepacked, prepack_symbol if regions else "", unread)


def _prepacked_tensors(program: Program, regions: Sequence[int]) -> tuple[Tensor, ...]:
    """What the prepacked regions leave behind for the others."""
    names = dict.fromkeys(tile.buffer.name for number in regions for tile in tiles_of(program.regions[number].body))
    return tuple(program.buffers[name].tensor for name in names if program.buffers[name].allocated_in is None)


def _alignment(place: BufferPlace) -> int:
    """The alignment in bytes that a buffer has: the caller's arrays are read and written where they are."""
    return np.dtype(place.tensor.dtype).itemsize if place.scope in ("input", "output") else ALIGNMENT


def _layout(program: Program, prepacked: set[str]) -> _Layout:
    shared: dict[str, int] = {}
    private: dict[str, int] = {}
    stack: set[str] = set()
    shared_bytes = private_bytes = stack_bytes = 0
    for name, place in program.buffers.items():
        if place.scope != "workspace" or name in prepacked:
            continue
        size = aligned(max(1, place.tensor.bytes))
        if place.allocated_in is None:
            shared[name], shared_bytes = shared_bytes, shared_bytes + size
        elif size <= STACK_BUFFER_BYTES and stack_bytes + size <= STACK_TOTAL_BYTES:
            stack.add(name)
            stack_bytes += size
        else:
            private[name], private_bytes = private_bytes, private_bytes + size
    constants = {name for name, place in program.buffers.items() if place.scope == "constant"} | prepacked
    return _Layout(shared, shared_bytes, private, private_bytes, frozenset(stack), frozenset(constants))


def _used_buffers(nodes: Sequence[Node]) -> list[str]:
    """Names of all buffers that the nodes touch, in order of appearance."""
    found: dict[str, None] = {}
    for tile in tiles_of(nodes):
        found[tile.buffer.name] = None
        expressions: list[Expr] = [tile.value, *tile.indices, *([tile.epilogue] if tile.epilogue is not None else [])]
        found.update({read.tensor.name: None for e in expressions for read in reads_of(e)})
    return list(found)


def _nest_function(
    program: Program, region: Region, number: int, layout: _Layout, target: Target, declarations: set[str]
) -> str:
    """The loops of one region over the parallel iterations `%lo <= i < %hi`."""
    used = _used_buffers(region.body)
    text = FunctionText(declarations)
    pointers = {name: f"%b{position}" for position, name in enumerate(used)}
    parameters: list[str] = []
    for name in used:
        if name in layout.stack:
            size = aligned(max(1, program.buffers[name].tensor.bytes))
            text.lines.append(f"  {pointers[name]} = alloca [{size} x i8], align {ALIGNMENT}")
        else:
            parameters.append(f"ptr noalias nonnull align {_alignment(program.buffers[name])} {pointers[name]}")
    expressions = ExpressionEmitter(text, Simplifier(program.ranges), pointers, target)
    emitter = _NodeEmitter(expressions, layout.constants)
    if region.parallel:
        with text.loop("%lo", "%hi", []) as loop:
            emitter.expressions.enter(loop.index)
            emitter.return_if_aborted()
            emitter.place_parallel(region.parallel, loop.index)
            emitter.nodes(region.body)
            emitter.expressions.leave()
    else:
        emitter.nodes(region.body, outermost=True)
    text.do("ret void")
    parameters += ["ptr %abort", "i64 %lo", "i64 %hi"]
    head = f"define internal void @nest{number}({', '.join(parameters)}) #0 {{\nentry:"
    return "\n".join([head, *text.written(), "}\n"])


class _NodeEmitter:
    """Emits loops and conditions; tiles go to the tile emitter."""

    def __init__(self, expressions: ExpressionEmitter, constants: frozenset[str]) -> None:
        self.text = expressions.text
        self.expressions = expressions
        self.tiles = TileEmitter(expressions, constants, self.nodes)

    def nodes(self, items: Sequence[Node], outermost: bool = False) -> None:
        """Emit nodes in order. `outermost` loops look at the abort flag in every iteration."""
        for node in items:
            match node:
                case Tile():
                    self.tiles.emit(node)
                case If():
                    condition = self.expressions.value(node.condition, None)
                    with self.text.when(condition.name):
                        self.expressions.enter()
                        self.nodes(node.body)
                        self.expressions.leave()
                case For(annotation="unroll", extent=Const(value=count)):
                    for step in range(int(count)):
                        self.expressions.coordinates[node.variable] = Coordinate(None, step)
                        self.nodes(node.body)
                case For():
                    self._loop(node, outermost)

    def _loop(self, node: For, outermost: bool) -> None:
        end = self.expressions.index(node.extent)
        with self.text.loop("0", end, [], certain=isinstance(node.extent, Const)) as loop:
            self.expressions.enter(loop.index)
            if outermost:
                self.return_if_aborted()
            self.expressions.coordinates[node.variable] = Coordinate(loop.index)
            self.tiles.around.append(node.variable)
            self.nodes(node.body)
            self.tiles.around.pop()
            self.expressions.leave()

    def return_if_aborted(self) -> None:
        """Leave the function if the abort flag is up."""
        flag = self.text.emit("load volatile i32, ptr %abort, align 4")
        stopped = self.text.emit(f"icmp ne i32 {flag}, 0")
        leaving, staying = self.text.name("abort"), self.text.name("go")
        self.text.do(f"br i1 {stopped}, label %{leaving}, label %{staying}")
        self.text.start(leaving)
        self.text.do("ret void")
        self.text.start(staying)

    def place_parallel(self, parallel: Sequence[tuple[str, int]], index: str) -> None:
        """The positions of the collapsed parallel loops from their common index."""
        inner = prod(extent for _, extent in parallel)
        rest = index
        self.tiles.around.extend(variable for variable, _ in parallel)
        for variable, extent in parallel:
            inner //= extent
            if inner == 1:
                self.expressions.coordinates[variable] = Coordinate(rest)
            else:
                self.expressions.coordinates[variable] = Coordinate(self.expressions.integer("udiv", rest, inner))
                rest = self.expressions.integer("urem", rest, inner)


def _body_function(
    program: Program,
    region: Region,
    number: int,
    layout: _Layout,
    buffers: list[str],
    target: Target,
    declarations: set[str],
) -> str:
    """What each thread runs for a chunk of the iterations: denormal mode, workspace slice, then the nest."""
    text = FunctionText(declarations)
    fields = [text.emit(f"getelementptr inbounds %context, ptr %context, i32 0, i32 {field}") for field in range(4)]
    table, workspace, abort = (text.emit(f"load ptr, ptr {field}") for field in fields[:3])
    mode = flush_denormals(text, target)
    arguments: list[str] = []
    for name in _used_buffers(region.body):
        if name in layout.stack:
            continue
        if name in layout.shared:
            pointer = text.emit(f"getelementptr inbounds i8, ptr {workspace}, i64 {layout.shared[name]}")
        elif name in layout.private:
            slice_start = text.emit(f"mul i64 %thread, {layout.private_bytes}")
            offset = text.emit(f"add i64 {slice_start}, {layout.shared_bytes + layout.private[name]}")
            pointer = text.emit(f"getelementptr inbounds i8, ptr {workspace}, i64 {offset}")
        else:
            slot = text.emit(f"getelementptr inbounds ptr, ptr {table}, i64 {buffers.index(name)}")
            pointer = text.emit(f"load ptr, ptr {slot}")
        arguments.append(f"ptr {pointer}")
    arguments += [f"ptr {abort}", "i64 %low", "i64 %high"]
    text.do(f"call void @nest{number}({', '.join(arguments)})")
    restore_denormals(text, target, mode)
    text.do("ret void")
    return "\n".join(
        [
            f"define internal void @body{number}(ptr %context, i64 %low, i64 %high, i64 %thread) #1 {{\nentry:",
            *text.written(),
            "}\n",
        ]
    )


def _entry_function(program: Program, regions: Sequence[int], threads: int, symbol: str) -> str:
    """An entry point: some regions in order, each on one or all threads."""
    text = FunctionText(set())
    context = text.emit("alloca %context")
    workers = text.emit(f"call i32 @llvm.smin.i32(i32 %threads, i32 {threads})")
    for position, (kind, value) in enumerate((("ptr", "%buffers"), ("ptr", "%workspace"), ("ptr", "%abort"), ("i32", workers))):
        slot = text.emit(f"getelementptr inbounds %context, ptr {context}, i32 0, i32 {position}")
        text.do(f"store {kind} {value}, ptr {slot}")
    for number in regions:
        if program.regions[number].parallel:
            total = prod(extent for _, extent in program.regions[number].parallel)
            text.do(f"call void @{PARALLEL}(ptr @body{number}, ptr {context}, i64 {total}, i32 {workers})")
        else:
            text.do(f"call void @body{number}(ptr {context}, i64 0, i64 1, i64 0)")
    flag = text.emit("load volatile i32, ptr %abort, align 4")
    stopped = text.emit(f"icmp ne i32 {flag}, 0")
    text.do(f"ret i32 {text.emit(f'zext i1 {stopped} to i32')}")
    head = f"define i32 @{symbol}(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) #1 {{\nentry:"
    return "\n".join([head, *text.written(), "}\n"])
