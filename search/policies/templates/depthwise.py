"""Template `depthwise_convolution`: each channel is convolved with a window of its own.

There is little work for each element that is read, so the padded input is made tile by tile, in the cache; the window is not
split and the weights are not packed.

    template_sketches(ComputeDAG.from_outputs(from_spec("depthwise_conv2d:1,32,112,112,3,pad=1")), target)
"""

from __future__ import annotations

from ansor_py.search.policies.templates.products import product_of
from ansor_py.search.policies.templates.registry import template
from ansor_py.search.policies.templates.tiling import tiled, with_epilogue, with_inputs_in_tiles
from ansor_py.sketch_rules.partial_sketch import PartialSketch


@template("depthwise_convolution")
def depthwise_convolution(partial: PartialSketch) -> list[PartialSketch]:
    """For a sum of products with windows alone, whose weights have no output channels of their own."""
    product = product_of(partial)
    if product is None or not product.is_depthwise:
        return []
    name = product.stage.name
    return [with_epilogue(with_inputs_in_tiles(tiled(partial, name, split=()), name), name)]
