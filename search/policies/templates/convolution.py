"""Template `convolution`: over one to three dimensions, also strided, dilated or grouped, and transposed in phases.

Input channels are tiled, the window is not: it stays inside the cache tile, around the register tile. The padded input is
made before, in a loop nest of its own, as in AutoTVM's templates. Bias and activation run in the outermost tiles. There is one
variant without packing and one for each axis along which the weights can be packed.

    template_sketches(ComputeDAG.from_outputs(from_spec("conv2d:1,64,56,56,64,3,pad=1")), target)
"""

from __future__ import annotations

from ansor_py.search.policies.templates.products import product_of
from ansor_py.search.policies.templates.registry import template
from ansor_py.search.policies.templates.tiling import packings, tiled, with_epilogue
from ansor_py.sketch_rules.partial_sketch import PartialSketch


@template("convolution")
def convolution(partial: PartialSketch) -> list[PartialSketch]:
    """For a sum of products with windows that is not depthwise."""
    product = product_of(partial)
    if product is None or not product.windows or product.is_depthwise:
        return []
    name = product.stage.name
    channels = [axis.name for axis in product.depth]
    return [with_epilogue(tiled(variant, name, split=channels), name) for variant in packings(partial, name)]
