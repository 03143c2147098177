"""The frozen baseline: recorded programs, drawn and lowered today, are what they were; the commands that say what changed.

A failure here is a change of what the engine does, meant or not; docs/architecture.md says what to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import recorded
import regenerate
from compare import Difference, report, texts_of
from drawing import draw_programs
from recorded import FOLDER, Program, digest, hashes_text, programs_path, programs_text, read_hashes, read_programs
from subjects import NAMES, TARGETS, workload_dag
from texts import modules_from_elsewhere, program_text

import ansor_py
from ansor_py.sketch_rules import generate_sketches

ROOT = FOLDER.parents[1]
LEAST_PROGRAMS = 300

each_target = pytest.mark.parametrize("target", [pytest.param(name, marks=pytest.mark.runs_for(name)) for name in TARGETS])
each_workload = pytest.mark.parametrize("workload", NAMES)


@each_target
@each_workload
def test_recorded_programs_have_the_recorded_texts(target: str, workload: str) -> None:
    hashes, programs = read_hashes(target), read_programs(target, workload)
    changed = [p.name for p in programs if hashes[p.title] != digest(program_text(target, workload, p.steps))]
    assert not changed, (
        f"{len(changed)} of {len(programs)} programs of {workload} for {target} have another LLVM text: {', '.join(changed)}\n"
        f"which lines: python tests/baseline/compare.py --target {target} --workload {workload}\n"
        "if they are meant: make baseline"
    )


@each_target
@each_workload
def test_programs_are_drawn_as_recorded(target: str, workload: str) -> None:
    before, now = ({p.name: p for p in found} for found in (read_programs(target, workload), draw_programs(target, workload)))
    changed = [name for name in (before | now) if before.get(name) != now.get(name)]
    assert not changed, (
        f"{len(changed)} of {len(before)} programs of {workload} for {target} are drawn otherwise: {', '.join(changed)}\n"
        f"if it is meant: make baseline; which steps: git diff {programs_path(target, workload).relative_to(ROOT)}"
    )


@each_target
def test_the_baseline_has_programs_of_every_workload_and_sketch(target: str) -> None:
    assert recorded.recorded_targets() == sorted(TARGETS)
    assert recorded.recorded_workloads(target) == sorted(NAMES)
    assert len(NAMES) == 23
    titles: list[str] = []
    for workload in NAMES:
        programs = read_programs(target, workload)
        sketches = [sketch.name for sketch in generate_sketches(workload_dag(workload), TARGETS[target])]
        assert list(dict.fromkeys(program.sketch for program in programs)) == ["", *sketches]
        assert programs_path(target, workload).read_text(encoding="utf-8") == programs_text(programs)
        titles += [program.title for program in programs]
    hashes = read_hashes(target)
    assert list(hashes) == titles
    assert len(set(hashes.values())) >= LEAST_PROGRAMS
    assert recorded.hashes_path(target).read_text(encoding="utf-8") == hashes_text(hashes)


def test_neither_hashing_nor_the_order_of_calls_changes_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    programs = [read_programs(target, workload)[-1] for workload in NAMES for target in ("sse2", "neon")]
    texts = texts_of(ROOT, tmp_path, programs[::-1])[::-1]
    assert texts == [program_text(program.target, program.workload, program.steps) for program in programs]


def test_an_engine_from_elsewhere_is_noticed(tmp_path: Path) -> None:
    assert modules_from_elsewhere(Path(ansor_py.__file__).resolve().parents[1]) == []
    assert any(found.startswith("ansor_py.codegen.kernel from ") for found in modules_from_elsewhere(tmp_path))


def test_recording_again_replaces_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, hashes = read_programs("avx2", "nrm"), read_hashes("avx2")
    monkeypatch.setattr(recorded, "PROGRAMS", tmp_path / "programs")
    monkeypatch.setattr(recorded, "HASHES", tmp_path / "hashes")
    monkeypatch.setattr(regenerate, "NAMES", ("nrm",))
    monkeypatch.setattr(regenerate, "TARGETS", {"avx2": TARGETS["avx2"]})
    gone = programs_path("avx2", "gone")
    gone.parent.mkdir(parents=True)
    gone.write_text("default\n", encoding="utf-8")
    count = len(expected)
    for changed in (count, 0):
        regenerate.main()
        said = f"avx2: {count} programs, {changed} of them new or drawn otherwise, {changed} hashes new or changed\n"
        assert capsys.readouterr().out == said
        assert not gone.exists()
        assert read_programs("avx2", "nrm") == expected
        assert read_hashes("avx2") == {program.title: hashes[program.title] for program in expected}


def differences(*texts: tuple[str, str]) -> list[Difference]:
    """Programs with these texts before and after."""
    programs = [Program("avx2", "nrm", f"tile(C) #{number}", (), ()) for number in range(len(texts))]
    return [Difference(program, *pair) for program, pair in zip(programs, texts, strict=True)]


def test_the_report_leaves_out_numbers_that_a_line_shifts() -> None:
    before = "entry:\n  %v1 = load i32, ptr %b0\n  br label %done2\ndone2:\n  ret void\n"
    after = "entry:\n  %v1 = add i32 0, 1\n  %v2 = load i32, ptr %b0\n  br label %done3\ndone3:\n  ret void\n"
    lines = list(report(differences((before, after), (before, before)), 3, 20))
    assert lines[0] == "1 of 2 programs changed"
    assert [line.split() for line in lines[2:4]] == [["avx2"], ["nrm", "1", "of", "2"]]
    assert lines[5:] == [
        "lines that went (-) and came (+)",
        "       1 x +  %v# = add i32 0, 1",
        "",
        "avx2 nrm: tile(C) #0",
        "@@ -1 +1 @@",
        " entry:",
        "+  %v1 = add i32 0, 1",
        "   %v2 = load i32, ptr %b0",
        "   br label %done3",
    ]


def test_the_report_shows_numbers_when_nothing_else_changed() -> None:
    lines = list(report(differences(("  store i32 %v1, ptr %b0\n", "  store i32 %v1, ptr %b1\n")), 3, 20))
    assert lines[-2:] == ["-  store i32 %v1, ptr %b0", "+  store i32 %v1, ptr %b1"]
    assert "lines that went (-) and came (+)" not in lines


def test_the_report_begins_with_small_changes_and_is_cut() -> None:
    small, large = ("a\nb\n", "a\nc\n"), ("a\nb\n", "x\ny\nz\n")
    lines = list(report(differences(large, small, large), 1, 3))
    assert lines[-7:] == [
        "avx2 nrm: tile(C) #1",
        "@@ -1 +1 @@",
        " a",
        "-b",
        "... and 1 more lines; --most-lines shows them",
        "",
        "... and 2 more programs; --most-programs shows them",
    ]


def test_a_program_that_an_engine_cannot_lower_counts_as_changed() -> None:
    lines = list(report(differences(("a\n", "error: no"), ("error: no", "error: no"), ("a\n", "a\n")), 3, 20))
    assert lines[0] == "2 of 3 programs changed"
    assert lines[-3:] == ["not lowered by", "       2 x the working tree: no", "       1 x the revision: no"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two commits: the engine as it is, and with one more line in every text that has a square root."""
    if shutil.which("git") is None:
        pytest.skip("the command git was not found")
    folder = tmp_path_factory.mktemp("repository")
    for part in "ansor_py search cost_model sketch_rules tests/baseline".split():
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in "pyproject.toml tests/targets.py experiments/workloads.py".split():
        (folder / part).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / part, folder / part)
    git(folder, "init", "--quiet")
    commit(folder, "the engine as it is")
    with (folder / "ansor_py" / "codegen" / "kernel.py").open("a", encoding="utf-8") as file:
        file.write(CHANGE)
    commit(folder, "a comment in some texts")
    return folder


CHANGE = """
unchanged_text = kernel_text


def kernel_text(*arguments):
    return unchanged_text(*arguments).replace("declare float @llvm.sqrt", "; roots\\ndeclare float @llvm.sqrt")
"""
ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, env=os.environ | ENVIRONMENT)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", message)


def compared(repository: Path, scratch: Path, *words: str) -> tuple[int, str]:
    """Exit status and output of `compare.py` in the repository; it leaves nothing in the folder for temporary files."""
    command = [sys.executable, str(repository / "tests" / "baseline" / "compare.py"), *words]
    environment = os.environ | ENVIRONMENT | {"TMPDIR": str(scratch)}
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert not list(scratch.iterdir())
    return done.returncode, done.stdout


def test_a_change_of_one_line_is_reported(repository: Path, tmp_path: Path) -> None:
    count = len(read_programs("avx2", "nrm"))
    status, said = compared(repository, tmp_path, "--workload", "nrm", "--workload", "softmax", "--target", "avx2")
    assert status == 1, said
    assert f"{count} of {count + len(read_programs('avx2', 'softmax'))} programs changed" in said
    assert f"nrm                 {count} of {count}\n\n" in said  # and no row for the softmax
    assert f"{count:8d} x +; roots\n\n" in said
    assert "avx2 nrm: default\n@@" in said
    assert "\n+; roots\n" in said


def test_nothing_is_reported_where_nothing_changed(repository: Path, tmp_path: Path) -> None:
    status, said = compared(repository, tmp_path, "HEAD", "--workload", "nrm", "--target", "neon")
    count = len(read_programs("neon", "nrm"))
    assert (status, said) == (0, f"the engine of HEAD beside that of the working tree\n0 of {count} programs changed\n")


def test_trouble_is_named(repository: Path, tmp_path: Path) -> None:
    status, said = compared(repository, tmp_path, "HEAD~7")
    assert (status, "HEAD~7" in said) == (2, True)
    status, said = compared(repository, tmp_path, "--workload", "gmm")
    assert (status, "no programs of workload 'gmm' are recorded" in said) == (2, True)
    broken = repository / "ansor_py" / "codegen" / "kernel.py"
    text = broken.read_text(encoding="utf-8")
    try:
        broken.write_text(text + "\nraise ValueError('not today')\n", encoding="utf-8")
        status, said = compared(repository, tmp_path, "HEAD", "--workload", "nrm", "--target", "avx2")
    finally:
        broken.write_text(text, encoding="utf-8")
    assert status == 2
    assert "not today" in said
    assert "tests/baseline/texts.py of" in said
