"""What is refused of operators that are not compiled: the table is complete, has what ONNX's classes ignore, and is obeyed."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper
from onnx.reference.op_run import OpFunction, OpRun
from onnx.reference.reference_evaluator import ReferenceEvaluator

from ansor_py.errors import ModelError
from ansor_py.graph import compile
from ansor_py.graph.evaluators.registry import evaluator_for
from ansor_py.graph.fallback_limits import (
    LIMITS,
    MACHINE_LEARNING,
    REPLACED,
    TRAINING,
    checked_versions,
    refusal,
    reviews,
)
from graph_interpreter import floats, make_model
from operator_runs import evaluated, versions_of


@dataclass(frozen=True)
class Use:
    """A node that uses what is not honoured: operator, opset, attributes, how many inputs and outputs, domain."""

    op_type: str
    opset: int
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: int = 1
    outputs: int = 1
    domain: str = ""

    def node(self) -> NodeProto:
        """The node, its inputs and outputs named by number."""
        ins, outs = [f"x{index}" for index in range(self.inputs)], [f"y{index}" for index in range(self.outputs)]
        return helper.make_node(self.op_type, ins, outs, name="it", domain=self.domain, **self.attributes)

    def refusal(self) -> str | None:
        """What is said of it."""
        return refusal(self.node(), defs.get_schema(self.op_type, self.opset, self.domain))

    def __str__(self) -> str:
        return f"{self.op_type}-{self.opset}-{'-'.join(self.attributes)}"


def ml(op_type: str, opset: int = 3, **attributes: Any) -> Use:
    return Use(op_type, opset, attributes, domain=MACHINE_LEARNING)


TENSOR = numpy_helper.from_array(np.array([0.0, 1.0], np.float32))
SPARSE = helper.make_sparse_tensor(TENSOR, numpy_helper.from_array(np.array([0, 1])), [4])
LABELS = {"classlabels_int64s": [0, 1, 2]}
BROADCAST = "Add And Div Equal Greater Less Mul Or Pow Sub Xor".split()

# Nodes that are refused, and a part of what is said; and the same operators so that nothing is to be said.
REFUSED = [
    *((Use(name, 6, {"broadcast": 1}, 2), "'broadcast' and 'axis'") for name in BROADCAST),
    (Use("Add", 6, {"axis": 0}, 2), "'broadcast' and 'axis'"),
    (Use("Attention", 24, {"softcap": 2.0}, 3, 4), "output 3 in mode 0"),
    (Use("BatchNormalization", 9, {}, 5, 5), "outputs beside the first"),
    (Use("Cast", 5, {"to": "FLOAT"}), "'to', which is a text"),
    (Use("CastLike", 24, {"round_mode": "down"}, 2), "'round_mode'"),
    (Use("Clip", 5), "there is no implementation"),
    (Use("Concat", 1, {}, 2), "the default of 'axis'"),
    (Use("Constant", 13, {"sparse_value": SPARSE}, 0), "'sparse_value'"),
    (Use("ConvTranspose", 22, {"group": 2}, 2), "'group' other than 1"),
    (Use("ConvTranspose", 22, {"output_shape": [4, 4]}, 2), "'output_shape'"),
    (Use("Dropout", 6, {"ratio": 0.5}), "training"),
    (Use("Gradient", 1, {"xs": ["x0"], "y": "y"}, domain=TRAINING), "there is no implementation"),
    (Use("GridSample", 16, {"mode": "bilinear"}, 2), "'bilinear' and 'bicubic'"),
    (Use("HammingWindow", 17, {"output_datatype": TensorProto.FLOAT16}), "'output_datatype'"),
    (Use("HannWindow", 17, {"output_datatype": TensorProto.INT32}), "'output_datatype'"),
    (Use("MaxRoiPool", 22, {"pooled_shape": [1, 1]}, 2), "there is no implementation"),
    (Use("Multinomial", 22), "there is no implementation"),
    (Use("MaxUnpool", 22, {"kernel_shape": [2], "pads": [1, 1]}, 3), "'output_shape' beside 'pads'"),
    (Use("Reshape", 4, {"shape": [1]}), "there is no implementation"),
    (Use("Resize", 10, {}, 2), "coordinates of version 10"),
    (Use("Resize", 11, {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}, 3), "tf_half_pixel_for_nn"),
    (Use("Resize", 19, {"axes": [-1]}, 4), "negative numbers in attribute 'axes'"),
    (Use("Split", 1), "there is no implementation"),
    (Use("StringNormalizer", 10, {"locale": "tr_TR"}), "'locale'"),
    (Use("TfIdfVectorizer", 9, {"mode": "IDF", "ngram_indexes": [0, 1]}), "'weights'"),
    (Use("TfIdfVectorizer", 9, {"mode": "TFIDF", "weights": [1.0, 2.0], "ngram_indexes": [1, 0]}), "'weights'"),
    (Use("Tile", 5, {}, 3), "'tiles' and 'axis'"),
    (Use("Upsample", 7, {"scales": [1.0, 2.0]}), "attributes for scales"),
    (Use("Upsample", 9, {"mode": "linear"}, 2), "'mode' other than nearest"),
    *((ml(name, 1), "there is no implementation") for name in ("CastMap", "CategoryMapper")),
    *(
        (ml(name, 3, post_transform="LOGISTIC"), "'post_transform' other than NONE")
        for name in ("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor")
    ),
    (ml("LinearClassifier", post_transform="PROBIT", coefficients=[1.0]), "'post_transform' other than NONE, LOGISTIC"),
    (ml("SVMClassifier"), "all of it"),
    (ml("TreeEnsemble", 5, post_transform=1), "'post_transform'"),
    (ml("TreeEnsemble", 5, membership_values=TENSOR), "zero among 'membership_values'"),
    (ml("TreeEnsemble", 5, aggregate_function=2, n_targets=2), "several targets"),
    (ml("TreeEnsembleRegressor", aggregate_function="MAX", n_targets=2), "several targets"),
    (ml("TreeEnsembleClassifier", post_transform="PROBIT", **LABELS), "'post_transform' = PROBIT"),
    (ml("TreeEnsembleClassifier", class_ids=[1, 1], class_weights=[1.0, -1.0], **LABELS), "weights of one class"),
    (ml("TreeEnsembleClassifier", class_ids=[0, 1], classlabels_strings=["a"]), "a single class label"),
]

HONOURED = [
    *(Use(name, 7, {}, 2) for name in BROADCAST),
    Use("Add", 6, {"broadcast": 0}, 2),
    Use("Attention", 24, {"softcap": 2.0}, 3, 1),
    Use("Attention", 24, {"softcap": 2.0, "qk_matmul_output_mode": 1}, 3, 4),
    Use("BatchNormalization", 9, {}, 5),
    Use("Cast", 6, {"to": 1}),
    Use("CastLike", 25, {"round_mode": "up"}, 2),
    Use("Clip", 6),
    Use("Concat", 1, {"axis": 0}, 2),
    Use("ConvTranspose", 22, {"group": 1, "pads": [1, 1]}, 2),
    Use("Dropout", 6, {"is_test": 1}),
    Use("GridSample", 16, {}, 2),
    Use("GridSample", 20, {"mode": "cubic"}, 2),
    Use("HannWindow", 17, {"output_datatype": TensorProto.DOUBLE}),
    Use("MaxUnpool", 22, {"kernel_shape": [2], "pads": [1, 1]}, 2),
    Use("Resize", 11, {"coordinate_transformation_mode": "asymmetric"}, 3),
    Use("Resize", 19, {"axes": [2, 3]}, 4),
    Use("StringNormalizer", 10, {"locale": "en_US"}),
    Use("TfIdfVectorizer", 9, {"mode": "TF", "ngram_indexes": [1, 0]}),
    Use("TfIdfVectorizer", 9, {"mode": "IDF", "weights": [1.0, 2.0], "ngram_indexes": [0, 1]}),
    Use("Upsample", 9, {"mode": "nearest"}, 2),
    ml("TreeEnsemble", 5, post_transform=0, aggregate_function=2, n_targets=1),
    ml("TreeEnsembleRegressor", aggregate_function="SUM", n_targets=2),
    ml("TreeEnsembleClassifier", class_ids=[1, 1], class_weights=[1.0, 0.5], **LABELS),
    ml("TreeEnsembleClassifier", class_ids=[1, 1], class_weights=[1.0, -1.0], post_transform="LOGISTIC", **LABELS),
    ml("TreeEnsembleClassifier", class_ids=[0, 1, 2], post_transform="SOFTMAX", **LABELS),
]


def test_every_version_of_every_operator_was_compared() -> None:
    """A newer onnx with operators or versions that nobody has looked at makes this fail: look, then add them."""
    standard: dict[tuple[str, str], set[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        standard.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    assert {key: set(versions) for key, versions in checked_versions().items()} == standard
    assert {row.operator for row in reviews()} == {".".join(filter(None, key)) for key in standard}


def test_the_table_says_why_an_evaluator_is_here() -> None:
    ours = {row.operator for row in reviews() if "ansor_py" in row.evaluator}
    assert set(REPLACED) == ours


@pytest.mark.parametrize(("use", "text"), REFUSED, ids=str)
def test_what_is_not_honoured_is_refused(use: Use, text: str) -> None:
    said = use.refusal()
    assert said is not None
    assert text in said
    assert "; " in said  # and what to do about it


@pytest.mark.parametrize("use", HONOURED, ids=str)
def test_what_is_honoured_is_not_refused(use: Use) -> None:
    assert use.refusal() is None


def test_every_limit_has_a_node_that_it_refuses() -> None:
    hit = set()
    for use, _ in REFUSED:
        version = defs.get_schema(use.op_type, use.opset, use.domain).since_version
        applying = [limit for limit in LIMITS if limit.covers(use.domain, use.op_type, version) and limit.concerns(use.node())]
        hit.update((limit, use.op_type) for limit in applying)
    assert hit == {(limit, op_type) for limit in LIMITS for op_type in limit.operators}


def test_an_attribute_of_the_function_around_a_node_may_be_anything() -> None:
    for name, kind in (("group", AttributeProto.INT), ("output_shape", AttributeProto.INTS)):
        node = Use("ConvTranspose", 22, {}, 2).node()
        node.attribute.append(AttributeProto(name=name, ref_attr_name="given", type=kind))
        assert f"'{name}'" in str(refusal(node, defs.get_schema("ConvTranspose", 22)))


def test_what_the_opset_does_not_have_is_refused() -> None:
    assert "has no attribute 'ceil_mode' in this opset" in str(Use("AveragePool", 7, {"ceil_mode": 1}).refusal())
    assert "has at most 1 inputs in this opset, not 3" in str(Use("Clip", 6, {}, 3).refusal())
    schema = defs.get_schema("Relu", 14)
    unseen = type("Schema", (), {"since_version": 99, "attributes": schema.attributes, "max_input": 1})
    assert "version 99 of the operator has not been compared" in str(refusal(Use("Relu", 14).node(), unseen))


# ---- ONNX's classes, read: which parameters they take and never look at.

# Attributes without an influence on the result, and those that a class reads by another way than by its name.
HINTS = {
    "consumed_inputs",  # of the first opsets: which inputs may be overwritten
    "output_sequence",  # whether an output is wanted, which the node says by naming it
    "chunk_size",  # how LinearAttention is cut up
    "nodes_hitrates",  # which nodes of a tree are taken how often
    "nodes_hitrates_as_tensor",
    "sorted",  # of TopK: any order will do; of Unique it is read
    "SequenceEmpty.dtype",  # a list of nothing has none
}


def class_of(domain: str, op_type: str, version: int) -> type[OpRun] | None:
    """The class that ONNX's evaluator takes for a version of an operator; None if it has none, or a function body."""
    evaluator = ReferenceEvaluator(helper.make_node("Identity", ["x"], ["y"]))
    evaluator.opsets_ = {domain: version}
    try:
        found = evaluator._load_impl(helper.make_node(op_type, [], [], domain=domain), [])
    except Exception:  # each way that an operator is missing has an error of its own
        return None
    return found if inspect.isclass(found) and not issubclass(found, OpFunction) else None


@functools.cache
def names_read(cls: type[OpRun]) -> set[str]:
    """Every name that the class's own methods, and its module's functions, read: parameters, attributes of self, keywords."""
    read: set[str] = set()
    for owner in cls.__mro__:
        if not owner.__module__.startswith("onnx.reference.ops"):
            continue
        for item in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(owner)))):
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load):
                read.add(item.id)
            elif isinstance(item, ast.Attribute):
                read.add(item.attr)
            elif isinstance(item, ast.Constant) and isinstance(item.value, str):
                read.add(item.value)
    return read


def ignored_by_onnx() -> Iterator[tuple[str, str, int, str]]:
    """Domain, operator, version and attribute for every attribute that the class of ONNX's evaluator does not read."""
    for (domain, op_type), versions in checked_versions().items():
        for version in versions:
            if evaluator_for(domain, op_type, version) is not None:
                continue
            cls = class_of(domain, op_type, version)
            if cls is not None:
                schema = defs.get_schema(op_type, version, domain)
                yield from ((domain, op_type, version, name) for name in schema.attributes if name not in names_read(cls))


def test_attributes_that_onnxs_classes_do_not_read_are_refused() -> None:
    """The rule that keeps the table honest: whoever ignores an attribute, whatever it is, has a limit that names it."""
    silent = []
    for domain, op_type, version, name in ignored_by_onnx():
        if name in HINTS or f"{op_type}.{name}" in HINTS:
            continue
        limits = [limit for limit in LIMITS if limit.covers(domain, op_type, version)]
        if not any(f"`{name}`" in limit.what or limit.what.startswith(("all of it", "attributes for")) for limit in limits):
            silent.append(f"{op_type}-{version}: {name}")
    assert not silent


def unread_inputs(cls: type[OpRun], count: int) -> list[str]:
    """The first `count` parameters of `_run` that nothing reads; a function of any number of inputs reads them all."""
    parameters = list(inspect.signature(cls._run).parameters.values())[1:]
    positional = [item.name for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD]
    return [name for name in positional[:count] if name not in names_read(cls)]


def test_inputs_that_onnxs_classes_do_not_read_are_refused() -> None:
    silent = []
    for (domain, op_type), versions in checked_versions().items():
        for version in versions:
            cls = None if evaluator_for(domain, op_type, version) else class_of(domain, op_type, version)
            if cls is not None:
                unread = unread_inputs(cls, len(defs.get_schema(op_type, version, domain).inputs))
                silent += [f"{op_type}-{version}: {name}" for name in unread]
    assert not silent


def test_the_reading_of_onnxs_classes_finds_what_is_known() -> None:
    """It sees the parameters that were found by hand: otherwise the test above could pass by reading nothing."""
    found = {(op_type, name) for _, op_type, _, name in ignored_by_onnx()}
    assert found >= {("Add", "broadcast"), ("CastLike", "round_mode"), ("TreeEnsemble", "nodes_hitrates")}
    lstm = class_of("", "LSTM", 22)
    assert lstm is not None
    assert unread_inputs(lstm, 8) == ["sequence_lens"]


# Attributes that functions here need not look at, and why.
UNREAD = {
    "hidden_size",  # as the weights' shapes
    "kernel_shape",  # of DeformConv: as the weights' shape
    "is_test",  # a limit refuses what is not
    "locale",  # a limit refuses those with letters of their own cases
    "multi_class",  # a word on how the coefficients were found
    "ratio",  # of Dropout before version 12, which is not in training
    "type",  # of Optional: of a value that is not there
}
# Names that are put together, of LabelEncoder and of trees.
PUT_TOGETHER = {f"{part}_{kind}" for part in ("keys", "values") for kind in ("floats", "int64s", "strings", "tensor")}
PUT_TOGETHER |= {f"default_{kind}" for kind in ("float", "int64", "string", "tensor")}
PUT_TOGETHER |= {f"{kind}_{part}" for kind in ("class", "target") for part in ("treeids", "nodeids", "weights")} | {
    "target_ids"
}
PUT_TOGETHER |= {f"{name}_as_tensor" for name in ("base_values", "nodes_values", "class_weights", "target_weights")}


def test_evaluators_read_every_attribute() -> None:
    """The same of the functions here, by the names in the text of their modules and of those that these import."""
    unread = set()
    for (domain, op_type), versions in checked_versions().items():
        for version in versions:
            definition = evaluator_for(domain, op_type, version)
            if definition is None:
                continue
            home = sys.modules[definition.function.__module__]
            modules = {getattr(item, "__module__", None) or "" for item in vars(home).values()} | {home.__name__}
            texts = [inspect.getsource(sys.modules[name]) for name in modules if ".evaluators." in name]
            names = set(defs.get_schema(op_type, version, domain).attributes) - (HINTS - {"sorted"})
            unread |= {name for name in names if not any(f'"{name}"' in text for text in texts)}
    assert unread == UNREAD | PUT_TOGETHER


# ---- Nodes are refused wherever they stand.

REGRESSOR = {"coefficients": [1.0, 2.0], "post_transform": "LOGISTIC"}


def regressor(name: str = "regress") -> NodeProto:
    return helper.make_node("LinearRegressor", ["x"], ["z"], name=name, domain=MACHINE_LEARNING, **REGRESSOR)


def model_with(nodes: list[NodeProto], constants: dict[str, Any] | None = None, **inputs: Any) -> ModelProto:
    """A model of opsets 17 and 3 (of scikit-learn's operators) whose result z is [3, 1]; `inputs` are arrays."""
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "test", infos, [helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 1])], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MACHINE_LEARNING, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


SAYS = (
    r"node 'regress' \(operator ai.onnx.ml.LinearRegressor, opset 3\) .*does not honour attribute 'post_transform' other "
    "than NONE; export the model without it"
)


def test_a_node_of_the_model_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=SAYS):
        compile(model_with([regressor()], x=floats(3, 2)), workers=0)


def test_a_node_without_a_name_is_named_by_its_place() -> None:
    with pytest.raises(ModelError, match=r"node 'LinearRegressor_0' \(operator .*does not honour attribute 'post_transform'"):
        compile(model_with([regressor(name="")], x=floats(3, 2)), workers=0)


@pytest.mark.parametrize("known", [True, False], ids=["computed", "stored"])
def test_a_node_of_constants_is_refused_too(known: bool) -> None:
    nodes = [helper.make_node("Identity", ["k"], ["x"]), regressor()] if known else [regressor()]
    with pytest.raises(ModelError, match=SAYS):
        compile(model_with(nodes, {"k" if known else "x": floats(3, 2)}, unused=floats(1)), workers=0)


def test_a_node_of_a_subgraph_is_refused() -> None:
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 1])
    other = helper.make_graph([helper.make_node("ReduceMax", ["x"], ["z"], axes=[1], keepdims=1)], "other", [], [result])
    then = helper.make_graph([regressor()], "then", [], [result])
    choice = helper.make_node("If", ["c"], ["z"], name="choice", then_branch=then, else_branch=other)
    with pytest.raises(ModelError, match=rf"node 'choice' \(operator If.*{SAYS}"):
        compile(model_with([choice], x=floats(3, 2), c=np.array(True)), workers=0)


def test_a_node_of_a_function_is_refused() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MACHINE_LEARNING, 3), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Regress", ["x"], ["z"], [regressor()], opsets[:2])
    call = helper.make_node("Regress", ["x"], ["z"], name="call", domain="mine")
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 2])]
    results = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [3, 1])]
    graph = helper.make_graph([call], "calls", infos, results)
    with pytest.raises(ModelError, match=r"call/regress.*does not honour attribute 'post_transform'"):
        compile(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8), workers=0)


def test_constants_that_no_evaluator_honours_are_computed_by_a_kernel() -> None:
    """A node that is compiled is not folded by an evaluator that ignores one of its attributes."""
    x, w = floats(1, 2, 3), floats(2, 1, 2, seed=1)
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2),
        helper.make_node("Mul", ["y", "factor"], ["z"]),
    ]
    model = make_model(nodes, {"factor": floats(1)}, ["z"], {"x": x, "w": w})
    compiled = compile(model, threads=1, workers=0)
    expected = np.stack([np.convolve(x[0, channel], w[channel, 0]) for channel in range(2)])[None]
    got = compiled.run({"factor": np.full(1, 2, np.float32)})["z"]
    np.testing.assert_allclose(got, 2 * expected, rtol=1e-5)


@pytest.mark.parametrize("op_type", ["Softmax", "Hardmax", "Selu", "Unsqueeze", "BatchNormalization", "Dropout", "MaxPool"])
def test_every_version_of_a_changing_operator_is_evaluated(op_type: str) -> None:
    """Versions that ONNX's evaluator lacks or mistakes are not lost: the result has a shape and no error is raised."""
    x = floats(1, 2, 3)
    of_channels = np.ones(2, np.float32)
    for version in versions_of(op_type):
        inputs, attributes = [x], dict[str, Any]()
        if op_type == "Unsqueeze":
            inputs, attributes = ([x, np.array([0])], {}) if version >= 13 else ([x], {"axes": [0]})
        elif op_type == "BatchNormalization":
            inputs, attributes = [x, *[of_channels] * 4], {"consumed_inputs": [0]} if version == 1 else {}
        elif op_type == "Dropout":
            attributes = {"is_test": 1} if version < 7 else {}
        elif op_type == "MaxPool":
            attributes = {"kernel_shape": [2]}
        assert evaluated(op_type, inputs, opset=version, **attributes)[0].size >= 4
