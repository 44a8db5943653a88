"""From boxes to NDS, step by step as nuScenes defines it.

Source: Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020, section
3.1, and the configuration `detection_cvpr_2019` of the official development kit.
"""

from __future__ import annotations

import time

import numpy as np

from detector.errors import InputError
from detector.metrics.nuscenes.boxes import (
    CLASS_RANGE_M,
    CLASSES,
    BikeRacks,
    NuScenesBoxes,
    rotation_matrices,
    yaw_of_quaternion,
)
from detector.metrics.nuscenes.result import (
    DISTANCE_THRESHOLDS_M,
    ERRORS,
    MIN_PRECISION,
    MIN_RECALL,
    TP_THRESHOLD_M,
    Curve,
    NuScenesResult,
)

RECALLS = np.linspace(0, 1, 101)
# Errors that a class does not have: a cone looks the same from all sides, neither it nor a
# barrier moves or has attributes.
UNDEFINED_ERRORS = {
    "traffic_cone": ("orient_err", "vel_err", "attr_err"),
    "barrier": ("vel_err", "attr_err"),
}


def evaluate_nuscenes(
    truth: NuScenesBoxes,
    detections: NuScenesBoxes,
    ego_translation: np.ndarray,
    racks: BikeRacks | None = None,
) -> NuScenesResult:
    """Scores the detections of a split.

    Args:
        truth: true boxes, all of them; the filters of the metric are applied here.
        detections: what was found, at most 500 boxes a sample (checked where files are read).
        ego_translation: (S, 3) global position of the ego vehicle when the LiDAR took each sample.
        racks: bicycle racks.

    Raises:
        InputError: a matched detection has a size that is not positive.
        ValueError: scores that are negative or not finite.
    """
    start = time.perf_counter()
    if not (np.isfinite(detections.score).all() and (detections.score >= 0).all()):
        raise ValueError("detection scores must be finite and not negative")
    racks = BikeRacks.empty() if racks is None else racks
    truth = filter_boxes(truth, ego_translation, racks)
    detections = filter_boxes(detections, ego_translation, racks)
    curves = {}
    for label, name in enumerate(CLASSES):
        class_curves = _class_curves(
            name, truth[truth.label == label], detections[detections.label == label],
            len(ego_translation),
        )  # fmt: skip
        for threshold, curve in zip(DISTANCE_THRESHOLDS_M, class_curves, strict=True):
            curves[name, threshold] = curve
    return NuScenesResult(
        label_aps={
            name: {t: _average_precision(curves[name, t]) for t in DISTANCE_THRESHOLDS_M}
            for name in CLASSES
        },
        label_tp_errors={
            name: {e: _true_positive_error(name, curves[name, TP_THRESHOLD_M], e) for e in ERRORS}
            for name in CLASSES
        },
        eval_time_s=time.perf_counter() - start,
        curves=curves,
    )


def filter_boxes(
    boxes: NuScenesBoxes, ego_translation: np.ndarray, racks: BikeRacks
) -> NuScenesBoxes:
    """The boxes that count: near enough for their class, not without points, not in a rack."""
    offset = boxes.translation[:, :2] - ego_translation[boxes.sample, :2]
    distance = np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)
    limit = np.array([CLASS_RANGE_M[name] for name in CLASSES], float)[boxes.label]
    boxes = boxes[(distance < limit) & (boxes.point_count != 0)]
    return boxes[~_in_bike_rack(boxes, racks)]


def _in_bike_rack(boxes: NuScenesBoxes, racks: BikeRacks) -> np.ndarray:
    """(N,) bool: bicycles and motorcycles with their centre in a rack of the same sample."""
    inside = np.zeros(len(boxes), bool)
    cycles = np.flatnonzero(
        np.isin(boxes.label, [CLASSES.index("bicycle"), CLASSES.index("motorcycle")])
    )
    cycles = cycles[np.argsort(boxes.sample[cycles], kind="stable")]
    begin = np.searchsorted(boxes.sample[cycles], racks.sample, "left")
    end = np.searchsorted(boxes.sample[cycles], racks.sample, "right")
    turns = rotation_matrices(racks.rotation)
    for rack in np.flatnonzero(begin < end):
        rows = cycles[begin[rack] : end[rack]]
        local = (boxes.translation[rows] - racks.translation[rack]) @ turns[rack]     # (B, 3)
        half = racks.size[rack, [1, 0, 2]] / 2
        inside[rows] |= (np.abs(local) <= half).all(-1)
    return inside


def _class_curves(
    name: str, truth: NuScenesBoxes, detections: NuScenesBoxes, samples: int
) -> list[Curve]:
    """The curves of one class, one a distance threshold."""
    from detector.metrics.nuscenes.matching import match_by_distance

    # Best score first; among equal scores the last row first.
    order = np.lexsort((np.arange(len(detections)), detections.score))[::-1]
    detections = detections[order]
    truth = truth[np.argsort(truth.sample, kind="stable")]
    every_sample = np.arange(samples)
    matches = match_by_distance(
        np.ascontiguousarray(detections.translation[:, :2]),
        detections.sample,
        np.ascontiguousarray(truth.translation[:, :2]),
        np.searchsorted(truth.sample, every_sample, "left"),
        np.searchsorted(truth.sample, every_sample, "right"),
        np.array(DISTANCE_THRESHOLDS_M),
    )
    return [_curve(name, truth, detections, match) for match in matches]


def _curve(
    name: str, truth: NuScenesBoxes, detections: NuScenesBoxes, match: np.ndarray
) -> Curve:
    """Precision, confidence and errors at 101 recalls, of detections sorted by score."""
    hits = match >= 0
    if not hits.any():
        return Curve.nothing_found()
    hit_count = np.cumsum(hits).astype(float)
    precision = hit_count / np.arange(1, len(hits) + 1)
    recall = hit_count / len(truth)
    confidence = np.interp(RECALLS, recall, detections.score, right=0)

    hit_scores = detections.score[hits]
    errors = _errors(name, truth[match[hits]], detections[hits])
    for key, values in errors.items():
        # Mean error of all hits down to a score, then at the score that reaches each recall.
        running = _running_mean(values)
        errors[key] = np.interp(confidence[::-1], hit_scores[::-1], running[::-1])[::-1]
    return Curve(np.interp(RECALLS, recall, precision, right=0), confidence, errors)


def _errors(
    name: str, truth: NuScenesBoxes, detections: NuScenesBoxes
) -> dict[str, np.ndarray]:
    """The five errors of matched pairs; NaN where velocity or attribute is unknown."""
    if len(bad := np.flatnonzero((detections.size <= 0).any(1))):
        raise InputError(
            f"a detected {name} has size {detections.size[bad[0]].tolist()} (width, length, "
            f"height); all three must be positive"
        )
    if len(bad := np.flatnonzero((truth.size <= 0).any(1))):
        raise InputError(
            f"a true {name} has size {truth.size[bad[0]].tolist()} (width, length, height) in "
            f"sample_annotation.json; all three must be positive"
        )
    # Barriers look the same from both sides.
    period = np.pi if name == "barrier" else 2 * np.pi
    turn = yaw_of_quaternion(truth.rotation) - yaw_of_quaternion(detections.rotation)
    common = np.minimum(truth.size, detections.size).prod(1)
    union = truth.size.prod(1) + detections.size.prod(1) - common
    attribute_error = (truth.attribute != detections.attribute).astype(float)
    return {
        "trans_err": np.linalg.norm((detections.translation - truth.translation)[:, :2], axis=1),
        "scale_err": 1 - common / union,
        "orient_err": np.abs((turn + period / 2) % period - period / 2),
        "vel_err": np.linalg.norm(detections.velocity - truth.velocity, axis=1),
        "attr_err": np.where(truth.attribute < 0, np.nan, attribute_error),
    }


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the values up to each position, without NaN; 1 everywhere if all are NaN."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    count = np.cumsum(known)
    return np.divide(np.nancumsum(values), count, out=np.zeros(len(values)), where=count > 0)


def _average_precision(curve: Curve) -> float:
    """Mean precision above the minimum, over recalls above the minimum, scaled to [0, 1]."""
    precision = curve.precision[_first_recall() :] - MIN_PRECISION
    return float(np.mean(np.maximum(precision, 0))) / (1 - MIN_PRECISION)


def _true_positive_error(name: str, curve: Curve, error: str) -> float:
    """Mean of an error over the recalls reached; 1 where too little was found."""
    if error in UNDEFINED_ERRORS.get(name, ()):
        return float("nan")
    reached = np.flatnonzero(curve.confidence)
    last = reached[-1] if len(reached) else 0
    if last < _first_recall():
        return 1.0
    return float(np.mean(curve.errors[error][_first_recall() : last + 1]))


def _first_recall() -> int:
    """The first of the 101 recalls that counts: the one after the minimum."""
    return round(100 * MIN_RECALL) + 1
