"""Vector code of mathematical functions against float64 (float32 functions) and long double (float64) references."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.jit import load_object
from ansor_py.codegen.llvm import compile_module, emit_optimised_ir
from ansor_py.codegen.vector_math import FUNCTIONS, expand
from ansor_py.codegen.vector_operations import constant, shaped, split_type
from ansor_py.errors import CodegenError
from ansor_py.schedule.access import instructions_of
from ansor_py.target import Target
from ansor_py.te.expr import Binary, Call, Var
from targets import executed_targets, structure_targets

on_executed_targets = pytest.mark.parametrize("target", executed_targets())
EPSILON: dict[Any, float] = {np.float32: 2.0**-23, np.float64: 2.0**-52}
NUMPY: dict[str, Any] = {"float": np.float32, "double": np.float64}
INF, NAN = math.inf, math.nan


def _module(function: str, llvm_type: str, target: Target) -> str:
    """`apply(x, y, out, count)`: out[i] = function(x[i], y[i]) for count vectors or scalars."""
    text = FunctionText(set())
    with text.loop("0", "%count", [], certain=True) as loop:
        element, lanes = split_type(llvm_type)
        step = f"[{max(lanes, 1)} x {element}]"  # a vector of 7 lanes takes the room of 8 in memory
        places = [text.emit(f"getelementptr {step}, ptr %{name}, i64 {loop.index}") for name in ("x", "y", "out")]
        names = tuple(text.emit(f"load {llvm_type}, ptr {place}, align 4") for place in places[:2])
        result = expand(function, names if function in ("pow", "fmod") else names[0], llvm_type, text, target.rounds_vectors)
        text.do(f"store {llvm_type} {result}, ptr {places[2]}, align 4")
    head = "define void @apply(ptr noalias %x, ptr noalias %y, ptr noalias %out, i64 %count) {\nentry:"
    return "\n".join([*sorted(text.declarations), head, *text.written(), "  ret void\n}\n"])


def _apply(function: str, llvm_type: str, target: Target, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    element, lanes = split_type(llvm_type)
    lanes = max(lanes, 1)
    count = -(-x.size // lanes)
    inputs = [np.resize(np.ascontiguousarray(a, NUMPY[element]), count * lanes) for a in (x, x if y is None else y)]
    out = np.empty(count * lanes, NUMPY[element])
    loaded = load_object([compile_module(_module(function, llvm_type, target), target).code], ["apply"])
    pointer = ctypes.c_void_p
    call = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int64)(loaded.address("apply"))
    call(inputs[0].ctypes.data, inputs[1].ctypes.data, out.ctypes.data, count)
    return np.asarray(out[: x.size])


def _reference(function: str, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if function == "erf":
        return np.array([math.erf(value) for value in wide])
    if function == "pow":
        assert y is not None
        return np.asarray(np.power(wide, y.astype(wide.dtype)))
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "rsqrt": lambda a: 1 / np.sqrt(a),
        "round": np.rint,
        "abs": np.abs,
        "atan": np.arctan,
    }
    return np.asarray((functions.get(function) or getattr(np, function))(wide))


def _ulp_error(got: np.ndarray, reference: np.ndarray) -> float:
    """The largest error in units in the last place of the reference; infinite if infinities or NaN differ."""
    kind = got.dtype
    rounded = reference.astype(kind)
    special = ~np.isfinite(rounded)
    if not np.array_equal(got[special], rounded[special], equal_nan=True):
        return math.inf
    finite = ~special
    spacing = np.spacing(np.abs(rounded[finite])).astype(reference.dtype)
    return float(np.max(np.abs(got[finite].astype(reference.dtype) - reference[finite]) / spacing, initial=0.0))


def _points(low: float, high: float, kind: type, count: int = 60_000) -> np.ndarray:
    """Uniform points, and points of all magnitudes with both signs, within [low, high]."""
    generator = np.random.default_rng(7)
    uniform = generator.uniform(low, high, count)
    top = math.log10(max(abs(low), abs(high)))
    tiny = 10.0 ** generator.uniform(-30, top, count) * generator.choice([-1.0, 1.0], count)
    points = np.concatenate([uniform, tiny[(tiny >= low) & (tiny <= high)], [low, high]])
    return points.astype(kind)


# function, lowest and highest argument, bound in units in the last place
RANGES32 = [
    ("exp", -86.6, 89.0, 1.5),
    ("log", 0.0, 3e38, 1.5),
    ("log", 0.4, 2.5, 1.5),
    ("sqrt", 0.0, 3e38, 0.51),
    ("rsqrt", 1e-37, 3e38, 1.6),
    ("tanh", -20.0, 20.0, 3.0),
    ("tanh", -1.0, 1.0, 3.0),
    ("erf", -5.0, 5.0, 2.0),
    ("sigmoid", -87.0, 100.0, 3.0),
    ("abs", -10.0, 10.0, 0.0),
    ("floor", -100.0, 100.0, 0.0),
    ("ceil", -100.0, 100.0, 0.0),
    ("round", -100.0, 100.0, 0.0),
    ("sin", -10.0, 10.0, 2.0),
    ("sin", -1e6, 1e6, 2.0),
    ("sin", -2.7e11, 2.7e11, 2.0),
    ("cos", -10.0, 10.0, 2.0),
    ("cos", -2.7e11, 2.7e11, 2.0),
    ("sin", -3.4e38, 3.4e38, 2.0),
    ("cos", -3.4e38, 3.4e38, 2.0),
    ("atan", -10.0, 10.0, 2.5),
    ("atan", -1e30, 1e30, 2.5),
]
RANGES64 = [
    ("exp", -745.0, 710.0, 2.0),
    ("log", 0.0, 1e308, 2.0),
    ("log", 0.4, 2.5, 2.0),
    ("sqrt", 0.0, 1e308, 0.51),
    ("rsqrt", 1e-300, 1e300, 1.6),
    ("tanh", -25.0, 25.0, 3.5),
    ("sigmoid", -700.0, 100.0, 3.5),
    ("erf", -6.0, 6.0, 2.0),
    ("sin", -1e6, 1e6, 2.0),
    ("cos", -1e6, 1e6, 2.0),
    ("atan", -10.0, 10.0, 2.5),
    ("round", -100.0, 100.0, 0.0),
]


@on_executed_targets
@pytest.mark.parametrize(("function", "low", "high", "bound"), RANGES32)
def test_float32_accuracy(function: str, low: float, high: float, bound: float, target: Target) -> None:
    x = _points(low, high, np.float32)
    with np.errstate(all="ignore"):
        assert _ulp_error(_apply(function, "<16 x float>", target, x), _reference(function, x)) <= bound


@on_executed_targets
@pytest.mark.parametrize(("function", "low", "high", "bound"), RANGES64)
def test_float64_accuracy(function: str, low: float, high: float, bound: float, target: Target) -> None:
    x = _points(low, high, np.float64, 20_000)
    with np.errstate(all="ignore"):
        assert _ulp_error(_apply(function, "<8 x double>", target, x), _reference(function, x)) <= bound


@on_executed_targets
@pytest.mark.parametrize(("llvm_type", "bound"), [("<16 x float>", 0.52), ("<4 x double>", 1.5)])
def test_pow_accuracy(llvm_type: str, bound: float, target: Target) -> None:
    kind = NUMPY[split_type(llvm_type)[0]]
    generator = np.random.default_rng(3)
    x = np.concatenate([10.0 ** generator.uniform(-6, 6, 20_000), generator.uniform(0.5, 2, 20_000)]).astype(kind)
    y = np.concatenate([generator.uniform(-7, 7, 20_000), generator.uniform(-100, 100, 20_000)]).astype(kind)
    with np.errstate(all="ignore"):
        assert _ulp_error(_apply("pow", llvm_type, target, x, y), _reference("pow", x, y)) <= bound
        whole = np.rint(y)
        assert _ulp_error(_apply("pow", llvm_type, target, -x, whole), _reference("pow", -x, whole)) <= bound


@on_executed_targets
@pytest.mark.parametrize("llvm_type", ["float", "<16 x float>", "<7 x float>", "double", "<4 x double>"])
def test_fmod_is_exact(llvm_type: str, target: Target) -> None:
    """Of every size of quotient, and with zeros, infinities and NaN; many lanes and one give the same."""
    kind = NUMPY[split_type(llvm_type)[0]]
    generator = np.random.default_rng(3)
    scale = 10.0 ** generator.uniform(-30, 30, 8000)
    x = generator.uniform(-1, 1, 8000) * scale * 10.0 ** generator.uniform(-3, 7, 8000)
    values = [0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 3279.8228, 6.2831855, 88.7, -1e20, 1e10, 3e38, 1e-45, 1e-38]
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    x, y = np.concatenate([x, a]).astype(kind), np.concatenate([scale, b]).astype(kind)
    with np.errstate(all="ignore"):
        wanted = np.fmod(x, y)
    got = _apply("fmod", llvm_type, target, x, y)
    np.testing.assert_array_equal(got, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(wanted)[numbers])


SPECIAL = np.array([0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, 0.5, 1.5, 2.5, -0.5, -1.5, 200.0, -200.0])


@on_executed_targets
@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f not in ("pow", "fmod")])
@pytest.mark.parametrize("llvm_type", ["<16 x float>", "float", "<8 x double>", "double"])
def test_special_values(function: str, llvm_type: str, target: Target) -> None:
    x = SPECIAL.astype(NUMPY[split_type(llvm_type)[0]])
    got = _apply(function, llvm_type, target, x)
    with np.errstate(all="ignore"):
        wanted = _reference(function, x).astype(x.dtype)
    np.testing.assert_allclose(got, wanted, rtol=4 * np.finfo(x.dtype).eps, atol=2 * np.finfo(x.dtype).tiny)
    signed = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got)[signed], np.signbit(wanted)[signed])


@on_executed_targets
@pytest.mark.parametrize("llvm_type", ["<8 x float>", "double"])
def test_pow_special_values(llvm_type: str, target: Target) -> None:
    kind = NUMPY[split_type(llvm_type)[0]]
    values = np.array([0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 2.5, -2.5, 1e30, -1e30], kind)
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        wanted = np.power(x.astype(np.float64), y.astype(np.float64)).astype(kind)
    got = _apply("pow", llvm_type, target, x, y)
    np.testing.assert_allclose(got, wanted, rtol=4 * EPSILON[kind], err_msg="pow")
    signed = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got)[signed], np.signbit(wanted)[signed])


@on_executed_targets
@pytest.mark.parametrize("function", ["exp", "tanh", "log", "erf", "sin"])
def test_scalar_and_vector_code_agree(function: str, target: Target) -> None:
    x = _points(0.01, 8.0, np.float32, 4000)
    scalar = _apply(function, "float", target, x)
    for llvm_type in ("<4 x float>", "<7 x float>", "<32 x float>"):
        np.testing.assert_array_equal(_apply(function, llvm_type, target, x), scalar)


@pytest.mark.parametrize("target", structure_targets())
@pytest.mark.parametrize("function", ["exp", "log", "tanh", "erf", "sigmoid", "sin", "cos", "atan", "pow", "fmod"])
def test_float32_expansion_stays_vector_code(function: str, target: Target) -> None:
    text = emit_optimised_ir(_module(function, "<16 x float>", target), target)
    blocks = text.split("\n\n")
    seldom = [block for block in blocks if "call float @" in block]
    assert len(seldom) == (function in ("sin", "cos", "fmod"))  # which call libm for large operands, in a block of its own
    assert "extractelement" not in "".join(block for block in blocks if block not in seldom)
    assert text.count("br i1") == 1 + len(seldom)  # the loop around it


def test_integer_abs() -> None:
    text = FunctionText(set())
    result = expand("abs", "%x", "<4 x i32>", text)
    assert list(text.written()) == [f"  {result} = call <4 x i32> @llvm.abs.v4i32(<4 x i32> %x, i1 false)"]
    assert text.declarations == {"declare <4 x i32> @llvm.abs.v4i32(<4 x i32>, i1)"}


def test_wrong_use_is_an_error() -> None:
    text = FunctionText(set())
    with pytest.raises(CodegenError, match="no code"):
        expand("gamma", "%x", "float", text)
    with pytest.raises(CodegenError, match="takes 2 arguments"):
        expand("pow", "%x", "float", text)
    with pytest.raises(CodegenError, match="not defined on 'i32'"):
        expand("exp", "%x", "i32", text)
    with pytest.raises(CodegenError, match="not a scalar or vector type"):
        expand("exp", "%x", "half*", text)


def test_constants_are_exact() -> None:
    assert constant(1.0, "float") == "0x3FF0000000000000"
    assert constant(0.1, "<4 x float>") == "splat (float 0x3FB99999A0000000)"
    assert constant(0.1, "double") == "0x3FB999999999999A"
    assert constant(-INF, "float") == "0xFFF0000000000000"
    assert constant(1e300, "float") == "0x7FF0000000000000"
    assert constant(-3, "<2 x i64>") == "splat (i64 -3)"
    assert shaped("i32", 0) == "i32"


@on_executed_targets
def test_float32_exp_at_the_ends(target: Target) -> None:
    x = np.array([-INF, -1e30, -104.0, -88.0, 0.0, 88.72, 88.73, 1e30, INF, NAN], np.float32)
    expected = np.array([0, 0, 0, 0, 1, np.exp(88.72), INF, INF, INF, NAN])
    for kind in ("float", "<16 x float>", "<4 x float>"):
        np.testing.assert_allclose(_apply("exp", kind, target, x), expected, rtol=1e-5)


def test_functions_have_about_as_many_instructions_as_rules_and_models_count() -> None:
    x = Var("x", "float32")
    for function in FUNCTIONS:
        text = FunctionText(set())
        expand(function, ("%x", "%y") if function in ("pow", "fmod") else "%x", "<8 x float>", text, True)
        counted = instructions_of(Binary("pow", x, x) if function == "pow" else Call(function, (x,)))
        assert 0.9 * counted <= len(list(text.written())) <= max(1.1 * counted, 2), function
