"""Operators on strings, by the standard's text alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, evaluator


@evaluator("StringNormalizer")
def string_normalizer(call: EvaluatorCall) -> tuple[Any, ...]:
    """Strings without stop words, then in upper or lower case; a result of no strings is one empty string."""
    x, change = call.x, call.get("case_change_action", "NONE")
    exact = bool(call.get("is_case_sensitive", 0))
    stops = set(call.get("stopwords", []))
    folded = stops if exact else {word.lower() for word in stops}
    kept = [text for text in map(str, x.reshape(-1).tolist()) if (text if exact else text.lower()) not in folded]
    changed = [{"LOWER": text.lower(), "UPPER": text.upper(), "NONE": text}[change] for text in kept] or [""]
    result = np.array(changed, dtype=object)
    return (result if x.ndim == 1 else result[None],)


@evaluator("RegexFullMatch")
def regex_full_match(call: EvaluatorCall) -> tuple[Any, ...]:
    """Whether a pattern matches all of a string; classes such as \\d are of ASCII, as in RE2."""
    matches = re.compile(call.get("pattern"), re.ASCII).fullmatch
    return (np.array([matches(str(text)) is not None for text in call.x.reshape(-1).tolist()], bool).reshape(call.x.shape),)
