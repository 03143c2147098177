"""Winograd's minimal filtering for windows of 3 and 3 x 3 (Lavin and Gray, CVPR 2016): fewer multiplications, more additions.

A tile of m x m results takes (m + 2)^2 products in place of 9 m^2: with m = 4 a quarter of them, with m = 2 four ninths. Data
and weights are transformed by constant matrices, element by element multiplied and summed over the channels, which is a batch
of matrix products, and transformed back:

    y = A^T [ (G w G^T) * (B^T x B) ] A

Every transformation goes along one dimension at a time, with the channels innermost, so that all loads and stores are whole
vectors. Its formulas stand in a table by the row of the matrix (`tabulated_axes`): in each unrolled iteration one of them is
left, without multiplications by 0 or 1. The weights' transformation depends on constants alone and is made once.

Rounding errors are larger than those of a plain sum, those of m = 4 more so: `exact=False`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from ansor_py.schedule.algorithms.convolutions import Convolution, convolution_of
from ansor_py.schedule.algorithms.registry import algorithm
from ansor_py.te.expr import INDEX, Expr, const, equal, select
from ansor_py.te.tensor import Compute, Tensor, compute, reduce_axis, reduce_sum, tensor_from_body

Matrix = Sequence[Sequence[Fraction]]
KERNEL = 3

# Points at which polynomials are evaluated, besides infinity. Those of tiles of 4 are not 1 and 2, as in the paper: with them
# errors are four times smaller, and all numbers are exact in float32 but those of the weights.
POINTS_OF_2 = (Fraction(0), Fraction(1), Fraction(-1))
POINTS_OF_4 = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))


@dataclass(frozen=True)
class Transforms:
    """The matrices of tiles of `size` results, for which `points` products are taken, along each dimension."""

    data: Matrix
    weight: Matrix
    result: Matrix

    @property
    def size(self) -> int:
        return len(self.result)

    @property
    def points(self) -> int:
        return len(self.data)


def transforms_at(points: Sequence[Fraction]) -> Transforms:
    """The matrices of Toom and Cook: of two polynomials the values at the points, and the product from its values.

    For an algorithm of tiles they are transposed: what takes the product from its values transforms the data.
    """
    size = len(points) + 2 - KERNEL
    data, weight = [], []
    for point in points:
        others = [other for other in points if other != point]
        data.append((*_with_roots(others), Fraction(0)))
        weight.append(tuple(point**power / prod(point - other for other in others) for power in range(KERNEL)))
    data.append(tuple(_with_roots(points)))
    weight.append((*(Fraction(0),) * (KERNEL - 1), Fraction(1)))
    result = [(*(point**power for point in points), Fraction(power == size - 1)) for power in range(size)]
    return Transforms(data, weight, result)


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of a polynomial that has these roots, that of the highest power last and 1."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


TILES_OF_2, TILES_OF_4 = transforms_at(POINTS_OF_2), transforms_at(POINTS_OF_4)


@algorithm("winograd_4x4", exact=False)
def winograd_4x4(tensor: Tensor) -> Tensor | None:
    """A convolution by windows of 3 x 3 in tiles of 4 x 4 results."""
    return _winograd(tensor, TILES_OF_4, rank=2)


@algorithm("winograd_2x2", exact=False)
def winograd_2x2(tensor: Tensor) -> Tensor | None:
    """A convolution by windows of 3 x 3 in tiles of 2 x 2 results."""
    return _winograd(tensor, TILES_OF_2, rank=2)


@algorithm("winograd_4", exact=False)
def winograd_4(tensor: Tensor) -> Tensor | None:
    """A convolution by windows of 3 along one dimension (such as 1 x 3 and 3 x 1) in tiles of 4 results."""
    return _winograd(tensor, TILES_OF_4, rank=1)


def _winograd(tensor: Tensor, transforms: Transforms, rank: int) -> Tensor | None:
    """The tensor computed in tiles along so many dimensions, if it is a convolution by windows along them; else None."""
    found = convolution_of(tensor, KERNEL, rank)
    if found is None:
        return None
    tiles = tuple(-(-axis.extent // transforms.size) for axis in found.positions)
    shape = (*(axis.extent for axis in found.batch), *tiles)  # of the tiles
    data = _transformed_data(found, transforms, tiles)
    weights = _transformed_weight(found, transforms)
    k = reduce_axis(found.channels.extent, found.channels.name)

    def product(*at: Expr) -> Expr:
        return reduce_sum(data[(*at[:-1], k)] * weights[(*at[:rank], k, at[-1])], k)

    extents = (*(transforms.points,) * rank, *shape, found.filters.extent)
    results = _transformed_results(compute(extents, product, "products"), transforms, shape, rank)
    assert isinstance(tensor.op, Compute)
    place: list[Expr] = [part for axis in found.positions for part in (axis // transforms.size, axis % transforms.size)]
    return tensor_from_body(tensor.name, tensor.op.axes, results[(*found.batch, *place, found.filters)])


def _transformed_data(found: Convolution, transforms: Transforms, tiles: tuple[int, ...]) -> Tensor:
    """B^T x B, [*points, *batch, *tiles, channel]: of the data, channels last, along one dimension after the other."""
    size, points, batch = transforms.size, transforms.points, tuple(axis.extent for axis in found.batch)
    padded = tuple(size * count + points - size for count in tiles)
    first = len(batch)

    def channels_last(*at: Expr) -> Expr:
        return found.data_at(at[:first], at[-1], at[first:-1], padded)

    data = compute((*batch, *padded, found.channels.extent), channels_last, "channels_last")
    for done in range(len(tiles)):
        data = _along_dimension(data, transforms, done, first + done, (*batch, *tiles[: done + 1], *padded[done + 1 :]))
    return data


def _along_dimension(data: Tensor, transforms: Transforms, done: int, dimension: int, extents: tuple[int, ...]) -> Tensor:
    """Data [*points, *places, channel], transformed along `done` dimensions, transformed along the next one of the places."""

    def formula(*at: Expr) -> Expr:
        points, row, places, channel = at[:done], at[done], at[done + 1 : -1], at[-1]
        before, tile, after = places[:dimension], places[dimension], places[dimension + 1 :]
        steps = (tile * transforms.size + step for step in range(transforms.points))
        return _table(row, transforms.data, [data[(*points, *before, step, *after, channel)] for step in steps])

    return compute((*(transforms.points,) * (done + 1), *extents, data.shape[-1]), formula, f"data_{done + 1}")


def _transformed_weight(found: Convolution, transforms: Transforms) -> Tensor:
    """G w G^T, [*points, channel, filter]."""
    rank, matrix = len(found.taps), transforms.weight

    def formula(*at: Expr) -> Expr:
        points, channel, filters = at[:rank], at[rank], at[rank + 1]

        def transformed(taps: tuple[int, ...], rows: tuple[int, ...]) -> Expr:
            """The weights at the first taps, transformed along the dimensions behind: at these rows of the matrix."""
            if not rows:
                return found.weight_at(filters, channel, tuple(const(tap, INDEX) for tap in taps))
            return _row(matrix[rows[0]], [transformed((*taps, tap), rows[1:]) for tap in range(KERNEL)])

        def chosen(rows: tuple[int, ...]) -> Expr:
            if len(rows) == rank:
                return transformed((), rows)
            return _selected(points[len(rows)], [chosen((*rows, row)) for row in range(transforms.points)])

        return chosen(())

    return compute((*(transforms.points,) * rank, found.channels.extent, found.filters.extent), formula, "weight")


def _transformed_results(products: Tensor, transforms: Transforms, shape: tuple[int, ...], rank: int) -> Tensor:
    """A^T p A, [*batch, tile, row, tile, column, filter], of products [*points, *shape, filter]: `shape` of tiles."""
    size, points = transforms.size, transforms.points
    for done in range(rank - 1):
        results = products

        def along(*at: Expr, done: int = done, results: Tensor = results) -> Expr:
            values = [results[(*at[:done], step, *at[done + 1 :])] for step in range(points)]
            return _table(at[done], transforms.result, values)

        products = compute((*results.shape[:done], size, *results.shape[done + 1 :]), along, f"result_{done + 1}")
    batch, tiles = shape[:-rank], shape[-rank:]

    def last(*at: Expr) -> Expr:
        places, filters = at[len(batch) : -1], at[-1]
        tile, inside = (*at[: len(batch)], *places[::2]), places[1::2]
        return _table(inside[-1], transforms.result, [products[(*inside[:-1], k, *tile, filters)] for k in range(points)])

    extents = (*batch, *(part for count in tiles for part in (count, size)), products.shape[-1])
    return compute(extents, last, f"result_{rank}")


def _table(row: Expr, matrix: Matrix, values: Sequence[Expr]) -> Expr:
    """The product of a constant matrix and a vector at a row, a formula for each."""
    return _selected(row, [_row(coefficients, values) for coefficients in matrix])


def _selected(row: Expr, formulas: Sequence[Expr]) -> Expr:
    """A table: the formula for each row."""
    *others, result = formulas
    for number in reversed(range(len(others))):
        result = select(equal(row, number), others[number], result)
    return result


def _row(coefficients: Sequence[Fraction], values: Sequence[Expr]) -> Expr:
    """A sum of multiples: those that are added first, so that few signs have to change."""
    terms = sorted(
        ((c, value) for c, value in zip(coefficients, values, strict=True) if c),
        key=lambda item: (item[0] < 0, abs(item[0]) != 1),
    )
    total: Expr | None = None
    for coefficient, value in terms:
        term = value * float(abs(coefficient))
        if total is None:
            total = term if coefficient > 0 else value * float(coefficient)
        else:
            total = total + term if coefficient > 0 else total - term
    assert total is not None, "a row of a transformation is not zero"
    return total
