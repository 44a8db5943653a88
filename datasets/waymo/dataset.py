"""`WaymoDataset`: frames of one split -> `Sample`, `Detections` -> the metric and result files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from datasets.waymo.frame import ALL_LASERS, FrameLabels, WaymoFrame
from datasets.waymo.pictures import camera_of
from datasets.waymo.range_image import frame_points
from datasets.waymo.results import write_objects
from datasets.waymo.segments import open_segments
from datasets.waymo.zones import boxes_in_zones, zones_in_vehicle
from detector.errors import InputError
from detector.geometry import inverse_rigid, transform_points
from detector.metrics.waymo import WaymoPredictions, WaymoResult, WaymoTruth, evaluate_waymo
from detector.records import Detections, Sample

TYPES = {"Vehicle": 1, "Pedestrian": 2, "Sign": 3, "Cyclist": 4}
FEATURES = ("intensity", "elongation", "no_label_zone", "echo")


class WaymoDataset:
    """Frames of one split, map-style: segment by segment, in order of time.

    Either format is read: `root/SPLIT/*.tfrecord` (format 1) or `root/SPLIT/lidar/*.parquet` and
    its neighbours (format 2). A frame's id is its segment's name, an underscore and its time in
    microseconds.

    Args:
        root: folder with `training/`, `validation/`, ...
        split: one of these folders.
        classes: types to detect; labels index into them.
        features: columns of the points behind x, y, z. `intensity` is the hyperbolic tangent of
            what was measured, so that it lies in [0, 1); `no_label_zone` is 1 or 0; `echo` is 1
            for the first return of a pulse and 2 for the second.
        echoes: which returns to read.
        lasers: which lasers to read, see `datasets.waymo.frame.LASERS`.
        sweeps: how many frames' points, this one counted, moved into this frame's pose; with more
            than one, a last column `age_s` says how old a point's frame is.
        every: only each so manieth frame, counted through each segment; 5 is the usual fifth.
        min_points: boxes with fewer LiDAR points are left out of the samples.
        drop_no_label_zones: leave out points in areas where nothing was labelled.
        with_images: read the pictures into `Sample.cameras`.
        with_labels: read the true boxes; None: where the split has them.
        index: file of `tools/prepare.py waymo`; by default the one in the split's folder.

    Raises:
        InputError: wrong options, missing or damaged files, at once; frames whose content is
            damaged, when they are read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: Sequence[str] = ("Vehicle", "Pedestrian", "Cyclist"),
        *,
        features: Sequence[str] = ("intensity", "elongation"),
        echoes: Sequence[int] = (1, 2),
        lasers: Sequence[int] = ALL_LASERS,
        sweeps: int = 1,
        every: int = 1,
        min_points: int = 1,
        drop_no_label_zones: bool = False,
        with_images: bool = False,
        with_labels: bool | None = None,
        index: str | Path | None = None,
    ):
        self.folder = Path(root) / split
        self.classes, self.features = tuple(classes), tuple(features)
        self.echoes, self.lasers, self.sweeps = tuple(echoes), tuple(lasers), sweeps
        self.min_points, self.with_images = min_points, with_images
        self.drop_no_label_zones = drop_no_label_zones
        _check_names("classes", self.classes, tuple(TYPES))
        _check_names("features", self.features, FEATURES)
        _check_names("echoes", self.echoes, (1, 2))
        _check_names("lasers", self.lasers, ALL_LASERS)
        for name, value in (("sweeps", sweeps), ("every", every)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")
        self.segments = open_segments(self.folder, index)
        boxes = self.folder / "lidar_box"
        format_1 = self.segments[0].path.suffix == ".tfrecord"
        self.with_labels = (format_1 or boxes.is_dir()) if with_labels is None else with_labels
        self._frames = [
            (segment, row)
            for segment, found in enumerate(self.segments)
            for row in range(0, len(found.table.times_us), every)
        ]
        self.frame_ids = tuple(
            f"{table.segment}_{table.times_us[row]}"
            for table, row in ((self.segments[s].table, row) for s, row in self._frames)
        )

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def point_features(self) -> tuple[str, ...]:
        """Names of the point columns."""
        return ("x", "y", "z", *self.features, *(("age_s",) if self.sweeps > 1 else ()))

    def __getitem__(self, index: int) -> Sample:
        frame = self.frame(
            index, lasers=self.lasers, echoes=max(self.echoes), images=self.with_images
        )
        keep = self._wanted(frame.labels) & (frame.labels.point_counts >= self.min_points)
        boxes = np.c_[frame.labels.boxes[keep], vehicle_velocities(frame)[keep]]
        return Sample(
            frame_id=self.frame_ids[index],
            points=self._points(index, frame),
            point_features=self.point_features,
            boxes=boxes.astype(np.float32),
            labels=self._class_indices(frame.labels)[keep],
            cameras=tuple(camera_of(shot, self.frame_ids[index]) for shot in frame.shots),
        )

    def frame(
        self,
        index: int,
        *,
        lasers: Collection[int] = ALL_LASERS,
        echoes: int = 2,
        images: bool = False,
        projections: bool = False,
    ) -> WaymoFrame:
        """All that the files hold of a frame: range images, labels with difficulty, number of
        points and speed, pictures, projections into them. What isn't asked for stays empty."""
        segment, row = self._frames[index]
        found = self.segments[segment]
        return found.frame(
            int(found.table.times_us[row]), lasers=lasers, echoes=echoes,
            labels=self.with_labels, images=images, projections=projections,
        )  # fmt: skip

    def evaluate(self, detections: Sequence[Detections], *, bev: bool = False) -> WaymoResult:
        """The official AP and APH of detections of all frames of the split.

        Detections in no-label zones are forgiven, as far as the zones are known: format 2 lacks
        them.

        Raises:
            ValueError: frames missing, unknown or given twice.
            InputError: the split has no labels.
        """
        if not self.with_labels:
            raise InputError(
                f"{self.folder}: has no labels to evaluate with; write the results with "
                f"write_results and hand them to the benchmark's server"
            )
        by_frame = self._by_frame(detections)
        return evaluate_waymo(self._pairs(by_frame), bev=bev)

    def write_results(self, detections: Sequence[Detections], path: str | Path) -> Path:
        """Writes detections as the leaderboard and `tools/score.py waymo` take them: one file of
        serialized `Objects`. Those in known no-label zones are marked.

        Args:
            path: the file, or a folder for `predictions.bin`.

        Raises:
            ValueError: frames missing, unknown or given twice.
            InputError: the file can't be written.
        """
        path = Path(path)
        path = path if path.suffix == ".bin" else path / "predictions.bin"
        by_frame = self._by_frame(detections)
        write_objects(
            path,
            (
                (*self._key(index), predictions)
                for index, (_, predictions) in enumerate(self._pairs(by_frame))
            ),
        )
        return path

    def write_ground_truth(self, path: str | Path) -> Path:
        """Writes the labels as a file of serialized `Objects`, for `tools/score.py waymo`."""
        path = Path(path)
        write_objects(
            path,
            (
                (*self._key(index), self.frame(index, lasers=()).labels)
                for index in range(len(self))
            ),
        )
        return path

    def _key(self, index: int) -> tuple[str, int]:
        segment, row = self._frames[index]
        table = self.segments[segment].table
        return table.segment, int(table.times_us[row])

    def _points(self, index: int, frame: WaymoFrame) -> Float32[np.ndarray, "P C"]:
        """Of this frame and those before it in the segment, moved into this frame's pose."""
        segment, row = self._frames[index]
        parts = [self._frame_columns(frame)]
        ages = [np.zeros(len(parts[0]), np.float32)]
        for before in range(row - 1, max(row - self.sweeps, -1), -1):
            found = self.segments[segment]
            earlier = found.frame(
                int(found.table.times_us[before]), lasers=self.lasers, echoes=max(self.echoes),
                labels=False,
            )  # fmt: skip
            now_from_then = inverse_rigid(frame.world_from_vehicle) @ earlier.world_from_vehicle
            columns = self._frame_columns(earlier).astype(np.float64)
            parts.append(transform_points(now_from_then, columns).astype(np.float32))
            age_s = (frame.time_us - earlier.time_us) * 1e-6
            ages.append(np.full(len(columns), age_s, np.float32))
        points = np.concatenate(parts)
        if self.sweeps > 1:
            points = np.c_[points, np.concatenate(ages)]
        return points

    def _frame_columns(self, frame: WaymoFrame) -> Float32[np.ndarray, "P C"]:
        found = frame_points(frame, echoes=self.echoes, lasers=self.lasers)
        columns = {
            "intensity": np.tanh(found.intensity),
            "elongation": found.elongation,
            "no_label_zone": found.in_no_label_zone,
            "echo": found.echo,
        }
        parts = [found.xyz, *(columns[name][:, None] for name in self.features)]
        points = np.concatenate(parts, 1, dtype=np.float32)
        return points[~found.in_no_label_zone] if self.drop_no_label_zones else points

    def _wanted(self, labels: FrameLabels) -> np.ndarray:
        return np.isin(labels.types, [TYPES[name] for name in self.classes])

    def _class_indices(self, labels: FrameLabels) -> np.ndarray:
        """(N,) each object's class, -1 for other types."""
        index_of = np.full(max(TYPES.values()) + 1, -1)
        for index, name in enumerate(self.classes):
            index_of[TYPES[name]] = index
        known = (labels.types >= 0) & (labels.types < len(index_of))
        return index_of[np.where(known, labels.types, 0)]

    def _by_frame(self, detections: Sequence[Detections]) -> dict[str, Detections]:
        by_frame = {found.frame_id: found for found in detections}
        if len(by_frame) != len(detections) or set(by_frame) != set(self.frame_ids):
            raise ValueError(
                f"detections of {len(detections)} frames ({len(by_frame)} different) for a split "
                f"of {len(self)}; every frame is needed once, also where nothing was found"
            )
        return by_frame

    def _pairs(
        self, by_frame: dict[str, Detections]
    ) -> Iterator[tuple[WaymoTruth, WaymoPredictions]]:
        """Truth and predictions of each frame, read as they are asked for."""
        for index, frame_id in enumerate(self.frame_ids):
            frame = self.frame(index, lasers=())
            labels = frame.labels
            truth = WaymoTruth.from_labels(
                labels.boxes, labels.types, labels.difficulties, labels.point_counts
            )
            yield truth, self._predictions(by_frame[frame_id], frame)

    def _predictions(self, found: Detections, frame: WaymoFrame) -> WaymoPredictions:
        boxes = found.boxes.numpy().astype(np.float64)
        zones = zones_in_vehicle(frame.no_label_zones, frame.world_from_vehicle)
        types = np.array([TYPES[name] for name in self.classes], np.int8)
        return WaymoPredictions(
            boxes[:, :7], types[found.labels.numpy()], found.scores.numpy(),
            boxes_in_zones(boxes, zones),
        )  # fmt: skip


def vehicle_velocities(frame: WaymoFrame) -> np.ndarray:
    """(N, 2) speed of each labelled object over ground along the vehicle's x and y, m/s; NaN
    where unknown. The files give it along the world's axes."""
    return (frame.labels.velocities @ frame.world_from_vehicle[:3, :3])[:, :2]


def _check_names(option: str, names: Sequence, known: Sequence) -> None:
    if not names and option != "features":
        raise InputError(f"{option} is empty; choose from {', '.join(map(str, known))}")
    for name in names:
        if name not in known:
            raise InputError(
                f"{option}: '{name}' is not known to Waymo; the known ones are "
                f"{', '.join(map(str, known))}"
            )
