"""LSTM, GRU and RNN outside of compiled code: every attribute and input against the standard's equations, and PyTorch's values.

The oracle here is written from the equations for one sequence and one element of the batch at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from ansor_py.errors import ModelError
from ansor_py.graph import compile
from graph_interpreter import Array, make_model
from operator_runs import evaluated, versions_of

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# Of x, alpha and beta; and the parameters that a function takes, with their defaults where it has some.
ACTIVATIONS: dict[str, tuple[Callable[[float, float, float], float], tuple[float | None, ...]]] = {
    "Relu": (lambda x, a, b: max(0.0, x), ()),
    "Tanh": (lambda x, a, b: math.tanh(x), ()),
    "Sigmoid": (lambda x, a, b: 1 / (1 + math.exp(-x)), ()),
    "Affine": (lambda x, a, b: a * x + b, (1.0, 0.0)),
    "LeakyRelu": (lambda x, a, b: x if x >= 0 else a * x, (0.01,)),
    "ThresholdedRelu": (lambda x, a, b: x if x >= a else 0.0, (1.0,)),
    "ScaledTanh": (lambda x, a, b: a * math.tanh(b * x), (None, None)),
    "HardSigmoid": (lambda x, a, b: min(max(a * x + b, 0.0), 1.0), (0.2, 0.5)),
    "Elu": (lambda x, a, b: x if x >= 0 else a * (math.exp(x) - 1), (1.0,)),
    "Softsign": (lambda x, a, b: x / (1 + abs(x)), ()),
    "Softplus": (lambda x, a, b: math.log(1 + math.exp(x)), ()),
}


def waves(*shape: int, start: int = 1) -> Array:
    """Numbers without a pattern, the same everywhere."""
    return np.sin(np.arange(start, start + math.prod(shape)) * 0.7).reshape(shape).astype(np.float32)


def case(kind: str, directions: int = 1, time: int = 3, batch: int = 2, hidden: int = 2) -> list[Any]:
    """X, W, R and B of an operator."""
    gates = GATES[kind]
    weights = [waves(directions, gates * hidden, 3), waves(directions, gates * hidden, hidden) * 0.5]
    return [waves(time, batch, 3) * 1.5, *weights, waves(directions, 2 * gates * hidden) * 0.25]


def functions_of(kind: str, directions: int, attributes: dict[str, Any]) -> list[list[Callable[[Array], Array]]]:
    alphas, betas = list(attributes.get("activation_alpha", [])), list(attributes.get("activation_beta", []))
    made: list[Callable[[Array], Array]] = []
    for name in attributes.get("activations", FUNCTIONS[kind] * directions):
        function, defaults = ACTIVATIONS[name]
        alpha = (alphas.pop(0) if alphas else defaults[0]) if defaults else 0.0
        beta = (betas.pop(0) if betas else defaults[1]) if len(defaults) > 1 else 0.0
        made.append(lambda x, f=function, a=alpha, b=beta: np.array([f(float(item), a, b) for item in x]))
    each = len(FUNCTIONS[kind])
    return [made[each * index : each * (index + 1)] for index in range(directions)]


@dataclass(frozen=True)
class Direction:
    """One direction of a network: weights and biases by gate, activations that clip what they get."""

    kind: str
    attributes: dict[str, Any]
    functions: list[Callable[[Array], Array]]
    w: Array
    r: Array
    wb: Array
    rb: Array
    peepholes: Array

    def part(self, array: Array, gate: int) -> Array:
        """The rows or elements of one gate."""
        hidden = self.r.shape[1]
        return array[gate * hidden : (gate + 1) * hidden]

    def act(self, index: int, x: Array) -> Array:
        """An activation of a gate."""
        limit = self.attributes.get("clip", math.inf)
        return self.functions[index](np.clip(x, -limit, limit))

    def gate(self, number: int, x: Array, h: Array) -> Array:
        """Xt*(W^T) + Ht-1*(R^T) + Wb + Rb."""
        w, r, wb, rb = (self.part(array, number) for array in (self.w, self.r, self.wb, self.rb))
        return x @ w.T + h @ r.T + wb + rb

    def step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Ht and Ct."""
        if self.kind == "RNN":
            return self.act(0, self.gate(0, x, h)), c
        if self.kind == "GRU":
            z, reset = self.act(0, self.gate(0, x, h)), self.act(0, self.gate(1, x, h))
            w, r, wb, rb = (self.part(array, 2) for array in (self.w, self.r, self.wb, self.rb))
            linear = self.attributes.get("linear_before_reset")
            inner = reset * (h @ r.T + rb) if linear else (reset * h) @ r.T + rb
            return (1 - z) * self.act(1, x @ w.T + wb + inner) + z * h, c
        p_i, p_o, p_f = np.split(self.peepholes, 3)
        i = self.act(0, self.gate(0, x, h) + p_i * c)
        coupled = self.attributes.get("input_forget")
        forget = 1 - i if coupled else self.act(0, self.gate(2, x, h) + p_f * c)
        new = forget * c + i * self.act(1, self.gate(3, x, h))
        return self.act(0, self.gate(1, x, h) + p_o * new) * self.functions[2](new), new


def by_equations(kind: str, inputs: Sequence[Any], attributes: dict[str, Any]) -> list[Array]:
    """Y and the last states, one sequence at a time, by the equations of the standard's text."""
    x, w, r, b, lengths, h_0, c_0, p = [*inputs, *[None] * (8 - len(inputs))]
    (time, batch, _), (count, _, hidden) = x.shape, r.shape
    y, last = np.zeros((time, count, batch, hidden)), np.zeros((2, count, batch, hidden))
    turned = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[attributes.get("direction", "forward")]
    functions = functions_of(kind, count, attributes)
    for d in range(count):
        wb, rb = np.split(np.zeros(2 * w.shape[1]) if b is None else b[d], 2)
        peepholes = np.zeros(3 * hidden) if p is None else p[d]
        direction = Direction(kind, attributes, functions[d], w[d], r[d], wb, rb, peepholes)
        for n in range(batch):
            steps = time if lengths is None else int(lengths[n])
            h = np.zeros(hidden) if h_0 is None else h_0[d, n].astype(float)
            c = np.zeros(hidden) if c_0 is None else c_0[d, n].astype(float)
            for t in range(steps)[:: -1 if turned[d] else 1]:
                h, c = direction.step(x[t, n].astype(float), h, c)
                y[t, d, n] = h
            last[0, d, n], last[1, d, n] = (h, c) if steps else (0, 0)
    return [y, last[0], last[1]][: 3 if kind == "LSTM" else 2]


def check(kind: str, inputs: Sequence[Any], opset: int = 22, **attributes: Any) -> None:
    hidden = inputs[2].shape[-1]
    got = evaluated(kind, inputs, 3 if kind == "LSTM" else 2, opset=opset, hidden_size=hidden, **attributes)
    for one, other in zip(got, by_equations(kind, inputs, attributes), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


KINDS = pytest.mark.parametrize("kind", GATES)
DIRECTIONS = pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])


@KINDS
@DIRECTIONS
def test_directions_lengths_and_initial_states(kind: str, direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    x, w, r, b = case(kind, directions)
    lengths, states = np.array([3, 1], np.int32), [waves(directions, 2, 2), waves(directions, 2, 2, start=5)]
    states = states if kind == "LSTM" else states[:1]
    check(kind, [x, w, r], direction=direction)
    check(kind, [x, w, r, b, lengths], direction=direction)
    check(kind, [x, w, r, None, np.array([0, 2], np.int32), *states], direction=direction)
    check(kind, [x, w, r, b, None, *states], direction=direction)


@KINDS
def test_every_version(kind: str) -> None:
    x, w, r, b = case(kind)
    for version in versions_of(kind):
        check(kind, [x, w, r, b, np.array([1, 3], np.int32)], opset=version, direction="forward")


@KINDS
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("given", [False, True], ids=["defaults", "given"])
def test_activations_in_every_place(kind: str, name: str, given: bool) -> None:
    parameters = ACTIVATIONS[name][1]
    for place in range(len(FUNCTIONS[kind])):
        names = list(FUNCTIONS[kind])
        names[place] = name
        attributes: dict[str, Any] = {"activations": names}
        if given or None in parameters:
            attributes |= {"activation_alpha": [0.4]} if parameters else {}
            attributes |= {"activation_beta": [0.3]} if len(parameters) > 1 else {}
        check(kind, case(kind), **attributes)


def test_activation_parameters_are_consumed_by_the_functions_that_take_them() -> None:
    names = ["HardSigmoid", "LeakyRelu", "Tanh", "Sigmoid", "Affine", "Elu"]
    parameters = {"activation_alpha": [0.3, 0.1, 0.8, 0.6], "activation_beta": [0.4, 0.2]}
    check("LSTM", case("LSTM", 2), direction="bidirectional", activations=names, **parameters)


@KINDS
@pytest.mark.parametrize("clip", [0.2, 0.7])
def test_clipping(kind: str, clip: float) -> None:
    check(kind, case(kind), clip=clip)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_peepholes_and_coupled_gates(direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    x, w, r, b = case("LSTM", directions)
    for flag in (0, 1):
        check("LSTM", [x, w, r, b, None, None, None, waves(directions, 6)], direction=direction, input_forget=flag)


@pytest.mark.parametrize("opset", [3, 7, 14, 22])
@pytest.mark.parametrize("flag", [0, 1])
def test_linear_before_reset(opset: int, flag: int) -> None:
    check("GRU", case("GRU"), opset=opset, linear_before_reset=flag)


@KINDS
def test_layout_batch_first(kind: str) -> None:
    x, w, r, b = case(kind, 2)
    lengths, h = np.array([2, 3], np.int32), waves(2, 2, 2)
    states = [h, h * 0.5] if kind == "LSTM" else [h]
    count = 1 + len(states)
    options = {"hidden_size": 2, "direction": "bidirectional", "opset": 14}
    first = evaluated(kind, [x, w, r, b, lengths, *states], count, **options)
    moved = [x.swapaxes(0, 1), w, r, b, lengths, *(state.swapaxes(0, 1) for state in states)]
    second = evaluated(kind, moved, count, layout=1, **options)
    np.testing.assert_array_equal(second[0], first[0].transpose(2, 0, 1, 3))
    for one, other in zip(second[1:], first[1:], strict=True):
        np.testing.assert_array_equal(one, other.swapaxes(0, 1))


# What PyTorch 2.13 gives for a packed sequence of lengths 3 and 1: Y [time, direction, batch, hidden] and the last states.
PYTORCH = {
    "LSTM": """
        0.09854 -0.25992 0.02645 0.0889 0.12571 0.15939 -0.38822 -0.22774 0.29311 -0.07527 0 0 0.30223 -0.30402 0 0
        0.02259 0.10802 0 0 -0.25271 -0.28414 0 0; 0.02259 0.10802 0.02645 0.0889 0.12571 0.15939 -0.38822 -0.22774;
        0.03937 0.4964 0.05343 0.55382 0.61304 0.87754 -0.55736 -0.3656""",
    "GRU": """
        0.61092 -0.25198 0.90265 0.26141 -0.1046 -0.74313 0.33857 -0.59785 0.01256 0.31257 0 0 -0.07832 -0.01776 0 0
        0.7264 0.21375 0 0 0.51381 -0.80749 0 0; 0.7264 0.21375 0.90265 0.26141 -0.1046 -0.74313 0.33857 -0.59785""",
    "RNN": """
        0.99961 -0.50061 -0.46477 0.97808 -0.95993 0.99013 -0.06928 -0.76199 -0.88719 0.45755 0 0 0.97004 -0.96177 0 0
        -0.78408 0.90992 0 0 -0.03736 -0.85774 0 0; -0.78408 0.90992 -0.46477 0.97808 -0.95993 0.99013 -0.06928 -0.76199""",
}


@KINDS
def test_packed_sequences_are_pytorchs(kind: str) -> None:
    h = waves(2, 2, 2)
    inputs = [*case(kind, 2), np.array([3, 1], np.int32), h, *([h * 0.5] if kind == "LSTM" else [])]
    expected = [np.array(row.split(), float) for row in PYTORCH[kind].split(";")]
    # PyTorch's GRU multiplies by the reset gate after the product.
    linear = {"linear_before_reset": 1} if kind == "GRU" else {}
    got = evaluated(kind, inputs, len(expected), hidden_size=2, direction="bidirectional", **linear)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.reshape(-1), other, atol=1.1e-5)


def test_a_relu_network_is_pytorchs() -> None:
    inputs = [*case("RNN"), np.array([3, 1], np.int32), waves(1, 2, 2)]
    y, last = evaluated("RNN", inputs, 2, hidden_size=2, activations=["Relu"])
    expected = [4.26681, 0, 0, 2.25115, 0, 1.98819, 0, 0, 0, 2.16638, 0, 0]
    np.testing.assert_allclose(y.reshape(-1), expected, atol=1.1e-5)
    np.testing.assert_allclose(last.reshape(-1), [0, 2.16638, 0, 2.25115], atol=1.1e-5)


def lstm_of_one() -> tuple[Any, dict[str, Array]]:
    """The smallest model that a length changes: .369606 for the first step, nothing for the second."""
    node = helper.make_node("LSTM", ["x", "w", "r", "", "lengths"], ["y"], name="lstm", hidden_size=1)
    constants = {
        "w": np.ones((1, 4, 1), np.float32),
        "r": np.zeros((1, 4, 1), np.float32),
        "lengths": np.array([1], np.int32),
    }
    return node, constants


@pytest.mark.parametrize("known", [False, True], ids=["run", "folded"])
def test_a_compiled_model_honours_lengths(known: bool) -> None:
    """Between kernels and folded at compile time."""
    node, constants = lstm_of_one()
    x, factor = np.ones((2, 1, 1), np.float32), np.full(1, 2, np.float32)
    data, given = ({"factor": factor}, {"x": x}) if known else ({"x": x}, {"factor": factor})
    nodes = [node, helper.make_node("Mul", ["y", "factor"], ["z"])]
    compiled = compile(make_model(nodes, data, ["z"], constants | given), threads=1, workers=0)
    assert [fallback.op_type for fallback in compiled.fallback_nodes] == ([] if known else ["LSTM"])
    np.testing.assert_allclose(compiled.run(data)["z"].reshape(-1), [0.739213, 0.0], atol=1e-5)


def test_lengths_are_honoured_inside_of_a_loop() -> None:
    node, constants = lstm_of_one()
    body = helper.make_graph(
        [node, helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Identity", ["total"], ["same"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 1, 1, 1]),
        ],
    )
    loop = helper.make_node("Loop", ["trips", "", "start"], ["end", "all"], body=body)
    data = {"x": np.ones((2, 1, 1), np.float32), "start": np.array(3, np.float32)}
    model = make_model([loop], data, ["all"], constants | {"trips": np.array(2)})
    got = compile(model, threads=1, workers=0).run(data)["all"]
    np.testing.assert_allclose(got.reshape(2, 2), [[0.369606, 0]] * 2, atol=1e-5)


def test_what_cannot_be_computed_is_an_error() -> None:
    inputs = case("LSTM")
    for attributes, text in [
        ({"activations": ["Sigmoid", "Tanh"]}, "3 for each of 1 directions are needed"),
        ({"activations": ["Sigmoid", "Tanh", "Swish"]}, "activation 'Swish' is none of"),
        ({"activations": ["Sigmoid", "ScaledTanh", "Tanh"]}, "needs activation_alpha and activation_beta"),
        ({"direction": "bidirectional"}, "does not fit weights of 1 directions"),
    ]:
        with pytest.raises(ValueError, match=text):
            evaluated("LSTM", inputs, 3, hidden_size=2, **attributes)
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="lstm", hidden_size=2, activations=["Sigmoid", "Tanh"])
    model = make_model([node], {"x": inputs[0]}, ["y"], {"w": inputs[1], "r": inputs[2]})
    with pytest.raises(ModelError, match=r"node 'lstm' \(operator LSTM.*activations are Sigmoid, Tanh, but 3"):
        compile(model, threads=1, workers=0).run({"x": inputs[0]})
