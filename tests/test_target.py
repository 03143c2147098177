"""The target: detection, text form, JSON form, and the guard before LLVM's process-ending CPU names."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansor_py import te
from ansor_py.codegen.kernel import kernel_text
from ansor_py.codegen.llvm import emit_assembly
from ansor_py.errors import TargetError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import ARCHITECTURES, CORES, Architecture, Core, Target


def test_the_host_is_detected_and_its_text_parses_back() -> None:
    host = Target.detect()
    assert 1 <= host.cores <= len(os.sched_getaffinity(0))
    assert host.cpu
    assert host.lanes("float32") * 4 == host.vector_bytes
    assert host.l1 <= host.l2
    assert Target.parse(str(host)) == host
    assert Target.from_json(json.loads(json.dumps(host.to_json()))) == host


def test_host_with_threads() -> None:
    assert Target.parse("host -threads=3") == Target.detect(cores=3)
    assert Target.parse("host cores=3") == Target.detect().with_cores(3)


def test_what_the_host_cannot_execute_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Target.detect().misfit() is None
    foreign = "aarch64" if Target.detect().architecture == "x86-64" else "x86-64"
    assert Target.parse(foreign).misfit() == f"this machine is {Target.detect().architecture}"
    host = Target.parse("x86-64 cpu=haswell features=+sse2,+avx,+avx2,+fma,+bmi,-avx512f")
    monkeypatch.setattr(Target, "detect", staticmethod(lambda: host))
    for text in ("host", "host cpu=x86-64", "host cpu=skylake", "x86-64 cpu=haswell", "host cpu=haswell features=+bmi"):
        assert Target.parse(text).misfit() is None, text
    wider = "this CPU, 'haswell', lacks avx512f"
    assert Target.parse("host cpu=skylake-avx512").misfit() == wider
    # A feature that is named does not hide what the CPU's vectors need.
    assert Target.parse("host cpu=skylake-avx512 features=+bmi").misfit() == wider
    assert Target.parse("host cpu=skylake-avx512 features=-avx512f,+xop").misfit() == "this CPU, 'haswell', lacks xop"


def test_another_machine_as_text() -> None:
    target = Target.parse("x86-64 cpu=skylake-avx512 cores=2 l1=48KiB l2=1MiB l3=0")
    assert (target.vector_bytes, target.vector_registers, target.cores) == (64, 32, 2)
    assert (target.l1, target.l2, target.l3) == (48 * 1024, 1 << 20, 0)
    assert target.lanes("float64") == 8
    haswell = Target.parse("x86-64 cpu=haswell")
    assert (haswell.vector_bytes, haswell.vector_registers) == (32, 16)
    assert (Target.parse("x86-64").vector_bytes, Target.parse("aarch64").vector_registers) == (16, 32)


def test_features_decide_over_the_name_of_the_cpu() -> None:
    assert Target.parse("x86-64 cpu=icelake-server features=-avx512f").vector_bytes == 32
    assert Target.parse("x86-64 features=+avx,+avx2").vector_bytes == 32


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "must begin with 'host'"),
        ("riscv", "must begin with 'host'"),
        ("x86-64 cpu=pentium-nine", "unknown x86-64 CPU 'pentium-nine'"),
        ("x86-64 cpu=neoverse-n1", "unknown x86-64 CPU"),
        ("x86-64 colour=red", "unknown key 'colour'"),
        ("x86-64 cores", "not of the form key=value"),
        ("x86-64 cores=two", "cores must be a whole number"),
        ("x86-64 cores=0", "cores must be at least 1"),
        ("x86-64 cores=1 threads=2", "given twice"),
        ("x86-64 l2=1parsec", "l2 must be a size"),
        ("x86-64 cpu=haswell vector_bytes=64", "vectors of 32 bytes"),
        ("x86-64 vector_bytes=15", "vector_bytes must be 16, 32 or 64"),
        ("x86-64 features=avx", "form"),
        ("x86-64 features=-64bit", "leaves no code"),
        ("x86-64 triple=aarch64-unknown-linux-gnu", "not one of x86-64"),
    ],
)
def test_nonsense_is_one_clear_error(text: str, phrase: str) -> None:
    with pytest.raises(TargetError, match=phrase):
        Target.parse(text)


def test_json_fields_are_checked() -> None:
    fields = Target.parse("x86-64").to_json()
    with pytest.raises(TargetError, match="'l9' is unknown"):
        Target.from_json(fields | {"l9": 1})
    with pytest.raises(TargetError, match="'cores' must be int"):
        Target.from_json(fields | {"cores": "2"})
    with pytest.raises(TargetError, match="'cpu' is missing"):
        Target.from_json({name: value for name, value in fields.items() if name != "cpu"})


@given(
    cpu=st.sampled_from(ARCHITECTURES["x86-64"].cpus),
    cores=st.integers(1, 256),
    sizes=st.tuples(st.integers(1, 1 << 24), st.integers(1, 1 << 28), st.integers(0, 1 << 32)),
)
def test_text_and_json_round_trip(cpu: str, cores: int, sizes: tuple[int, int, int]) -> None:
    base = Target.parse(f"x86-64 cpu={cpu}")
    target = dataclasses.replace(base, cores=cores, l1=sizes[0], l2=sizes[1], l3=sizes[2])
    assert Target.parse(str(target)) == target
    assert Target.from_json(target.to_json()) == target


COMPILE_FOR_ALL = """
import sys, llvmlite.binding as llvm
llvm.initialize_all_targets(); llvm.initialize_all_asmprinters()
triple, names = sys.argv[1], sys.argv[2].split()
for name in names:
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name)
    module = llvm.parse_assembly("define <8 x float> @f(<8 x float> %x) { %y = fadd <8 x float> %x, %x ret <8 x float> %y }")
    assert machine.emit_assembly(module)
    print(name)
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_llvm_knows_every_cpu_of_the_lists(architecture: Architecture) -> None:
    names = list(architecture.cpus)
    command = [sys.executable, "-c", COMPILE_FOR_ALL, architecture.triple, " ".join(names)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == names
    assert "not a recognized" not in result.stderr


SPELLINGS = [(architecture.name, spelling) for architecture in ARCHITECTURES.values() for spelling in architecture.spellings]


DENORMAL_CONTROL = {"x86-64": "mxcsr", "aarch64": "FPCR", "riscv64": ""}  # RISC-V has no mode that flushes


@pytest.mark.parametrize(("name", "spelling"), SPELLINGS)
def test_every_spelling_of_an_architecture_gets_the_same_code(name: str, spelling: str) -> None:
    """As the first word of a text, and as the machine of a triple where LLVM knows it by that name."""
    plain = Target.parse(f"{name} cores=2")
    spelt = [Target.parse(f"{spelling} cores=2")]
    if spelling != name or "-" not in spelling:
        spelt.append(Target.parse(f"{name} triple={spelling}-unknown-linux-gnu cores=2"))
    dag = ComputeDAG.from_outputs(te.relu(te.matmul(8, 8, 8)))
    wanted = emit_assembly(kernel_text(dag, default_steps(dag, plain, 2), plain, 2), plain)
    assert DENORMAL_CONTROL[name] in wanted
    for target in spelt:
        assert target.architecture == name
        assert target.llvm_features == plain.llvm_features
        assert (target.vector_bytes, target.vector_registers) == (plain.vector_bytes, plain.vector_registers)
        assert emit_assembly(kernel_text(dag, default_steps(dag, target, 2), target, 2), target) == wanted


def test_riscv_vectors_are_as_long_as_the_cpu_or_a_feature_promises() -> None:
    assert (Target.parse("riscv64").vector_bytes, Target.parse("riscv64").vector_registers) == (16, 32)
    assert Target.parse("riscv64 features=+zvl256b").vector_bytes == 32
    assert Target.parse("riscv64 cpu=sifive-x280").vector_bytes == 64
    with pytest.raises(TargetError, match="'-v' leaves no"):
        Target.parse("riscv64 features=-v")


def test_features_that_code_cannot_do_without_are_always_given() -> None:
    assert Target.parse("x86-64").llvm_features == "+64bit"
    assert Target.parse("x86-64 features=+avx,+avx2").llvm_features == "+64bit,+avx,+avx2"
    assert Target.parse("x86-64 features=+64bit").llvm_features == "+64bit"
    assert Target.parse("arm64").llvm_features == ""


def test_the_baseline_is_the_least_cpu_of_this_architecture() -> None:
    host, baseline = Target.detect(), Target.baseline()
    assert baseline.architecture == host.architecture
    assert baseline.vector_bytes <= host.vector_bytes
    assert str(baseline) == str(Target.parse(host.architecture))


def test_a_cpu_stands_in_one_row_whose_numbers_have_a_source() -> None:
    names = [(core.architecture, name) for core in CORES for name in core.cpus]
    assert len(names) == len(set(names))
    usual = {field.name: field.default for field in dataclasses.fields(Core) if isinstance(field.default, int | float)}
    for core in CORES:
        own = [name for name, value in usual.items() if getattr(core, name) != value]
        assert bool(core.sources) == bool(own), core.cpus
        assert all(getattr(core, name) > 0 for name in usual if name != "kept_instructions"), core.cpus


def test_a_core_is_told_by_the_name_of_the_cpu_unless_a_feature_tells_more() -> None:
    assert Target.parse("x86-64 cpu=broadwell").core is Target.parse("x86-64 cpu=haswell").core
    assert Target.parse("x86-64").core is Target.parse("x86-64 cpu=nehalem").core
    assert Target.parse("x86-64 cpu=rocketlake").core.vector_units == 1
    hidden = Target.parse("x86-64 cpu=rocketlake features=+avx512f,+amx-tile").core  # as a hypervisor names Sapphire Rapids
    assert hidden is Target.parse("x86-64 cpu=sapphirerapids").core
    unknown = dataclasses.replace(Target.parse("aarch64"), cpu="cortex-z9")
    assert unknown.core is Target.parse("aarch64").core
