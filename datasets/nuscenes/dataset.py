"""nuScenes: its tables and files -> `Sample`, `Detections` -> its metric and result file.

Source: https://www.nuscenes.org/nuscenes, data format of version 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch

from datasets.nuscenes.boxes import (
    NuScenesAnnotations,
    ego_boxes,
    global_boxes,
    labels_of_classes,
)
from datasets.nuscenes.categories import labels_of_categories
from datasets.nuscenes.frames import SampleFrames, rigid
from datasets.nuscenes.index import open_index
from datasets.nuscenes.results import read_results, write_results
from datasets.nuscenes.sensor_files import RADAR_DTYPE, RadarFilter
from datasets.nuscenes.splits import default_split
from datasets.nuscenes.tables import table_folder
from datasets.nuscenes.truth import bike_racks, ego_translations, samples_of_split, true_boxes
from detector.errors import InputError
from detector.metrics.nuscenes import CLASSES, NuScenesBoxes, NuScenesResult, evaluate_nuscenes
from detector.metrics.nuscenes.result import MAX_BOXES_PER_SAMPLE
from detector.records import Detections, Sample

SENSORS = ("lidar", "radar")
CAMERAS = (
    "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT",
    "CAM_FRONT_LEFT",
)  # fmt: skip
RADAR_FIELDS = ("rcs", "vx_comp", "vy_comp")


class NuScenesDataset:
    """Key frames of one split, map-style, in the order of the tables.

    Args:
        root: folder with `samples/`, `sweeps/` and the version folder.
        version: version folder, such as v1.0-trainval.
        split: official split, one of `splits.json` in the version folder, or "all"; None: the one
            that the version is evaluated on, or all samples of an unofficial version.
        classes: of the 10 detection classes, those to detect; labels index into them.
        sensors: "lidar", "radar" or both, whose points then follow each other in one array.
        lidar_sweeps, radar_sweeps: how many, the key frame counted; nuScenes allows 10 and 6.
        with_images: read the six pictures into `Sample.cameras`.
        min_points: boxes with fewer LiDAR and radar points together are left out of the samples.
        min_radar_points: so are boxes with fewer radar points, to learn from radar alone.
        close_radius_m: LiDAR points nearer to the sensor than this in x and y are the vehicle's
            own and left out.
        radar_filter: which radar targets to keep; all by default.
        radar_fields: columns of radar targets besides x, y, z, of those in `RADAR_DTYPE`; `vx`
            and `vx_comp` are turned into the ego frame. `rcs` becomes the column `rcs_dbsm`.
        move_radar: move targets of older sweeps on by their compensated velocity.
        index: index file of `tools/prepare.py nuscenes`; by default the one in the version
            folder if there is one, else the tables are joined now.

    Raises:
        InputError: wrong folders, splits, classes or broken tables, at once; broken or missing
            sensor files, when their sample is read.
    """

    def __init__(
        self,
        root: str | Path,
        version: str,
        split: str | None = None,
        classes: Sequence[str] = CLASSES,
        *,
        sensors: Sequence[str] = ("lidar",),
        lidar_sweeps: int = 10,
        radar_sweeps: int = 6,
        with_images: bool = False,
        min_points: int = 1,
        min_radar_points: int = 0,
        close_radius_m: float = 1.0,
        radar_filter: RadarFilter | None = None,
        radar_fields: Sequence[str] = RADAR_FIELDS,
        move_radar: bool = True,
        index: str | Path | None = None,
    ):
        self.root, self.version = Path(root), version
        self.split = default_split(version) if split is None else split
        self.classes, self.sensors = tuple(classes), tuple(sensors)
        self.radar_fields = tuple(radar_fields)
        _check_names("classes", self.classes, CLASSES)
        _check_names("sensors", self.sensors, SENSORS)
        _check_names("radar_fields", self.radar_fields, RADAR_DTYPE.names)
        if min(lidar_sweeps, radar_sweeps) < 1:
            raise InputError(
                f"lidar_sweeps and radar_sweeps are {lidar_sweeps} and {radar_sweeps}; the key "
                f"frame counts, so that each must be 1 or more"
            )
        self.lidar_sweeps, self.radar_sweeps = lidar_sweeps, radar_sweeps
        self.with_images = with_images
        self.min_points, self.min_radar_points = min_points, min_radar_points
        self.close_radius_m, self.move_radar = close_radius_m, move_radar
        self.radar_filter = radar_filter or RadarFilter()
        self.index = open_index(self.root, version, index)
        self.index.lidar_frames()
        self.samples = samples_of_split(self.index, table_folder(self.root, version), self.split)
        self.frame_ids = tuple(self.index.sample_tokens[self.samples].tolist())
        self._row_of_frame = {frame_id: row for row, frame_id in enumerate(self.frame_ids)}
        self._results: tuple[Path, NuScenesBoxes] | None = None
        self._labels = labels_of_categories(self.index.category_names, self.classes)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def point_features(self) -> tuple[str, ...]:
        """Names of the point columns; of both sensors together, a column that one lacks is 0."""
        radar = tuple("rcs_dbsm" if name == "rcs" else name for name in self.radar_fields)
        if self.sensors == ("radar",):
            return ("x", "y", "z", *radar, "age_s")
        if "radar" not in self.sensors:
            return ("x", "y", "z", "intensity", "age_s")
        return ("x", "y", "z", "intensity", "age_s", *radar, "is_radar")

    def __getitem__(self, index: int) -> Sample:
        annotations = self.annotations(index)
        keep = annotations.trainable(self.min_points, self.min_radar_points)
        frames = self.frames(index)
        return Sample(
            frame_id=self.frame_ids[index],
            points=self._points(frames),
            point_features=self.point_features,
            boxes=annotations.boxes[keep].astype(np.float32),
            labels=annotations.labels[keep],
            cameras=tuple(map(frames.camera, CAMERAS)) if self.with_images else (),
        )

    def frames(self, index: int) -> SampleFrames:
        """What the sensors saw around a sample, and their poses."""
        return SampleFrames(self.root, self.index, int(self.samples[index]))

    def labels(self, index: int) -> np.ndarray:
        """Labels of the boxes of a sample, without reading its sensor files."""
        data = self.index
        rows = data.annotations_of(int(self.samples[index]))
        labels = self._labels[data.annotation_category[rows]]
        lidar, radar = data.annotation_lidar_points[rows], data.annotation_radar_points[rows]
        enough = (lidar + radar >= self.min_points) & (radar >= self.min_radar_points)
        return labels[(labels >= 0) & enough]

    def annotations(self, index: int) -> NuScenesAnnotations:
        """All true boxes of a sample, of any category and number of points."""
        data, sample = self.index, int(self.samples[index])
        rows = data.annotations_of(sample)
        category = data.annotation_category[rows]
        boxes = ego_boxes(
            self._global_from_ego(index),
            data.annotation_translation[rows],
            data.annotation_size[rows],
            data.annotation_rotation[rows],
            data.annotation_velocity[rows],
        )
        attribute_names = [*data.attribute_names.tolist(), "", ""]
        levels = [*data.visibility_levels.tolist(), ""]
        return NuScenesAnnotations(
            boxes=boxes,
            labels=self._labels[category],
            categories=tuple(data.category_names[category].tolist()),
            attributes=tuple(attribute_names[a] for a in data.annotation_attribute[rows]),
            visibility=tuple(levels[v] for v in data.annotation_visibility[rows]),
            lidar_points=data.annotation_lidar_points[rows].astype(np.int64),
            radar_points=data.annotation_radar_points[rows].astype(np.int64),
            instances=data.annotation_instance[rows].astype(np.int64),
        )

    def global_detections(self, detections: Sequence[Detections]) -> NuScenesBoxes:
        """Detections in nuScenes' global frame, at most 500 a sample, in the split's order.

        Raises:
            ValueError: a frame that is not in the split, is there twice or is missing.
        """
        by_row = {}
        for found in detections:
            row = self._row_of_frame.get(found.frame_id)
            if row is None or row in by_row:
                problem = "not in the split" if row is None else "there twice"
                raise ValueError(f"detections of frame {found.frame_id} are {problem}")
            by_row[row] = found
        if missing := set(range(len(self))) - by_row.keys():
            raise ValueError(
                f"detections of {len(missing)} frames of the split are missing, such as "
                f"{self.frame_ids[min(missing)]}"
            )
        label_of_class = labels_of_classes(self.classes)
        parts = [NuScenesBoxes.empty()]
        for row in range(len(self)):
            boxes = global_boxes(
                self._global_from_ego(row),
                self.index.frame_rotation[self._lidar_frame(row)],
                by_row[row],
                label_of_class,
                row,
            )
            best_first = np.argsort(-boxes.score, kind="stable")
            parts.append(boxes[best_first[:MAX_BOXES_PER_SAMPLE]])
        return NuScenesBoxes.concatenate(parts)

    def evaluate(self, detections: Sequence[Detections]) -> NuScenesResult:
        """The official metric over the split; equal to that of the file of `write_results`."""
        return evaluate_nuscenes(
            true_boxes(self.index, self.samples),
            self.global_detections(detections),
            ego_translations(self.index, self.samples),
            bike_racks(self.index, self.samples),
        )

    def read_results(self, path: str | Path, frame_id: str) -> Detections:
        """Detections of one frame out of an official result file, in the ego frame, best first.

        Raises:
            InputError: faults of the file.
        """
        if self._results is None or self._results[0] != Path(path):
            tokens = self.index.sample_tokens.tolist()
            boxes, _ = read_results(path, self.frame_ids, tokens, table_order=True)
            self._results = Path(path), boxes
        row, boxes = self._row_of_frame[frame_id], self._results[1]
        boxes = boxes[boxes.sample == row]
        boxes = boxes[np.argsort(-boxes.score, kind="stable")]
        label_of = {label: own for own, label in enumerate(labels_of_classes(self.classes))}
        labels = np.array([label_of.get(label, -1) for label in boxes.label], np.int64)
        boxes, labels = boxes[labels >= 0], labels[labels >= 0]
        own = ego_boxes(
            self._global_from_ego(row), boxes.translation, boxes.size, boxes.rotation,
            boxes.velocity,
        )  # fmt: skip
        return Detections(
            frame_id,
            torch.from_numpy(own.astype(np.float32)),
            torch.from_numpy(boxes.score.astype(np.float32)),
            torch.from_numpy(labels),
        )

    def only(self, frame_ids: Sequence[str]) -> NuScenesDataset:
        """The same data set with some frames alone, in the order given.

        Raises:
            InputError: a frame that is not in the split.
        """
        unknown = [name for name in frame_ids if name not in self._row_of_frame]
        if unknown:
            raise InputError(
                f"sample {unknown[0]} is not in split {self.split} of {self.root / self.version}; "
                f"its first one is {self.frame_ids[0]}"
            )
        chosen = copy(self)
        chosen.samples = self.samples[[self._row_of_frame[name] for name in frame_ids]]
        chosen.frame_ids = tuple(frame_ids)
        chosen._row_of_frame = {name: row for row, name in enumerate(frame_ids)}
        chosen._results = None
        return chosen

    def write_results(self, detections: Sequence[Detections], path: str | Path) -> None:
        """Writes the official result file of the split: `path`, or `results.json` in it where it
        does not end in .json."""
        path = Path(path)
        path = path if path.suffix == ".json" else path / "results.json"
        used = self.sensors + (("camera",) if self.with_images else ())
        write_results(path, self.frame_ids, self.global_detections(detections), used)

    def _points(self, frames: SampleFrames) -> np.ndarray:
        parts = []
        if "lidar" in self.sensors:
            parts.append(frames.lidar_points(self.lidar_sweeps, self.close_radius_m))
        if "radar" in self.sensors:
            parts.append(
                frames.radar_points(
                    self.radar_sweeps, self.radar_filter, self.move_radar, self.radar_fields
                )
            )
        if len(parts) == 1:
            return parts[0]
        lidar, radar = parts
        points = np.zeros((len(lidar) + len(radar), len(self.point_features)), np.float32)
        points[: len(lidar), :5] = lidar
        points[len(lidar) :, :3] = radar[:, :3]
        points[len(lidar) :, 4] = radar[:, -1]
        points[len(lidar) :, 5:-1] = radar[:, 3:-1]
        points[len(lidar) :, -1] = 1
        return points

    def _lidar_frame(self, index: int) -> int:
        channel = self.index.channel_row["LIDAR_TOP"]
        return int(self.index.key_frames[self.samples[index], channel])

    def _global_from_ego(self, index: int) -> np.ndarray:
        frame = self._lidar_frame(index)
        return rigid(self.index.frame_translation[frame], self.index.frame_rotation[frame])


def _check_names(option: str, names: tuple[str, ...], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) < len(names):
        raise InputError(
            f"{option} is {', '.join(names) or 'empty'}; give some of {', '.join(known)}, each once"
        )
