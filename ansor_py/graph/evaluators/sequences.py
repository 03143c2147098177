"""Sequences and optional values: a sequence is a list, an optional value that is empty is None."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, evaluator


@evaluator("Optional")
def optional(call: EvaluatorCall) -> tuple[Any, ...]:
    """The value itself, or nothing."""
    return (call.optional(0),)


@evaluator("OptionalHasElement")
def optional_has_element(call: EvaluatorCall) -> tuple[Any, ...]:
    """Whether there is a value."""
    return (np.array(call.optional(0) is not None),)


@evaluator("OptionalGetElement")
def optional_get_element(call: EvaluatorCall) -> tuple[Any, ...]:
    """The value. ValueError if there is none."""
    if call.optional(0) is None:
        raise ValueError("the optional value is empty")
    return (call.optional(0),)


@evaluator("SequenceInsert")
def sequence_insert(call: EvaluatorCall) -> tuple[Any, ...]:
    """The sequence with a tensor before a position, at its end by default; negative positions count from the end."""
    items, position = list(call.inputs[0]), call.number(2)
    where = len(items) if position is None else int(position)
    if not -len(items) <= where <= len(items):
        raise ValueError(f"position {where} is outside of a sequence of {len(items)}")
    items.insert(where if where >= 0 else where + len(items), call.inputs[1])
    return (items,)
