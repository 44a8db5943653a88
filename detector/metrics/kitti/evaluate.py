"""Average precision on KITTI by the rules of the benchmark's C++ evaluator (25.04.2017 on).

A true box counts at a difficulty if it is tall, visible and whole enough; otherwise, or if it is
of the neighbour class (`Van` for `Car`, `Person_sitting` for `Pedestrian`), it is ignored: a
detection matched to it is neither right nor wrong. Detections lower than the minimum height are
ignored likewise, whatever their class. A false positive of which more than the minimum overlap
lies in a `DontCare` box is excused. Type names are compared without regard to case.

Where versions of the evaluator differ or leave a case open:

- A true box exactly as high as the limit is ignored (`height <= 40`), as in the versions since
  2017 and the Python ports that papers use; earlier ones let it count.
- A class or difficulty without detections, or without true boxes that count, has precision 0; the
  C++ prints nothing for a class that is never detected.
- A recall step whose threshold leaves neither right nor wrong detections has precision 0; the C++
  divides zero by zero.
- Orientation is not scored (NaN) if any detection, of any class, has alpha -10.
- A box with a size that is not positive, or with NaN, overlaps nothing.
- Equal scores or overlaps: the detection that comes first in its file is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from detector.metrics.kitti.matching import COUNTS, IGNORED, OTHER, count_matches, found_scores
from detector.metrics.kitti.objects import KittiObjects
from detector.metrics.kitti.overlaps import (
    pairs_within_frames,
    picture_overlap,
    space_overlap,
    upright_boxes,
)
from detector.metrics.kitti.result import DIFFICULTIES, METRICS, KittiResult

MIN_OVERLAP = {"car": 0.7, "pedestrian": 0.5, "cyclist": 0.5}
NEIGHBOUR = {"car": "van", "pedestrian": "person_sitting"}
TYPE_CODES = {
    name: code
    for code, name in enumerate(
        ("car", "van", "pedestrian", "person_sitting", "cyclist", "dontcare")
    )
}
UNKNOWN_TYPE = -1
# By difficulty; heights in pixels.
MIN_HEIGHT = (40, 25, 25)
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.3, 0.5)
RECALL_INTERVALS = 40
UNKNOWN_ALPHA = -10
# Bounds the memory that pairs of true boxes and detections take at a time.
PAIRS_AT_ONCE = 1 << 21


def evaluate_kitti(
    truth: Iterable[KittiObjects],
    detections: Iterable[KittiObjects],
    classes: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
) -> KittiResult:
    """Average precision of detections against labels, frame by frame in the same order.

    Both are read once and may be generators.

    Raises:
        ValueError: another number of frames in one than in the other, detections without scores
            or with scores that are not finite, a class that KITTI does not evaluate.
    """
    for name in classes:
        if name.lower() not in MIN_OVERLAP:
            raise ValueError(
                f"KITTI does not evaluate class {name!r}; it evaluates Car, Pedestrian, Cyclist"
            )
    truth_rows, detection_rows = _gather(truth, detections)
    precision = np.zeros((len(classes), len(METRICS), len(DIFFICULTIES), RECALL_INTERVALS + 1))
    truth_counts = np.zeros((len(classes), len(DIFFICULTIES)), np.int64)
    for c, name in enumerate(classes):
        precision[c], truth_counts[c] = _evaluate_class(name.lower(), truth_rows, detection_rows)
    if (detection_rows.alpha == UNKNOWN_ALPHA).any():
        precision[:, METRICS.index("aos")] = np.nan
    return KittiResult(tuple(classes), precision, truth_counts)


@dataclass(frozen=True)
class _Rows:
    """Objects of all frames one after another."""

    frames: Int64[np.ndarray, " N"]
    types: Int8[np.ndarray, " N"]
    bbox: Float64[np.ndarray, "N 4"]
    boxes: Float64[np.ndarray, "N 7"]
    alpha: Float64[np.ndarray, " N"]
    truncation: Float64[np.ndarray, " N"]
    occlusion: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def heights(self) -> Float64[np.ndarray, " N"]:
        """In the picture, pixels."""
        return self.bbox[:, 3] - self.bbox[:, 1]

    def where(self, chosen: Bool[np.ndarray, " N"]) -> _Rows:
        return _Rows(*(value[chosen] for value in vars(self).values()))

    @classmethod
    def of(cls, frame: int, objects: KittiObjects) -> _Rows:
        count = len(objects)
        codes = [TYPE_CODES.get(name.lower(), UNKNOWN_TYPE) for name in objects.types]
        return cls(
            frames=np.full(count, frame),
            types=np.array(codes, np.int8),
            bbox=objects.bbox,
            boxes=upright_boxes(objects),
            alpha=objects.alpha,
            truncation=objects.truncation,
            occlusion=objects.occlusion,
            scores=np.zeros(count) if objects.score is None else objects.score,
        )

    @classmethod
    def joined(cls, parts: Sequence[_Rows]) -> _Rows:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


def _gather(
    truth: Iterable[KittiObjects], detections: Iterable[KittiObjects]
) -> tuple[_Rows, _Rows]:
    nothing = _Rows.of(0, KittiObjects.empty())
    truth_parts, detection_parts = [nothing], [nothing]
    truth, detections = iter(truth), iter(detections)
    frame = 0
    while True:
        labels, results = next(truth, None), next(detections, None)
        if labels is None and results is None:
            return _Rows.joined(truth_parts), _Rows.joined(detection_parts)
        if labels is None or results is None:
            longer = "labels" if results is None else "detections"
            raise ValueError(
                f"there are {longer} for more than {frame} frames, but not of both kinds; give "
                f"one KittiObjects a frame for each, empty where nothing was found"
            )
        if results.score is None:
            raise ValueError(f"the detections of frame {frame} have no scores")
        if not np.isfinite(results.score).all():
            row = int(np.flatnonzero(~np.isfinite(results.score))[0])
            raise ValueError(
                f"detection {row} of frame {frame} has score {results.score[row]}; scores must be "
                f"finite"
            )
        truth_parts.append(_Rows.of(frame, labels))
        detection_parts.append(_Rows.of(frame, results))
        frame += 1


def _evaluate_class(
    name: str, truth: _Rows, detections: _Rows
) -> tuple[Float64[np.ndarray, "4 3 41"], Int64[np.ndarray, " 3"]]:
    own, neighbour = TYPE_CODES[name], TYPE_CODES.get(NEIGHBOUR.get(name))
    dont_care = truth.where(truth.types == TYPE_CODES["dontcare"])
    truth = truth.where((truth.types == own) | (truth.types == neighbour))
    lowest = np.abs(detections.heights) < max(MIN_HEIGHT)
    detections = detections.where((detections.types == own) | lowest)

    precision = np.zeros((len(METRICS), len(DIFFICULTIES), RECALL_INTERVALS + 1))
    truth_counts = np.zeros(len(DIFFICULTIES), np.int64)
    roles = [_roles(own, truth, detections, level) for level in range(len(DIFFICULTIES))]
    for m, metric in enumerate(("bbox", "bev", "3d")):
        candidates = _candidates(metric, MIN_OVERLAP[name], truth, detections)
        excused = _excused(metric, MIN_OVERLAP[name], dont_care, detections)
        for level, (truth_roles, detection_roles) in enumerate(roles):
            truth_counts[level] = np.count_nonzero(truth_roles == COUNTS)
            scores = found_scores(
                *candidates[:2], truth_roles, detection_roles, detections.scores
            )
            thresholds = _thresholds(scores, truth_counts[level])
            right, wrong, similarity = count_matches(
                thresholds, *candidates, truth_roles, detection_roles, excused,
                detections.scores, truth.alpha, detections.alpha,
            )  # fmt: skip
            precision[m, level] = _interpolated(right, right + wrong)
            if metric == "bbox":
                precision[METRICS.index("aos"), level] = _interpolated(similarity, right + wrong)
    return precision, truth_counts


def _roles(
    own: int, truth: _Rows, detections: _Rows, level: int
) -> tuple[Int8[np.ndarray, " T"], Int8[np.ndarray, " D"]]:
    """Who counts, who is ignored and who takes no part at a difficulty."""
    counts = (
        (truth.types == own)
        & (truth.occlusion <= MAX_OCCLUSION[level])
        & (truth.truncation <= MAX_TRUNCATION[level])
        & (truth.heights > MIN_HEIGHT[level])
    )
    truth_roles = np.where(counts, COUNTS, IGNORED).astype(np.int8)
    detection_roles = np.where(detections.types == own, COUNTS, OTHER).astype(np.int8)
    detection_roles[np.abs(detections.heights) < MIN_HEIGHT[level]] = IGNORED
    return truth_roles, detection_roles


def _overlaps(
    metric: str, a: _Rows, b: _Rows, rows_a: np.ndarray, rows_b: np.ndarray, share_of_a: bool
) -> Float64[np.ndarray, " K"]:
    if metric == "bbox":
        return picture_overlap(a.bbox[rows_a], b.bbox[rows_b], share_of_a=share_of_a)
    return space_overlap(
        a.boxes, b.boxes, rows_a, rows_b, volume=metric == "3d", share_of_a=share_of_a
    )


def _candidates(
    metric: str, min_overlap: float, truth: _Rows, detections: _Rows
) -> tuple[Int64[np.ndarray, " T+1"], Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """Detections that overlap each true box enough, as `matching` takes them."""
    found, overlaps = [np.empty(0, np.int64)], [np.empty(0)]
    counts = np.zeros(len(truth), np.int64)
    for rows_truth, rows_detections in _pairs(truth.frames, detections.frames):
        overlap = _overlaps(metric, detections, truth, rows_detections, rows_truth, False)
        enough = overlap > min_overlap
        found.append(rows_detections[enough])
        overlaps.append(overlap[enough])
        counts += np.bincount(rows_truth[enough], minlength=len(truth))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return starts, np.concatenate(found), np.concatenate(overlaps)


def _excused(
    metric: str, min_overlap: float, dont_care: _Rows, detections: _Rows
) -> Bool[np.ndarray, " D"]:
    """Detections of which more than the minimum overlap lies in a don't-care box."""
    excused = np.zeros(len(detections), bool)
    for rows_dont_care, rows_detections in _pairs(dont_care.frames, detections.frames):
        share = _overlaps(metric, detections, dont_care, rows_detections, rows_dont_care, True)
        excused[rows_detections[share > min_overlap]] = True
    return excused


def _pairs(
    frames_a: Int64[np.ndarray, " N"], frames_b: Int64[np.ndarray, " M"]
) -> Iterable[tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]]:
    """`pairs_within_frames` in pieces of bounded size."""
    per_row = np.searchsorted(frames_b, frames_a, "right") - np.searchsorted(frames_b, frames_a)
    piece = np.cumsum(per_row) // PAIRS_AT_ONCE
    edges = np.concatenate([[0], np.flatnonzero(np.diff(piece)) + 1, [len(frames_a)]])
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        rows_a, rows_b = pairs_within_frames(frames_a[first:last], frames_b)
        yield rows_a + first, rows_b


def _thresholds(
    scores: Float64[np.ndarray, " K"], truth_count: int
) -> Float64[np.ndarray, " S"]:
    """The scores at which recall comes nearest to 0, 1/40, 2/40, ...; at most 41, descending."""
    scores = np.sort(scores)[::-1]
    thresholds = []
    recall = 0.0
    for rank, score in enumerate(scores, 1):
        here, following = rank / truth_count, (rank + 1) / truth_count
        if rank < len(scores) and following - recall < recall - here:
            continue
        thresholds.append(score)
        recall += 1 / RECALL_INTERVALS
    return np.array(thresholds, np.float64)


def _interpolated(
    values: Float64[np.ndarray, " S"], totals: Int64[np.ndarray, " S"]
) -> Float64[np.ndarray, " 41"]:
    """Ratios at the recall steps, each raised to the best at any later step; 0 past the last."""
    ratios = np.zeros(RECALL_INTERVALS + 1)
    np.divide(values, totals, out=ratios[: len(values)], where=totals > 0)
    return np.maximum.accumulate(ratios[::-1])[::-1]
