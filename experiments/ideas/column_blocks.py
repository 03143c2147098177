"""A sketch rule with a hole kind, a mutation and a feature of its own: sums over rows, a block of columns at a time.

    python -m ansor_py.search --import experiments/ideas/column_blocks.py --rules block_columns --op reduce_sum:2048,2048,axis=0

docs/rules.md explains the rule step by step. The mutation goes to the next wider or narrower block; the feature says how many
partial sums a statement keeps in one vector loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ansor_py import Target
from ansor_py.cost_model import Columns, StatementArrays, feature_group
from ansor_py.search import Genes, Space, mutation
from ansor_py.sketch_rules import (
    Derived,
    Gene,
    LengthHole,
    PartialSketch,
    Reorder,
    Rule,
    Split,
    StrategyOptions,
    Verdict,
    hole_kind,
    option,
    reads_of,
    rule,
)


@dataclass(frozen=True)
class BlockOptions(StrategyOptions, name="block"):
    """Constants of the rule."""

    vectors: tuple[int, ...] = option((4, 8, 16), "columns of a block, in vectors; one accumulator each", least=1)


@hole_kind("block_of_columns")
class BlockOfColumns(LengthHole):
    """How many columns are summed side by side."""

    moves = ("nearest_choice", "other_choice", "wider_block")


@rule("block_columns", options=BlockOptions)
class BlockColumns(Rule):
    """Sum over rows for a block of columns at a time; the walk without blocks stays as a sketch of its own."""

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        """For one reduction whose reads go along columns, which have to be many."""
        stage = sketch.stage(number)
        op = stage.op
        widest = max(sketch.options.of(BlockOptions).vectors) * sketch.target.lanes(stage.tensor.dtype)
        down = all(read.indices[-1] == op.axes[-1] for read in reads_of(sketch.state.body(stage.name)))
        return "apply" if len(op.reduce_axes) == 1 and down and op.axes[-1].extent > widest and stage.is_unscheduled else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        """Split the columns, and move the rows between the parts."""
        stage = sketch.stage(number)
        *outer, column = (axis.name for axis in stage.op.axes)
        (row,) = (axis.name for axis in stage.op.reduce_axes)
        lanes = sketch.target.lanes(stage.tensor.dtype)
        sizes = tuple((vectors * lanes,) for vectors in sketch.options.of(BlockOptions).vectors)
        sketch, hole = sketch.with_hole(BlockOfColumns(f"columns {stage.name}.{column}", stage.name, sizes))
        sketch = sketch.apply(
            Split(stage.name, column, (Gene(hole),)),
            Reorder(stage.name, (*outer, f"{column}.0", row, f"{column}.1")),
        )
        return [(sketch.with_label(f"block({stage.name})"), number - 1)]


@mutation("wider_block", weight=0.1)
def wider_block(space: Space, genes: Genes, rng: np.random.Generator) -> Genes | None:
    """The next wider or narrower block of columns."""
    columns = space.columns("wider_block")
    if not len(columns):
        return None
    children = genes.copy()
    chosen = columns[rng.integers(len(columns), size=len(genes))]
    rows = np.arange(len(genes))
    moved = children[rows, chosen] + rng.choice([-1, 1], len(genes))
    children[rows, chosen] = np.clip(moved, 0, space.sketch.sizes[chosen] - 1)
    return children


@feature_group("column_blocks", ["innermost_extent"])
def column_blocks(statement: StatementArrays, target: Target, out: Columns) -> None:
    """The extent of the innermost loop."""
    out[0] = statement.extents[-1] if len(statement.extents) else 1
