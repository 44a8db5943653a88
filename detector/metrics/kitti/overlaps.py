"""Overlap of KITTI objects in the picture, from above and in 3D, for listed pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from detector.metrics.kitti.objects import KittiObjects
from detector.ops.boxes import cpu


def upright_boxes(objects: KittiObjects) -> Float64[np.ndarray, "N 7"]:
    """Boxes as in `detector.geometry`, in a frame with the camera's x, its z as y, its y as z.

    That frame is left-handed, which no overlap notices: angles along the two ground axes turn
    the other way, and y up or down is only a sign.
    """
    height, width, length = objects.dimensions.T
    x, bottom, z = objects.location.T
    columns = (x, z, bottom - height / 2, length, width, height, -objects.rotation_y)
    return np.ascontiguousarray(np.stack(columns, 1))


def pairs_within_frames(
    frames_a: Int64[np.ndarray, " N"], frames_b: Int64[np.ndarray, " M"]
) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
    """Rows (a, b) of all pairs in the same frame, in the order of a, then of b.

    Args:
        frames_a, frames_b: frame number of each row, ascending.
    """
    first = np.searchsorted(frames_b, frames_a, "left")
    counts = np.searchsorted(frames_b, frames_a, "right") - first
    before = np.cumsum(counts) - counts
    rows_a = np.repeat(np.arange(len(frames_a)), counts)
    rows_b = np.arange(len(rows_a)) + np.repeat(first - before, counts)
    return rows_a, rows_b


def picture_overlap(
    a: Float64[np.ndarray, "K 4"], b: Float64[np.ndarray, "K 4"], *, share_of_a: bool = False
) -> Float64[np.ndarray, " K"]:
    """Intersection over union of axis-aligned boxes, or over the area of a."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])        # (K, 2)
        shared = np.where((size > 0).all(1), size[:, 0] * size[:, 1], 0.0)
        area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
        area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
        whole = area_a if share_of_a else area_a + area_b - shared
        return np.where(shared > 0, shared / whole, 0.0)


def space_overlap(
    a: Float64[np.ndarray, "N 7"],
    b: Float64[np.ndarray, "M 7"],
    rows_a: Int64[np.ndarray, " K"],
    rows_b: Int64[np.ndarray, " K"],
    *,
    volume: bool,
    share_of_a: bool = False,
) -> Float64[np.ndarray, " K"]:
    """Rotated intersection over union from above or of volumes, or over the size of a."""
    overlap = cpu.overlap_of_pairs(
        a, b, rows_a, rows_b, volume=volume, relative=not share_of_a
    )
    if share_of_a:
        whole = a[rows_a, 3:6].prod(1) if volume else a[rows_a, 3:5].prod(1)
        overlap = np.divide(overlap, whole, out=np.zeros_like(overlap), where=overlap > 0)
    return overlap
