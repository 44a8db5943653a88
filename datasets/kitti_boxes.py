"""KITTI's objects in the camera frame <-> boxes in the ego frame, in float64 both ways.

KITTI gives the bottom centre of a box in the rectified camera frame (x right, y down, z forward),
its height, width and length, and `rotation_y`, the heading about the camera's y axis, 0 along +x.
The camera is tilted against the scanner by up to about a degree, so that an upright box of one
frame is not quite upright in the other. What the conversion keeps exactly, so that it can be
undone, is the geometric centre, the size, and the heading as a direction in the ground plane of
each frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from datasets.kitti_calibration import KittiCalibration
from detector.metrics.kitti import KittiObjects
from detector.metrics.kitti.evaluate import MAX_OCCLUSION, MAX_TRUNCATION, MIN_HEIGHT

EASY, MODERATE, HARD, UNRATED = 0, 1, 2, -1

# A box nearer than this to the camera's plane is cut there before it is projected, metres.
_NEAR = 0.1
# The twelve edges of a box, by corner: bottom face, top face, uprights.
BOX_EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7),
)  # fmt: skip


def ego_boxes(
    location: Float[np.ndarray, "N 3"],
    dimensions: Float[np.ndarray, "N 3"],
    rotation_y: Float[np.ndarray, " N"],
    calibration: KittiCalibration,
) -> Float[np.ndarray, "N 7"]:
    """Boxes in the ego frame of objects in the camera frame.

    Args:
        location: bottom centre, metres.
        dimensions: height, width, length, metres.
        rotation_y: radians.
        calibration: of the same frame.
    """
    height, width, length = dimensions.T
    centers = location.astype(np.float64)
    centers[:, 1] -= height / 2                                       # y points down
    ego_from_camera = calibration.ego_from_camera
    centers = centers @ ego_from_camera[:3, :3].T + ego_from_camera[:3, 3]
    # A heading lies in the x-z plane of the camera and is dropped onto the ego's x-y plane.
    heading = np.stack([np.cos(rotation_y), -np.sin(rotation_y)])     # (2, N) along x, z
    forward, left = _ground_from_ground(calibration) @ heading
    return np.column_stack([centers, length, width, height, _wrap(np.arctan2(left, forward))])


def camera_objects(
    boxes: Float[np.ndarray, "N 7+"], calibration: KittiCalibration
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Float[np.ndarray, " N"]]:
    """Location, dimensions and rotation_y of boxes in the ego frame: undoes `ego_boxes`."""
    boxes = boxes.astype(np.float64)
    length, width, height = boxes[:, 3:6].T
    location = calibration.camera_points(boxes)
    location[:, 1] += height / 2
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])])
    right, ahead = np.linalg.inv(_ground_from_ground(calibration)) @ heading
    rotation_y = _wrap(np.arctan2(-ahead, right))
    return location, np.column_stack([height, width, length]), rotation_y


def observation_angle(
    location: Float[np.ndarray, "N 3"],
    rotation_y: Float[np.ndarray, " N"],
    calibration: KittiCalibration,
) -> Float[np.ndarray, " N"]:
    """KITTI's alpha: the heading relative to the line of sight, in [-pi, pi).

    The sight is that of the scanner: over the 7481 training labels, rotation_y - atan2(-y, x) with
    x, y in the Velodyne frame agrees with the printed alpha to 0.01 (99.9 % of the objects), while
    rotation_y - atan2(x, z) in the camera frame is off by up to 0.09.
    """
    ego_from_camera = calibration.ego_from_camera
    forward, left, _ = ego_from_camera[:3, :3] @ location.T + ego_from_camera[:3, 3, None]
    return _wrap(rotation_y - np.arctan2(-left, forward))


def camera_corners(
    location: Float[np.ndarray, "N 3"],
    dimensions: Float[np.ndarray, "N 3"],
    rotation_y: Float[np.ndarray, " N"],
) -> Float[np.ndarray, "N 8 3"]:
    """Corners in the camera frame: bottom face counter-clockwise seen from above, then the top."""
    height, width, length = dimensions.T[..., None]                    # (N, 1) each
    along = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * length / 2        # (N, 8)
    across = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * width / 2        # to the left
    cos, sin = np.cos(rotation_y)[:, None], np.sin(rotation_y)[:, None]
    # The heading is (cos, 0, -sin); left of it, seen from above with y down, is (sin, 0, cos).
    x = along * cos + across * sin
    z = -along * sin + across * cos
    y = np.concatenate([np.zeros_like(x[:, :4]), np.repeat(-height, 4, 1)], 1)
    return np.stack([x, y, z], -1) + location[:, None]


def image_boxes(
    corners: Float[np.ndarray, "N 8 3"],
    calibration: KittiCalibration,
    image_size: tuple[int, int],
) -> tuple[Float[np.ndarray, "N 4"], Bool[np.ndarray, " N"]]:
    """2D boxes (left, top, right, bottom) that contain the projections of boxes, in pixels.

    What lies behind the camera is cut off before projecting, so that a box beside the camera gets
    the part of the picture that it really covers. The result is clipped to the picture, 0 to
    width - 1 and 0 to height - 1, as in KITTI's labels.

    Args:
        corners: in the camera frame.
        calibration: of the same frame.
        image_size: (width, height) of the picture.

    Returns:
        The boxes, and which of them are seen: at least partly in front of the camera and in the
        picture. Boxes that are not seen are zero.
    """
    edges = corners[:, BOX_EDGES, :]                                   # (N, 12, 2, 3)
    starts, ends = edges[:, :, 0], edges[:, :, 1]
    # Where an edge crosses the near plane; kept for the edges that do.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (_NEAR - starts[..., 2]) / (ends[..., 2] - starts[..., 2])
    crosses = (starts[..., 2] < _NEAR) != (ends[..., 2] < _NEAR)        # (N, 12)
    share = np.where(crosses, share, 0)[..., None]
    outline = np.concatenate([corners, starts + share * (ends - starts)], 1)   # (N, 20, 3)
    kept = np.concatenate([corners[..., 2] >= _NEAR, crosses], 1)
    pixels, _ = calibration.pixels(outline.reshape(-1, 3))
    pixels = pixels.reshape(*outline.shape[:2], 2)
    low = np.where(kept[..., None], pixels, np.inf).min(1)             # (N, 2)
    high = np.where(kept[..., None], pixels, -np.inf).max(1)
    last = np.array(image_size, np.float64) - 1
    seen = (low < last).all(1) & (high > 0).all(1)
    clipped = np.concatenate([np.clip(low, 0, last), np.clip(high, 0, last)], 1)
    return np.where(seen[:, None], clipped, 0.0), seen


def objects_from_boxes(
    boxes: Float[np.ndarray, "N 7+"],
    types: Sequence[str],
    scores: Float[np.ndarray, " N"],
    calibration: KittiCalibration,
    image_size: tuple[int, int],
) -> KittiObjects:
    """What a result file holds for boxes in the ego frame: alpha and the projected 2D box with
    them, truncation and occlusion -1.

    The benchmark is about what the camera sees: boxes wholly outside the picture or behind the
    camera are left out. The others keep their order.
    """
    location, dimensions, rotation_y = camera_objects(boxes, calibration)
    corners = camera_corners(location, dimensions, rotation_y)
    bbox, seen = image_boxes(corners, calibration, image_size)
    return KittiObjects(
        types=[name for name, kept in zip(types, seen, strict=True) if kept],
        truncation=np.full(seen.sum(), -1.0),
        occlusion=np.full(seen.sum(), -1, np.int64),
        alpha=observation_angle(location, rotation_y, calibration)[seen],
        bbox=bbox[seen],
        dimensions=dimensions[seen],
        location=location[seen],
        rotation_y=rotation_y[seen],
        score=np.asarray(scores, np.float64)[seen],
    )


def difficulties(objects: KittiObjects) -> Int[np.ndarray, " N"]:
    """EASY, MODERATE, HARD, or UNRATED (-1) for what no level counts, by the evaluator's rule."""
    height = objects.bbox[:, 3] - objects.bbox[:, 1]
    levels = np.full(len(objects.types), UNRATED, np.int64)
    for level in (HARD, MODERATE, EASY):
        levels[
            (height > MIN_HEIGHT[level])
            & (objects.occlusion <= MAX_OCCLUSION[level])
            & (objects.truncation <= MAX_TRUNCATION[level])
            & (np.array(objects.types, np.str_) != "DontCare")
        ] = level
    return levels


def _ground_from_ground(calibration: KittiCalibration) -> Float[np.ndarray, "2 2"]:
    """A direction in the camera's x-z plane -> the ego's x-y plane, dropping the ego's z."""
    return calibration.ego_from_camera[:2][:, [0, 2]]


def _wrap(angle: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The same direction in [-pi, pi)."""
    wrapped = np.remainder(angle + np.pi, 2 * np.pi) - np.pi
    return np.where(wrapped >= np.pi, -np.pi, wrapped)
