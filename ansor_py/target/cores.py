"""Cores: what each family of CPUs has and does in a cycle, one row a family.

Everything that a model of the machine has to know stands here: the search space asks for lanes and registers, the roofline
and the simulated CPU for units, latencies and what the caches deliver. A new family is a new row of `CORES`.

    core_of("x86-64", "haswell").vector_bytes      # 32
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

NOMINAL_HERTZ = 3.5e9  # what predicted cycles are turned into seconds with: servers of today under load
HIGHEST_HERTZ = 6e9  # no CPU has a faster clock, but for a few percent


@dataclass(frozen=True)
class Core:
    """A family of CPUs; `cpus` are LLVM's names of them.

    Attributes:
        vector_bytes, vector_registers: what instructions name, unless the target's features say otherwise.
        vector_units: operations on vectors, multiply-adds among them, that begin in a cycle.
        latency: cycles from the operands of a multiply-add to its result.
        loads, stores: vectors a cycle.
        width: instructions that are renamed in a cycle.
        in_flight: instructions that have begun and not ended, of which the core finds those that are ready.
        kept_instructions: instructions that are kept decoded; a longer loop is decoded again in every iteration.
        decoded: instructions a cycle where they are decoded.
        first_ways: lines with the same low bits of their address that the first cache holds.
        second_bytes, third_bytes, memory_bytes: that arrive in a cycle from the second and third cache and from memory, many
            lines in a row.
    """

    architecture: str
    cpus: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    vector_units: float = 2.0
    latency: float = 4.0
    loads: float = 2.0
    stores: float = 1.0
    width: float = 5.0
    in_flight: float = 400.0
    kept_instructions: float = 3000.0
    decoded: float = 2.5
    first_ways: int = 8
    second_bytes: float = 64 / 1.5
    third_bytes: float = 16.0
    memory_bytes: float = 64 / 18


def _x86(cpus: str, vector_bytes: int) -> Core:
    return Core("x86-64", tuple(cpus.split()), vector_bytes, 32 if vector_bytes == 64 else 16)


def _riscv(cpus: str, vector_bytes: int) -> Core:
    return Core("riscv64", tuple(cpus.split()), vector_bytes, 32)


# LLVM ends the process on a CPU name that it does not know, so names are looked up here before it sees them. The first row of
# an architecture is what is taken of a CPU that has none.
CORES = (
    _x86("x86-64 x86-64-v2 core2 penryn nehalem westmere bonnell silvermont goldmont goldmont-plus tremont nocona", 16),
    _x86("k8 amdfam10 btver1", 16),
    _x86("x86-64-v3 sandybridge ivybridge haswell broadwell skylake alderlake raptorlake meteorlake arrowlake arrowlake-s", 32),
    _x86("lunarlake pantherlake gracemont sierraforest grandridge clearwaterforest bdver1 bdver2 bdver3 bdver4 btver2", 32),
    _x86("znver1 znver2 znver3", 32),
    _x86("x86-64-v4 skylake-avx512 cascadelake cooperlake cannonlake icelake-client icelake-server tigerlake rocketlake", 64),
    _x86("sapphirerapids emeraldrapids graniterapids graniterapids-d znver4 znver5", 64),
    Core(  # NEON; scalable vectors are not used
        "aarch64",
        tuple(
            "generic cortex-a53 cortex-a55 cortex-a57 cortex-a72 cortex-a73 cortex-a76 cortex-a78 cortex-a710 cortex-x1 "
            "cortex-x2 neoverse-n1 neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 neoverse-512tvb a64fx ampere1 "
            "ampere1a thunderx2t99 apple-m1 apple-m2 apple-m3 apple-m4".split()
        ),
        16,
        32,
    ),
    # The extension V promises 16 bytes, and `+zvl256b` more.
    _riscv("generic-rv64 sifive-p670", 16),
    _riscv("spacemit-x60", 32),
    _riscv("sifive-x280", 64),
)


@cache
def core_of(architecture: str, cpu: str) -> Core:
    """The row of a CPU; that of the architecture's plainest CPUs for a name that no row has."""
    rows = [core for core in CORES if core.architecture == architecture]
    return next((core for core in rows if cpu in core.cpus), rows[0])
