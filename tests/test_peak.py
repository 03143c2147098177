"""The peak kernels: they compute what they say, stay in registers, and give positive figures."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ansor_py.codegen.llvm import emit_assembly
from ansor_py.codegen.peak import copy_ir, measure_copy_bandwidth, measure_peak, peak_chains, peak_ir
from ansor_py.errors import CodegenError
from ansor_py.target import Target
from targets import executed_targets

SCRIPT = Path(__file__).parents[1] / "experiments" / "bench_peak.py"


@pytest.mark.parametrize("text", ["x86-64 cpu=skylake-avx512", "x86-64 cpu=haswell"])
def test_peak_loop_is_all_fma_in_registers(text: str) -> None:
    target = Target.parse(text)
    lines = emit_assembly(peak_ir(target), target).splitlines()
    multiply = [number for number, line in enumerate(lines) if "vfmadd" in line]
    loop = lines[multiply[0] : multiply[-1] + 1]
    assert len(multiply) == 4 * peak_chains(target)
    assert len(loop) == len(multiply)  # nothing between them
    assert not [line for line in loop if re.search(r"\(%r", line)]  # no memory operand
    assert ("zmm" if target.vector_bytes == 64 else "ymm") in loop[0]


def test_copy_moves_whole_vectors() -> None:
    target = Target.parse("x86-64 cpu=skylake-avx512")
    assembly = emit_assembly(copy_ir(target), target)
    assert assembly.count("(%r") >= 2
    assert "zmm" in assembly


@pytest.mark.parametrize("threads", [1, 2])
def test_figures_are_positive(threads: int) -> None:
    target = Target.detect()
    assert np.isfinite(measure_peak(target, threads, seconds=0.02))
    assert measure_peak(target, threads, seconds=0.02) > 0
    assert measure_copy_bandwidth(target, threads, size=1 << 20, seconds=0.02) > 0


def test_no_threads_is_an_error() -> None:
    with pytest.raises(CodegenError, match="at least one thread"):
        measure_peak(Target.detect(), threads=0)


@pytest.mark.parametrize("target", executed_targets())
def test_script_prints_a_table_and_writes_json(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from machine import cpu_line

    command = runpy.run_path(str(SCRIPT))["main"]
    words = ["--threads", "2", "--seconds", "0.02", "--target", str(target), "--json", str(tmp_path / "peak.json")]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{cpu_line(target, [1, 2])}\n")
    assert "FMA GFLOP/s" in result.output
    written = json.loads((tmp_path / "peak.json").read_text())
    assert written["machine"] == cpu_line(target, [1, 2])
    assert [row["threads"] for row in written["rows"]] == [1, 2]
