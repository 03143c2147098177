"""Kernels for other CPUs, executed: object code is linked with a driver by a cross compiler and run by QEMU.

An emulated CPU has the instructions of its name and no others, also where the host has more: a kernel that uses an
instruction which its target lacks is an illegal instruction, and not a success as it would be natively.

    cpu = FOREIGN_CPUS["neon"]
    if not missing_packages(cpu):
        compiled = build_kernel(dag, steps, Target.parse(f"{cpu.target} cores=2"), threads=2)
        outputs = run_foreign(cpu, compiled, [a, b])        # NumPy arrays, or ForeignRunError

As a script it prints the Debian packages that this machine lacks: apt-get install $(python tests/foreign_cpus.py)
"""

from __future__ import annotations

import functools
import platform
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.kernel import BufferSpec, CompiledKernel
from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.parallel_runtime import runtime_ir
from ansor_py.target import Target

DRIVER = Path(__file__).with_name("foreign_driver.c")
QEMU_VERSION = (7, 2)  # the first that emulates AVX2, and knows the Neoverse
TIMEOUT_SECONDS = 120
KINDS = {"input": 0, "constant": 0, "output": 1, "prepacked": 2}  # as the driver numbers them


class ForeignRunError(Exception):
    """A kernel could not be linked, did not run to its end, or wrote where it should not have."""


@dataclass(frozen=True)
class Toolchain:
    """The compiler for an architecture: as `uname -m` says it, GNU's triple, and Debian's packages on other architectures."""

    machine: str
    triple: str
    cross_packages: tuple[str, str]  # compiler, C library

    @property
    def packages(self) -> tuple[str, str]:
        """Debian's packages of the compiler and the C library."""
        return ("gcc", "libc6-dev") if platform.machine() == self.machine else self.cross_packages

    def compiler(self) -> str | None:
        """The compiler's path: by triple, or plain `gcc` on a host of the architecture; None where there is none."""
        return shutil.which(f"{self.triple}-gcc") or (shutil.which("gcc") if platform.machine() == self.machine else None)


@dataclass(frozen=True)
class ForeignCpu:
    """A CPU that kernels are compiled for (`target` text) and the emulator's command for it."""

    name: str
    target: str
    toolchain: Toolchain
    emulator: tuple[str, ...]


AARCH64 = Toolchain("aarch64", "aarch64-linux-gnu", ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"))
X86_64 = Toolchain("x86_64", "x86_64-linux-gnu", ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"))
RISCV64 = Toolchain("riscv64", "riscv64-linux-gnu", ("gcc-riscv64-linux-gnu", "libc6-dev-riscv64-cross"))
FOREIGN_CPUS = {
    cpu.name: cpu
    for cpu in (
        ForeignCpu("neon", "aarch64 cpu=neoverse-n1", AARCH64, ("qemu-aarch64", "-cpu", "neoverse-n1")),
        ForeignCpu("aarch64-generic", "aarch64", AARCH64, ("qemu-aarch64", "-cpu", "cortex-a53")),
        # `pni` is SSE3, which every named x86-64 CPU of QEMU has.
        ForeignCpu("sse2", "x86-64", X86_64, ("qemu-x86_64", "-cpu", "qemu64,-pni")),
        ForeignCpu("avx2", "x86-64 cpu=haswell", X86_64, ("qemu-x86_64", "-cpu", "Haswell")),
        ForeignCpu("rvv", "riscv64", RISCV64, ("qemu-riscv64", "-cpu", "rv64,v=true,vext_spec=v1.0")),
    )
}


@functools.cache
def missing_packages(cpu: ForeignCpu) -> tuple[str, ...]:
    """Debian's packages that are needed and not there; `qemu-user` also where it is older than QEMU_VERSION."""
    emulator = () if _has_emulator(cpu.emulator[0]) else ("qemu-user",)
    compiler = cpu.toolchain.compiler()
    if compiler is None:
        return (*emulator, *cpu.toolchain.packages)
    library = subprocess.run([compiler, "-print-file-name=libc.a"], capture_output=True, text=True, check=True).stdout
    return emulator if Path(library.strip()).is_absolute() else (*emulator, cpu.toolchain.packages[1])


def run_foreign(cpu: ForeignCpu, compiled: CompiledKernel, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of a kernel with the symbol `kernel` for inputs in ABI order, run once on the emulated CPU.

    Raises ForeignRunError if it does not link or run, writes outside of its buffers or into its inputs, or returns an error.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiler = cpu.toolchain.compiler()
        assert compiler is not None, f"{cpu.name}: missing {missing_packages(cpu)}"
        (folder / "driver.o").write_bytes(_driver(compiler))
        (folder / "kernel.o").write_bytes(compiled.object_code)
        (folder / "runtime.o").write_bytes(_runtime(cpu.target.split()[0]))
        (folder / "input").write_bytes(_input_file(compiled, inputs))
        link = [compiler, "-static", "-pthread", "driver.o", "kernel.o", "runtime.o", "-o", "program", "-lm"]
        _checked(link, folder, f"{cpu.name}: linking")
        what = f"{cpu.name}: the kernel for '{compiled.target}' on '{' '.join(cpu.emulator)}'"
        _checked([*cpu.emulator, "./program", "input", "output"], folder, what)
        return _outputs(compiled, inputs, (folder / "output").read_bytes(), what)


@functools.cache
def _driver(compiler: str) -> bytes:
    """The driver's object code."""
    with tempfile.TemporaryDirectory() as name:
        command = [compiler, "-O1", "-Wall", "-Werror", "-c", str(DRIVER), "-o", "driver.o"]
        _checked(command, Path(name), f"{compiler}: the driver")
        return (Path(name) / "driver.o").read_bytes()


@functools.cache
def _runtime(architecture: str) -> bytes:
    """The parallel runtime's object code, for any CPU of the architecture."""
    target = Target.parse(architecture)
    return compile_module(runtime_ir(target, cores=2), target).code


def _input_file(compiled: CompiledKernel, inputs: Sequence[NDArray[Any]]) -> bytes:
    specs = (*compiled.buffers, *compiled.prepacked)
    numbers = [compiled.threads, compiled.workspace_bytes, len(specs)]
    for spec in specs:
        numbers += [_bytes(spec), KINDS[spec.role]]
    given = [spec for spec in specs if KINDS[spec.role] == 0]
    for spec, array in zip(given, inputs, strict=True):
        assert (array.shape, array.dtype) == (spec.shape, np.dtype(spec.dtype)), spec
    return struct.pack(f"<{len(numbers)}q", *numbers) + b"".join(array.tobytes() for array in inputs)


def _outputs(compiled: CompiledKernel, inputs: Sequence[NDArray[Any]], content: bytes, what: str) -> list[NDArray[Any]]:
    before, outputs, offset = iter(inputs), [], 0
    for spec in compiled.buffers:
        array = np.frombuffer(content, spec.dtype, prod(spec.shape), offset).reshape(spec.shape)
        offset += array.nbytes
        if spec.role == "output":
            outputs.append(array)
        elif array.tobytes() != next(before).tobytes():
            raise ForeignRunError(f"{what}: the input '{spec.name}' was written")
    return outputs


def _bytes(spec: BufferSpec) -> int:
    return prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _checked(command: list[str], folder: Path, what: str) -> None:
    """Run a command; what it says, or the signal that ended it, becomes the error."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise ForeignRunError(f"{what}: not done after {TIMEOUT_SECONDS} seconds") from None
    if done.returncode < 0:
        raise ForeignRunError(f"{what}: {signal.strsignal(-done.returncode)}")
    if done.returncode > 0:
        lines = [line for line in done.stderr.splitlines() if "warning:" not in line]
        raise ForeignRunError("\n".join([f"{what}: exit code {done.returncode}", *lines[:10]]))


def _has_emulator(command: str) -> bool:
    if shutil.which(command) is None:
        return False
    text = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    return found is not None and (int(found[1]), int(found[2])) >= QEMU_VERSION


if __name__ == "__main__":
    print(*dict.fromkeys(package for cpu in FOREIGN_CPUS.values() for package in missing_packages(cpu)))
