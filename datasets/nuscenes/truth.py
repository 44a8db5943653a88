"""The true side of the metric: boxes, bicycle racks and ego positions of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.nuscenes.categories import BIKE_RACK, labels_of_categories
from datasets.nuscenes.index import NuScenesIndex
from datasets.nuscenes.splits import scenes_of_split
from detector.errors import InputError
from detector.metrics.nuscenes import ATTRIBUTES, CLASSES, BikeRacks, NuScenesBoxes


def samples_of_split(index: NuScenesIndex, folder: Path, split: str | None) -> np.ndarray:
    """(n,) rows of the samples of a split, in the table's order; raises as `scenes_of_split`."""
    scenes = scenes_of_split(folder, split, index.scene_names.tolist())
    chosen = np.array([name in scenes for name in index.scene_names.tolist()], bool)
    return np.flatnonzero(chosen[index.sample_scene])


def true_boxes(index: NuScenesIndex, samples: np.ndarray) -> NuScenesBoxes:
    """All true boxes of the 10 classes; `sample` counts the rows of `samples`.

    Raises:
        InputError: no annotations at all (a test set), or a box with more than one attribute.
    """
    if not len(index.annotation_category):
        raise InputError(
            "sample_annotation.json is empty, as in the test version: there is nothing to compare "
            "with; choose a version with annotations"
        )
    rows, sample = _rows_of(index, samples)
    label = labels_of_categories(index.category_names, CLASSES)[index.annotation_category[rows]]
    rows, sample, label = rows[label >= 0], sample[label >= 0], label[label >= 0]
    attribute = index.annotation_attribute[rows]
    if len(bad := np.flatnonzero(attribute == -2)):
        token = index.sample_tokens[samples[sample[bad[0]]]]
        raise InputError(
            f"sample_annotation.json gives a {CLASSES[label[bad[0]]]} of sample {token} more than "
            f"one attribute; the metric knows at most one"
        )
    attribute_row = [
        ATTRIBUTES.index(name) if name in ATTRIBUTES else -1
        for name in index.attribute_names.tolist()
    ]
    return NuScenesBoxes(
        sample=sample,
        translation=index.annotation_translation[rows],
        size=index.annotation_size[rows],
        rotation=index.annotation_rotation[rows],
        velocity=index.annotation_velocity[rows],
        label=label,
        attribute=np.array([*attribute_row, -1], np.int64)[attribute],
        score=np.zeros(len(rows)),
        point_count=(
            index.annotation_lidar_points[rows] + index.annotation_radar_points[rows]
        ).astype(np.int64),
    )


def bike_racks(index: NuScenesIndex, samples: np.ndarray) -> BikeRacks:
    """The bicycle racks of some samples."""
    rows, sample = _rows_of(index, samples)
    keep = index.category_names[index.annotation_category[rows]] == BIKE_RACK
    rows = rows[keep]
    return BikeRacks(
        sample=sample[keep],
        translation=index.annotation_translation[rows],
        size=index.annotation_size[rows],
        rotation=index.annotation_rotation[rows],
    )


def ego_translations(index: NuScenesIndex, samples: np.ndarray) -> np.ndarray:
    """(n, 3) global position of the ego vehicle when the LiDAR took each sample."""
    return index.frame_translation[index.lidar_frames()[samples]]


def _rows_of(index: NuScenesIndex, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Annotation rows of some samples, and which of the samples each belongs to."""
    begin, end = index.annotation_begin[samples], index.annotation_begin[samples + 1]
    count = end - begin
    sample = np.repeat(np.arange(len(samples)), count)
    first = np.concatenate([[0], np.cumsum(count)[:-1]]) if len(samples) else np.zeros(0, int)
    return np.arange(len(sample)) - np.repeat(first - begin, count), sample
