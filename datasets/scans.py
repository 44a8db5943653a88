"""Scans by themselves: `.bin` files anywhere, with KITTI's calibration where it lies beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.kitti_boxes import objects_from_boxes
from datasets.kitti_files import (
    POINT_FEATURES,
    KittiCalibration,
    KittiObjects,
    read_calibration,
    read_image_size,
    read_scan,
)
from datasets.kitti_view import in_camera_view
from detector.errors import InputError
from detector.records import Detections, Sample


@dataclass(frozen=True)
class ScanFrame:
    """One scan and, where known, how the camera saw it."""

    path: Path
    sample: Sample
    calibration: KittiCalibration | None
    """Of `../calib/ID.txt` in KITTI's layout."""
    image_size: tuple[int, int] | None
    """(width, height) of the camera's picture, where there is a calibration."""

    def result_objects(self, detections: Detections, classes: Sequence[str]) -> KittiObjects:
        """Detections as a KITTI result file holds them; for frames with a calibration."""
        return objects_from_boxes(
            detections.boxes.numpy(), [classes[label] for label in detections.labels],
            detections.scores.numpy(), self.calibration, self.image_size,
        )  # fmt: skip


def find_scans(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and all `.bin` files of the folders named, sorted.

    Raises:
        InputError: nothing there, a folder without scans, or two scans of one name.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            scans = sorted(path.glob("*.bin"))
            if not scans:
                raise InputError(f"{path}: the folder holds no .bin file; name the scans' folder")
            found += scans
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: there is no such scan or folder")
    names: dict[str, Path] = {}
    for path in found:
        if path.stem in names:
            raise InputError(
                f"{path}: has the same name as {names[path.stem]}, and results are named after "
                f"scans; detect in them one after the other with different --out"
            )
        names[path.stem] = path
    return found


def read_frame(path: Path, drop_not_finite: bool = False) -> ScanFrame:
    """Reads a KITTI-format scan; one in KITTI's layout is cropped to what its camera sees, as the
    training frames were. An empty file is an empty frame.

    Raises:
        InputError: a scan or calibration that cannot be used.
    """
    if path.is_file() and path.stat().st_size == 0:
        points = np.zeros((0, len(POINT_FEATURES)), np.float32)
    else:
        points, _ = read_scan(path, drop_not_finite=drop_not_finite)
    calibration = image_size = None
    root = path.parent.parent
    if path.parent.name.startswith("velodyne") and (root / "calib" / f"{path.stem}.txt").exists():
        calibration = read_calibration(root / "calib" / f"{path.stem}.txt")
        image = root / "image_2" / f"{path.stem}.png"
        image_size = read_image_size(image) if image.exists() else calibration.typical_image_size
        points = points[in_camera_view(points, calibration, image_size)]
    sample = Sample(frame_id=path.stem, points=points, point_features=POINT_FEATURES)
    return ScanFrame(path, sample, calibration, image_size)


def draw(
    frame: ScanFrame, detections: Detections, classes: Sequence[str], picture: Path | None,
    min_score: float,
) -> None:  # fmt: skip
    """A picture from above in the file `picture`, or a 3D window where it is None.

    Raises:
        InputError: a file that cannot be written, no display, nothing to draw.
    """
    if picture is not None:
        from detector.viz.bev import draw_bev

        draw_bev(frame.sample, classes, picture, detections, min_score=min_score)
        print(f"picture: {picture}")
        return
    from detector.viz.scene import build_scene
    from detector.viz.viewer import show

    show(build_scene(frame.sample, classes, detections, min_score=min_score))
