"""Pictures of Waymo's cameras as `Camera` records."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.waymo.frame import CAMERAS, CameraShot
from detector.errors import InputError
from detector.geometry import inverse_rigid
from detector.records import Camera

# Waymo's camera looks along +x with y left, z up; ours along +z with x right, y down.
OURS_FROM_WAYMO = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)


def camera_of(shot: CameraShot, frame_id: str = "") -> Camera:
    """The picture decoded, with a pinhole camera: the lens's distortion is left out.

    Args:
        frame_id: names the frame in errors.

    Raises:
        InputError: no picture that can be decoded.
    """
    encoded = np.frombuffer(shot.jpeg, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if image is None:
        name = CAMERAS[shot.camera] if shot.camera < len(CAMERAS) else shot.camera
        raise InputError(
            f"frame {frame_id}: the picture of camera {name} can't be decoded; the file is "
            f"damaged: download or write it again"
        )
    focal_u, focal_v, center_u, center_v = shot.intrinsics[:4]
    return Camera(
        name=CAMERAS[shot.camera],
        image=np.ascontiguousarray(image[..., ::-1]),  # from BGR
        camera_from_ego=(OURS_FROM_WAYMO @ inverse_rigid(shot.vehicle_from_camera)).astype(
            np.float32
        ),
        intrinsics=np.array(
            [[focal_u, 0, center_u, 0], [0, focal_v, center_v, 0], [0, 0, 1, 0]], np.float32
        ),
    )
