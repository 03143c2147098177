"""Cores: what each family of CPUs has and does in a cycle, one row a family.

Everything that a model of the machine has to know stands here: the search space asks for lanes and registers, the roofline
and the simulated CPU for units, latencies and what the caches deliver. A new family is a new row of `CORES`, with its sources.

    core_of("x86-64", "haswell").latency      # 5
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

NOMINAL_HERTZ = 3.5e9  # what predicted cycles are turned into seconds with: servers of today under load
HIGHEST_HERTZ = 6e9  # no CPU has a faster clock, but for a few percent


@dataclass(frozen=True)
class Core:
    """A family of CPUs. What has no source of its own is that of a server core of about 2020, such as the defaults describe.

    Attributes:
        cpus: LLVM's names.
        vector_bytes, vector_registers: what instructions name, unless the target's features say otherwise.
        vector_units: operations on vectors (of so many bytes), multiply-adds among them, that begin in a cycle.
        latency: cycles from the operands of a multiply-add to its result.
        division, root: cycles from which on the next division of float32 vectors, or their square root, may begin.
        loads, stores: vectors a cycle.
        width: instructions that are renamed in a cycle.
        in_flight: instructions that have begun and not ended, of which the core finds those that are ready.
        kept_instructions: instructions that are kept decoded; a longer loop is decoded again in every iteration.
        decoded: instructions a cycle where they are decoded. Of 16 or 32 bytes fetched a vector instruction takes 6 or 7.
        first_ways, second_ways: lines with the same low bits of their address that the first and the second cache hold.
        second_bytes, third_bytes, memory_bytes: that arrive in a cycle from the second and third cache and from memory, many
            lines in a row. The latter two are the chip's more than the core's, and less than its links carry: they are
            chosen such that both models order measured programs well (docs/search.md).
        feature: one that no older CPU has, which tells the family where a hypervisor or an older LLVM gives another name.
        sources: where the numbers come from.
    """

    architecture: str
    cpus: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    vector_units: float = 2.0
    latency: float = 4.0
    division: float = 8.0
    root: float = 12.0
    loads: float = 2.0
    stores: float = 1.0
    width: float = 5.0
    in_flight: float = 400.0
    kept_instructions: float = 3000.0
    decoded: float = 2.5
    first_ways: int = 8
    second_ways: int = 16
    second_bytes: float = 48.0
    third_bytes: float = 10.0
    memory_bytes: float = 5.0
    feature: str = ""
    sources: str = ""


def _x86(cpus: str, vector_bytes: int, **numbers: float | str) -> Core:
    return Core("x86-64", tuple(cpus.split()), vector_bytes, 32 if vector_bytes == 64 else 16, **numbers)  # type: ignore[arg-type]


# Sources. LLVM: its scheduling models, llvm/lib/Target/*/*Sched*.td (units, latencies, divisions, reorder buffers). Intel: the
# tables of caches in the Optimization Reference Manual, 248966 (bytes that the second one sustains). AMD: Software Optimization
# Guides 56305, 56665 and 57647. Agner Fog: microarchitecture.pdf (caches of decoded instructions, fetched bytes).
_LLVM_INTEL_FOG = "LLVM {}; Intel: caches; Agner Fog: front end"
# The first row of an architecture is what is taken of a CPU that has none.
CORES = (
    _x86("x86-64 x86-64-v2 core2 penryn nehalem westmere bonnell silvermont goldmont goldmont-plus tremont nocona", 16),
    _x86("k8 amdfam10 btver1", 16),
    _x86("x86-64-v3 sandybridge ivybridge arrowlake arrowlake-s lunarlake pantherlake gracemont sierraforest grandridge", 32),
    _x86("clearwaterforest bdver1 bdver2 bdver3 bdver4 btver2 znver1", 32),
    _x86(
        "haswell broadwell",
        32,
        latency=5,
        division=14,
        root=14,
        width=4,
        in_flight=192,
        kept_instructions=1536,
        second_bytes=25,
        sources=_LLVM_INTEL_FOG.format("X86SchedHaswell.td"),
    ),
    _x86(
        "skylake",
        32,
        division=5,
        root=6,
        width=4,
        in_flight=224,
        kept_instructions=1536,
        second_bytes=29,
        sources=_LLVM_INTEL_FOG.format("X86SchedSkylakeClient.td"),
    ),
    _x86(
        "alderlake raptorlake meteorlake",
        32,
        division=5,
        root=6,
        loads=3,
        stores=2,
        width=6,
        in_flight=512,
        kept_instructions=4096,
        decoded=5,
        first_ways=12,
        second_bytes=48,
        sources=_LLVM_INTEL_FOG.format("X86SchedAlderlakeP.td"),
    ),
    _x86(
        "znver2",
        32,
        latency=5,
        division=5,
        width=6,
        in_flight=224,
        kept_instructions=4096,
        decoded=4,
        second_bytes=31.6,
        sources="LLVM X86ScheduleZnver2.td; AMD 56305; Chips and Cheese, Deep Diving Neoverse N1 (2021): second cache",
    ),
    _x86(
        "znver3",
        32,
        width=6,
        in_flight=256,
        kept_instructions=4096,
        decoded=4,
        sources="LLVM X86ScheduleZnver3.td; AMD 56665",
    ),
    _x86("x86-64-v4 znver5", 64),
    _x86(
        "skylake-avx512 cascadelake cooperlake cannonlake",
        64,
        division=10,
        root=12,
        width=4,
        in_flight=224,
        kept_instructions=1536,
        second_bytes=52,
        sources=_LLVM_INTEL_FOG.format("X86SchedSkylakeServer.td"),
    ),
    _x86(
        "icelake-server",
        64,
        division=10,
        root=12,
        in_flight=352,
        kept_instructions=2304,
        first_ways=12,
        second_bytes=48,
        sources=_LLVM_INTEL_FOG.format("X86SchedIceLake.td") + "; WikiChip, Sunny Cove: reorder buffer, ways",
    ),
    _x86(
        "icelake-client tigerlake rocketlake",
        64,
        vector_units=1,
        division=10,
        root=12,
        in_flight=352,
        kept_instructions=2304,
        first_ways=12,
        second_bytes=48,
        sources=_LLVM_INTEL_FOG.format("X86SchedIceLake.td") + "; uops.info: units; WikiChip, Sunny Cove: reorder buffer, ways",
    ),
    _x86(
        "sapphirerapids emeraldrapids graniterapids graniterapids-d",
        64,
        division=10,
        root=12,
        width=6,
        in_flight=512,
        kept_instructions=4096,
        decoded=5,
        first_ways=12,
        second_bytes=48,
        feature="+amx-tile",
        sources=_LLVM_INTEL_FOG.format("X86SchedSapphireRapids.td") + ": units",
    ),
    _x86(
        "znver4",
        64,
        vector_units=1,
        loads=1,
        stores=0.5,
        width=6,
        in_flight=320,
        kept_instructions=6912,
        decoded=4,
        sources="LLVM X86ScheduleZnver4.td; AMD 57647: vectors of 64 bytes take two cycles in every pipe",
    ),
    Core(  # NEON; scalable vectors are not used
        "aarch64",
        tuple(
            "generic cortex-a53 cortex-a55 cortex-a57 cortex-a72 cortex-a73 cortex-a78 cortex-a710 cortex-x1 cortex-x2 "
            "neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 neoverse-512tvb a64fx ampere1 ampere1a "
            "thunderx2t99 apple-m1 apple-m2 apple-m3 apple-m4".split()
        ),
        16,
        32,
    ),
    Core(
        "aarch64",
        ("neoverse-n1", "cortex-a76"),
        16,
        32,
        width=4,
        in_flight=128,
        kept_instructions=0,
        decoded=4,
        first_ways=4,
        second_bytes=19.3,
        sources="LLVM AArch64SchedNeoverseN1.td; WikiChip, Neoverse N1: width, ways; "
        "Chips and Cheese, Deep Diving Neoverse N1 (2021): second cache",
    ),
    # The extension V promises 16 bytes, and `+zvl256b` more.
    Core("riscv64", ("generic-rv64", "sifive-p670"), 16, 32),
    Core("riscv64", ("spacemit-x60",), 32, 32),
    Core("riscv64", ("sifive-x280",), 64, 32),
)


@cache
def core_of(architecture: str, cpu: str, features: str = "") -> Core:
    """The row of a CPU; that of the architecture's plainest CPUs for a name that no row has.

    A feature that only one family has tells more than the name.
    """
    rows = [core for core in CORES if core.architecture == architecture]
    named = features.split(",")
    told = [core for core in rows if core.feature and core.feature in named]
    return next(iter([*told, *(core for core in rows if cpu in core.cpus), *rows]))
