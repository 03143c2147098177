"""Boosted trees evaluated by native code, made once per process through the project's own LLVM path.

The code is a walker over arrays, so a new model is new arrays and no compilation. It works on 16 rows at a time and does
not walk at all: every node of a tree that a row fails (x > threshold) rules out the leaves of its left subtree, and the
first leaf that remains is the row's (QuickScorer; Lucchese et al., SIGIR 2015). With at most 32 leaves that is one compare
and one masked `and` a node for 16 rows, without a branch.

    trees = parse_trees(booster.model_to_string())
    trees.predict(rows)          # float64[rows], equal to booster.predict(rows)
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.jit import LoadedObject, load_object
from ansor_py.codegen.llvm import compile_module
from ansor_py.cost_model.model_options import MAX_LEAVES
from ansor_py.target import Target

LANES = 16
SYMBOL = "score_rows"

# for each block of 16 rows: transpose them to [feature][row]; for each tree: rule out leaves, add the value of the first left
WALKER = """
declare <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x float>)
declare <16 x double> @llvm.masked.gather.v16f64.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x double>)
declare <16 x i32> @llvm.cttz.v16i32(<16 x i32>, i1)
declare <16 x i64> @llvm.smin.v16i64(<16 x i64>, <16 x i64>)

define void @score_rows(ptr noalias %rows, i64 %row_count, i64 %features, i64 %trees, ptr noalias %nodes, ptr noalias %feature,
                        ptr noalias %threshold, ptr noalias %mask, ptr noalias %leaves, ptr noalias %leaf_value,
                        ptr noalias %scratch, ptr noalias %out) {
entry:
  %last = sub i64 %row_count, 1
  %last.1 = insertelement <16 x i64> poison, i64 %last, i64 0
  %last.16 = shufflevector <16 x i64> %last.1, <16 x i64> poison, <16 x i32> zeroinitializer
  %features.1 = insertelement <16 x i64> poison, i64 %features, i64 0
  %features.16 = shufflevector <16 x i64> %features.1, <16 x i64> poison, <16 x i32> zeroinitializer
  br label %block

block:
  %first = phi i64 [ 0, %entry ], [ %first.next, %block.end ]
  %more = icmp slt i64 %first, %row_count
  br i1 %more, label %transpose.entry, label %exit

transpose.entry:
  %first.1 = insertelement <16 x i64> poison, i64 %first, i64 0
  %first.16 = shufflevector <16 x i64> %first.1, <16 x i64> poison, <16 x i32> zeroinitializer
  %lane = add <16 x i64> %first.16, <i64 0, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7,
                                     i64 8, i64 9, i64 10, i64 11, i64 12, i64 13, i64 14, i64 15>
  %row = call <16 x i64> @llvm.smin.v16i64(<16 x i64> %lane, <16 x i64> %last.16)
  %start = mul <16 x i64> %row, %features.16
  %pointers = getelementptr float, ptr %rows, <16 x i64> %start
  br label %transpose

transpose:
  %f = phi i64 [ 0, %transpose.entry ], [ %f.next, %transpose ]
  %sources = getelementptr float, <16 x ptr> %pointers, i64 %f
  %column = call <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr> %sources, i32 4, <16 x i1> splat (i1 true),
                                                               <16 x float> poison)
  %f.16 = mul i64 %f, 16
  %destination = getelementptr float, ptr %scratch, i64 %f.16
  store <16 x float> %column, ptr %destination, align 4
  %f.next = add i64 %f, 1
  %f.more = icmp slt i64 %f.next, %features
  br i1 %f.more, label %transpose, label %tree

tree:
  %t = phi i64 [ 0, %transpose ], [ %t.next, %tree.end ]
  %sum = phi <16 x double> [ zeroinitializer, %transpose ], [ %sum.next, %tree.end ]
  %t.more = icmp slt i64 %t, %trees
  br i1 %t.more, label %tree.body, label %block.end

tree.body:
  %t.next = add i64 %t, 1
  %node.pointer = getelementptr i64, ptr %nodes, i64 %t
  %node.first = load i64, ptr %node.pointer
  %node.end.pointer = getelementptr i64, ptr %nodes, i64 %t.next
  %node.end = load i64, ptr %node.end.pointer
  br label %node

node:
  %k = phi i64 [ %node.first, %tree.body ], [ %k.next, %node.body ]
  %left = phi <16 x i32> [ splat (i32 -1), %tree.body ], [ %left.next, %node.body ]
  %k.more = icmp slt i64 %k, %node.end
  br i1 %k.more, label %node.body, label %tree.end

node.body:
  %feature.pointer = getelementptr i64, ptr %feature, i64 %k
  %feature.offset = load i64, ptr %feature.pointer
  %x.pointer = getelementptr float, ptr %scratch, i64 %feature.offset
  %x = load <16 x float>, ptr %x.pointer, align 4
  %threshold.pointer = getelementptr float, ptr %threshold, i64 %k
  %limit = load float, ptr %threshold.pointer
  %limit.1 = insertelement <16 x float> poison, float %limit, i64 0
  %limit.16 = shufflevector <16 x float> %limit.1, <16 x float> poison, <16 x i32> zeroinitializer
  %mask.pointer = getelementptr i32, ptr %mask, i64 %k
  %keep = load i32, ptr %mask.pointer
  %keep.1 = insertelement <16 x i32> poison, i32 %keep, i64 0
  %keep.16 = shufflevector <16 x i32> %keep.1, <16 x i32> poison, <16 x i32> zeroinitializer
  %fails = fcmp ogt <16 x float> %x, %limit.16
  %reduced = and <16 x i32> %left, %keep.16
  %left.next = select <16 x i1> %fails, <16 x i32> %reduced, <16 x i32> %left
  %k.next = add i64 %k, 1
  br label %node

tree.end:
  %leaf = call <16 x i32> @llvm.cttz.v16i32(<16 x i32> %left, i1 true)
  %leaf.pointer = getelementptr i64, ptr %leaves, i64 %t
  %leaf.first = load i64, ptr %leaf.pointer
  %values = getelementptr double, ptr %leaf_value, i64 %leaf.first
  %leaf.64 = zext <16 x i32> %leaf to <16 x i64>
  %value.pointers = getelementptr double, ptr %values, <16 x i64> %leaf.64
  %value = call <16 x double> @llvm.masked.gather.v16f64.v16p0(<16 x ptr> %value.pointers, i32 8, <16 x i1> splat (i1 true),
                                                               <16 x double> poison)
  %sum.next = fadd <16 x double> %sum, %value
  br label %tree

block.end:
  %out.pointer = getelementptr double, ptr %out, i64 %first
  store <16 x double> %sum, ptr %out.pointer, align 8
  %first.next = add i64 %first, 16
  br label %block

exit:
  ret void
}
"""


@dataclass(frozen=True, eq=False)
class Trees:
    """All trees of a model as arrays; the nodes and leaves of tree t begin at `nodes[t]` and `leaves[t]`.

    A row above `threshold` at a node loses the leaves whose bits are clear in `mask`; leaves are numbered from left to right.
    """

    features: int  # columns of the rows that the model takes
    nodes: NDArray[np.int64]  # [trees + 1]
    feature: NDArray[np.int64]  # [nodes]
    threshold: NDArray[np.float32]  # [nodes]
    mask: NDArray[np.uint32]  # [nodes]
    leaves: NDArray[np.int64]  # [trees + 1]
    leaf_value: NDArray[np.float64]  # [leaves]

    def __len__(self) -> int:
        return len(self.nodes) - 1

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The sum of the trees' outputs for every row float32[rows, features]; raises ValueError for another width."""
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ValueError(f"the trees take rows of {self.features} features, not an array of shape {rows.shape}")
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        out = np.zeros(-(-len(rows) // LANES) * LANES)
        scratch = np.empty(self.features * LANES, dtype=np.float32)
        offsets = self.feature * LANES
        arrays = (self.nodes, offsets, self.threshold, self.mask, self.leaves, self.leaf_value, scratch, out)
        if len(rows):
            _walker()(rows.ctypes.data, len(rows), self.features, len(self), *(array.ctypes.data for array in arrays))
        return out[: len(rows)]


@functools.cache
def _loaded() -> LoadedObject:
    return load_object([compile_module(WALKER, Target.detect()).code], [SYMBOL])


@functools.cache
def _walker() -> Any:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    signature = ctypes.CFUNCTYPE(None, pointer, integer, integer, integer, *[pointer] * 8)
    return signature(_loaded().address(SYMBOL))


def parse_trees(model_text: str) -> Trees:
    """Read the text form of a LightGBM model: numerical splits without missing values, at most 32 leaves a tree."""
    features, nodes, leaves = 0, [0], [0]
    columns: list[NDArray[np.int64]] = []
    thresholds: list[NDArray[np.float64]] = []
    masks: list[int] = []
    values: list[float] = []
    for block in _blocks(model_text):
        if "max_feature_idx" in block:
            features = int(block["max_feature_idx"]) + 1
        if "leaf_value" not in block:
            continue
        leaf_value = np.array(block["leaf_value"].split(), dtype=np.float64)
        if len(leaf_value) > MAX_LEAVES:
            raise ValueError(f"a tree has {len(leaf_value)} leaves; the native code handles at most {MAX_LEAVES}")
        order = [0]
        if len(leaf_value) > 1:
            kinds = np.array(block["decision_type"].split(), dtype=np.int64)
            if np.any(kinds & 0b1101):
                raise ValueError("a tree has a categorical split or one that treats missing values specially")
            left, right = ([int(child) for child in block[side].split()] for side in ("left_child", "right_child"))
            order, tree_masks = _leaf_order(left, right)
            masks.extend(tree_masks)
            columns.append(np.array(block["split_feature"].split(), dtype=np.int64))
            thresholds.append(np.array(block["threshold"].split(), dtype=np.float64))
        values.extend(leaf_value[order])
        nodes.append(len(masks))
        leaves.append(len(values))
    return Trees(
        features,
        np.array(nodes, dtype=np.int64),
        np.concatenate([np.empty(0, np.int64), *columns]),
        _rounded_down(np.concatenate([np.empty(0), *thresholds])),
        np.array(masks, dtype=np.uint32),
        np.array(leaves, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """The key=value lines of the header and of each tree."""
    for block in text.split("\n\n"):
        yield dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _leaf_order(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    """The leaves from left to right, and for each node the bits of all leaves but those of its left subtree."""
    order: list[int] = []
    masks = [0] * len(left)

    def visit(node: int) -> None:
        if node < 0:
            order.append(~node)
            return
        before = len(order)
        visit(left[node])
        masks[node] = ~(((1 << len(order)) - 1) ^ ((1 << before) - 1)) & 0xFFFFFFFF
        visit(right[node])

    visit(0)
    return order, masks


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each threshold: comparisons of float32 values with it come out the same."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
