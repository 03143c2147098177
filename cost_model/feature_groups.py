"""The registry of feature groups: named columns and the function that computes them for a population.

A new group is one function under `@feature_group`, in a file that `features.py` imports:

    @feature_group("outer scope", ["iterations"])
    def outer_scope(statement: StatementArrays, target: Target, out: Columns) -> None:
        out[0] = statement.inner[0]

`out` is float32[fields, programs] and holds raw, non-negative numbers; afterwards every column v becomes log2(v + 1),
which leaves the zeros and ones of one-hot fields as they are. `docs/features.md` defines every field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.errors import OptionError
from ansor_py.registry import Registry
from ansor_py.target import Target

Columns = NDArray[np.float32]
GroupFunction = Callable[[StatementArrays, Target, Columns], None]

# To be raised when the definition of a field changes under its old name.
FEATURE_VERSION = 5


@dataclass(frozen=True)
class FeatureGroup:
    """Fields in column order, and what fills them."""

    name: str
    fields: tuple[str, ...]
    compute: GroupFunction


FEATURE_GROUPS: Registry[FeatureGroup] = Registry("feature group")  # in the order of the columns


def feature_names() -> tuple[str, ...]:
    """The columns of a row of features, in order, user-defined groups included."""
    return tuple(name for group in FEATURE_GROUPS.values() for name in group.fields)


def feature_count() -> int:
    """The number of columns."""
    return sum(len(group.fields) for group in FEATURE_GROUPS.values())


def feature_signature() -> str:
    """A short text that differs when the columns or their definitions differ; saved with what was learned from them."""
    return hashlib.sha256("\n".join([str(FEATURE_VERSION), *feature_names()]).encode()).hexdigest()[:16]


def feature_group(name: str, fields: Sequence[str]) -> Callable[[GroupFunction], GroupFunction]:
    """Register a function that fills the columns `fields` of one statement for all programs.

    Raises OptionError for a name or a field that is taken, and for a group without fields.
    """

    def register(function: GroupFunction) -> GroupFunction:
        taken = {field: group.name for group in FEATURE_GROUPS.values() for field in group.fields if group.name != name}
        if not fields or len(set(fields)) < len(fields):
            raise OptionError(f"feature group '{name}': its fields are {', '.join(fields) or 'none'}; it needs one, each once")
        for field in fields:
            if field in taken:
                raise OptionError(f"feature group '{name}': group '{taken[field]}' has a field '{field}' already")
        FEATURE_GROUPS.add(name, FeatureGroup(name, tuple(fields), function), definition=function)
        return function

    return register
