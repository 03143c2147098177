"""Operators of scikit-learn's exports: results are float32 whatever the input is, and what is left out is zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import MACHINE_LEARNING, EvaluatorCall, Numbers, evaluator


def _floats(x: Numbers) -> Numbers:
    return x.astype(np.float32)


@evaluator("Scaler", domain=MACHINE_LEARNING)
def scaler(call: EvaluatorCall) -> tuple[Any, ...]:
    """(x - offset) * scale, one number for all features or one for each."""
    offset, scale = (np.array(call.get(name, [default]), np.float32) for name, default in (("offset", 0), ("scale", 1)))
    return (_floats((call.x - offset) * scale),)


@evaluator("FeatureVectorizer", domain=MACHINE_LEARNING)
def feature_vectorizer(call: EvaluatorCall) -> tuple[Any, ...]:
    """Features side by side, each input cut off or filled with zeros to its stated width."""
    parts = [np.atleast_2d(np.asarray(item)) for item in call.inputs]
    widths = call.get("inputdimensions", [part.shape[1] for part in parts])
    cut = [np.pad(p[:, :w], ((0, 0), (0, max(w - p.shape[1], 0)))) for p, w in zip(parts, widths, strict=True)]
    return (_floats(np.concatenate(cut, axis=1)),)


@evaluator("Normalizer", domain=MACHINE_LEARNING)
def normalizer(call: EvaluatorCall) -> tuple[Any, ...]:
    """Rows divided by their largest element, by the sum of their magnitudes, or by their length; zero rows stay."""
    x = call.x.astype(np.float64)
    rows = x if x.ndim > 1 else x[None]
    match call.get("norm", "MAX"):
        case "MAX":
            norm = rows.max(1, keepdims=True)
        case "L1":
            norm = np.abs(rows).sum(1, keepdims=True)
        case _:
            norm = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return (_floats(np.divide(rows, norm, out=rows.copy(), where=norm != 0).reshape(x.shape)),)


@evaluator("LinearRegressor", domain=MACHINE_LEARNING)
def linear_regressor(call: EvaluatorCall) -> tuple[Any, ...]:
    """x times the coefficients of each target, plus its intercept."""
    targets = int(call.get("targets", 1))
    x = _floats(np.atleast_2d(call.x))
    coefficients = np.array(call.get("coefficients"), np.float32).reshape(targets, -1)
    return (_floats(x @ coefficients.T + np.array(call.get("intercepts", [0.0] * targets), np.float32)),)


@evaluator("LinearClassifier", domain=MACHINE_LEARNING)
def linear_classifier(call: EvaluatorCall) -> tuple[Any, ...]:
    """Labels and scores. One score of two classes is the second's; the first's is its opposite.

    ValueError where the standard does not say what becomes of one score.
    """
    labels, transform = call.get("classlabels_ints") or call.get("classlabels_strings") or [], call.get("post_transform")
    x = _floats(np.atleast_2d(call.x))
    coefficients = np.array(call.get("coefficients"), np.float32).reshape(-1, x.shape[1])
    scores = x @ coefficients.T + np.array(call.get("intercepts", [0.0] * len(coefficients)), np.float32)
    if scores.shape[1] == 1 and len(labels) == 2 and transform == "LOGISTIC":
        scores = np.concatenate([-scores, scores], axis=1)
    if scores.shape[1] != len(labels):
        raise ValueError(f"{scores.shape[1]} scores with post_transform {transform} do not fit {len(labels)} class labels")
    named = np.array(labels, np.int64 if call.get("classlabels_ints") else object)[scores.argmax(1)]
    if transform == "LOGISTIC":
        scores = 0.5 * (np.tanh(0.5 * scores) + 1)
    elif transform == "SOFTMAX":
        exponential = np.exp(scores - scores.max(1, keepdims=True))
        scores = exponential / exponential.sum(1, keepdims=True)
    return (named, _floats(scores))


@evaluator("SVMRegressor", domain=MACHINE_LEARNING)
def svm_regressor(call: EvaluatorCall) -> tuple[Any, ...]:
    """A weighted sum of kernels with the support vectors, or a linear function; its sign for one class."""
    x, coefficients = _floats(np.atleast_2d(call.x)), np.array(call.get("coefficients"), np.float32)
    count = int(call.get("n_supports", 0))
    gamma, offset, degree = call.get("kernel_params") or (0.0, 0.0, 0.0)
    vectors = np.array(call.get("support_vectors", []), np.float32).reshape(max(count, 1), -1) if count else coefficients[None]
    products: Numbers = x @ vectors.T
    match call.get("kernel_type", "LINEAR") if count else "LINEAR":
        case "POLY":
            products = (gamma * products + offset) ** degree
        case "SIGMOID":
            products = np.tanh(gamma * products + offset)
        case "RBF":
            products = np.exp(-gamma * np.square(x[:, None] - vectors).sum(2))
    score = (products @ coefficients[:, None] if count else products) + call.get("rho", [0.0])[0]
    return (_floats(np.where(score > 0, 1, -1) if call.get("one_class", 0) else score),)


@evaluator("LabelEncoder", domain=MACHINE_LEARNING)
def label_encoder(call: EvaluatorCall) -> tuple[Any, ...]:
    """Each element replaced by the value of its key; NaN is a key like others, and the last of equal keys counts.

    Before version 2 a list of strings stood for both: strings become positions, positions strings.
    """
    text = call.x.dtype.kind in "OUS"
    names = call.get("classes_strings")
    if names is not None:
        positions = list(range(len(names)))
        keys, values, kind = (names, positions, "int64") if text else (positions, names, "string")
    else:
        keys = _first_of(call, "keys")[1]
        kind, values = _first_of(call, "values")
    table = {_key(key): value for key, value in zip(keys, values, strict=True)}
    default = call.get(f"default_{kind}")
    if default is None:  # of a tensor: what the standard gives for its kind
        array = np.asarray(values)
        default = np.array({"f": -0.0, "i": -1, "u": -1}.get(array.dtype.kind, "_Unused"), array.dtype)
    default = default.reshape(-1)[0] if isinstance(default, np.ndarray) else default
    dtype = {"int64": np.int64, "float": np.float32, "string": object}.get(kind) or np.asarray(values).dtype
    found = [table.get(_key(item), default) for item in call.x.reshape(-1).tolist()]
    return (np.array(found, dtype=dtype).reshape(call.x.shape),)


def _first_of(call: EvaluatorCall, prefix: str) -> tuple[str, list[Any]]:
    """The list or tensor among the attributes of keys or values, and what its default is called by."""
    for ending, kind in (("strings", "string"), ("int64s", "int64"), ("floats", "float"), ("tensor", "tensor")):
        given = call.get(f"{prefix}_{ending}")
        if given is not None and len(given):
            return kind, given if isinstance(given, list) else list(given.reshape(-1))
    raise ValueError(f"none of the attributes {prefix}_strings, _int64s, _floats and _tensor is given")


def _key(item: Any) -> Any:
    """Equal for equal elements of any dtype; NaN equals NaN."""
    item = item.item() if isinstance(item, np.generic) else item
    if isinstance(item, bytes):
        return item.decode()
    return "NaN" if isinstance(item, float) and item != item else item


@evaluator("ZipMap", domain=MACHINE_LEARNING)
def zip_map(call: EvaluatorCall) -> tuple[Any, ...]:
    """A dictionary from class to score for each row, with which classifiers of scikit-learn end."""
    labels = call.get("classlabels_int64s") or call.get("classlabels_strings")
    return ([dict(zip(labels, row, strict=True)) for row in call.x.reshape(-1, call.x.shape[-1]).tolist()],)
