"""Mathematical functions as LLVM instructions on scalars or vectors.

`expand` writes a function out as straight-line code (range reduction and a polynomial, no table), so that a vector loop
around it stays a vector loop; what it needs to be declared it declares:

    name = expand("tanh", "%x", "<16 x float>", text)       # "%v12"; the instructions stand in `text`

float32: exp, log, sin, cos, atan, erf, tanh, sigmoid and rsqrt are within 4 units in the last place, pow within 1, fmod exact.
float64: exp, log, tanh and sigmoid are vector code within 4 units; sin, cos, atan, erf, pow and fmod call libm by element.
Infinities, NaN, overflow and negative zero follow C99; subnormal inputs and results are right unless the thread flushes them.
float32 sin and cos of angles beyond a million, and fmod with a quotient beyond 2**29, call libm, in a branch that is taken
when a lane of the vector has one.
float32 exp and sigmoid flush results below 2**-125.

No formula relies on a multiply-add that rounds once: what has to be exact is exact by the bits of its constants, so that the
same code serves CPUs without such an instruction.

Polynomials for float32 are minimax fits (iteratively re-weighted least squares on Chebyshev nodes, coefficients rounded to
float32 one at a time and the rest refitted); those for float64 are series, whose coefficients are computed here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.vector_operations import Vector, intrinsic_suffix, shaped, split_type
from ansor_py.errors import CodegenError

FUNCTIONS = tuple("exp log sqrt rsqrt tanh erf sigmoid abs floor ceil round sin cos atan pow fmod".split())
_INTRINSICS = {"sqrt": "sqrt", "abs": "fabs"}
_ROUNDINGS = {"floor": "floor", "ceil": "ceil", "round": "roundeven"}
_LIBM_DOUBLE = ("erf", "sin", "cos", "atan", "pow", "fmod")
_ARGUMENTS = {"pow": 2, "fmod": 2}

# ln(2) as two numbers, the first with so few bits (10 and 33) that its product with an exponent is exact.
_LN2 = {"float": (0.693359375, -2.12194440054690583e-4), "double": (0.69314718036912381649, 1.9082149292705877e-10)}
_ROUND_MAGIC = {"float": 1.5 * 2.0**23, "double": 1.5 * 2.0**52}  # adding it rounds to an integer, in the low bits
_MANTISSA = {"float": 23, "double": 52}
_BIAS = {"float": 127, "double": 1023}
_EXP_RANGE = {"float": (-87.3, 89.0), "double": (-746.0, 710.0)}
_SMALLEST_NORMAL = {"float": 2.0**-126, "double": 2.0**-1022}
_SQRT_HALF_BITS = {"float": 0x3F3504F3, "double": 0x3FE6A09E667F3BCD}
_TANH_LIMIT = {"float": 9.2, "double": 20.0}

# (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2; relative error of exp(r) - 1 below 2e-8.
_EXP = {
    "float": (0.5, 0.16666536033153534, 0.04166639596223831, 0.008367284201085567, 0.0013941279612481594),
    "double": tuple(1.0 / math.factorial(k) for k in range(2, 15)),
}
# (log(1 + f) - f + f^2 / 2) / f^3 on sqrt(1/2) - 1 <= f <= sqrt(2) - 1.
_LOG = (
    0.33333316445350647, -0.25000810623168945, 0.20002304017543793, -0.16624560952186584,
    0.14180873334407806, -0.1312839537858963, 0.1288340985774994, -0.07862520217895508,
)  # fmt: skip
# log(1 + f) = 2 atanh(s) = 2 s + s (2/3 s^2 + 2/5 s^4 + ...) with s = f / (2 + f), |s| <= 0.172.
_ATANH = tuple(2.0 / (2 * k + 3) for k in range(11))
# erf(x) / x - 1 in powers of x^2, for |x| <= 0.92; and -log(1 - erf(x)) in powers of x, for 0.92 <= x <= 3.95.
_ERF_SMALL = (
    0.12837915122509003,
    -0.3761249780654907,
    0.11281843483448029,
    -0.026767348870635033,
    0.004994037561118603,
    -0.0005994498496875167,
)
_ERF_LARGE = (
    -0.00017468322766944766, 1.1295149326324463, 0.6333468556404114, 0.1082802340388298,
    -0.025119604542851448, 0.00417117215692997, -0.00043449585791677237, 2.1099045625305735e-05,
)  # fmt: skip
# (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4 in powers of r^2, for |r| <= pi / 4.
_SIN = (-0.16666655242443085, 0.008332190103828907, -0.0001951840822584927)
_COS = (0.04166664555668831, -0.00138873013202101, 2.443066841806285e-05)
# (atan(t) - t) / t^3 in powers of t^2, for |t| <= tan(pi / 8).
_ATAN = (
    -0.33333316445350647,
    0.19998528063297272,
    -0.1424439251422882,
    0.1059919148683548,
    -0.06090138852596283,
)
_TAN_PI_8 = 0.4142135623730951
# pi / 2 in three numbers of at most 33 bits, whose products with quarter turns below 2**20 are exact in float64.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
_MOST_RADIANS = 1e6
# A quotient of 29 bits times a divisor of 24 is exact in float64.
_MOST_QUOTIENT = 2.0**29


def expand(function: str, argument: str | tuple[str, ...], llvm_type: str, text: FunctionText, rounds: bool = True) -> str:
    """Append the instructions of `function(argument)` and return the name of the result.

    `argument` is an operand of type `llvm_type` (a name or a constant), `pow` and `fmod` take a tuple of two. `abs` also takes
    integers. `rounds` is what `Target.rounds_vectors` says. Raises CodegenError for an unknown function, a wrong number of
    arguments or a type that it is not defined on.
    """
    arguments = (argument,) if isinstance(argument, str) else argument
    element = _checked(function, llvm_type)
    if len(arguments) != _ARGUMENTS.get(function, 1):
        raise CodegenError(f"function '{function}' takes {_ARGUMENTS.get(function, 1)} arguments, not {len(arguments)}")
    if element not in _BIAS:
        name = f"llvm.abs.{intrinsic_suffix(llvm_type)}"
        return text.call(llvm_type, name, f"{llvm_type} {arguments[0]}, i1 false", f"{llvm_type}, i1")
    v = Vector(llvm_type, text, rounds)
    if function in _INTRINSICS:
        return v.call(_INTRINSICS[function], *arguments)
    if function in _ROUNDINGS:
        return v.rounded(_ROUNDINGS[function], *arguments)
    if element == "double" and function in _LIBM_DOUBLE:
        return v.calls(function, *arguments)
    return _EXPANSIONS[function](v, *arguments)


def _checked(function: str, llvm_type: str) -> str:
    if function not in FUNCTIONS:
        raise CodegenError(f"function '{function}' has no code; known are {', '.join(FUNCTIONS)}")
    element, _ = split_type(llvm_type)
    if element not in _BIAS and (function != "abs" or element == "i1"):
        raise CodegenError(f"function '{function}' is not defined on '{llvm_type}'; cast to float or double first")
    return element


def _reduce_by_ln2(v: Vector, x: str) -> tuple[str, str]:
    """x = n ln(2) + r with |r| <= ln(2) / 2: n as integers, and r."""
    magic = v.constant(_ROUND_MAGIC[v.element])
    high, low = _LN2[v.element]
    shifted = v.multiply_add(x, v.constant(1.0 / math.log(2.0)), magic)
    n = v.sub(shifted, magic)
    r = v.multiply_add(n, v.constant(-low), v.multiply_add(n, v.constant(-high), x))
    magic_bits = v.whole(_float_bits(_ROUND_MAGIC[v.element], v.element))
    return v.integer_op("sub", v.bits(shifted), magic_bits), r


def _float_bits(value: float, element: str) -> int:
    kind, size = ("<f", "<i") if element == "float" else ("<d", "<q")
    return int(struct.unpack(size, struct.pack(kind, value))[0])


def _power_of_two(v: Vector, n: str) -> str:
    """2**n for integers n within the normal exponents."""
    biased = v.integer_op("add", n, v.whole(_BIAS[v.element]))
    return v.from_bits(v.integer_op("shl", biased, v.whole(_MANTISSA[v.element])))


def _exp(v: Vector, x: str) -> str:
    if v.element == "float":
        return _exp_float(v, x)
    low, high = _EXP_RANGE[v.element]
    n, r = _reduce_by_ln2(v, v.lower_bound(v.upper_bound(x, high), low))
    tail = v.multiply_add(v.mul(r, r), v.polynomial(r, _EXP[v.element]), r)
    # 2**n in two factors: n can lie just outside the normal exponents, and subnormal results round once.
    half = v.integer_op("ashr", n, v.whole(1))
    first, second = _power_of_two(v, half), _power_of_two(v, v.integer_op("sub", n, half))
    return v.mul(v.multiply_add(tail, first, first), second)


def _exp_float(v: Vector, x: str) -> str:
    """2 exp(r) times 2**(n - 1) in 14 instructions: the bias of the exponent is part of the number that rounds x / ln(2).

    A result that overflows does so in the last product. Results below 2**-125.5 become 0: their n - 1 has the exponent of 0.
    """
    magic_number = _ROUND_MAGIC["float"] + _BIAS["float"] - 1
    magic = v.constant(magic_number)
    high, low = _LN2["float"]
    x = v.lower_bound(v.upper_bound(x, _EXP_RANGE["float"][1]), _EXP_RANGE["float"][0])
    shifted = v.multiply_add(x, v.constant(1.0 / math.log(2.0)), magic)
    n = v.sub(shifted, magic)
    r = v.multiply_add(n, v.constant(-low), v.multiply_add(n, v.constant(-high), x))
    twice = v.polynomial(r, [2.0 * coefficient for coefficient in (1.0, 1.0, *_EXP["float"])])
    scale = v.from_bits(v.integer_op("shl", v.bits(shifted), v.whole(_MANTISSA["float"])))
    return v.mul(twice, scale)


def _expm1_positive(v: Vector, x: str) -> str:
    """exp(x) - 1 for 0 <= x where exp(x) does not overflow."""
    n, r = _reduce_by_ln2(v, x)
    tail = v.multiply_add(v.mul(r, r), v.polynomial(r, _EXP[v.element]), r)
    scale = _power_of_two(v, n)
    return v.multiply_add(tail, scale, v.sub(scale, v.constant(1.0)))


def _log(v: Vector, x: str) -> str:
    mantissa = _MANTISSA[v.element]
    subnormal = v.compare("olt", x, v.constant(_SMALLEST_NORMAL[v.element]))
    normal = v.select(subnormal, v.mul(x, v.constant(2.0**mantissa)), x)
    offset = v.select(subnormal, v.constant(-float(mantissa)), v.constant(0.0))
    bits = v.bits(normal)
    exponent = v.integer_op("ashr", v.integer_op("sub", bits, v.whole(_SQRT_HALF_BITS[v.element])), v.whole(mantissa))
    reduced = v.from_bits(v.integer_op("sub", bits, v.integer_op("shl", exponent, v.whole(mantissa))))
    e = v.add(v.from_integer(exponent), offset)
    f = v.sub(reduced, v.constant(1.0))
    high, low = _LN2[v.element]
    square = v.mul(f, f)
    if v.element == "float":
        cubic = v.mul(v.mul(square, f), v.polynomial(f, _LOG))
        rest = v.multiply_add(v.constant(-0.5), square, v.multiply_add(e, v.constant(low), cubic))
        result = v.multiply_add(e, v.constant(high), v.add(f, rest))
    else:
        s = v.div(f, v.add(f, v.constant(2.0)))
        z = v.mul(s, s)
        half_square = v.mul(square, v.constant(0.5))
        series = v.mul(z, v.polynomial(z, _ATANH))
        rest = v.multiply_add(s, v.add(half_square, series), v.mul(e, v.constant(low)))
        result = v.multiply_add(e, v.constant(high), v.sub(f, v.sub(half_square, rest)))
    infinite = v.compare("oeq", x, v.constant(math.inf))
    result = v.select(infinite, x, result)
    result = v.select(v.compare("oeq", x, v.constant(0.0)), v.constant(-math.inf), result)
    return v.select(v.compare("oge", x, v.constant(0.0)), result, v.constant(math.nan))


def _tanh(v: Vector, x: str) -> str:
    """expm1(2 |x|) / (expm1(2 |x|) + 2) with the sign of x."""
    size = v.upper_bound(v.call("fabs", x), _TANH_LIMIT[v.element])
    t = _expm1_positive(v, v.add(size, size))
    return v.call("copysign", v.div(t, v.add(t, v.constant(2.0))), x)


def _sigmoid(v: Vector, x: str) -> str:
    one = v.constant(1.0)
    return v.div(one, v.add(one, _exp(v, v.neg(x))))


def _erf(v: Vector, x: str) -> str:
    size = v.call("fabs", x)
    square = v.mul(x, x)
    small = v.multiply_add(v.polynomial(square, _ERF_SMALL), x, x)
    negative_log = v.polynomial(v.upper_bound(size, 3.95), _ERF_LARGE)
    large = v.sub(v.constant(1.0), _exp(v, v.neg(negative_log)))
    return v.select(v.compare("olt", size, v.constant(0.92)), small, v.call("copysign", large, x))


def _sin(v: Vector, x: str) -> str:
    result = _sin_of_quadrant(v, x, 0)
    result = v.select(v.compare("oeq", x, v.constant(0.0)), x, result)  # keeps the sign of zero
    return _unless_large(v, "sinf", x, result)


def _cos(v: Vector, x: str) -> str:
    return _unless_large(v, "cosf", x, _sin_of_quadrant(v, x, 1))


def _unless_large(v: Vector, function: str, x: str, usual: str) -> str:
    """libm's result for all lanes if the angle of one is too large for the reduction."""
    large = v.any(v.compare("ogt", v.call("fabs", x), v.constant(_MOST_RADIANS)))
    with v.text.rarely(large, v.type, usual) as result:
        result.append(v.calls(function, x, seldom=True))
    return result[0]


def _sin_of_quadrant(v: Vector, x: str, turn: int) -> str:
    """sin(x + turn pi / 2) for |x| up to a million; the argument is reduced in float64, which keeps 24 bits of it."""
    w = Vector(shaped("double", v.lanes), v.text)
    wide = v.emit(f"fpext {v.type} {x} to {w.type}")
    magic = w.constant(_ROUND_MAGIC["double"])
    shifted = w.multiply_add(wide, w.constant(2.0 / math.pi), magic)
    n = w.sub(shifted, magic)
    r_wide = wide
    for part in _HALF_PI:
        r_wide = w.multiply_add(n, w.constant(-part), r_wide)
    r = v.emit(f"fptrunc {w.type} {r_wide} to {v.type}")
    quadrant = v.emit(f"trunc {w.integer} {w.bits(shifted)} to {v.integer}")
    if turn:
        quadrant = v.integer_op("add", quadrant, v.whole(turn))
    z = v.mul(r, r)
    sine = v.multiply_add(v.mul(z, r), v.polynomial(z, _SIN), r)
    cosine = v.multiply_add(v.mul(z, z), v.polynomial(z, _COS), v.multiply_add(z, v.constant(-0.5), v.constant(1.0)))
    odd = v.emit(f"trunc {v.integer} {quadrant} to {shaped('i1', v.lanes)}")
    sign = v.integer_op("shl", v.integer_op("and", quadrant, v.whole(2)), v.whole(30))
    return v.from_bits(v.integer_op("xor", v.bits(v.select(odd, cosine, sine)), sign))


def _atan(v: Vector, x: str) -> str:
    """atan(|x|) = pi/4 + atan((|x| - 1) / (|x| + 1)) or pi/2 - atan(1 / |x|) brings the argument below tan(pi / 8)."""
    size, one = v.call("fabs", x), v.constant(1.0)
    middle = v.compare("ogt", size, v.constant(_TAN_PI_8))
    large = v.compare("ogt", size, v.constant(1.0 / _TAN_PI_8))
    above = v.select(large, v.constant(-1.0), v.select(middle, v.sub(size, one), size))
    below = v.select(large, size, v.select(middle, v.add(size, one), one))
    offset = v.select(large, v.constant(math.pi / 2), v.select(middle, v.constant(math.pi / 4), v.constant(0.0)))
    t = v.div(above, below)
    z = v.mul(t, t)
    angle = v.multiply_add(v.mul(z, t), v.polynomial(z, _ATAN), t)
    return v.call("copysign", v.add(offset, angle), x)


def _pow(v: Vector, base: str, exponent: str) -> str:
    """exp(y log |x|) in float64, then the special cases of C99."""
    w = Vector(shaped("double", v.lanes), v.text, v.rounds)
    x = v.emit(f"fpext {v.type} {base} to {w.type}")
    y = v.emit(f"fpext {v.type} {exponent} to {w.type}")
    size, zero, one = w.call("fabs", x), w.constant(0.0), w.constant(1.0)
    result = _exp(w, w.mul(y, _log(w, size)))
    half = w.mul(y, w.constant(0.5))
    whole = w.compare("oeq", w.rounded("floor", y), y)
    odd = w.mask_and(whole, w.compare("one", w.rounded("floor", half), half))
    result = w.select(odd, w.call("copysign", result, x), result)
    fraction = w.compare("one", w.rounded("floor", y), y)
    negative = w.mask_and(w.compare("olt", x, zero), w.compare("ogt", x, w.constant(-math.inf)))
    result = w.select(w.mask_and(fraction, negative), w.constant(math.nan), result)
    unit = w.mask_and(w.compare("oeq", size, one), w.compare("oeq", w.call("fabs", y), w.constant(math.inf)))
    result = w.select(unit, one, result)
    result = w.select(w.compare("oeq", x, one), one, result)
    result = w.select(w.compare("oeq", y, zero), one, result)
    return v.emit(f"fptrunc {w.type} {result} to {v.type}")


def _fmod(v: Vector, x: str, y: str) -> str:
    """x - n y with n = x / y rounded towards zero, in float64, where it is exact for n below 2**29; the sign of x."""
    w = Vector(shaped("double", v.lanes), v.text)
    size, step = (w.call("fabs", v.emit(f"fpext {v.type} {operand} to {w.type}")) for operand in (x, y))
    quotient = w.div(size, step)
    large = v.any(w.compare("uge", quotient, w.constant(_MOST_QUOTIENT)))  # or no number
    whole = v.emit(f"fptosi {w.type} {w.upper_bound(quotient, _MOST_QUOTIENT)} to {v.integer}")
    rest = w.sub(size, w.mul(v.emit(f"sitofp {v.integer} {whole} to {w.type}"), step))
    # The quotient was rounded, so it may be one too large.
    rest = w.select(w.compare("olt", rest, w.constant(0.0)), w.add(rest, step), rest)
    rest = w.select(w.compare("olt", size, step), size, rest)  # also with an infinite divisor
    usual = v.call("copysign", v.emit(f"fptrunc {w.type} {rest} to {v.type}"), x)
    with v.text.rarely(large, v.type, usual) as result:
        result.append(v.calls("fmodf", x, y, seldom=True))
    return result[0]


def _rsqrt(v: Vector, x: str) -> str:
    return v.div(v.constant(1.0), v.call("sqrt", x))


_EXPANSIONS: dict[str, Callable[..., str]] = {
    "exp": _exp,
    "log": _log,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "sin": _sin,
    "cos": _cos,
    "atan": _atan,
    "pow": _pow,
    "fmod": _fmod,
    "rsqrt": _rsqrt,
}
