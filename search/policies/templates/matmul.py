"""Template `matmul`: products of matrices, with any batch axes, transposed operands, and any epilogue of single elements.

Tiles in two levels with the reduction between them, the register tile inside, the epilogue in the outermost tiles; one variant
without packing and one for each operand that can be packed. A 1x1 convolution over merged axes is such a product.

    template_sketches(ComputeDAG.from_outputs(te.matmul(512, 512, 512)), target)
"""

from __future__ import annotations

from ansor_py.search.policies.templates.products import product_of
from ansor_py.search.policies.templates.registry import template
from ansor_py.search.policies.templates.tiling import packings, tiled, with_epilogue
from ansor_py.sketch_rules.partial_sketch import PartialSketch


@template("matmul")
def matmul(partial: PartialSketch) -> list[PartialSketch]:
    """For a sum of products without windows."""
    product = product_of(partial)
    if product is None or product.windows:
        return []
    name = product.stage.name
    depth = [axis.name for axis in product.depth]
    return [with_epilogue(tiled(variant, name, split=depth), name) for variant in packings(partial, name)]
