"""The official result file: read with its faults named, and written.

Format: https://www.nuscenes.org/object-detection, "Results format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from datasets.nuscenes.scan_results import ScannedResults, scan_results
from datasets.nuscenes.tables import garbage_collection_paused
from detector.errors import InputError
from detector.metrics.nuscenes import ATTRIBUTES, CLASSES, NuScenesBoxes
from detector.metrics.nuscenes.result import MAX_BOXES_PER_SAMPLE

MODALITIES = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")


def read_results(
    path: str | Path,
    tokens: Sequence[str],
    known_tokens: Sequence[str],
    *,
    table_order: bool = False,
) -> tuple[NuScenesBoxes, dict]:
    """Boxes of a result file and its `meta`.

    Args:
        tokens: the samples of the split; `sample` of the boxes counts them. Each must be in the
            file.
        known_tokens: the samples of all tables. Others in the file are foreign.
        table_order: rows in the order of `tokens`, and samples outside the split allowed, as the
            official code has it for splits of `splits.json`; else rows in the file's order.

    Raises:
        InputError: anything that the official loader would refuse, in a sentence.
    """
    path = Path(path)
    scanned = scan_results(path)
    if scanned is not None:
        boxes = _right_boxes(scanned, tokens, known_tokens, table_order)
        if boxes is not None:
            return boxes, scanned.meta
    with garbage_collection_paused():
        return _read_slowly(path, tokens, known_tokens, table_order)


def _right_boxes(
    scanned: ScannedResults, tokens: Sequence[str], known_tokens: Sequence[str], table_order: bool
) -> NuScenesBoxes | None:
    """Boxes of a file in which nothing is wrong; None if anything is."""
    in_file, in_split = set(scanned.tokens), set(tokens)
    counts = np.bincount(scanned.sample, minlength=1)
    finite = all(np.isfinite(v).all() for k, v in scanned.numbers.items() if k != "velocity")
    score = scanned.numbers["detection_score"][:, 0]
    right = (
        in_split <= in_file
        and in_file <= set(known_tokens)
        and (table_order or in_file == in_split)
        and counts.max() <= MAX_BOXES_PER_SAMPLE
        and finite
        and (score >= 0).all()
    )
    if not right:
        return None
    row_of = {token: row for row, token in enumerate(tokens)}
    sample = np.array([row_of.get(token, -1) for token in scanned.tokens], np.int64)
    sample = sample[scanned.sample]
    boxes = NuScenesBoxes(
        sample=sample,
        **{name: scanned.numbers[name] for name in ("translation", "size", "rotation", "velocity")},
        label=scanned.label,
        attribute=scanned.attribute,
        score=score,
        point_count=scanned.point_count,
    )
    if not table_order:
        return boxes
    order = np.argsort(sample, kind="stable")
    return boxes[order[np.searchsorted(sample[order], 0) :]]


def _read_slowly(
    path: Path, tokens: Sequence[str], known_tokens: Sequence[str], table_order: bool
) -> tuple[NuScenesBoxes, dict]:
    """Through `json`, with words for all that is wrong."""
    results, meta = _load(path)
    _check_samples(path, results, tokens, known_tokens, table_order)
    row_of = {token: row for row, token in enumerate(tokens)}
    order = tokens if table_order else list(results)
    for token in order:
        if not isinstance(results[token], list):
            raise InputError(f"{path}: sample {token} holds no list of boxes")
        if len(results[token]) > MAX_BOXES_PER_SAMPLE:
            raise InputError(
                f"{path}: sample {token} has {len(results[token])} boxes; nuScenes allows "
                f"{MAX_BOXES_PER_SAMPLE}: keep those of the highest scores"
            )
    boxes = list(chain.from_iterable(results[token] for token in order))
    counts = [len(results[token]) for token in order]
    sample = np.repeat(np.array([row_of[token] for token in order], np.int64), counts)
    return _to_arrays(path, boxes, sample, tokens), meta


def write_results(
    path: str | Path, tokens: Sequence[str], boxes: NuScenesBoxes, modalities: Sequence[str]
) -> None:
    """Writes boxes, best score first in each sample, as a submission.

    Args:
        tokens: all samples of the split, also those without boxes.
        boxes: `sample` counts `tokens`; those beyond 500 a sample are left out; an unknown
            velocity is written as 0.
        modalities: of "camera", "lidar", "radar", "map", "external", those that were used.
    """
    unknown = {f"use_{name}" for name in modalities} - set(MODALITIES)
    if unknown:
        raise ValueError(f"unknown modalities {sorted(unknown)}; known are {MODALITIES}")
    boxes = boxes[np.lexsort((-boxes.score, boxes.sample))]
    begin = np.searchsorted(boxes.sample, np.arange(len(tokens) + 1))
    columns = [
        boxes.translation.tolist(), boxes.size.tolist(), boxes.rotation.tolist(),
        np.nan_to_num(boxes.velocity).tolist(), boxes.label.tolist(), boxes.score.tolist(),
        boxes.attribute.tolist(),
    ]  # fmt: skip
    results = {}
    for row, token in enumerate(tokens):
        first = int(begin[row])
        kept = slice(first, min(int(begin[row + 1]), first + MAX_BOXES_PER_SAMPLE))
        results[token] = [
            {
                "sample_token": token,
                "translation": translation,
                "size": size,
                "rotation": rotation,
                "velocity": velocity,
                "detection_name": CLASSES[label],
                "detection_score": score,
                "attribute_name": ATTRIBUTES[attribute] if attribute >= 0 else "",
            }
            for translation, size, rotation, velocity, label, score, attribute in zip(
                *(column[kept] for column in columns), strict=True
            )
        ]
    meta = {name: name.removeprefix("use_") in modalities for name in MODALITIES}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"meta": meta, "results": results}))


def _load(path: Path) -> tuple[dict, dict]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); is it complete?") from None
    if not (isinstance(content, dict) and isinstance(content.get("results"), dict)):
        raise InputError(
            f'{path} is no nuScenes result file: it must hold {{"meta": {{...}}, "results": '
            f'{{sample_token: [boxes]}}}}'
        )
    if not isinstance(content.get("meta"), dict):
        raise InputError(f"{path} lacks \"meta\", which says the sensors used ({MODALITIES})")
    return content["results"], content["meta"]


def _check_samples(path, results, tokens, known_tokens, table_order) -> None:
    if foreign := results.keys() - set(known_tokens):
        raise InputError(
            f"{path}: sample {min(foreign)} is in no table ({len(foreign)} such samples); the "
            f"results are of another version of nuScenes"
        )
    if missing := set(tokens) - results.keys():
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(tokens)} samples of the split, such as "
            f"{min(missing)}; samples without detections need an empty list"
        )
    if not table_order and (outside := results.keys() - set(tokens)):
        raise InputError(
            f"{path} holds {len(outside)} samples outside the split, such as {min(outside)}; "
            f"choose the split that the results are of with --split"
        )


def _to_arrays(
    path: Path, boxes: list[dict], sample: np.ndarray, tokens: Sequence[str]
) -> NuScenesBoxes:
    """Checked columns of all boxes."""

    def fail(row: int, complaint: str):
        raise InputError(f"{path}: sample {tokens[sample[row]]}: a box {complaint}")

    def column(name: str) -> list:
        try:
            return [box[name] for box in boxes]
        except (KeyError, TypeError):
            row = next(i for i, b in enumerate(boxes) if not (isinstance(b, dict) and name in b))
            fail(row, f"lacks {name}: {str(boxes[row])[:120]}")

    def numbers(name: str, width: int, may_be_nan: bool = False) -> np.ndarray:
        values = column(name)
        try:
            array = np.array(values, float).reshape(len(boxes), width)
        except (ValueError, TypeError):
            array = None
        if array is None or not (may_be_nan or np.isfinite(array).all()):
            row = next(i for i, v in enumerate(values) if not _is_vector(v, width, may_be_nan))
            fail(row, f"has {name} {values[row]}; it must be {width} finite numbers")
        return array

    def choices(name: str, known: dict[str, int]) -> np.ndarray:
        values = column(name)
        try:
            return np.array([known[value] for value in values], np.int64)
        except (KeyError, TypeError):
            row = next(i for i, v in enumerate(values) if not isinstance(v, str) or v not in known)
            fail(row, f"has {name} {values[row]!r}; known are {', '.join(filter(None, known))}")

    for row, (token, own) in enumerate(zip(column("sample_token"), sample.tolist(), strict=True)):
        if token != tokens[own]:
            fail(row, f"names another sample, {token}")
    score = numbers("detection_score", 1)[:, 0]
    if len(bad := np.flatnonzero(score < 0)):
        fail(bad[0], f"has detection_score {score[bad[0]]}; it must not be negative")
    return NuScenesBoxes(
        sample=sample,
        translation=numbers("translation", 3),
        size=numbers("size", 3),
        rotation=numbers("rotation", 4),
        velocity=numbers("velocity", 2, may_be_nan=True),
        label=choices("detection_name", {name: row for row, name in enumerate(CLASSES)}),
        attribute=choices(
            "attribute_name", {name: row for row, name in enumerate(ATTRIBUTES)} | {"": -1}
        ),
        score=score,
        # The official filter leaves out detections that say they hold no points.
        point_count=np.array([int(box.get("num_pts", -1)) for box in boxes], np.int64),
    )


def _is_vector(value, width: int, may_be_nan: bool) -> bool:
    values = [value] if width == 1 and isinstance(value, (int, float)) else value
    return (
        isinstance(values, list)
        and len(values) == width
        and all(isinstance(v, (int, float)) for v in values)
        and (may_be_nan or all(map(math.isfinite, values)))
    )
