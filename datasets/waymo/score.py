"""Scores a file of predictions against a file of true objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from datasets.waymo.objects import paired_frames, read_objects
from detector.errors import InputError
from detector.metrics.waymo import WaymoResult, evaluate_waymo


def score_files(
    ground_truth: str | Path,
    predictions: str | Path,
    *,
    bev: bool = False,
    progress: Callable[[Iterator, int], Iterator] = lambda frames, count: frames,
) -> WaymoResult:
    """AP and APH of two files of serialized `Objects`, as the official tool computes them.

    Args:
        bev: compare boxes as seen from above.
        progress: wraps the frames, whose number it is told, to show how far it is.

    Raises:
        InputError: a file that can't be read, or two files that don't belong together.
    """
    truth, found = read_objects(ground_truth), read_objects(predictions)
    if not (truth.point_counts > 0).any():
        raise InputError(
            f"{ground_truth}: none of its {len(truth.boxes)} objects has LiDAR points "
            f"(num_lidar_points_in_box), and those without don't count; give the labels with "
            f"their number of points"
        )
    frames = {*truth.frames, *found.frames}
    if len(found.boxes) and not {*truth.frames} & {*found.frames}:
        raise InputError(
            f"{predictions}: has no frame in common with {ground_truth}, {found.frames[0]} against "
            f"{truth.frames[0]}; context_name and frame_timestamp_micros must be those of the "
            f"labels"
        )
    return evaluate_waymo(progress(paired_frames(truth, found), len(frames)), bev=bev)
