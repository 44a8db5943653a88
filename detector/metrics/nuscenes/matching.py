"""Greedy matching by centre distance, in Numba."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def match_by_distance(
    detection_xy, detection_sample, truth_xy, truth_begin, truth_end, thresholds
):
    """Which true box each detection takes, at every threshold.

    Args:
        detection_xy: (D, 2) centres, in the order in which they may choose: best score first.
        detection_sample: (D,) their samples.
        truth_xy: (G, 2) centres, those of one sample in a row.
        truth_begin, truth_end: (S,) the rows of `truth_xy` of each sample.
        thresholds: (T,) metres.

    Returns:
        (T, D) int64: row of `truth_xy`, or -1. A detection takes the nearest true box of its
        sample that is still free (the first of equally near ones) if that is strictly nearer
        than the threshold; if not, it takes none, and does not look further.
    """
    thresholds_count, detections = len(thresholds), len(detection_xy)
    taken = np.zeros((thresholds_count, len(truth_xy)), np.bool_)
    matches = np.full((thresholds_count, detections), -1, np.int64)
    nearest = np.empty(thresholds_count)
    choice = np.empty(thresholds_count, np.int64)
    for d in range(detections):
        sample = detection_sample[d]
        nearest[:] = np.inf
        choice[:] = -1
        for g in range(truth_begin[sample], truth_end[sample]):
            dx = detection_xy[d, 0] - truth_xy[g, 0]
            dy = detection_xy[d, 1] - truth_xy[g, 1]
            distance = np.sqrt(dx * dx + dy * dy)
            for t in range(thresholds_count):
                if distance < nearest[t] and not taken[t, g]:
                    nearest[t] = distance
                    choice[t] = g
        for t in range(thresholds_count):
            if nearest[t] < thresholds[t]:
                matches[t, d] = choice[t]
                taken[t, choice[t]] = True
    return matches
