"""Between channels and blocks of pixels, NCHW.

y = depth_to_space(x, 2)       # [n, c, h, w] -> [n, c / 4, h * 2, w * 2]
x = space_to_depth(y, 2)
"""

from __future__ import annotations

from ansor_py.te.expr import binary
from ansor_py.te.ops.checks import axes_of, require, require_rank
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body


def depth_to_space(x: Tensor, block: int, channels_first: bool = False, name: str = "depth_to_space") -> Tensor:
    """Channels spread over blocks of pixels; a block's pixel is the slow part of the channel number, or the fast one
    (`channels_first`, as in a pixel shuffle)."""
    require_rank(name, x, 4, "[n, c, h, w]")
    batch, channels, height, width = x.shape
    require(block >= 1 and channels % (block * block) == 0, name, f"{channels} channels do not fill blocks of {block}", x)
    rest = channels // (block * block)
    n, c, row, column = axes = axes_of((batch, rest, height * block, width * block))
    pixel = binary("mod", row, block) * block + binary("mod", column, block)
    channel = c * (block * block) + pixel if channels_first else pixel * rest + c
    return tensor_from_body(name, axes, x[n, channel, row // block, column // block])


def space_to_depth(x: Tensor, block: int, channels_first: bool = False, name: str = "space_to_depth") -> Tensor:
    """Blocks of pixels gathered into channels; the inverse of `depth_to_space`."""
    require_rank(name, x, 4, "[n, c, h, w]")
    batch, channels, height, width = x.shape
    fits = block >= 1 and height % block == 0 and width % block == 0
    require(fits, name, f"{height} x {width} pixels do not form blocks of {block}", x)
    n, c, row, column = axes = axes_of((batch, channels * block * block, height // block, width // block))
    pixels = block * block
    pixel, channel = (binary("mod", c, pixels), c // pixels) if channels_first else (c // channels, binary("mod", c, channels))
    source = (n, channel, row * block + pixel // block, column * block + binary("mod", pixel, block))
    return tensor_from_body(name, axes, x[source])


@operator("depth_to_space", example="depth_to_space:1,64,28,28,block=2")
def depth_to_space_workload(n: int, c: int, h: int, w: int, *, block: int = 2) -> Tensor:
    """Channels of data[n, c, h, w] spread over blocks of pixels."""
    return depth_to_space(placeholder((n, c, h, w), name="data"), block)


@operator("space_to_depth", example="space_to_depth:1,16,56,56,block=2")
def space_to_depth_workload(n: int, c: int, h: int, w: int, *, block: int = 2) -> Tensor:
    """Blocks of pixels of data[n, c, h, w] gathered into channels."""
    return space_to_depth(placeholder((n, c, h, w), name="data"), block)
