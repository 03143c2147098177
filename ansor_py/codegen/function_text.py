"""The text of one LLVM function under construction: names, blocks, loops, and the declarations it needs.

LLVM IR is written as text because building it through objects costs more than compiling it (design, Idea 3). It need not be
written in order: a `place` is a position to which instructions can still be added when the text has gone on, which is how
address arithmetic gets out of the loops that it does not depend on.

    text = FunctionText(declarations)
    total = text.emit("add i64 %a, 1")           # "%v0"
    with text.loop("0", "64", []) as loop:       # a rotated loop; loop.index is its variable
        ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, Union

Lines: TypeAlias = list[Union[str, "Lines"]]


@dataclass
class OpenLoop:
    """A loop being emitted. `carried` are the names of the carried values at the start of an iteration; the body sets
    `updated` to their values at its end, and after the loop `results` holds the final ones."""

    index: str
    carried: list[str]
    updated: list[str]
    results: list[str] = field(default_factory=list)


class FunctionText:
    """Lines of a function's body. Every instruction gets a fresh name; `block` is the label of the current block."""

    def __init__(self, declarations: set[str]) -> None:
        self.lines: Lines = []
        self.declarations = declarations
        self.block = "entry"
        self._count = 0

    def written(self) -> Iterator[str]:
        """All lines in order."""
        pending: list[Iterator[Union[str, Lines]]] = [iter(self.lines)]
        while pending:
            for item in pending[-1]:
                if isinstance(item, list):
                    pending.append(iter(item))
                    break
                yield item
            else:
                pending.pop()

    def place(self) -> Lines:
        """This position in the text, for instructions that are emitted later (see `at`)."""
        here: Lines = []
        self.lines.append(here)
        return here

    @contextmanager
    def at(self, place: Lines) -> Iterator[None]:
        """Instructions (not loops, branches or blocks) go to a place instead of the end of the text."""
        end, self.lines = self.lines, place
        yield
        self.lines = end

    def name(self, prefix: str = "v") -> str:
        """A fresh name without the percent sign."""
        self._count += 1
        return f"{prefix}{self._count}"

    def emit(self, instruction: str) -> str:
        """Append an instruction that has a result; returns its name."""
        result = f"%{self.name()}"
        self.lines.append(f"  {result} = {instruction}")
        return result

    def do(self, instruction: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {instruction}")

    def start(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.block = label

    def call(self, result: str, function: str, arguments: str, parameters: str) -> str:
        """Call an external function or intrinsic, declaring it."""
        self.declarations.add(f"declare {result} @{function}({parameters})")
        if result == "void":
            self.do(f"call void @{function}({arguments})")
            return ""
        return self.emit(f"call {result} @{function}({arguments})")

    @contextmanager
    def loop(
        self, begin: str, end: str, carried: Sequence[tuple[str, str]], step: int = 1, certain: bool = False
    ) -> Iterator[OpenLoop]:
        """A loop over `begin <= index < end` by `step`, carrying values (type, initial name) from iteration to iteration.

        `certain`: at least one iteration is known to happen. Rotated: the condition stands at the end of the body.
        """
        body, exit_label = self.name("loop"), self.name("done")
        before = self.block
        if certain:
            self.do(f"br label %{body}")
        else:
            enters = self.emit(f"icmp slt i64 {begin}, {end}")
            self.do(f"br i1 {enters}, label %{body}, label %{exit_label}")
        self.start(body)
        index, following = f"%{self.name('i')}", f"%{self.name('n')}"
        names = [f"%{self.name('c')}" for _ in carried]
        phis = self.place()
        opened = OpenLoop(index, names, list(names))
        yield opened
        latch = self.block
        phis.append(f"  {index} = phi i64 [ {begin}, %{before} ], [ {following}, %{latch} ]")
        for (kind, initial), name, updated in zip(carried, names, opened.updated, strict=True):
            phis.append(f"  {name} = phi {kind} [ {initial}, %{before} ], [ {updated}, %{latch} ]")
        self.do(f"{following} = add nuw nsw i64 {index}, {step}")
        again = self.emit(f"icmp slt i64 {following}, {end}")
        self.do(f"br i1 {again}, label %{body}, label %{exit_label}")
        self.start(exit_label)
        if certain:
            opened.results = list(opened.updated)
            return
        for (kind, initial), updated in zip(carried, opened.updated, strict=True):
            opened.results.append(self.emit(f"phi {kind} [ {initial}, %{before} ], [ {updated}, %{latch} ]"))

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Instructions that run only where the condition holds."""
        inside, after = self.name("then"), self.name("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self.start(inside)
        yield
        self.do(f"br label %{after}")
        self.start(after)

    @contextmanager
    def rarely(self, condition: str, kind: str, usual: str) -> Iterator[list[str]]:
        """Instructions that run only where the condition holds, which is seldom, and replace the value `usual`.

        The body appends the name of its own value to the list; after it the list holds the name of what either path gave.
        """
        before, found = self.block, list[str]()
        with self.when(condition):
            yield found
            inside = self.block
        found[:] = [self.emit(f"phi {kind} [ {usual}, %{before} ], [ {found[0]}, %{inside} ]")]
