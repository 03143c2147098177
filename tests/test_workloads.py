"""The benchmark suite: both forms of every workload compute what ONNX's evaluator computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from ansor_py.errors import OptionError
from ansor_py.graph import compile_partition, partition_model
from ansor_py.graph.reference import reference_outputs
from ansor_py.schedule.dag import ComputeDAG

NAMES = (
    "gmm_512 gmm_1024 gmm_bert bmm c1d c2d_56 c2d_14 c2d_s2 c2d_1x1 c3d dep_112 dil grp t2d cap nrm softmax layernorm tbg "
    "conv_bn_relu matmul_softmax gmm_prime"
).split()
ATTENTION = ["attention_128", "attention_512", "attention_4096"]


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


@pytest.mark.parametrize("name", [*NAMES, *ATTENTION[:2]])
def test_both_forms_agree_with_the_reference(name: str) -> None:
    from workloads import workload

    item = workload(name, scale=4)
    model, feed = item.model(), item.feed()
    onnx.checker.check_model(model, full_check=True)
    expected = np.asarray(reference_outputs(model, feed)["y"], dtype=np.float32)
    bound = 2e-5 * float(np.abs(expected).max())
    for form in (item.partition(), partition_model(model, fallback=False)):
        got = compile_partition(form, threads=1, workers=0).run(feed)["y"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound, strict=True)


@pytest.mark.parametrize(
    ("name", "flops", "moved"),
    [
        ("gmm_1024", 2 * 1024**3, 3 * 4 * 1024**2),
        ("gmm_prime", 2 * 1021 * 1019 * 1013, 4 * (1021 * 1019 + 1019 * 1013 + 1021 * 1013)),
        ("c2d_56", 2 * 64 * 64 * 9 * 56 * 56, 4 * (2 * 64 * 56 * 56 + 64 * 64 * 9 + 64)),
        ("dep_112", 2 * 9 * 32 * 112 * 112, 4 * (2 * 32 * 112 * 112 + 9 * 32)),
        ("grp", 2 * 64 * 16 * 9 * 56 * 56, 4 * (2 * 64 * 56 * 56 + 64 * 16 * 9)),
        ("t2d", 2 * 128 * 256 * 4 * 16 * 16, 4 * (256 * 64 + 256 * 128 * 16 + 128 * 256)),
        ("cap", 2 * 256 * 1152 * 128, 4 * (256 * 512 + 9 * 16 * 1024 + 64 * 512)),
        ("tbg", 2 * 12 * 128 * 128 * 64, 4 * (2 * 128 * 12 * 64 + 12 * 128 * 128)),
    ],
)
def test_work_is_what_the_definition_needs(name: str, flops: int, moved: int) -> None:
    from workloads import workload

    item = workload(name)
    assert item.flops == flops
    assert item.bytes == moved


def test_the_suite_has_every_workload_once_and_distinct() -> None:
    from workloads import SUITE, WORKLOADS, workload

    assert list(SUITE) == NAMES
    assert list(WORKLOADS) == NAMES + ATTENTION
    assert len({ComputeDAG.from_outputs(workload(name).tensor()).workload_key for name in WORKLOADS}) == len(WORKLOADS)
    with pytest.raises(OptionError, match="no workload 'gmm_2048'; known are gmm_512"):
        workload("gmm_2048")
