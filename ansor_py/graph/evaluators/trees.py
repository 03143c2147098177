"""Ensembles of trees as attributes of parallel lists: all samples go down each tree at once.

forest = Forest.of(call)
forest.leaves(x)             # [sample, tree]: the position among the lists of nodes where each sample ends
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import MACHINE_LEARNING, EvaluatorCall, Numbers, evaluator

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def _numbers(call: EvaluatorCall, name: str) -> Numbers:
    """A list of numbers, or the tensor that may stand in its place; empty if there is neither."""
    tensor = call.get(f"{name}_as_tensor")
    return np.array(call.get(name, []), np.float32) if tensor is None else np.asarray(tensor)


@dataclass(frozen=True)
class Forest:
    """The nodes: what they compare (mode, feature, threshold), where they lead, and where the trees begin."""

    modes: Numbers
    features: Numbers
    thresholds: Numbers
    missing: Numbers
    if_true: Numbers
    if_false: Numbers
    roots: Numbers
    places: dict[tuple[int, int], int]

    @classmethod
    def of(cls, call: EvaluatorCall) -> Forest:
        """From the attributes; a tree begins with the first of its nodes. KeyError for a branch to nowhere."""
        trees, nodes = call.get("nodes_treeids"), call.get("nodes_nodeids")
        places = {key: place for place, key in reversed(list(enumerate(zip(trees, nodes, strict=True))))}
        modes = np.array([_MODES.index(mode) if mode != "LEAF" else -1 for mode in call.get("nodes_modes")])

        def branch(ids: Sequence[int]) -> Numbers:
            inner = zip(trees, ids, modes, strict=True)
            return np.array([places[tree, node] if mode >= 0 else 0 for tree, node, mode in inner])

        if_true, if_false = branch(call.get("nodes_truenodeids")), branch(call.get("nodes_falsenodeids"))
        roots = np.array([trees.index(tree) for tree in sorted(set(trees))])
        missing = np.array(call.get("nodes_missing_value_tracks_true") or [0] * len(modes), bool)
        features = np.array(call.get("nodes_featureids"))
        return cls(modes, features, _numbers(call, "nodes_values"), missing, if_true, if_false, roots, places)

    def leaves(self, x: Numbers) -> Numbers:
        """Where every sample ends, for each tree."""
        at = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        while (inner := self.modes[at] >= 0).any():
            value = np.take_along_axis(x, np.where(inner, self.features[at], 0), 1)
            limit = self.thresholds[at]
            compared = [value <= limit, value < limit, value >= limit, value > limit, value == limit, value != limit]
            taken = np.where(np.isnan(value), self.missing[at], np.choose(np.where(inner, self.modes[at], 0), compared))
            at = np.where(inner, np.where(taken, self.if_true[at], self.if_false[at]), at)
        return at

    def weights(self, call: EvaluatorCall, kind: str, columns: int) -> tuple[Numbers, Numbers]:
        """What each node adds to each column, and whether it says something of it: of classes or targets."""
        given = _numbers(call, f"{kind}_weights")
        total = np.zeros((len(self.modes), columns), given.dtype)
        stated = np.zeros(total.shape, bool)
        keys = zip(call.get(f"{kind}_treeids"), call.get(f"{kind}_nodeids"), strict=True)
        rows, ids = np.array([self.places[key] for key in keys]), np.array(call.get(f"{kind}_ids"))
        np.add.at(total, (rows, ids), given)
        stated[rows, ids] = True
        return total, stated


def _samples(call: EvaluatorCall) -> Numbers:
    """Rows of numbers that can be compared with thresholds."""
    x = np.atleast_2d(call.x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


@evaluator("TreeEnsembleRegressor", domain=MACHINE_LEARNING)
def tree_ensemble_regressor(call: EvaluatorCall) -> tuple[Any, ...]:
    """The sum, mean, least or largest weight of the leaves, for each target, plus its base value."""
    forest, targets = Forest.of(call), int(call.get("n_targets", 1))
    total, stated = forest.weights(call, "target", targets)
    leaves = forest.leaves(_samples(call))
    given, known = total[leaves].astype(np.float64), stated[leaves]
    match call.get("aggregate_function", "SUM"):
        case "MIN":
            result = np.where(known, given, np.inf).min(1)
        case "MAX":
            result = np.where(known, given, -np.inf).max(1)
        case kind:
            result = given.sum(1) / (len(forest.roots) if kind == "AVERAGE" else 1)
    base = _numbers(call, "base_values")
    return ((result + (base if base.size else 0)).astype(np.float32),)


@evaluator("TreeEnsembleClassifier", domain=MACHINE_LEARNING)
def tree_ensemble_classifier(call: EvaluatorCall) -> tuple[Any, ...]:
    """The label of the largest score, and the scores. Weights of one class alone are those of the second of two."""
    labels = call.get("classlabels_int64s") or call.get("classlabels_strings")
    forest, transform = Forest.of(call), call.get("post_transform", "NONE")
    scores = forest.weights(call, "class", len(labels))[0][forest.leaves(_samples(call))].astype(np.float64).sum(1)
    base, ids = _numbers(call, "base_values"), set(call.get("class_ids"))
    if len(ids) == 1:
        score = scores[:, list(ids)] + (base[-1] if base.size else 0)
        scores = np.concatenate([1 - score if transform == "NONE" else -score, score], axis=1)
    elif base.size:
        scores = scores + base
    best = scores.argmax(1)
    if transform == "LOGISTIC":
        scores = 0.5 * (np.tanh(0.5 * scores) + 1)
    elif transform.startswith("SOFTMAX"):
        powers = np.exp(scores - scores.max(1, keepdims=True))
        if transform == "SOFTMAX_ZERO":  # zeros are scaled like the rest, but stay zeros
            powers = np.where(np.abs(scores) > 1e-7, powers, scores * np.exp(-scores.max(1, keepdims=True)))
        scores = powers / powers.sum(1, keepdims=True)
    named = np.array(labels, np.int64 if call.get("classlabels_int64s") else object)[best]
    return (named, scores.astype(np.float32))
