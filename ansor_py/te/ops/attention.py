"""Scaled dot-product attention (Vaswani et al., "Attention Is All You Need", 2017, section 3.2), all heads in one expression.

y = attention(query, key, value)                # each [batch, tokens, heads, features], as projections lay them
y = attention(query, key, value, mask)          # mask is added to the scores and broadcast to [batch, heads, rows, columns]
"""

from __future__ import annotations

from ansor_py.te.ops.checks import require, require_rank, require_same_dtype
from ansor_py.te.ops.elementwise import add, multiply
from ansor_py.te.ops.layout import transpose
from ansor_py.te.ops.matrix import matmul
from ansor_py.te.ops.reduction import softmax
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, name: str = "attention") -> Tensor:
    """softmax(query key^T / sqrt(features) + mask) value for every head, laid out as `query` is.

    `query` is [batch, rows, heads, features], `key` [batch, columns, heads, features] and `value` the same with any number of
    features, which the result has.
    """
    for tensor in (query, key, value):
        require_rank("attention", tensor, 4, "[batch, tokens, heads, features]")
    require_same_dtype("attention", query, key)
    require_same_dtype("attention", query, value)
    require(query.shape[3] == key.shape[3], "attention", "query and key have different numbers of features", query, key)
    require(key.shape[:3] == value.shape[:3], "attention", "key and value differ in batch, tokens or heads", key, value)
    require(query.shape[::2] == key.shape[::2], "attention", "query and key differ in batch or heads", query, key)
    rows = transpose(query, (0, 2, 1, 3), f"{name}_query")
    columns = transpose(key, (0, 2, 3, 1), f"{name}_key")
    scores = multiply(matmul(rows, columns, name=f"{name}_scores"), query.shape[3] ** -0.5, f"{name}_scaled")
    if mask is not None:
        scores = add(scores, mask, f"{name}_masked")
    weights = softmax(scores, -1, f"{name}_softmax")
    mixed = matmul(weights, transpose(value, (0, 2, 1, 3), f"{name}_value"), name=f"{name}_mixed")
    return transpose(mixed, (0, 2, 1, 3), name)


@operator("attention", example="attention:1,12,128,64")
def attention_workload(batch: int, heads: int, tokens: int, features: int, *, mask: int = 0) -> Tensor:
    """Attention of query, key and value [batch, tokens, heads, features], perhaps with a mask [batch, 1, 1, tokens]."""
    query, key, value = (placeholder((batch, tokens, heads, features), name=name) for name in ("query", "key", "value"))
    return attention(query, key, value, placeholder((batch, 1, 1, tokens), name="mask") if mask else None)
