"""`evaluate_waymo`: frames of boxes, one after another, to average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int8

from detector.metrics.waymo.counting import PART_COUNT, count_frames
from detector.metrics.waymo.result import SCORE_CUTOFFS, WaymoResult
from detector.ops.threads import in_threads

OBJECT_TYPES = ("UNKNOWN", "VEHICLE", "PEDESTRIAN", "SIGN", "CYCLIST")
"""Names by number, as in `label.proto`; unknown objects take part in nothing."""
IOU_THRESHOLDS = (0.0, 0.7, 0.5, 0.5, 0.5)
# A box with this few points or fewer is hard unless its label says otherwise.
LEVEL_2_POINTS = 5
FRAMES_AT_ONCE = 64
# Rough cost of a frame in units of 10 ns, see `in_threads`.
FRAME_COST = 100_000


@dataclass(frozen=True)
class WaymoTruth:
    """The labelled objects of one frame that count."""

    boxes: Float64[np.ndarray, "N 7"]
    """As in `detector.geometry`, in the vehicle frame: ranges are measured from its origin."""
    types: Int8[np.ndarray, " N"]
    """Index into OBJECT_TYPES."""
    levels: Int8[np.ndarray, " N"]
    """Difficulty, 1 or 2. An object of level 2 that nobody found isn't missed in level 1."""

    @classmethod
    def from_labels(
        cls,
        boxes: Float[np.ndarray, "N 7"],
        types: Int[np.ndarray, " N"],
        difficulties: Int[np.ndarray, " N"],
        point_counts: Int[np.ndarray, " N"],
    ) -> WaymoTruth:
        """What the official tool makes of labels: boxes without points are left out, and where
        the difficulty is not given (0), boxes of 5 points or fewer are of level 2."""
        by_points = np.where(point_counts <= LEVEL_2_POINTS, 2, 1)
        levels = np.where(np.asarray(difficulties) == 0, by_points, difficulties)
        kept = np.asarray(point_counts) > 0
        return cls(
            np.asarray(boxes, np.float64).reshape(-1, 7)[kept],
            np.asarray(types, np.int8)[kept],
            levels.astype(np.int8)[kept],
        )


@dataclass(frozen=True)
class WaymoPredictions:
    """What a detector found in one frame."""

    boxes: Float64[np.ndarray, "N 7"]
    types: Int8[np.ndarray, " N"]
    """Index into OBJECT_TYPES."""
    scores: Float32[np.ndarray, " N"]
    """In [0, 1]."""
    in_no_label_zone: Bool[np.ndarray, " N"]
    """Overlaps an area where nothing was labelled: not held against the detector."""


def evaluate_waymo(
    frames: Iterable[tuple[WaymoTruth, WaymoPredictions]],
    *,
    bev: bool = False,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> WaymoResult:
    """AP and APH by object type and by range, for both difficulty levels.

    Frames are taken from the iterable a few at a time and forgotten again. Sums are kept in
    single precision as the original keeps them, so that their last digits depend on the order of
    frames; the official tool sorts them by segment name and time.

    Args:
        frames: true objects and predictions of each frame.
        bev: compare outlines seen from above instead of volumes.
        iou_thresholds: IoU that a match needs, by type; 0.7 for vehicles and 0.5 for others.

    Raises:
        ValueError: a threshold that isn't above 0, or arrays of unequal length.
    """
    if len(iou_thresholds) != len(OBJECT_TYPES) or min(iou_thresholds[1:]) < 1e-3:
        raise ValueError(
            f"iou_thresholds needs {len(OBJECT_TYPES)} numbers, by type, of 0.001 and more, "
            f"got {tuple(iou_thresholds)}"
        )
    thresholds = np.asarray(iou_thresholds, np.float32)
    counts = np.zeros((PART_COUNT, len(SCORE_CUTOFFS), 4), np.int64)
    heading_sums = np.zeros((PART_COUNT, len(SCORE_CUTOFFS)), np.float32)
    frame_count = 0
    for piece in _pieces(frames, FRAMES_AT_ONCE):
        truth, predictions = zip(*piece, strict=True)
        piece_counts = np.empty((len(piece), *counts.shape), np.int32)
        piece_sums = np.empty((len(piece), *heading_sums.shape), np.float32)
        in_threads(
            count_frames, len(piece), SCORE_CUTOFFS, thresholds, not bev,
            _offsets(truth), _boxes(truth), _joined(truth, "types", np.int8),
            _joined(truth, "levels", np.int8),
            _offsets(predictions), _boxes(predictions), _joined(predictions, "types", np.int8),
            _joined(predictions, "scores", np.float32),
            _joined(predictions, "in_no_label_zone", np.bool_),
            piece_counts, piece_sums, work_per_item=FRAME_COST,
        )  # fmt: skip
        counts += piece_counts.sum(0)
        for frame_sums in piece_sums:
            heading_sums += frame_sums
        frame_count += len(piece)
    return WaymoResult.from_counts(counts, heading_sums, frame_count=frame_count, bev=bev)


def _pieces(frames: Iterable, size: int) -> Iterator[list]:
    source = iter(frames)
    while piece := list(islice(source, size)):
        yield piece


def _offsets(records: Sequence) -> np.ndarray:
    """(F + 1,) where each record's objects start."""
    for record in records:
        for name, column in vars(record).items():
            if len(column) != len(record.boxes):
                raise ValueError(f"{len(record.boxes)} boxes but {len(column)} {name}")
    return np.cumsum([0, *(len(record.boxes) for record in records)])


def _boxes(records: Sequence) -> np.ndarray:
    """Float64 boxes of all records; one with a number that isn't finite overlaps nothing."""
    boxes = np.concatenate([np.asarray(r.boxes, np.float64).reshape(-1, 7) for r in records])
    boxes[~np.isfinite(boxes).all(1)] = 0
    return boxes


def _joined(records: Sequence, name: str, dtype: type) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(r, name), dtype).reshape(-1) for r in records])
