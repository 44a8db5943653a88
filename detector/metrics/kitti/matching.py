"""Assigns detections to true boxes as KITTI's evaluator does, for one class and difficulty.

Candidates are the pairs that overlap enough: those of true box t are
`found[starts[t]:starts[t + 1]]`, indices of detections in the order of the result file. True
boxes are served one after another in the order of the label file; a detection serves once.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from numba import njit

from detector.ops.threads import in_threads

# What a row means to the class at hand. A true box or detection that is ignored may be matched,
# but counts as neither right nor wrong; one of another class takes no part.
COUNTS, IGNORED, OTHER = 0, 1, -1
UNFINDABLE = -1


@njit(cache=True, nogil=True)
def found_scores(starts, found, truth_roles, detection_roles, scores):
    """Scores of the detections that find a true box when all take part: (K,).

    Of several candidates the one with the highest score is taken; of equal ones the first.
    """
    taken = np.zeros(len(scores), np.bool_)
    result = np.empty(len(truth_roles))
    count = 0
    for truth in range(len(truth_roles)):
        best = UNFINDABLE
        for candidate in range(starts[truth], starts[truth + 1]):
            detection = found[candidate]
            if taken[detection] or detection_roles[detection] == OTHER:
                continue
            if best == UNFINDABLE or scores[detection] > scores[best]:
                best = detection
        if best == UNFINDABLE:
            continue
        taken[best] = True
        if truth_roles[truth] == COUNTS and detection_roles[best] == COUNTS:
            result[count] = scores[best]
            count += 1
    return result[:count]


@njit(cache=True, nogil=True)
def _best_overlap(first, last, found, overlaps, roles, taken, scores, threshold):
    """The candidate with the greatest overlap, the first of equal ones; one that counts goes
    before one that is ignored, whose overlap doesn't matter."""
    best, best_overlap, best_is_ignored = UNFINDABLE, 0.0, False
    for candidate in range(first, last):
        detection = found[candidate]
        if taken[detection] or scores[detection] < threshold:
            continue
        if roles[detection] == COUNTS and (best_is_ignored or overlaps[candidate] > best_overlap):
            best, best_overlap, best_is_ignored = detection, overlaps[candidate], False
        elif roles[detection] == IGNORED and best == UNFINDABLE:
            best, best_is_ignored = detection, True
    return best


@njit(cache=True, nogil=True)
def _count_kernel(
    start, stop, thresholds, starts, found, overlaps, truth_roles, detection_roles, excused,
    scores, truth_alpha, detection_alpha, right, wrong, similarity,
):  # fmt: skip
    taken = np.empty(len(scores), np.bool_)
    for step in range(start, stop):
        threshold = thresholds[step]
        taken[:] = False
        right[step], wrong[step], similarity[step] = 0, 0, 0.0
        for truth in range(len(truth_roles)):
            best = _best_overlap(
                starts[truth], starts[truth + 1], found, overlaps, detection_roles, taken, scores,
                threshold,
            )  # fmt: skip
            if best == UNFINDABLE:
                continue
            taken[best] = True
            if truth_roles[truth] == COUNTS and detection_roles[best] == COUNTS:
                right[step] += 1
                similarity[step] += (1 + math.cos(truth_alpha[truth] - detection_alpha[best])) / 2
        for detection in range(len(scores)):
            wrong[step] += (
                detection_roles[detection] == COUNTS
                and scores[detection] >= threshold
                and not taken[detection]
                and not excused[detection]
            )


def count_matches(
    thresholds: Float64[np.ndarray, " S"],
    starts: Int64[np.ndarray, " T+1"],
    found: Int64[np.ndarray, " K"],
    overlaps: Float64[np.ndarray, " K"],
    truth_roles: Int8[np.ndarray, " T"],
    detection_roles: Int8[np.ndarray, " D"],
    excused: Bool[np.ndarray, " D"],
    scores: Float64[np.ndarray, " D"],
    truth_alpha: Float64[np.ndarray, " T"],
    detection_alpha: Float64[np.ndarray, " D"],
) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"], Float64[np.ndarray, " S"]]:
    """True positives, false positives and summed orientation similarity at each threshold.

    Of the detections with at least that score the one with the greatest overlap is taken.

    Args:
        excused: lies in a don't-care region: no false positive.
    """
    steps = len(thresholds)
    right, wrong = np.empty(steps, np.int64), np.empty(steps, np.int64)
    similarity = np.empty(steps)
    in_threads(
        _count_kernel, steps, thresholds, starts, found, overlaps, truth_roles, detection_roles,
        excused, scores, truth_alpha, detection_alpha, right, wrong, similarity,
        work_per_item=1 + (len(found) + len(scores)) // 5,
    )  # fmt: skip
    return right, wrong, similarity
