"""LSTM, GRU and RNN with everything that the standard gives them: sequence lengths, initial states, peepholes, directions,
activations with their parameters, clipping, coupled gates, both layouts.

One loop over time steps runs all three; what differs is the cell, a function from the projected input and the states to the
new states. A sequence that is over keeps its states, and its outputs are zero; in reverse each sequence runs from its own
last element. Where the standard's text is silent this does as ONNX Runtime does: a sequence of no elements ends in states of
zero, and `clip` bounds what the gates are computed from but not the cell that a hidden state is computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator

Activation: TypeAlias = Callable[[Numbers], Numbers]


@dataclass(frozen=True)
class Kind:
    """An activation function of alpha and beta, with their defaults: those of the ONNX operator of its name.

    None: the function does not take the parameter. NaN: it does, and there is no default.
    """

    function: Callable[[Numbers, float, float], Numbers]
    alpha: float | None = None
    beta: float | None = None


def sigmoid(x: Numbers) -> Numbers:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (np.tanh(0.5 * x) + 1)


ACTIVATIONS = {
    "relu": Kind(lambda x, alpha, beta: np.maximum(x, 0)),
    "tanh": Kind(lambda x, alpha, beta: np.tanh(x)),
    "sigmoid": Kind(lambda x, alpha, beta: sigmoid(x)),
    "affine": Kind(lambda x, alpha, beta: alpha * x + beta, 1.0, 0.0),
    "leakyrelu": Kind(lambda x, alpha, beta: np.where(x >= 0, x, alpha * x), 0.01),
    "thresholdedrelu": Kind(lambda x, alpha, beta: np.where(x >= alpha, x, 0 * x), 1.0),
    "scaledtanh": Kind(lambda x, alpha, beta: alpha * np.tanh(beta * x), np.nan, np.nan),
    "hardsigmoid": Kind(lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), 0.2, 0.5),
    "elu": Kind(lambda x, alpha, beta: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))), 1.0),
    "softsign": Kind(lambda x, alpha, beta: x / (1 + np.abs(x))),
    "softplus": Kind(lambda x, alpha, beta: np.logaddexp(x, 0)),
}


def activations_of(call: EvaluatorCall, defaults: Sequence[str], directions: int) -> list[list[Activation]]:
    """The activation functions of every direction. ValueError for one that is unknown, missing or lacks a parameter.

    Values of alpha and beta are consumed in order, each by the next function that takes one.
    """
    each = len(defaults)
    names = call.get("activations") or [*defaults] * directions
    if len(names) < each * directions:
        raise ValueError(f"activations are {', '.join(names)}, but {each} for each of {directions} directions are needed")
    alphas, betas = iter(call.get("activation_alpha", [])), iter(call.get("activation_beta", []))
    made = [_activation(name, alphas, betas) for name in names]
    return [made[each * index : each * (index + 1)] for index in range(directions)]


def _activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    kind = ACTIVATIONS.get(name.lower())
    if kind is None:
        raise ValueError(f"activation '{name}' is none of {', '.join(ACTIVATIONS)}")
    alpha = 0.0 if kind.alpha is None else float(next(alphas, kind.alpha))
    beta = 0.0 if kind.beta is None else float(next(betas, kind.beta))
    if np.isnan([alpha, beta]).any():
        raise ValueError(f"activation '{name}' needs activation_alpha and activation_beta: it has no defaults")
    return lambda x: kind.function(x, alpha, beta)


States: TypeAlias = tuple[Numbers, ...]
# From the input times its weights (biases that may be added early included) and the states to the new states, hidden first.
Cell: TypeAlias = Callable[[Numbers, States], States]


@dataclass(frozen=True)
class Layer:
    """The weights of one direction: input [gates * hidden, input], recurrent [gates * hidden, hidden], biases of both."""

    input: Numbers
    recurrent: Numbers
    input_bias: Numbers
    recurrent_bias: Numbers
    functions: Sequence[Activation]
    call: EvaluatorCall
    index: int

    def clipped(self, x: Numbers) -> Numbers:
        """What an activation of a gate gets."""
        limit = self.call.get("clip")
        return x if limit is None else np.clip(x, -limit, limit)


def lstm_cell(layer: Layer) -> Cell:
    """i, o, f, c: gates of input, output, forget and the candidate; peepholes let gates see the cell."""
    hidden = layer.recurrent.shape[-1]
    given = layer.call.optional(7)
    peepholes = np.zeros(3 * hidden) if given is None else np.asarray(given)[layer.index]
    peep_i, peep_o, peep_f = np.split(peepholes.astype(layer.input.dtype), 3)
    f, g, h = layer.functions
    coupled = bool(layer.call.get("input_forget", 0))

    def step(projected: Numbers, states: States) -> States:
        output, cell = states
        i, o, forget, candidate = np.split(projected + output @ layer.recurrent.T + layer.recurrent_bias, 4, axis=-1)
        i = f(layer.clipped(i + peep_i * cell))
        forget = 1 - i if coupled else f(layer.clipped(forget + peep_f * cell))
        cell = forget * cell + i * g(layer.clipped(candidate))
        return f(layer.clipped(o + peep_o * cell)) * h(cell), cell

    return step


def gru_cell(layer: Layer) -> Cell:
    """z, r, h: gates of update and reset, and the candidate."""
    f, g = layer.functions
    linear = bool(layer.call.get("linear_before_reset", 0))
    weights_zr, weights_h = np.split(layer.recurrent, [2 * layer.recurrent.shape[-1]])
    bias_zr, bias_h = np.split(layer.recurrent_bias, [2 * layer.recurrent.shape[-1]])

    def step(projected: Numbers, states: States) -> States:
        (output,) = states
        z_in, r_in, h_in = np.split(projected, 3, axis=-1)
        gates = np.concatenate([z_in, r_in], -1) + output @ weights_zr.T + bias_zr
        z, r = np.split(f(layer.clipped(gates)), 2, axis=-1)
        reset = r * (output @ weights_h.T + bias_h) if linear else (r * output) @ weights_h.T + bias_h
        return ((1 - z) * g(layer.clipped(h_in + reset)) + z * output,)

    return step


def rnn_cell(layer: Layer) -> Cell:
    """The hidden state alone."""
    (f,) = layer.functions
    bias = layer.recurrent_bias
    return lambda projected, states: (f(layer.clipped(projected + states[0] @ layer.recurrent.T + bias)),)


@evaluator("LSTM")
def lstm(call: EvaluatorCall) -> tuple[Any, ...]:
    """Y, Y_h, Y_c."""
    return _run(call, lstm_cell, ("Sigmoid", "Tanh", "Tanh"), (call.optional(5), call.optional(6)))


@evaluator("GRU")
def gru(call: EvaluatorCall) -> tuple[Any, ...]:
    """Y, Y_h."""
    return _run(call, gru_cell, ("Sigmoid", "Tanh"), (call.optional(5),))


@evaluator("RNN")
def rnn(call: EvaluatorCall) -> tuple[Any, ...]:
    """Y, Y_h."""
    return _run(call, rnn_cell, ("Tanh",), (call.optional(5),))


def _run(
    call: EvaluatorCall, cell: Callable[[Layer], Cell], defaults: Sequence[str], initial: Sequence[Any]
) -> tuple[Any, ...]:
    """Y [time, direction, batch, hidden] and the last states [direction, batch, hidden], in the layout that is asked for."""
    batch_first = bool(call.get("layout", 0))
    dtype = np.result_type(call.x.dtype, np.float32)
    x, weights, recurrent = (call.array(index).astype(dtype) for index in range(3))
    if batch_first:
        x = x.swapaxes(0, 1)
    steps, batch, _ = x.shape
    directions, _, hidden = recurrent.shape
    reversed_ones = _reversed_directions(call.get("direction", "forward"), directions)
    biases = np.zeros((directions, 2 * recurrent.shape[1])) if call.optional(3) is None else call.array(3)
    lengths = np.full(batch, steps) if call.optional(4) is None else call.array(4).astype(np.int64)
    functions = activations_of(call, defaults, directions)
    y, last = np.zeros((steps, directions, batch, hidden), dtype), list[States]()
    for index, backwards in enumerate(reversed_ones):
        input_bias, recurrent_bias = np.split(biases[index].astype(dtype), 2)
        layer = Layer(weights[index], recurrent[index], input_bias, recurrent_bias, functions[index], call, index)
        states = tuple(_initial(state, index, (batch, hidden), batch_first, dtype) for state in initial)
        outputs, states = _over_time(layer, cell(layer), _turned(x, lengths) if backwards else x, lengths, states)
        y[:, index] = _turned(outputs, lengths) if backwards else outputs
        last.append(states)
    results = [y, *(np.stack(states) for states in zip(*last, strict=True))]
    if batch_first:
        results = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in results[1:])]
    return tuple(result.astype(call.x.dtype) for result in results)


def _over_time(layer: Layer, step: Cell, x: Numbers, lengths: Numbers, states: States) -> tuple[Numbers, States]:
    projected = x @ layer.input.T + layer.input_bias
    outputs = np.zeros((*x.shape[:2], layer.recurrent.shape[-1]), x.dtype)
    for time in range(len(x)):
        live = (time < lengths)[:, None]
        states = tuple(np.where(live, new, old) for new, old in zip(step(projected[time], states), states, strict=True))
        outputs[time] = np.where(live, states[0], 0)
    return outputs, tuple(np.where(lengths[:, None] > 0, state, 0) for state in states)


def _reversed_directions(direction: str, count: int) -> list[bool]:
    """Whether each direction runs backwards; version 1 of GRU spells its default "foward"."""
    known = {"forward": [False], "foward": [False], "reverse": [True], "bidirectional": [False, True]}
    if direction not in known or len(known[direction]) != count:
        raise ValueError(f"direction '{direction}' does not fit weights of {count} directions")
    return known[direction]


def _initial(state: Any, index: int, shape: tuple[int, int], batch_first: bool, dtype: Any) -> Numbers:
    if state is None:
        return np.zeros(shape, dtype)
    return (state[:, index] if batch_first else state[index]).astype(dtype)  # type: ignore[no-any-return]


def _turned(x: Numbers, lengths: Numbers) -> Numbers:
    """[time, batch, features] with the valid part of each sequence in reverse order."""
    time = np.arange(len(x))[:, None]
    order = np.where(time < lengths, lengths - 1 - time, time)
    return np.take_along_axis(x, order[:, :, None], axis=0)
