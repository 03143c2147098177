"""ONNX's backend tests run against `AnsorBackend`, each with a verdict on how it was computed.

compiled     passes with fallback off and with ONNX's reference evaluator made to raise: native kernels did all of it
library      passes like that, but library kernels (NumPy code of this package between native segments) do a part of it
known        all of its inputs have to be known at compile time, and so is its result; nothing is left to run
evaluated    compiled, but the evaluator folded a constant of it at compile time
fallback     passes, with nodes run by the evaluator
failed       anything else, with the error

    for case in load_cases():
        print(case.name, run_case(case))
"""

from __future__ import annotations

import functools
import unittest
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, defs
from onnx.backend.test import BackendTest
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ansor_py.errors import AnsorError
from ansor_py.graph.backend import AnsorBackend, AnsorRep
from ansor_py.graph.evaluators.registry import evaluator_for
from ansor_py.graph.fallback_limits import refusal
from ansor_py.te.expr import DTYPE_BYTES

Kind = Literal["compiled", "library", "known", "evaluated", "fallback", "failed"]
KINDS: tuple[Kind, ...] = ("compiled", "library", "known", "evaluated", "fallback", "failed")
SUITES = ("NodeModel", "SimpleModel", "PyTorchOperatorModel", "PyTorchConvertedModel")
# Operators of control flow, strings, sequences and optional values.
_OUTSIDE = {
    *("If", "Loop", "Scan", "Optional", "OptionalGetElement", "OptionalHasElement", "ConcatFromSequence", "SplitToSequence"),
    *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"),
    *("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "LabelEncoder"),
}


@dataclass(frozen=True)
class Case:
    """One of ONNX's tests: suite and name, and the function that runs it against a backend class."""

    suite: str
    name: str
    test: unittest.TestCase

    def shard(self, count: int) -> int:
        """Which of `count` shards the case belongs to: the same on every machine."""
        return zlib.crc32(self.name.encode()) % count


@dataclass(frozen=True)
class Outcome:
    """What became of a case. `nodes` are the operators that the evaluator or library kernels ran; `reason` says why the
    evaluator ran, or what failed; `ignored`, whether a class of ONNX's ran that is known to ignore something of what it was
    given."""

    kind: Kind
    reason: str = ""
    nodes: tuple[str, ...] = ()
    ignored: bool = False


class RecordingBackend(AnsorBackend):
    """The backend, with the prepared models kept and fallback switched by the harness."""

    fallback = True
    prepared: list[AnsorRep] = []  # noqa: RUF012

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **options: Any) -> bool:
        """Nothing is skipped: what cannot be run fails."""
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **options: Any) -> AnsorRep:
        """As `AnsorBackend`, remembered."""
        made = super().prepare(model, device, fallback=cls.fallback, **options)
        cls.prepared.append(made)
        return made


@functools.cache
def load_cases() -> tuple[Case, ...]:
    """All cases for CPUs but those that download models; ONNX generates them, which takes about ten seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = BackendTest(RecordingBackend, __name__)
    found = []
    for suite in SUITES:
        class_ = runner.test_cases[f"OnnxBackend{suite}Test"]
        names = [name for name in unittest.defaultTestLoader.getTestCaseNames(class_) if name.endswith("_cpu")]
        found += [Case(suite, name, class_(name)) for name in names]
    return tuple(found)


def run_case(case: Case) -> Outcome:
    """Run a case, first compiled completely with the evaluator forbidden, then with everything allowed."""
    try:
        with forbidden_evaluator():
            attempt(case, fallback=False)
        library = [node.op_type for model in RecordingBackend.prepared for v in model.variants for node in v.library_nodes]
        if library:
            return Outcome("library", nodes=tuple(dict.fromkeys(library)))
        return Outcome("known" if _nothing_runs(RecordingBackend.prepared) else "compiled")
    except Exception as error:
        first = error
    try:
        with watched_evaluator() as ignoring:
            attempt(case, fallback=True)
    except Exception as error:
        return Outcome("failed", _one_line(error))
    nodes = [node for model in RecordingBackend.prepared for compiled in model.variants for node in compiled.fallback_nodes]
    if not nodes:
        return Outcome("evaluated", _one_line(first), ignored=bool(ignoring))
    return Outcome("fallback", nodes[0].reason, tuple(dict.fromkeys(node.op_type for node in nodes)), bool(ignoring))


def attempt(case: Case, fallback: bool) -> None:
    """Run a case once; it raises what the test raises."""
    RecordingBackend.fallback = fallback
    RecordingBackend.prepared.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(case.test, case.name)()


@contextmanager
def forbidden_evaluator() -> Iterator[None]:
    """Inside, every evaluation by ONNX's reference evaluator is an error."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("ONNX's reference evaluator ran")

    with mock.patch.object(ReferenceEvaluator, "run", refuse):
        yield


@contextmanager
def watched_evaluator() -> Iterator[list[str]]:
    """Inside, the list grows by every node that runs by a class of ONNX's that is known not to do it right."""
    found: list[str] = []
    run = ReferenceEvaluator.run

    def watched(evaluator: ReferenceEvaluator, *arguments: Any, **options: Any) -> Any:
        found.extend(node.op_type for node in evaluator.rt_nodes_ if _ignores(node, evaluator.opsets))
        return run(evaluator, *arguments, **options)

    with mock.patch.object(ReferenceEvaluator, "run", watched):
        yield found


def _ignores(node: OpRun, opsets: Mapping[str, int]) -> bool:
    if not type(node).__module__.startswith("onnx.reference.ops"):
        return False
    schema = defs.get_schema(node.op_type, opsets[node.domain], node.domain)
    replaced = evaluator_for(node.domain, node.op_type, schema.since_version) is not None
    return replaced or refusal(node.onnx_node, schema) is not None


def _nothing_runs(models: Sequence[AnsorRep]) -> bool:
    """Whether every result was known before anything ran: no kernel is called, and outputs are copies of weights."""
    plans = [compiled.plan for model in models for compiled in model.variants]
    return all(not plan.calls and plan.copies and all(c.source.region == "weights" for c in plan.copies) for plan in plans)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, AnsorError) else f"{type(error).__name__}: {text}"


@functools.cache
def _node_models() -> dict[str, TestCase]:
    return {f"{case.name}_cpu": case for case in load_model_tests(kind="node")}


@functools.cache
def counts_for_the_bar(name: str) -> bool:
    """Whether a node case is one of float, integer or bool tensors (of compiled dtypes) without control flow, strings,
    sequences or optional values."""
    case = _node_models().get(name)
    if case is None or case.model is None:
        return False
    infos = [*case.model.graph.input, *case.model.graph.output]
    if not all(info.type.HasField("tensor_type") for info in infos):
        return False
    kinds = {TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower() for info in infos}
    dtypes = {"float32": "float", "float64": "double"}
    allowed = {dtypes.get(dtype, dtype) for dtype in DTYPE_BYTES}
    return kinds <= allowed and not _operators(case.model.graph) & _OUTSIDE


def _operators(graph: GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                found |= _operators(attribute.g)
    return found
