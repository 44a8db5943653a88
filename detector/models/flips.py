"""Double flip: a detector looks at four mirror images of a frame and takes the mean of its maps.

Yin, Zhou, Krähenbühl: "Center-based 3D Object Detection and Tracking", CVPR 2021, supplement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from detector.geometry import VoxelGrid
from detector.models.heads import TaskMaps
from detector.records import Batch

# Signs of x and y.
FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def check_symmetric(grid: VoxelGrid, stride: int) -> None:
    """Mirror images must fall on the same cells.

    Raises:
        ValueError: a range that does not reach equally far to both sides, or is not a whole
            number of the map's cells.
    """
    for axis, index in (("x", 0), ("y", 1)):
        low, high = grid.minimum[index], grid.maximum[index]
        cells = grid.shape[2 - index]
        if low != -high or cells % stride:
            raise ValueError(
                f"double_flip needs a range symmetric about 0 and a whole number of map cells; "
                f"{axis} goes from {low} to {high} in {cells} voxels at stride {stride}"
            )


def flipped(
    batch: Batch, signs: tuple[int, int], velocity_columns: tuple[int, int] | None
) -> Batch:
    """A mirror image: x, y and the points' velocities change their signs."""
    points = batch.points.clone()
    for columns in [(0, 1)] + ([velocity_columns] if velocity_columns else []):
        for column, sign in zip(columns, signs, strict=True):
            points[:, column] *= sign
    return replace(batch, points=points)


def mean_maps(seen: Sequence[tuple[tuple[int, int], Sequence[TaskMaps]]]) -> list[TaskMaps]:
    """The maps of mirror images, turned back, as one: mean probabilities and mean boxes."""
    turned = [[_turned_back(maps, signs) for maps in tasks] for signs, tasks in seen]
    result = []
    for parts in zip(*turned, strict=True):
        probability = torch.stack([p.heatmap.float().sigmoid() for p in parts]).mean(0)
        quality = None
        if parts[0].quality is not None:
            quality = torch.stack([p.quality.float() for p in parts]).mean(0)
        result.append(
            TaskMaps(
                heatmap=probability.logit(eps=1e-6),
                regression=torch.stack([p.regression.float() for p in parts]).mean(0),
                quality=quality,
            )
        )
    return result


def _turned_back(maps: TaskMaps, signs: tuple[int, int]) -> TaskMaps:
    x_sign, y_sign = signs
    axes = [axis for axis, sign in ((-1, x_sign), (-2, y_sign)) if sign < 0]

    def mirror(values: Tensor) -> Tensor:
        return values.flip(axes) if axes else values

    regression = mirror(maps.regression).clone()
    # Columns of `detector.models.decode.encode_boxes`: offsets count from a cell's lower corner;
    # a mirrored x turns the cosine of yaw around, a mirrored y the sine.
    for column, sign in ((0, x_sign), (1, y_sign)):
        if sign < 0:
            regression[:, column] = 1 - regression[:, column]
    regression[:, 6] *= y_sign
    regression[:, 7] *= x_sign
    if regression.shape[1] > 8:
        regression[:, 8] *= x_sign
        regression[:, 9] *= y_sign
    return TaskMaps(
        heatmap=mirror(maps.heatmap),
        regression=regression,
        quality=None if maps.quality is None else mirror(maps.quality),
    )
