"""Operators of object detectors: RoiAlign and NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator

# Boxes that are compared at once. A block costs a few array operations, whatever is suppressed.
_BLOCK = 64
_HALF_PIXEL_VERSION = 16  # before it, coordinates were not shifted


@evaluator("RoiAlign")
def roi_align(call: EvaluatorCall) -> tuple[Any, ...]:
    """Every output is the average of samples of its bin, or the maximum of their weighted neighbours."""
    x, rois, images = call.x, call.array(1), call.array(2).reshape(-1)
    shifted = call.version >= _HALF_PIXEL_VERSION and call.get("coordinate_transformation_mode") == "half_pixel"
    height, width = int(call.get("output_height")), int(call.get("output_width"))
    dtype = np.result_type(x.dtype, np.float32)
    corners = rois.astype(dtype) * call.get("spatial_scale") - (0.5 if shifted else 0.0)
    result = np.zeros((len(rois), x.shape[1], height, width), dtype)
    for index, (x_first, y_first, x_last, y_last) in enumerate(corners.tolist()):
        sides = (y_last - y_first, x_last - x_first)
        if not shifted:  # regions of no size become one pixel
            sides = (max(sides[0], 1.0), max(sides[1], 1.0))
        rows = _samples(y_first, sides[0], height, x.shape[2], call.get("sampling_ratio"))
        columns = _samples(x_first, sides[1], width, x.shape[3], call.get("sampling_ratio"))
        image = x[int(images[index])].astype(dtype)
        if call.get("mode", "avg").lower() == "avg":
            result[index] = rows.sum((1, 2)) @ image @ columns.sum((1, 2)).T / max(rows.shape[1] * columns.shape[1], 1)
        elif rows.size and columns.size:
            result[index] = _largest(rows, columns, image)
    return (result.astype(x.dtype),)


def _samples(first: float, side: float, bins: int, extent: int, ratio: int) -> Numbers:
    """Weights [bin, sample, neighbour 0 or 1, position] of linear interpolation along one axis; none far outside."""
    count = int(ratio) if ratio > 0 else max(int(np.ceil(side / bins)), 0)
    places = first + (np.arange(bins)[:, None] + (np.arange(count) + 0.5) / max(count, 1)) * (side / bins)
    inside = (places >= -1) & (places <= extent)
    places = np.maximum(places, 0)
    low = np.minimum(places.astype(np.int64), extent - 1)
    share = np.where(low >= extent - 1, 0.0, places - low)
    weights = np.zeros((bins, count, 2, extent))
    bin_, sample = np.indices(low.shape)
    weights[bin_, sample, 0, low] = (1 - share) * inside
    weights[bin_, sample, 1, np.minimum(low + 1, extent - 1)] += share * inside
    return weights


def _largest(rows: Numbers, columns: Numbers, image: Numbers) -> Numbers:
    """The largest product of a sample's four neighbours and their weights, as the standard's own results have it."""
    row_at, column_at = rows.argmax(-1), columns.argmax(-1)  # a weight of zero may take any position
    neighbours = image[:, row_at[:, :, :, None, None, None], column_at]
    products = neighbours * rows.max(-1)[:, :, :, None, None, None] * columns.max(-1)
    largest: Numbers = products.max((2, 3, 5, 6))
    return largest


@evaluator("NonMaxSuppression")
def non_max_suppression(call: EvaluatorCall) -> tuple[Any, ...]:
    """Rows of image, class and box, by falling score; of boxes that overlap too much the best stays."""
    boxes, scores = call.x, call.array(1)
    most, overlap, least = call.number(2), call.number(3), call.number(4)
    rows: list[Numbers] = [np.zeros((0, 3), np.int64)]
    for image in range(scores.shape[0]):
        sides = sides_of(boxes[image], bool(call.get("center_point_box", 0)))
        for kind in range(scores.shape[1]):
            row = scores[image, kind]
            order = np.argsort(-row, kind="stable")
            order = order if least is None else order[row[order] > least]
            chosen = surviving(sides, order, overlap or 0.0, max(int(most or 0), 0))
            rows.append(np.stack([np.full_like(chosen, image), np.full_like(chosen, kind), chosen], axis=1))
    return (np.concatenate(rows).astype(np.int64),)


def sides_of(boxes: Numbers, centred: bool) -> Numbers:
    """Smallest and largest y, smallest and largest x, and area [5, box].

    Boxes are two opposite corners (y, x) or, `centred`, centre (x, y), width and height.
    """
    first, second = boxes[:, :2].T, boxes[:, 2:].T
    if centred:
        first, second = first[::-1] - second[::-1] / 2, first[::-1] + second[::-1] / 2
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.stack([low[0], high[0], low[1], high[1], (high[0] - low[0]) * (high[1] - low[1])])


def surviving(sides: Numbers, order: Numbers, overlap: float, most: int) -> Numbers:
    """Which of the boxes, best first, stay: those that overlap none that stays before them by more than `overlap`.

    Every box is compared with those that stay (at most `most`) and with the few of its own block.
    """
    kept = order[:0]
    for first in range(0, len(order), _BLOCK):
        if len(kept) >= most:
            break
        block = order[first : first + _BLOCK]
        block = block[~(overlaps(sides[:, block], sides[:, kept]) > overlap).any(axis=1)]
        close = overlaps(sides[:, block], sides[:, block]) > overlap
        alive = np.ones(len(block), bool)
        for index in range(len(block)):
            if alive[index]:
                alive[index + 1 :] &= ~close[index, index + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return kept[:most]


def overlaps(boxes: Numbers, others: Numbers) -> Numbers:
    """Intersection over union of each box with each other one; NaN, which is above nothing, for two without an area."""
    shared = _common(boxes[0:2], others[0:2])
    shared *= _common(boxes[2:4], others[2:4])
    union = boxes[4][:, None] + others[4]
    union -= shared
    ratio: Numbers = np.divide(shared, union, out=shared)
    return ratio


def _common(ranges: Numbers, others: Numbers) -> Numbers:
    """How much of each range [low and high, box] lies in each other one."""
    common: Numbers = np.minimum(ranges[1][:, None], others[1])
    common -= np.maximum(ranges[0][:, None], others[0])
    np.maximum(common, 0, out=common)
    return common
