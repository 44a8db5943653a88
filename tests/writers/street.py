"""A street of boxes on a plane with points, for tests of augmentation."""

from __future__ import annotations

import numpy as np

from detector.records import Sample

CLASSES = ("Car", "Pedestrian", "Cyclist")
SIZES = np.array([[4, 1.8, 1.5], [0.8, 0.6, 1.75], [1.8, 0.6, 1.7]])
FEATURES = ("x", "y", "z", "intensity")


def street(
    frame_id: str = "000000", cars: int = 2, pedestrians: int = 2, cyclists: int = 1,
    ground: float = -1.7, slope: float = 0.0, points_per_box: int = 40, seed: int = 0,
    velocities: bool = False,
) -> Sample:  # fmt: skip
    """Boxes apart from each other, with points strictly inside; intensity tells the box of a point
    (its index + 1, times 0.01) from the ground (0)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), (cars, pedestrians, cyclists))
    count = len(labels)
    # Places on a grid of 7 m, so that no two boxes touch.
    spots = rng.choice(7 * 7, count, replace=False)
    xy = np.stack([8 + spots // 7 * 7, (spots % 7 - 3) * 7], 1) + rng.uniform(-1, 1, (count, 2))
    boxes = np.zeros((count, 9 if velocities else 7))
    boxes[:, 3:6] = SIZES[labels]
    boxes[:, :2] = xy
    boxes[:, 2] = ground + slope * xy[:, 0] + boxes[:, 5] / 2
    boxes[:, 6] = rng.uniform(-np.pi, np.pi, count)
    if velocities:
        boxes[:, 7:9] = rng.normal(size=(count, 2))
    local = rng.uniform(-0.45, 0.45, (count, points_per_box, 3)) * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    own = np.stack([x, y, local[..., 2]], -1) + boxes[:, None, :3]
    plane = rng.uniform((2, -25, 0), (60, 25, 0), (4000, 3))
    plane[:, 2] = ground + slope * plane[:, 0] - 0.01
    shade = np.concatenate([np.repeat(np.arange(1, count + 1), points_per_box) * 0.01,
                            np.zeros(len(plane))])  # fmt: skip
    points = np.column_stack([np.concatenate([own.reshape(-1, 3), plane]), shade])
    return Sample(
        frame_id, points.astype(np.float32), FEATURES, boxes.astype(np.float32), labels
    )


class Street:
    """Frames of streets, map-style."""

    classes = CLASSES

    def __init__(self, frames: int = 4, **options):
        self.frames = frames
        self.options = options

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: int) -> Sample:
        return street(f"{index:06d}", seed=index, **self.options)
