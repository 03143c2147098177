"""What lets the operations of several kernels be one kernel that goes from row to row: facts of a compute DAG.

No operator is known by name here. A *product* is a reduction that reads the same elements again and again, a *row reduction*
one that reads each element of its operands once, along whole dimensions: softmax and layer normalisation have two. Rows are
axes of the result by which alone every stage in between is read, as they are, in whatever order of dimensions.

    shared_rows(dag)      # (Axis("i1", 128),): the result is computed from row to row; () if it is not
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod

from ansor_py.schedule.access import is_plain, is_transposition, needs_multi_level_tiling
from ansor_py.schedule.dag import ComputeDAG, producers
from ansor_py.te.expr import DTYPE_BYTES, Axis, Read, Var, variables_of
from ansor_py.te.tensor import Compute, Placeholder, Tensor

MOST_PRODUCTS = 2
# Of the second product's other operand, what all rows read is read again for every block of rows. It has to stay in a cache, or
# to be less than the rows, which would else go through memory.
LARGEST_OPERAND_BYTES = 1 << 21


def is_product(tensor: Tensor) -> bool:
    """Whether a reduction reads elements again and again: a matrix product, a convolution."""
    return isinstance(tensor.op, Compute) and bool(tensor.op.reduce_axes) and needs_multi_level_tiling(tensor)


def is_row_reduction(tensor: Tensor) -> bool:
    """Whether a reduction reads each element once, by axes as they are: no windows."""
    if isinstance(tensor.op, Placeholder) or not tensor.op.reduce_axes or is_product(tensor):
        return False
    return all(is_plain(read) for read in tensor.op.reads)


def transposes(dag: ComputeDAG) -> bool:
    """Whether the DAG's result is its input with dimensions in another order."""
    return len(dag.computed) == 1 and is_transposition(dag.outputs[0])


def shared_rows(dag: ComputeDAG) -> tuple[Axis, ...]:
    """The axes of the result, longer than 1, that are rows of all stages from the first product on; without a product, of all
    that depend on an input. There are none unless a row reduction is among these stages, nor where an operation does not keep
    the rows apart.

    There may be a second product, of rows that were reduced since the first one, with an operand that does not depend on them:
    attention's, of the scores and the values.
    """
    products = [tensor for tensor in dag.computed if is_product(tensor)]
    inside = dependents(dag, products[:1] if products else [t for t in dag.inputs if not t.is_constant])
    output = dag.outputs[0]
    if len(products) > MOST_PRODUCTS or output not in inside or not all(tensor in inside for tensor in products):
        return ()
    reductions = [tensor for tensor in inside if tensor.op.reduce_axes and tensor not in products]  # type: ignore[union-attr]
    if not any(map(is_row_reduction, reductions)) or not all(_reads_plainly(tensor, inside) for tensor in reductions):
        return ()
    rows = _row_names(inside, output)
    assert isinstance(output.op, Compute)
    shared = tuple(
        axis for axis in output.op.axes if axis.extent > 1 and all(axis.name in rows[id(tensor)].values() for tensor in inside)
    )
    reduced = dependents(dag, filter(is_row_reduction, inside))
    names = {axis.name for axis in shared}
    separate = {id(t): {d for d, extent in enumerate(t.shape) if extent == 1 or rows[id(t)].get(d) in names} for t in inside}
    return shared if all(_multiplies_rows(tensor, inside, reduced, separate) for tensor in products[1:]) else ()


def dependents(dag: ComputeDAG, sources: Iterable[Tensor]) -> list[Tensor]:
    """The computed tensors among some tensors of the DAG and those that depend on one, producers first."""
    found = set(map(id, sources))
    for tensor in dag.computed:
        if any(id(producer) in found for producer in producers(tensor)):
            found.add(id(tensor))
    return [tensor for tensor in dag.computed if id(tensor) in found]


def _reads_plainly(tensor: Tensor, inside: Sequence[Tensor]) -> bool:
    assert isinstance(tensor.op, Compute)
    return all(is_plain(read) for read in tensor.op.reads if read.tensor in inside)


def _row_names(inside: Sequence[Tensor], output: Tensor) -> dict[int, dict[int, str]]:
    """For each tensor (by identity) and dimension the result's axis by which alone all readers read it, if there is one."""
    assert isinstance(output.op, Compute)
    found: dict[int, dict[int, str]] = {id(output): {place: axis.name for place, axis in enumerate(output.op.axes)}}
    for tensor in reversed(inside):
        if tensor is output:
            continue
        ways: list[set[str | None]] = [set() for _ in tensor.shape]
        for reader in inside:
            assert isinstance(reader.op, Compute)
            places = {axis.name: place for place, axis in enumerate(reader.op.axes)}
            for read in (read for read in reader.op.reads if read.tensor is tensor):
                for dimension, index in enumerate(read.indices):
                    place = places.get(index.name) if isinstance(index, Var) else None
                    whole = place is not None and reader.shape[place] == tensor.shape[dimension]
                    ways[dimension].add(found[id(reader)].get(place) if whole and place is not None else None)
        named = {dimension: way.pop() for dimension, way in enumerate(ways) if len(way) == 1}
        found[id(tensor)] = {dimension: name for dimension, name in named.items() if name is not None}
    return found


def _multiplies_rows(
    tensor: Tensor, inside: Sequence[Tensor], reduced: Sequence[Tensor], separate: Mapping[int, Collection[int]]
) -> bool:
    """Whether a product reduces along rows that were reduced before, and else reads only operands from outside that stay in a
    cache. `separate` are the dimensions of each tensor that tell rows apart."""
    assert isinstance(tensor.op, Compute)
    own = [read for read in tensor.op.reads if read.tensor in inside]
    if len({id(read.tensor) for read in own}) != 1 or own[0].tensor not in reduced or not all(map(is_plain, own)):
        return False
    spatial = {axis.name for axis in tensor.op.axes}
    for read in own:
        moving = {d for d, index in enumerate(read.indices) if isinstance(index, Var) and index.name in spatial}
        if not moving <= set(separate[id(read.tensor)]):
            return False
    others = {id(read.tensor): read for read in tensor.op.reads if read.tensor not in inside}.values()
    # Axes along which all operands move, such as batch and heads, are loops around the blocks of rows.
    batch = spatial.intersection(*(_variables(read) for read in (own[0], *others)))
    again = sum(_bytes_beside(read, batch) for read in others)
    return again <= max(LARGEST_OPERAND_BYTES, _bytes_beside(own[0], batch))


def _variables(read: Read) -> set[str]:
    return set().union(*(variables_of(index) for index in read.indices))


def _bytes_beside(read: Read, batch: Collection[str]) -> int:
    """Bytes of a read tensor for one value of each of the batch's axes."""
    extents = zip(read.indices, read.tensor.shape, strict=True)
    within = [extent for index, extent in extents if not (isinstance(index, Var) and index.name in batch)]
    return DTYPE_BYTES[read.tensor.dtype] * prod(within)
