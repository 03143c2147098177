"""The machine that programs are generated for: CPU, cores, vector registers, caches.

A `Target` is plain data. It is detected from the host or written as text, and `str(target)` parses back to an equal
target, so that a record can say what it was measured for.

    Target.detect()                                             # this machine
    Target.parse("host -threads=2")                             # this machine, two threads
    Target.parse("x86-64 cpu=skylake-avx512 cores=8 l2=1MiB")   # another one

What LLVM calls an architecture, in whichever spelling, is known here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ansor_py.errors import TargetError

# LLVM ends the process on a CPU name that it does not know, so names are checked against these lists before it sees
# them: x86-64 names by the widest vectors that they have.
X86_CPUS = {
    "avx512f": (
        "x86-64-v4 skylake-avx512 cascadelake cooperlake cannonlake icelake-client icelake-server tigerlake rocketlake "
        "sapphirerapids emeraldrapids graniterapids graniterapids-d znver4 znver5"
    ).split(),
    "avx": (
        "x86-64-v3 sandybridge ivybridge haswell broadwell skylake alderlake raptorlake meteorlake arrowlake arrowlake-s "
        "lunarlake pantherlake gracemont sierraforest grandridge clearwaterforest bdver1 bdver2 bdver3 bdver4 btver2 "
        "znver1 znver2 znver3"
    ).split(),
    "sse2": (
        "x86-64 x86-64-v2 core2 penryn nehalem westmere bonnell silvermont goldmont goldmont-plus tremont nocona k8 amdfam10 "
        "btver1"
    ).split(),
}
AARCH64_CPUS = (
    "generic cortex-a53 cortex-a55 cortex-a57 cortex-a72 cortex-a73 cortex-a76 cortex-a78 cortex-a710 cortex-x1 cortex-x2 "
    "neoverse-n1 neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 neoverse-512tvb a64fx ampere1 ampere1a "
    "thunderx2t99 apple-m1 apple-m2 apple-m3 apple-m4"
).split()
# RISC-V CPUs by the bytes of their vectors; the extension V promises 16, and `+zvl256b` more.
RISCV_CPUS = {"generic-rv64": 16, "sifive-p670": 16, "spacemit-x60": 32, "sifive-x280": 64}


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
    cpus: tuple[str, ...]
    futex_call: int
    spin_hint: tuple[str, str] | None = None
    needed: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    abi: str = ""


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "x86-64",
            ("x86-64", "x86_64", "amd64", "x86_64h"),
            "x86_64-unknown-linux-gnu",
            "x86-64",
            tuple(name for names in X86_CPUS.values() for name in names),
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
            tuple(AARCH64_CPUS),
            futex_call=98,
            spin_hint=("llvm.aarch64.isb", "i32 15"),  # `yield` does nothing where a core has one thread; this waits
        ),
        Architecture(
            "riscv64",
            ("riscv64",),
            "riscv64-unknown-linux-gnu",
            "generic-rv64",
            tuple(RISCV_CPUS),
            futex_call=98,
            needed=("+m", "+a", "+f", "+d", "+v"),
            forbidden=("-m", "-a", "-f", "-d", "-v"),
            abi="lp64d",
        ),
    )
}
# Bytes; for a CPU given as text without sizes, and for a host that does not tell.
DEFAULT_CACHES = {"l1": 32 * 1024, "l2": 1024 * 1024, "l3": 8 * 1024 * 1024}

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20, "G": 1 << 30, "GIB": 1 << 30}
_KEYS = ("cpu", "features", "triple", "cores", "vector_bytes", "vector_registers", "l1", "l2", "l3", "cache_line_bytes")
_ALIASES = {"threads": "cores"}
_CPU_FOLDER = Path("/sys/devices/system/cpu")


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
        _check_features(self.features, architecture_of(self.triple))
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

    def lanes(self, *dtypes: str) -> int:
        """Elements that one vector register holds, of the widest of these dtypes. A vector has two elements at least."""
        try:
            return max(2, self.vector_bytes // max(np.dtype(dtype).itemsize for dtype in dtypes))
        except TypeError:
            raise TargetError(f"target: no vectors of unknown dtype among {', '.join(map(repr, dtypes))}") from None

    def nominal_flops(self, threads: int, hertz: float) -> float:
        """float32 operations a second of two multiply-add units a core, which is what the widest CPUs of today have."""
        return threads * self.lanes("float32") * 2 * 2 * hertz

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
        vector_bytes, registers = _vectors_of(architecture_of(triple), cpu, features)
        sizes, line = _host_caches()
        usable = _host_cores() if cores is None else cores
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
        architecture = None if is_host or not words else _spelt(words[0])
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
        _check_features(features, architecture)
        widest, registers = _vectors_of(architecture, cpu, features)
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


def architecture_of(triple: str) -> Architecture:
    """The architecture of an LLVM triple. Raises `TargetError` where no code is generated for it."""
    machine = triple.split("-")[0]
    architecture = _spelt(machine)
    if architecture is None:
        raise TargetError(f"no code is generated for '{machine}' (triple '{triple}'); known are {', '.join(ARCHITECTURES)}")
    return architecture


def _spelt(word: str) -> Architecture | None:
    return next((architecture for architecture in ARCHITECTURES.values() if word in architecture.spellings), None)


def _generic(architecture: Architecture) -> Target:
    vector_bytes, registers = _vectors_of(architecture, architecture.cpu, "")
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
    match = re.fullmatch(r"(\d+)([A-Za-z]*)", value)
    allowed = _UNITS if key in DEFAULT_CACHES else {"": 1}
    if match is None or match[2].upper() not in allowed:
        example = "a size such as 32KiB" if key in DEFAULT_CACHES else "a whole number"
        raise TargetError(f"target '{text}': {key} must be {example}, not '{value}'")
    return int(match[1]) * allowed[match[2].upper()]


def _size_text(size: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _check_features(features: str, architecture: Architecture) -> None:
    for feature in features.split(",") if features else ():
        if not re.fullmatch(r"[+-][a-z0-9][a-z0-9._-]*", feature):
            raise TargetError(f"'{feature}' is not a CPU feature of the form +name or -name")
        if feature in architecture.forbidden:  # LLVM ends the process, or has no float registers left
            raise TargetError(f"the feature '{feature}' leaves no code that could be generated")


def _vectors_of(architecture: Architecture, cpu: str, features: str) -> tuple[int, int]:
    """Bytes of a vector register and their number. Features that are named decide, else the CPU's name."""
    if architecture.name == "aarch64":
        return 16, 32  # NEON; scalable vectors are not used
    named = {feature[1:]: feature[0] == "+" for feature in features.split(",") if feature}
    if architecture.name == "riscv64":
        promised = [int(name[3:-1]) // 8 for name, has in named.items() if has and re.fullmatch(r"zvl\d+b", name)]
        return min(max([RISCV_CPUS.get(cpu, 16), *promised]), 64), 32
    wide = cpu in X86_CPUS["avx512f"]
    if named.get("avx512f", wide):
        return 64, 32
    return (32, 16) if named.get("avx", wide or cpu in X86_CPUS["avx"]) else (16, 16)


def _used_features(target: Target) -> set[str]:
    """Features that code for a target may use: those that it names, and what its vectors stand for on x86-64."""
    steps = [(16, {"sse2"}), (32, {"avx", "avx2", "fma"}), (64, {"avx512f"})] if target.architecture == "x86-64" else []
    implied = set().union(*(features for width, features in steps if width <= target.vector_bytes))
    named = [feature for feature in target.features.split(",") if feature]
    absent = {feature[1:] for feature in named if feature.startswith("-")}
    return (implied | {feature[1:] for feature in named if feature.startswith("+")}) - absent


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _host_caches() -> tuple[dict[str, int], int]:
    """Bytes of each level as one core sees it, and of a line; the defaults where the system does not tell."""
    sizes, line = {}, 64
    for index in sorted((_CPU_FOLDER / "cpu0" / "cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level in ("1", "2", "3") and kind in ("Data", "Unified") and size:
            sizes[f"l{level}"] = _number(f"l{level}", size, "host")
            line = int(_read(index / "coherency_line_size") or line)
    return ({"l3": 0} if sizes else {}) | {
        key: value for key, value in DEFAULT_CACHES.items() if not sizes or key != "l3"
    } | sizes, line


def _host_cores() -> int:
    """Physical cores that this process may run on, and no more than a container's CPU quota pays for."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = (_read(_CPU_FOLDER / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in allowed)
    cores = len(set(siblings))
    quota, _, period = (_read(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    return max(1, min(cores, math.ceil(int(quota) / int(period)))) if quota.isdigit() and period else cores
