"""Counts of true positives, false positives and misses of whole frames, compiled and threaded.

Follows `metrics/detection_metrics.cc` and `metrics_utils.cc` of waymo-open-dataset 1.6,
the places where it rounds to single precision included.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from detector.metrics.waymo.matching import assign
from detector.metrics.waymo.overlap import iou_table

# IoUs are compared in millionths.
IOU_STEPS = np.float32(1_000_000)
# Upper ends of the near and the middle range, metres from the vehicle's origin.
NEAR, MIDDLE = 30.0, 50.0
# Object types are numbered from 1: vehicle, pedestrian, sign, cyclist.
TYPE_COUNT = 4
RANGE_COUNT = 3
# What is counted apart: each type, then each type's three ranges.
PART_COUNT = TYPE_COUNT * (1 + RANGE_COUNT)
# Columns of the counts.
FOUND, FALSE, MISSED_LEVEL_1, MISSED = range(4)


@njit(cache=True, nogil=True)
def count_frames(
    start, stop, cutoffs, thresholds, volume,
    true_offsets, true_boxes, true_types, true_levels,
    offsets, boxes, types, scores, in_zone,
    counts, heading_sums,
):  # fmt: skip
    """Counts frames [start, stop) at every score cutoff.

    Args:
        cutoffs: (C,) float32, ascending.
        thresholds: (5,) float32, the IoU that a match needs, by object type.
        volume: IoU in 3D, otherwise seen from above.
        true_offsets, offsets: (F + 1,) where each frame's true boxes and predictions start.
        counts: (F, PART_COUNT, C, 4) int32, out.
        heading_sums: (F, PART_COUNT, C) float32, out: summed heading accuracy of those found.
    """
    for frame in range(start, stop):
        counts[frame] = 0
        heading_sums[frame] = 0
        for kind in range(1, TYPE_COUNT + 1):
            truth = _of_type(true_types, true_offsets[frame], true_offsets[frame + 1], kind)
            guess = _of_type(types, offsets[frame], offsets[frame + 1], kind)
            if len(truth) == 0 and len(guess) == 0:
                continue
            kind_boxes, kind_true_boxes = boxes[guess], true_boxes[truth]
            iou = iou_table(kind_boxes, kind_true_boxes, volume)
            true_ranges, ranges = _ranges(kind_true_boxes), _ranges(kind_boxes)
            for distance in range(-1, RANGE_COUNT):
                part = kind - 1
                if distance >= 0:
                    part = TYPE_COUNT + RANGE_COUNT * (kind - 1) + distance
                columns = np.flatnonzero((true_ranges == distance) | (distance < 0))
                rows = np.flatnonzero((ranges == distance) | (distance < 0))
                _count_part(
                    cutoffs, iou[rows][:, columns], thresholds[kind],
                    kind_true_boxes[columns, 6], true_levels[truth[columns]],
                    kind_boxes[rows, 6], scores[guess[rows]], in_zone[guess[rows]],
                    counts[frame, part], heading_sums[frame, part],
                )  # fmt: skip


@njit(cache=True, nogil=True)
def _count_part(
    cutoffs, iou, threshold, true_headings, levels, headings, scores, in_zone,
    counts, heading_sums,
):  # fmt: skip
    """Counts one part of a frame: matches anew whenever a cutoff takes predictions away."""
    edge_offsets, edge_columns, edge_weights = _edges(iou, threshold)
    work = np.empty((7, max(len(iou), iou.shape[1]) + 1), np.int64)
    column_of_row = np.empty(len(iou), np.int64)
    hit = np.empty(iou.shape[1], np.bool_)
    rows_before = -1
    for place in range(len(cutoffs)):
        rows = np.flatnonzero(scores >= cutoffs[place])
        if len(rows) == rows_before:
            counts[place] = counts[place - 1]
            heading_sums[place] = heading_sums[place - 1]
            continue
        rows_before = len(rows)
        assign(
            rows, edge_offsets, edge_columns, edge_weights, iou.shape[1], work, column_of_row
        )
        hit[:] = False
        heading_sum = np.float32(0)
        for index, row in enumerate(rows):
            column = column_of_row[index]
            if column < iou.shape[1] and iou[row, column] >= threshold:
                hit[column] = True
                counts[place, FOUND] += 1
                heading_sum += heading_accuracy(headings[row], true_headings[column])
            elif not in_zone[row]:
                counts[place, FALSE] += 1
        heading_sums[place] = heading_sum
        for column in range(iou.shape[1]):
            if not hit[column]:
                counts[place, MISSED] += 1
                counts[place, MISSED_LEVEL_1] += levels[column] <= 1


@njit(cache=True, nogil=True)
def _edges(iou, threshold):
    """The pairs that may match, row after row, with their weights."""
    offsets = np.zeros(len(iou) + 1, np.int64)
    for row in range(len(iou)):
        offsets[row + 1] = offsets[row] + np.sum(iou[row] >= threshold)
    columns = np.empty(offsets[-1], np.int64)
    weights = np.empty(offsets[-1], np.int64)
    edge = 0
    for row in range(len(iou)):
        for column in range(iou.shape[1]):
            if iou[row, column] >= threshold:
                columns[edge] = column
                # Halves are rounded up.
                weights[edge] = int(math.floor(iou[row, column] * IOU_STEPS + 0.5))
                edge += 1
    return offsets, columns, weights


@njit(cache=True, nogil=True)
def _of_type(types, start, stop, kind):
    return start + np.flatnonzero(types[start:stop] == kind)


@njit(cache=True, nogil=True)
def _ranges(boxes):
    """0, 1 or 2: near, middle or far."""
    ranges = np.empty(len(boxes), np.int64)
    for row, box in enumerate(boxes):
        distance = math.sqrt(box[0] * box[0] + box[1] * box[1] + box[2] * box[2])
        ranges[row] = 0 if distance < NEAR else 1 if distance < MIDDLE else 2
    return ranges


@njit(cache=True, nogil=True)
def heading_accuracy(heading, true_heading):
    """Float32: 1 where both agree, falling linearly to 0 where they are opposite."""
    error = np.float32(abs(_wrapped(heading) - _wrapped(true_heading)))
    if error > math.pi:
        error = np.float32(2.0 * math.pi - error)
    return np.float32(min(1.0, max(0.0, 1.0 - error / math.pi)))


@njit(cache=True, nogil=True)
def _wrapped(angle):
    """Float32 angle in [-pi, pi)."""
    turn = math.pi - -math.pi
    shifted = angle + math.pi
    rest = shifted - math.trunc(shifted * (1 / turn)) * turn
    if rest < 0:
        rest = 0.0 if turn + rest >= turn else turn + rest
    return np.float32(rest - math.pi)
