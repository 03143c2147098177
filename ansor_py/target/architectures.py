"""Architectures: what LLVM calls them, in whichever spelling, and has to be told; which vectors the features of a CPU give."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansor_py.errors import TargetError
from ansor_py.target.cores import CORES, core_of


@dataclass(frozen=True)
class Architecture:
    """One instruction set: its name here, how it may be spelt, and what LLVM is told when nothing else is known.

    `spellings` are all names that the first word of a target text or of a triple may have. `needed` are features without
    which there is no code to generate, whatever the CPU's name says; `forbidden` ones take something away that all code needs.
    `abi` is LLVM's name of the calling convention where the triple does not imply it. `futex_call` is Linux's number of the
    system call, and `spin_hint` the LLVM intrinsic, with its argument, by which a waiting loop rests for a moment.
    """

    name: str
    spellings: tuple[str, ...]
    triple: str
    cpu: str
    futex_call: int
    spin_hint: tuple[str, str] | None = None
    needed: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    abi: str = ""

    @property
    def cpus(self) -> tuple[str, ...]:
        """LLVM's names of the CPUs that are known."""
        return tuple(name for core in CORES if core.architecture == self.name for name in core.cpus)


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "x86-64",
            ("x86-64", "x86_64", "amd64", "x86_64h"),
            "x86_64-unknown-linux-gnu",
            "x86-64",
            futex_call=202,
            spin_hint=("llvm.x86.sse2.pause", ""),
            # A CPU whose name LLVM does not know has no 64-bit mode, and LLVM ends the process.
            needed=("+64bit",),
            forbidden=("-64bit", "-sse2", "-sse"),
        ),
        Architecture(
            "aarch64",
            ("aarch64", "arm64", "arm64e"),
            "aarch64-unknown-linux-gnu",
            "generic",
            futex_call=98,
            spin_hint=("llvm.aarch64.isb", "i32 15"),  # `yield` does nothing where a core has one thread; this waits
        ),
        Architecture(
            "riscv64",
            ("riscv64",),
            "riscv64-unknown-linux-gnu",
            "generic-rv64",
            futex_call=98,
            needed=("+m", "+a", "+f", "+d", "+v"),
            forbidden=("-m", "-a", "-f", "-d", "-v"),
            abi="lp64d",
        ),
    )
}


def architecture_of(triple: str) -> Architecture:
    """The architecture of an LLVM triple. Raises `TargetError` where no code is generated for it."""
    machine = triple.split("-")[0]
    architecture = spelt(machine)
    if architecture is None:
        raise TargetError(f"no code is generated for '{machine}' (triple '{triple}'); known are {', '.join(ARCHITECTURES)}")
    return architecture


def spelt(word: str) -> Architecture | None:
    """The architecture with this name or other spelling."""
    return next((architecture for architecture in ARCHITECTURES.values() if word in architecture.spellings), None)


def check_features(features: str, architecture: Architecture) -> None:
    """Raises `TargetError` for what is no feature, and for one that takes away what all code needs."""
    for feature in features.split(",") if features else ():
        if not re.fullmatch(r"[+-][a-z0-9][a-z0-9._-]*", feature):
            raise TargetError(f"'{feature}' is not a CPU feature of the form +name or -name")
        if feature in architecture.forbidden:  # LLVM ends the process, or has no float registers left
            raise TargetError(f"the feature '{feature}' leaves no code that could be generated")


def vectors_of(architecture: Architecture, cpu: str, features: str) -> tuple[int, int]:
    """Bytes of a vector register and their number. Features that are named decide, else the CPU's name."""
    core = core_of(architecture.name, cpu)
    named = {feature[1:]: feature[0] == "+" for feature in features.split(",") if feature}
    if architecture.name == "riscv64":
        promised = [int(name[3:-1]) // 8 for name, has in named.items() if has and re.fullmatch(r"zvl\d+b", name)]
        return min(max([core.vector_bytes, *promised]), 64), core.vector_registers
    if architecture.name == "aarch64":
        return core.vector_bytes, core.vector_registers
    if named.get("avx512f", core.vector_bytes == 64):
        return 64, 32
    return (32, 16) if named.get("avx", core.vector_bytes >= 32) else (16, 16)
