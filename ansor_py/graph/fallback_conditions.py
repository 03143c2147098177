"""Limits of what evaluates operators that are not compiled, and conditions on nodes that say whether one is met.

Limit("", ("ConvTranspose",), "attribute `group` other than 1", other_than("group", 1), "split it into one for each group")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import NodeProto, helper, numpy_helper

Applies: TypeAlias = Callable[[NodeProto], bool]


class AttributeReferenceError(Exception):
    """An attribute's value is that of the function around the node, and not known from the node."""


@dataclass(frozen=True)
class Limit:
    """Something that is not honoured: of which operators and versions, by which nodes it is used, and the remedy."""

    domain: str
    operators: tuple[str, ...]
    what: str
    applies: Applies
    remedy: str
    since: int = 1
    before: int | None = None

    def covers(self, domain: str, op_type: str, version: int) -> bool:
        """Whether it is about this version of an operator."""
        of_operator = domain == self.domain and op_type in self.operators
        return of_operator and self.since <= version and (self.before is None or version < self.before)

    def concerns(self, node: NodeProto) -> bool:
        """Whether the node uses what is not honoured; one whose attribute a call of its function will give may use it."""
        try:
            return self.applies(node)
        except AttributeReferenceError:
            return True

    @property
    def versions(self) -> str:
        """The versions in words; empty for all."""
        if self.before is not None:
            return f"before {self.before}" if self.since == 1 else f"{self.since} to {self.before - 1}"
        return f"from {self.since}" if self.since > 1 else ""


def always(node: NodeProto) -> bool:
    """Every node."""
    return True


def value(node: NodeProto, name: str) -> Any:
    """An attribute as Python's values, or None. AttributeReferenceError where it is another's."""
    for attribute in node.attribute:
        if attribute.name == name:
            if attribute.ref_attr_name:
                raise AttributeReferenceError
            found = helper.get_attribute_value(attribute)
            return found.decode() if isinstance(found, bytes) else found
    return None


def given(*names: str) -> Applies:
    """One of the attributes is given."""
    return lambda node: any(value(node, name) is not None for name in names)


def other_than(name: str, *values: Any) -> Applies:
    """The attribute is given, and is none of these."""
    return lambda node: value(node, name) not in (None, *values)


def has_input(index: int) -> Applies:
    """The input is given."""
    return lambda node: index < len(node.input) and bool(node.input[index])


def raw_scores_after_softcap(node: NodeProto) -> bool:
    """Attention's scores are asked for as they are before `softcap`, and there is one."""
    asked = len(node.output) > 3 and bool(node.output[3]) and not value(node, "qk_matmul_output_mode")
    return asked and bool(value(node, "softcap"))


def weights_by_gram(node: NodeProto) -> bool:
    """Weights are given by n-gram, and n-grams do not come in the order of their places in the result."""
    places = list(value(node, "ngram_indexes") or [])
    return value(node, "mode") != "TF" and (value(node, "weights") is None or places != list(range(len(places))))


def special_casing(node: NodeProto) -> bool:
    """The locale is of a language whose letters change case in a way of their own."""
    return str(value(node, "locale") or "").lower()[:2] in ("az", "lt", "tr")


def has_zero(name: str) -> Applies:
    """There is a zero in a tensor."""
    return lambda node: bool(value(node, name) and (numpy_helper.to_array(value(node, name)) == 0).any())


def unclear_single_class(node: NodeProto) -> bool:
    """All weights are of one class: what the scores of two are is agreed on for few transforms."""
    if len(set(value(node, "class_ids") or [0, 1])) > 1:
        return False
    positive = bool(np.min(value(node, "class_weights") or [0.0]) >= 0)
    agreed = {"NONE": positive, "LOGISTIC": not positive}
    return not agreed.get(value(node, "post_transform") or "NONE", False)


def one_label(node: NodeProto) -> bool:
    """A classifier has fewer than two labels."""
    return len(value(node, "classlabels_int64s") or value(node, "classlabels_strings") or []) < 2
