"""Rigid transforms, named `target_from_source`. NumPy in, NumPy out, in the input's precision."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def transform_points(
    target_from_source: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "P 3+"]
) -> Float[np.ndarray, "P 3+"]:
    """Points with x, y, z moved to the target frame; further columns are kept."""
    moved = points.copy()
    rotation, translation = target_from_source[:3, :3], target_from_source[:3, 3]
    moved[:, :3] = points[:, :3] @ rotation.T + translation
    return moved


def inverse_rigid(target_from_source: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """`source_from_target` of a rotation with translation."""
    inverse = np.eye(4, dtype=target_from_source.dtype)
    inverse[:3, :3] = target_from_source[:3, :3].T
    inverse[:3, 3] = -inverse[:3, :3] @ target_from_source[:3, 3]
    return inverse


def rotation_z(yaw: float) -> Float[np.ndarray, "4 4"]:
    """Turn by `yaw` radians counter-clockwise about +z."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.eye(4)
    turn[:2, :2] = [[cos, -sin], [sin, cos]]
    return turn
