"""Operators on images: grids of places, and decoding."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, evaluator


@evaluator("AffineGrid")
def affine_grid(call: EvaluatorCall) -> tuple[Any, ...]:
    """Places (x, y and z last) of the pixels of an image or volume, transformed."""
    theta, extents = call.x, call.array(1)[2:].tolist()
    aligned = bool(call.get("align_corners", 0))
    axes = []
    for extent in extents:
        steps = np.arange(extent, dtype=np.float64)
        axes.append(2 * steps / max(extent - 1, 1) - (extent > 1) if aligned else (2 * steps + 1) / extent - 1)
    places = np.meshgrid(*axes, indexing="ij")
    homogeneous = np.stack([*reversed(places), np.ones(extents)], axis=-1)
    grid = np.einsum("nij,...j->n...i", theta.astype(np.float64), homogeneous)
    return (grid.astype(theta.dtype),)


@evaluator("ImageDecoder")
def image_decoder(call: EvaluatorCall) -> tuple[Any, ...]:
    """Pixels [height, width, channel] of an encoded image, as RGB, BGR or Grayscale. ImportError without Pillow."""
    import PIL.Image

    wanted = call.get("pixel_format", "RGB")
    with PIL.Image.open(io.BytesIO(call.x.tobytes())) as image:
        pixels = np.array(image.convert("L" if wanted == "Grayscale" else "RGB"))
    if wanted == "Grayscale":
        return (pixels[:, :, None],)
    return (pixels if wanted == "RGB" else pixels[:, :, ::-1],)
