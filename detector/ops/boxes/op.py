"""Checks and dispatch. Boxes on an NVIDIA GPU go to CUDA kernels; boxes on a CPU to Numba, and so
do boxes on other devices, copied there and the result back.

Everything is computed in float64 and comes out in the input's precision. Nothing here carries
gradients. A box with a size that is not positive, or with NaN or infinity, overlaps nothing and
contains nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def iou_bev(a: Float[Tensor, "N 7+"], b: Float[Tensor, "M 7+"]) -> Float[Tensor, "N M"]:
    """Intersection over union of rotated boxes seen from above, in [0, 1].

    Raises:
        TypeError, ValueError: tensors that are not boxes, or on different devices.
    """
    return _iou(a, b, volume=False)


def iou_3d(a: Float[Tensor, "N 7+"], b: Float[Tensor, "M 7+"]) -> Float[Tensor, "N M"]:
    """Intersection over union of the volumes of rotated boxes, in [0, 1].

    Raises:
        TypeError, ValueError: tensors that are not boxes, or on different devices.
    """
    return _iou(a, b, volume=True)


def nms(
    boxes: Float[Tensor, "N 7+"], scores: Float[Tensor, " N"], iou_threshold: float
) -> Int64[Tensor, " K"]:
    """Greedy non-maximum suppression by rotated overlap seen from above.

    Walks from the best score to the worst (ties: the lower index first, NaN last) and drops every
    box whose `iou_bev` with a box already kept is greater than `iou_threshold`.

    Returns:
        Indices of the boxes kept, best score first.

    Raises:
        TypeError, ValueError: tensors that are not boxes and their scores, or a threshold outside
            [0, 1].
    """
    _check("boxes", boxes, 7)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"scores must have shape ({len(boxes)},), one a box, got {tuple(scores.shape)}"
        )
    _check_device("scores", scores, "boxes", boxes)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in [0, 1], got {iou_threshold}")
    if boxes.is_cuda and len(boxes) < 1 << 16:
        from detector.ops.boxes import gpu

        return gpu.nms(boxes, scores, float(iou_threshold))
    from detector.ops.boxes import cpu

    kept = cpu.nms(_float64(boxes), _float64(scores), float(iou_threshold))
    return torch.from_numpy(kept).to(boxes.device)


def points_in_boxes(
    points: Float[Tensor, "P 3+"], boxes: Float[Tensor, "N 7+"]
) -> Bool[Tensor, "P N"]:
    """True where point p lies inside box n, faces included.

    Raises:
        TypeError, ValueError: tensors that are not points and boxes, or on different devices.
    """
    _check("points", points, 3)
    _check("boxes", boxes, 7)
    _check_device("points", points, "boxes", boxes)
    if boxes.is_cuda:
        from detector.ops.boxes import gpu

        return gpu.points_in_boxes(points, boxes)
    from detector.ops.boxes import cpu

    inside = cpu.points_in_boxes(_float64(points), _float64(boxes))
    return torch.from_numpy(inside).to(boxes.device)


def box_of_point(
    points: Float[Tensor, "P 3+"], boxes: Float[Tensor, "N 7+"]
) -> Int64[Tensor, " P"]:
    """Index of the first box that contains each point, faces included, or -1.

    `points_in_boxes` without the (P, N) table.

    Raises:
        TypeError, ValueError: tensors that are not points and boxes, or on different devices.
    """
    _check("points", points, 3)
    _check("boxes", boxes, 7)
    _check_device("points", points, "boxes", boxes)
    if boxes.is_cuda:
        from detector.ops.boxes import gpu

        return gpu.box_of_point(points, boxes)
    from detector.ops.boxes import cpu

    first = cpu.box_of_point(_float64(points), _float64(boxes))
    return torch.from_numpy(first).to(boxes.device)


def _iou(a: Tensor, b: Tensor, volume: bool) -> Tensor:
    _check("a", a, 7)
    _check("b", b, 7)
    _check_device("a", a, "b", b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    if a.is_cuda:
        from detector.ops.boxes import gpu

        return gpu.iou(a, b, volume).to(dtype)
    from detector.ops.boxes import cpu

    iou = cpu.overlap(_float64(a), _float64(b), volume=volume)
    return torch.from_numpy(iou).to(a.device, dtype)


def _check(name: str, rows: Tensor, columns: int) -> None:
    if rows.ndim != 2 or rows.shape[1] < columns:
        raise ValueError(
            f"{name} must have shape (N, {columns} or more), got {tuple(rows.shape)}"
        )
    if not rows.is_floating_point():
        raise TypeError(f"{name} must be of a floating-point dtype, got {rows.dtype}")


def _check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(
            f"{name} is on {tensor.device} and {other_name} on {other.device}; "
            f"move them to one device"
        )


def _float64(tensor: Tensor) -> np.ndarray:
    """C-contiguous float64 on the CPU."""
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()
