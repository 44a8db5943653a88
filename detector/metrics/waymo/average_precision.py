"""From counts at all score cutoffs to average precision, in single precision as the original.

Follows `metrics/detection_metrics.cc` and `metrics_utils.cc` of waymo-open-dataset 1.6.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int

# Where the curve has no point over more than this much recall, points are put in between.
RECALL_STEP = np.float32(0.05)
TOLERANCE = np.float32(1e-6)


def precision_and_recall(
    found: Int[np.ndarray, " C"],
    false: Int[np.ndarray, " C"],
    missed: Int[np.ndarray, " C"],
    credit: Float32[np.ndarray, " C"],
) -> tuple[Float32[np.ndarray, " C"], Float32[np.ndarray, " C"]]:
    """Precision and recall at each score cutoff.

    Args:
        credit: what those found count for in precision: their number, or the sum of their
            heading accuracies. Recall counts their number either way.
    """
    precision = credit.astype(np.float32) / np.maximum(found + false, 1).astype(np.float32)
    precision[found + false == 0] = 0
    recall = found.astype(np.float32) / np.maximum(found + missed, 1).astype(np.float32)
    precision[recall == 0] = 1
    return precision, recall


def average_precision(
    precision: Float32[np.ndarray, " C"], recall: Float32[np.ndarray, " C"]
) -> float:
    """Area under the curve of the best precision at this or any higher recall.

    Between two points more than RECALL_STEP apart in recall, the curve stays at the precision of
    the higher one down to the last step before the lower one.
    """
    if len(precision) == 0:
        return 0.0
    best_at = {np.float32(0): np.float32(1)}
    for p, r in zip(precision, recall, strict=True):
        best_at[r] = max(best_at.get(r, np.float32(0)), p)
    curve: list[tuple[np.float32, np.float32]] = []      # (recall, precision), recall falling
    last, best = np.float32(0), np.float32(0)
    for r in sorted(best_at, reverse=True):
        while last - r > RECALL_STEP + TOLERANCE:
            last = last - RECALL_STEP
            curve.append((last, best))
        best = max(best, best_at[r])
        curve.append((r, best))
        last = r
    if len(curve) > 1:
        # The point at recall 0 isn't measured: it takes the precision of its neighbour.
        curve[-1] = (curve[-1][0], curve[-2][1])
    area = np.float32(0)
    for (r_high, p_high), (r_low, p_low) in zip(curve[:-1], curve[1:], strict=True):
        area = np.float32(float(area) + 0.5 * float(r_high - r_low) * float(p_high + p_low))
    return float(area)
