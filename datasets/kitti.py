"""The KITTI 3D object benchmark: its folders -> `Sample`, `Detections` -> its result files.

Layout: `root/{training,testing}/{velodyne,label_2,calib,image_2,planes}/ID.*` and
`root/ImageSets/SPLIT.txt`. Pictures and planes are optional.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64

from datasets.kitti_boxes import ego_boxes, objects_from_boxes
from datasets.kitti_files import (
    KITTI_TYPES,
    POINT_FEATURES,
    KittiCalibration,
    read_calibration,
    read_image_size,
    read_objects,
    read_plane,
    read_scan,
    read_split,
    write_objects,
)
from datasets.kitti_splits import find_split
from datasets.kitti_view import in_camera_view, on_objects
from detector.errors import InputError
from detector.metrics.kitti import KittiObjects, KittiResult, evaluate_kitti
from detector.metrics.kitti.evaluate import MIN_OVERLAP
from detector.records import Camera, Detections, Sample

SUFFIXES = {
    "velodyne": ".bin", "calib": ".txt", "label_2": ".txt", "image_2": ".png", "planes": ".txt",
}  # fmt: skip


class KittiDataset:
    """Frames of one split, map-style.

    Labels of other types than `classes` (Van, Truck, DontCare, ...) are left out of the samples;
    `evaluate` reads all of them, as the metric needs them.

    Args:
        root: folder with `training/`, `testing/` and `ImageSets/`.
        split: name of a file in `root/ImageSets` without `.txt`, or the path of such a file, or
            frame ids themselves (a tuple or list).
        classes: types to detect; labels index into them.
        with_images: read the left colour picture into `Sample.cameras`.
        with_labels: read the true boxes; None: where the folder has `label_2`.
        folder: "training" or "testing"; None: "testing" for splits called test or testing,
            "training" for all others.
        crop_to_camera: keep only points that project into the picture, as only what the camera
            sees is labelled. Scans cropped already pass unchanged.
        drop_not_finite: leave out points that are NaN or infinite, instead of raising.
        without_types: types of labels whose points are left out of the scan, for training: what
            looks like one of `classes` and has no box as one. Behind `DontCare` are objects that
            nobody labelled, and a `Van` hardly differs from a `Car`.
        other_types: names that a data set in this layout has besides KITTI's.

    Raises:
        InputError: a missing folder, split or file, found before the first frame is read; an
            unknown class. Reading a frame raises it for anything wrong with the frame's files.
    """

    point_features = POINT_FEATURES

    def __init__(
        self,
        root: str | Path,
        split: str | Path | Sequence[str],
        classes: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
        *,
        with_images: bool = False,
        with_labels: bool | None = None,
        folder: str | None = None,
        crop_to_camera: bool = True,
        drop_not_finite: bool = False,
        without_types: Iterable[str] = (),
        other_types: Iterable[str] = (),
    ):
        self.root = Path(root)
        self.classes = tuple(classes)
        self.with_images = with_images
        self.crop_to_camera = crop_to_camera
        self.drop_not_finite = drop_not_finite
        self.without_types = tuple(without_types)
        self.other_types = tuple(other_types)
        objects = (*KITTI_TYPES[:-1], *self.other_types)
        for setting, names, known in (
            ("classes", self.classes, objects),
            ("without_types", self.without_types, (*objects, "DontCare")),
        ):
            for name in names:
                if name not in known:
                    raise InputError(
                        f"{setting}: '{name}' is no type of KITTI; the known ones are "
                        f"{', '.join(known)}"
                    )
        named = isinstance(split, str | Path)
        self.split = Path(split).stem if named else "frames as given"
        if folder is None:
            folder = "testing" if self.split in ("test", "testing") else "training"
        self.folder = self.root / folder
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder; --root must be the folder that holds KITTI's "
                f"'training' and 'testing'"
            )
        self.frame_ids = tuple(read_split(find_split(self.root, split)) if named else split)
        self.with_labels = self.path("label_2").is_dir() if with_labels is None else with_labels
        if self.with_labels is False and with_labels is None and self.folder.name == "training":
            raise InputError(f"{self.path('label_2')}: no such folder; training needs the labels")
        self.with_image_sizes = self.path("image_2").is_dir()
        required = ["velodyne", "calib"]
        required += ["label_2"] if self.with_labels else []
        required += ["image_2"] if with_images or self.with_image_sizes else []
        for kind in required:
            self._check_files(kind)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, index: int) -> Sample:
        frame_id = self.frame_ids[index]
        points, _ = read_scan(
            self.path("velodyne", frame_id), drop_not_finite=self.drop_not_finite
        )
        calibration = self.calibration(frame_id)
        if self.crop_to_camera:
            seen = in_camera_view(points, calibration, self.image_size(frame_id, calibration))
            if not seen.any():
                raise InputError(
                    f"{self.path('velodyne', frame_id)}: none of its {len(points)} points lies in "
                    f"the camera's view; check {self.path('calib', frame_id)} against the scan, "
                    f"or read it with crop_to_camera=False"
                )
            points = points[seen]
        if self.without_types and self.with_labels:
            objects = self.objects(frame_id)
            chosen = np.array([name in self.without_types for name in objects.types], bool)
            points = points[~on_objects(points, calibration, objects, chosen)]
        boxes, labels = np.zeros((0, 7)), np.zeros(0, np.int64)
        if self.with_labels:
            boxes, labels = self._boxes(frame_id, calibration)
        return Sample(
            frame_id=frame_id,
            points=points,
            point_features=self.point_features,
            boxes=boxes.astype(np.float32),
            labels=labels,
            cameras=(self.camera(frame_id),) if self.with_images else (),
        )

    def path(self, kind: str, frame_id: str | None = None) -> Path:
        """The folder of one kind of file (`velodyne`, `label_2`, ...), or a frame's file in it."""
        folder = self.folder / kind
        return folder if frame_id is None else folder / f"{frame_id}{SUFFIXES[kind]}"

    def calibration(self, frame_id: str) -> KittiCalibration:
        return read_calibration(self.path("calib", frame_id))

    def objects(self, frame_id: str) -> KittiObjects:
        """Every label of a frame, in the camera frame, as the file has it."""
        return read_objects(self.path("label_2", frame_id), other_types=self.other_types)

    def labels(self, index: int) -> Int64[np.ndarray, " N"]:
        """Labels of the boxes of a sample, without reading its scan."""
        types = self.objects(self.frame_ids[index]).types
        return np.array([self.classes.index(t) for t in types if t in self.classes], np.int64)

    def image_size(
        self, frame_id: str, calibration: KittiCalibration | None = None
    ) -> tuple[int, int]:
        """(width, height) of the picture, from its header; without an `image_2` folder
        (`with_image_sizes` is False then) the size that goes with the calibration."""
        if self.with_image_sizes:
            return read_image_size(self.path("image_2", frame_id))
        return (calibration or self.calibration(frame_id)).typical_image_size

    def camera(self, frame_id: str) -> Camera:
        """The left colour picture with its calibration."""
        import cv2

        path = self.path("image_2", frame_id)
        read_image_size(path)
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{path}: the picture can't be decoded; copy or download it again")
        calibration = self.calibration(frame_id)
        return Camera(
            name="image_2",
            image=np.ascontiguousarray(image[..., ::-1]),
            camera_from_ego=calibration.camera_from_ego.astype(np.float32),
            intrinsics=calibration.projection.astype(np.float32),
        )

    def ground_plane(self, frame_id: str) -> Float[np.ndarray, " 4"] | None:
        """(a, b, c, d) of the road a x + b y + c z + d = 0 in the ego frame, its normal pointing
        up; None where the data set has no `planes` for this frame."""
        path = self.path("planes", frame_id)
        if not path.is_file():
            return None
        return read_plane(path) @ self.calibration(frame_id).camera_from_ego

    def result_objects(self, detections: Detections) -> KittiObjects:
        """Detections of one frame as a result file holds them, see `objects_from_boxes`."""
        detections = detections.cpu()
        calibration = self.calibration(detections.frame_id)
        return objects_from_boxes(
            detections.boxes.numpy(),
            [self.classes[label] for label in detections.labels.tolist()],
            detections.scores.numpy(),
            calibration,
            self.image_size(detections.frame_id, calibration),
        )

    def write_results(self, detections: Iterable[Detections], folder: str | Path) -> None:
        """A result file `folder/ID.txt` a frame, in the benchmark's format of 16 columns.

        Boxes wholly outside the picture or behind the camera are left out: the benchmark only
        knows what the camera sees.

        Raises:
            InputError: the folder can't be written.
        """
        for frame in detections:
            write_objects(Path(folder) / f"{frame.frame_id}.txt", self.result_objects(frame))

    def read_results(self, folder: str | Path, frame_id: str) -> Detections:
        """What a result file of any detector says about a frame, best score first: the rows of
        `classes` that have a 3D box.

        Args:
            folder: with `ID.txt`, or with them in `data/`, as KITTI packs submissions.
            frame_id: of this data set.

        Raises:
            InputError: no such file, or a bad line in it.
        """
        path = Path(folder) / f"{frame_id}.txt"
        packed = Path(folder) / "data" / path.name
        path = packed if packed.is_file() and not path.is_file() else path
        objects = read_objects(path, with_scores=True, other_types=self.other_types)
        boxed = (objects.dimensions > 0).all(1) & [name in self.classes for name in objects.types]
        order = np.flatnonzero(boxed)[np.argsort(-objects.score[boxed], kind="stable")]
        boxes = ego_boxes(
            objects.location[order], objects.dimensions[order], objects.rotation_y[order],
            self.calibration(frame_id),
        )  # fmt: skip
        labels = [self.classes.index(objects.types[i]) for i in order]
        return Detections(
            frame_id,
            torch.from_numpy(boxes.astype(np.float32)),
            torch.from_numpy(objects.score[order].astype(np.float32)),
            torch.tensor(labels, dtype=torch.int64),
        )

    def evaluate(self, detections: Sequence[Detections]) -> KittiResult:
        """The benchmark's average precision of detections of all frames of the split, for those of
        the classes that it evaluates (Car, Pedestrian, Cyclist).

        Raises:
            ValueError: frames missing, unknown or given twice.
            InputError: the split has no labels.
        """
        if not self.with_labels:
            raise InputError(
                f"{self.folder}: split '{self.split}' has no labels to evaluate with; write the "
                f"results with write_results and hand them to the benchmark's server"
            )
        by_frame = {frame.frame_id: frame for frame in detections}
        if len(by_frame) != len(detections) or set(by_frame) != set(self.frame_ids):
            raise ValueError(
                f"detections of {len(detections)} frames ({len(by_frame)} different) for a split "
                f"of {len(self)}; every frame is needed once, also where nothing was found"
            )
        truth = [self.objects(frame_id) for frame_id in self.frame_ids]
        found = [self.result_objects(by_frame[frame_id]) for frame_id in self.frame_ids]
        return evaluate_kitti(truth, found, [c for c in self.classes if c.lower() in MIN_OVERLAP])

    def _boxes(self, frame_id: str, calibration: KittiCalibration):
        objects = self.objects(frame_id)
        wanted = np.array([name in self.classes for name in objects.types], bool)
        dimensions, location = objects.dimensions[wanted], objects.location[wanted]
        flat = (dimensions <= 0).any(1) | (np.abs(location) >= 1000).any(1)
        if flat.any():
            index = int(np.flatnonzero(wanted)[np.argmax(flat)])
            raise InputError(
                f"{self.path('label_2', frame_id)}: object {index + 1} is a "
                f"{objects.types[index]} of height, width, length {objects.dimensions[index]} at "
                f"{objects.location[index]}, which is no box; mend the line or make it a DontCare"
            )
        boxes = ego_boxes(location, dimensions, objects.rotation_y[wanted], calibration)
        index_of = {name: i for i, name in enumerate(self.classes)}
        labels = [index_of[name] for name in objects.types if name in index_of]
        return boxes, np.array(labels, np.int64)

    def _check_files(self, kind: str) -> None:
        folder, suffix = self.path(kind), SUFFIXES[kind]
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; download KITTI's '{kind}' and unpack it")
        present = {path.name for path in folder.iterdir()}
        missing = [i for i in self.frame_ids if f"{i}{suffix}" not in present]
        if missing:
            raise InputError(
                f"{folder / (missing[0] + suffix)}: no such file; {len(missing)} of {len(self)} "
                f"frames of split '{self.split}' lack theirs in this folder: complete it, or take "
                f"the frames out of the split"
            )
