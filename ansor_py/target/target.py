"""The machine that programs are generated for: CPU, cores, vector registers, caches.

A `Target` is plain data. It is detected from the host or written as text, and `str(target)` parses back to an equal
target, so that a record can say what it was measured for.

    Target.detect()                                             # this machine
    Target.parse("host -threads=2")                             # this machine, two threads
    Target.parse("x86-64 cpu=skylake-avx512 cores=8 l2=1MiB")   # another one
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ansor_py.errors import TargetError
from ansor_py.target.architectures import ARCHITECTURES, Architecture, architecture_of, check_features, spelt, vectors_of
from ansor_py.target.cores import HIGHEST_HERTZ, Core, core_of
from ansor_py.target.host import DEFAULT_CACHES, host_caches, host_cores, size_of

_KEYS = ("cpu", "features", "triple", "cores", "vector_bytes", "vector_registers", "l1", "l2", "l3", "cache_line_bytes")
_ALIASES = {"threads": "cores"}


@dataclass(frozen=True)
class Target:
    """A CPU as the scheduler sees it.

    `cpu`, `features` and `triple` are LLVM's names (`features` is its comma-separated `+a,-b` form, empty for what the
    CPU implies). `cores` is the number of threads that kernels use. Sizes are bytes; `l3` is 0 where there is none.
    """

    cpu: str
    features: str
    triple: str
    cores: int
    vector_bytes: int
    vector_registers: int
    l1: int
    l2: int
    l3: int
    cache_line_bytes: int = 64

    def __post_init__(self) -> None:
        check_features(self.features, architecture_of(self.triple))
        for name in ("cores", "vector_registers", "l1", "l2", "cache_line_bytes"):
            if getattr(self, name) < 1:
                raise TargetError(f"target: {name} must be at least 1, not {getattr(self, name)}")
        if self.l3 < 0:
            raise TargetError(f"target: l3 must not be negative, is {self.l3}")
        if self.vector_bytes not in (16, 32, 64):
            raise TargetError(f"target: vector_bytes must be 16, 32 or 64, not {self.vector_bytes}")

    @property
    def architecture(self) -> str:
        """`x86-64`, `aarch64` or `riscv64`, however the triple spells it."""
        return architecture_of(self.triple).name

    @property
    def llvm_features(self) -> str:
        """`features` as LLVM has to be given them: with those that the architecture cannot do without."""
        named = self.features.split(",") if self.features else []
        return ",".join([*(feature for feature in architecture_of(self.triple).needed if feature not in named), *named])

    @property
    def abi(self) -> str:
        """LLVM's name of the calling convention; empty where the triple implies it."""
        return architecture_of(self.triple).abi

    @property
    def rounds_vectors(self) -> bool:
        """Whether a vector is rounded to whole numbers by one instruction; on x86-64 that is SSE4.1, which AVX implies."""
        return self.architecture != "x86-64" or self.vector_bytes > 16 or "+sse4.1" in self.features.split(",")

    @property
    def gathers(self) -> bool:
        """Whether lanes that lie apart are loaded by one instruction that is worth it: AVX-512, and vectors of RISC-V."""
        return self.architecture == "riscv64" or self.vector_bytes == 64

    @property
    def overwrites_operands(self) -> bool:
        """Whether a result takes the place of an operand, which has to be copied if it is used again: x86-64 before AVX."""
        return self.architecture == "x86-64" and self.vector_bytes == 16 and "+avx" not in self.features.split(",")

    @property
    def masks_by_vectors(self) -> bool:
        """Whether a vector register says which lanes are loaded or stored: AVX and AVX2. AVX-512 has registers for that."""
        return self.architecture == "x86-64" and self.vector_bytes == 32

    @property
    def masks_freely(self) -> bool:
        """Whether loads and stores of some of the lanes cost what those of all do: AVX-512, and vectors of RISC-V.

        AVX2's masked stores take as long as ten others on AMD's cores (uops.info: VMASKMOVPS); SSE2 and NEON have none.
        """
        return self.architecture == "riscv64" or self.vector_bytes == 64

    def lanes(self, *dtypes: str) -> int:
        """Elements that one vector register holds, of the widest of these dtypes. A vector has two elements at least."""
        try:
            return max(2, self.vector_bytes // max(np.dtype(dtype).itemsize for dtype in dtypes))
        except TypeError:
            raise TargetError(f"target: no vectors of unknown dtype among {', '.join(map(repr, dtypes))}") from None

    @property
    def core(self) -> Core:
        """What a core of the CPU does in a cycle."""
        return core_of(self.architecture, self.cpu, self.features)

    def most_flops(self, threads: int) -> float:
        """float32 operations a second that its multiply-add units cannot exceed."""
        return threads * self.lanes("float32") * 2 * self.core.vector_units * HIGHEST_HERTZ

    def with_cores(self, cores: int) -> Target:
        """The same CPU with another number of threads."""
        return dataclasses.replace(self, cores=cores)

    @staticmethod
    def detect(cores: int | None = None) -> Target:
        """This machine; `cores` limits the threads, by default one for each physical core that the process may use.

        Raises `TargetError` where no code is generated for the host.
        """
        import llvmlite.binding as llvm

        triple = str(llvm.get_process_triple())
        cpu, features = str(llvm.get_host_cpu_name()), str(llvm.get_host_cpu_features().flatten())
        vector_bytes, registers = vectors_of(architecture_of(triple), cpu, features)
        sizes, line = host_caches()
        usable = host_cores() if cores is None else cores
        return Target(cpu, features, triple, usable, vector_bytes, registers, sizes["l1"], sizes["l2"], sizes["l3"], line)

    @staticmethod
    @functools.cache
    def baseline() -> Target:
        """The least CPU of this machine's architecture, for support code that has to run on every machine of the kind."""
        import llvmlite.binding as llvm

        return _generic(architecture_of(str(llvm.get_process_triple())))

    @staticmethod
    def parse(text: str) -> Target:
        """A target from text: `host` or an architecture (`x86-64`, `aarch64`, `riscv64`), then `key=value` words.

        Keys are `cpu features triple cores (or threads) vector_bytes vector_registers l1 l2 l3 cache_line_bytes`; a `-`
        before a key is allowed, and sizes may carry `KiB` or `MiB`. Raises `TargetError` for anything else.
        """
        words = text.split()
        is_host = words[:1] == ["host"]
        architecture = None if is_host or not words else spelt(words[0])
        if not is_host and architecture is None:
            raise TargetError(f"target '{text}' must begin with 'host' or an architecture: {', '.join(ARCHITECTURES)}")
        base = Target.detect() if architecture is None else _generic(architecture)
        architecture = architecture_of(base.triple)
        options = _options_of(words[1:], text)
        if is_host and "triple" in options:
            raise TargetError(f"target '{text}': a host has its own triple; name the architecture instead of 'host'")
        if "triple" in options and architecture_of(options["triple"]) != architecture:
            raise TargetError(f"target '{text}': the triple '{options['triple']}' is not one of {architecture.name}")
        cpu = options.get("cpu", base.cpu)
        if cpu != base.cpu:
            if cpu not in architecture.cpus:
                raise TargetError(f"unknown {architecture.name} CPU '{cpu}'; known are {', '.join(architecture.cpus)}")
            base = dataclasses.replace(base, cpu=cpu, features="")
        features = options.get("features", base.features)
        check_features(features, architecture)
        widest, registers = vectors_of(architecture, cpu, features)
        numbers = {key: _number(key, options[key], text) for key in options if key not in ("cpu", "features", "triple")}
        if numbers.get("vector_bytes", 0) > widest:
            raise TargetError(f"target '{text}': {cpu} has vectors of {widest} bytes, not {numbers['vector_bytes']}")
        fields = base.to_json() | {"features": features, "triple": options.get("triple", base.triple)}
        return Target.from_json(fields | {"vector_bytes": widest, "vector_registers": registers} | numbers)

    def __str__(self) -> str:
        words = [self.architecture, f"cpu={self.cpu}", f"triple={self.triple}"]
        words += [f"features={self.features}"] if self.features else []
        words += [f"{key}={getattr(self, key)}" for key in ("cores", "vector_bytes", "vector_registers")]
        words += [f"{key}={_size_text(getattr(self, key))}" for key in ("l1", "l2", "l3")]
        return " ".join([*words, f"cache_line_bytes={self.cache_line_bytes}"])

    def summary(self) -> str:
        """One short line for a person."""
        caches = "/".join(_size_text(size) for size in (self.l1, self.l2, self.l3))
        return f"{self.cpu}, {self.cores} core{'s' * (self.cores != 1)}, {self.vector_bytes * 8}-bit vectors, caches {caches}"

    def misfit(self) -> str | None:
        """Why this machine cannot execute code that was made for the target, in words; None where it can."""
        host = Target.detect()
        if self.architecture != host.architecture:
            return f"this machine is {host.architecture}"
        missing = sorted(_used_features(self) - _used_features(host))
        return f"this CPU, '{host.cpu}', lacks {', '.join(missing)}" if missing else None

    def to_json(self) -> dict[str, str | int]:
        """All fields as JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(fields: Mapping[str, str | int]) -> Target:
        """The inverse of `to_json`; raises `TargetError` for missing, unknown or mistyped fields."""
        expected = {field.name: str if field.type == "str" else int for field in dataclasses.fields(Target)}
        wrong = sorted(set(fields) ^ set(expected))
        if wrong:
            raise TargetError(f"target record: field '{wrong[0]}' is {'unknown' if wrong[0] in fields else 'missing'}")
        for name, kind in expected.items():
            if type(fields[name]) is not kind:
                raise TargetError(f"target record: field '{name}' must be {kind.__name__}, not {fields[name]!r}")
        return Target(**fields)  # type: ignore[arg-type]  # checked above


def _generic(architecture: Architecture) -> Target:
    vector_bytes, registers = vectors_of(architecture, architecture.cpu, "")
    return Target(architecture.cpu, "", architecture.triple, 1, vector_bytes, registers, **DEFAULT_CACHES)


def _options_of(words: list[str], text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        key = _ALIASES.get(key, key)
        if not equals or not value:
            raise TargetError(f"target '{text}': '{word}' is not of the form key=value")
        if key not in _KEYS:
            raise TargetError(f"target '{text}': unknown key '{key}'; known are {', '.join((*_KEYS, *_ALIASES))}")
        if key in options:
            raise TargetError(f"target '{text}': '{key}' is given twice")
        options[key] = value
    return options


def _number(key: str, value: str, text: str) -> int:
    is_size = key in DEFAULT_CACHES
    number = size_of(value) if is_size or re.fullmatch(r"\d+", value) else None
    if number is None:
        example = "a size such as 32KiB" if is_size else "a whole number"
        raise TargetError(f"target '{text}': {key} must be {example}, not '{value}'")
    return number


def _size_text(size: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _used_features(target: Target) -> set[str]:
    """Features that code for a target may use: those that it names, and what its vectors stand for on x86-64."""
    steps = [(16, {"sse2"}), (32, {"avx", "avx2", "fma"}), (64, {"avx512f"})] if target.architecture == "x86-64" else []
    implied = set().union(*(features for width, features in steps if width <= target.vector_bytes))
    named = [feature for feature in target.features.split(",") if feature]
    absent = {feature[1:] for feature in named if feature.startswith("-")}
    return (implied | {feature[1:] for feature in named if feature.startswith("+")}) - absent
