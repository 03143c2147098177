"""Access analysis: how operations read their inputs, which decides what a derivation rule may do with them.

Ansor computes these facts once per DAG (reference page, section 2; paper section 4.1). Everything here is a pure
function of operations, so that a rule asks for just what it needs.

    needs_multi_level_tiling(matmul)      # True: each input misses an output axis
    is_strictly_inlineable(bias_add)      # True: simple reads in order, no branch, nothing expensive
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ansor_py.schedule.dag import producers
from ansor_py.te.expr import (
    Axis,
    Binary,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Read,
    Reduce,
    Select,
    Var,
    reads_of,
    substitute,
    variables_of,
    walk,
)
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Compute, Placeholder, Tensor

# Instructions of one evaluation on a vector of float32, as `codegen/vector_math.py` writes it; other functions take one or two.
FUNCTION_INSTRUCTIONS = {
    "exp": 18,
    "log": 33,
    "tanh": 24,
    "erf": 40,
    "sigmoid": 21,
    "sin": 60,
    "cos": 60,
    "atan": 21,
    "fmod": 57,
}
FUNCTION_INSTRUCTIONS |= {"pow": 104}
# No stage is inlined where a formula would then have more instructions than this. A loop that computes four vectors at a time,
# whole and with a masked tail, has eight times as many: 2048, half of a first-level instruction cache. A longer chain of
# operations becomes several loops; what that costs is a store and a load for 256 instructions.
MAX_FORMULA_INSTRUCTIONS = 256
# An axis by whose value an operation selects its formula is unrolled up to this extent.
LONGEST_TABLE = 16


@dataclass(frozen=True)
class SimpleAccess:
    """What is known of a read whose indices are constants or axes with a constant shift."""

    axis_missing: bool
    axis_duplicated: bool
    same_order: bool


def constant_shift_axis(index: Expr) -> str | None:
    """The variable `v` if the index is `v`, `v + c`, `c + v` or `v - c`; else None."""
    if isinstance(index, Var):
        return index.name
    if isinstance(index, Binary) and index.op in ("add", "sub"):
        left, right = index.left, index.right
        if isinstance(left, Var) and isinstance(right, Const):
            return left.name
        if isinstance(right, Var) and isinstance(left, Const) and index.op == "add":
            return right.name
    return None


def simple_access(read: Read, axes: tuple[str, ...]) -> SimpleAccess | None:
    """Facts of a simple read, or None if some index is neither constant nor an axis with a constant shift."""
    positions: list[int] = []
    for index in read.indices:
        if isinstance(index, Const):
            continue
        name = constant_shift_axis(index)
        if name is None or name not in axes:
            return None
        positions.append(axes.index(name))
    return SimpleAccess(
        axis_missing=len(set(positions)) < len(axes),
        axis_duplicated=len(set(positions)) < len(positions),
        same_order=positions == sorted(positions),
    )


def has_branch(body: Expr) -> bool:
    """Whether the body selects between values."""
    return any(isinstance(node, Select) for node in walk(body))


def tabulated_axes(tensor: Tensor) -> tuple[Axis, ...]:
    """The axes by whose value an operation without reduction selects its formula, such as the rows of a constant matrix.

    Each is compared with numbers, `axis == 2`, and short: their loops are unrolled, and each iteration has its own formula.
    """
    if isinstance(tensor.op, Placeholder) or tensor.op.reduce_axes:
        return ()
    compared = {selected[0] for node in walk(tensor.op.body) if (selected := selected_row(node)) is not None}
    return tuple(axis for axis in tensor.op.axes if axis.name in compared and axis.extent <= LONGEST_TABLE)


def selected_row(node: Expr) -> tuple[str, int] | None:
    """Of `select(axis == 2, ...)` the axis' name and the number; None for other nodes."""
    condition = node.condition if isinstance(node, Select) else None
    if not isinstance(condition, Compare) or condition.op != "eq":
        return None
    left, right = condition.left, condition.right
    return (left.name, int(right.value)) if isinstance(left, Var) and isinstance(right, Const) else None


def row_of_table(body: Expr, variable: str, row: int) -> Expr:
    """The formula that a table by the value of a variable has for a row; other formulas as they are."""
    while isinstance(body, Select):
        selected = selected_row(body)
        if selected is None or selected[0] != variable:
            break
        body = body.then if selected[1] == row else body.otherwise
    return body


def rows_of_table(body: Expr) -> tuple[Expr, ...]:
    """The formulas of a table, those of its rows in order and the one for all others; of another formula that one."""
    found: list[Expr] = []
    variable = selected[0] if (selected := selected_row(body)) is not None else None
    while isinstance(body, Select) and (selected := selected_row(body)) is not None and selected[0] == variable:
        found.append(body.then)
        body = body.otherwise
    return (*found, body)


def has_expensive_function(body: Expr) -> bool:
    """Whether the body has a function of many instructions; recomputing it at every read would be a loss."""
    return any(instructions_of(node) > 1 for node in walk(body))


def is_strictly_inlineable(tensor: Tensor) -> bool:
    """Whether reading the operation's formula instead of its result costs nothing: simple ordered reads, no branch, cheap.

    A missing axis (broadcast) is allowed. Whether the operation reduces or is an output is for the rule to ask.
    """
    if isinstance(tensor.op, Placeholder):
        return False
    axes = tuple(axis.name for axis in tensor.op.axes)
    for read in reads_of(tensor.op.body):
        access = simple_access(read, axes)
        if access is None or access.axis_duplicated or not access.same_order:
            return False
    return not has_branch(tensor.op.body) and not has_expensive_function(tensor.op.body)


def needs_multi_level_tiling(tensor: Tensor) -> bool:
    """Whether the operation reuses data: a producer is counted if some output axis of extent > 1 appears in none of its
    reads; true for two such producers, or for one in a reduction."""
    if isinstance(tensor.op, Placeholder):
        return False
    axes = [axis.name for axis in tensor.op.axes if axis.extent > 1]
    missing = 0
    for producer in producers(tensor):
        used: set[str] = set()
        for read in reads_of(tensor.op.body):
            if read.tensor is producer:
                used |= set().union(*(variables_of(index) for index in read.indices)) if read.indices else set()
        missing += any(axis not in used for axis in axes)
    return missing >= 2 or (missing >= 1 and bool(tensor.op.reduce_axes))


def is_elementwise_read(consumer: Tensor, producer: Tensor) -> bool:
    """Whether the consumer reads the producer only at its own index: equal shapes, in order, nothing missing or twice."""
    if isinstance(consumer.op, Placeholder) or consumer.shape != producer.shape:
        return False
    axes = tuple(axis.name for axis in consumer.op.axes)
    reads = [read for read in reads_of(consumer.op.body) if read.tensor.name == producer.name]
    for read in reads:
        access = simple_access(read, axes)
        if access is None or access.axis_missing or access.axis_duplicated or not access.same_order:
            return False
        if any(not isinstance(index, Var) for index in read.indices):
            return False
    return bool(reads)


def is_plain(read: Read) -> bool:
    """Whether every index is an axis or a number, and no axis stands twice."""
    names = [index.name for index in read.indices if isinstance(index, Var)]
    return all(isinstance(index, Var | Const) for index in read.indices) and len(set(names)) == len(names)


def is_transposition(tensor: Tensor) -> bool:
    """Whether a computed tensor is another one, all of it, with its dimensions in another order."""
    if isinstance(tensor.op, Placeholder) or tensor.op.reduce_axes or not isinstance(tensor.op.body, Read):
        return False
    read = tensor.op.body
    return (
        is_plain(read)
        and tensor.size == read.tensor.size
        and {a.name for a in tensor.op.axes if a.extent > 1} <= set(variables_of(read))
    )


def is_read_once(tensor: Tensor, readers: Sequence[Tensor]) -> bool:
    """Whether every element of an operation without branch is read by one element of one operation, which does not reduce.

    Then even an expensive formula may stand in place of the read. `readers` have inlined stages in their formulas.
    """
    if isinstance(tensor.op, Placeholder) or len(readers) != 1 or has_branch(tensor.op.body):
        return False
    axes = tuple(axis.name for axis in tensor.op.axes)
    accesses = [simple_access(read, axes) for read in reads_of(tensor.op.body)]
    ordered = all(a is not None and not a.axis_duplicated and a.same_order for a in accesses)
    return ordered and not has_reduction(readers[0]) and is_elementwise_read(readers[0], tensor)


def is_free_to_inline(tensor: Tensor, readers: Sequence[Tensor]) -> bool:
    """Whether the operation's formula may stand in the place of its reads: nothing that costs something is computed twice, and
    no formula becomes too large. `readers` have inlined stages in their formulas.
    """
    if isinstance(tensor.op, Placeholder) or has_reduction(tensor):
        return False
    if not (is_strictly_inlineable(tensor) or is_read_once(tensor, readers)):
        return False
    own = formula_instructions(tensor.op.body)
    return all(_instructions_with(reader, tensor.name, own) <= MAX_FORMULA_INSTRUCTIONS for reader in readers)


def _instructions_with(reader: Tensor, name: str, own: int) -> int:
    assert isinstance(reader.op, Compute)
    reads = sum(read.tensor.name == name for read in set(reader.op.reads))
    return formula_instructions(reader.op.body) + reads * own


def instructions_of(node: Expr) -> int:
    """Instructions of one operation on a vector, about."""
    return FUNCTION_INSTRUCTIONS.get(
        node.function if isinstance(node, Call) else node.op if isinstance(node, Binary) else "", 1
    )


@lru_cache(maxsize=4096)
def formula_instructions(body: Expr) -> int:
    """Instructions for one element (or vector of elements) of a formula, about; of a table, for a row in the mean."""
    rows = rows_of_table(body)
    if len(rows) > 1:
        return -(-sum(map(formula_instructions, rows)) // len(rows))
    if isinstance(body, Select) and selected_row(body.then) is not None:
        return formula_instructions(body.then) + formula_instructions(body.condition) + 1
    return sum(instructions_of(node) for node in set(walk(body)) if isinstance(node, _EMITTED))


_EMITTED = (Binary, Cast, Compare, Read, Reduce, Select, Call)


def common_outer_axes(consumer: Tensor, producer: Tensor) -> int:
    """Number of leading dimensions of equal extent that every read of the producer addresses with the same axis."""
    if isinstance(consumer.op, Placeholder):
        return 0
    axes = [axis.name for axis in consumer.op.axes]
    count = min(len(consumer.shape), len(producer.shape))
    for read in reads_of(consumer.op.body):
        if read.tensor.name != producer.name:
            continue
        common = 0
        while (
            common < count
            and consumer.shape[common] == producer.shape[common]
            and constant_shift_axis(read.indices[common]) == axes[common]
        ):
            common += 1
        count = common
    return count


def has_reduction(tensor: Tensor) -> bool:
    """Whether the operation reduces over some axis."""
    return isinstance(tensor.op, Compute) and bool(tensor.op.reduce_axes)


def element_stride(read: Read, axis: str, tile: int = 1) -> int | None:
    """How many elements further a read goes when an axis grows by one; None if that is not constant.

    With a `tile` only steps inside of a tile of this length count: `f // 16` stays the same in tiles of 16.
    """
    inside = f"{axis}.inside"
    simplifier = Simplifier({inside: (0, tile - 1)} if tile > 1 else {})
    tiled: dict[str, Expr] = {axis: Var(axis) * tile + Var(inside)} if tile > 1 else {}
    indices = [substitute(index, tiled) for index in read.indices]
    return simplifier.flat(read.tensor.shape, indices).stride(inside if tile > 1 else axis)


def joined_stride(read: Read, axis: str) -> int | None:
    """The same for reads by several indices that together are one: `x // 4` and `x % 4` of dimensions next to each other."""
    simplifier = Simplifier({})
    return simplifier.recombine(simplifier.flat(read.tensor.shape, read.indices)).stride(axis)
