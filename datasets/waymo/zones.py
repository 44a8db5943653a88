"""No-label zones: areas of the map in which nothing was labelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64

from detector.geometry import inverse_rigid


def zones_in_vehicle(
    zones: Sequence[Float64[np.ndarray, "K 2"]], world_from_vehicle: Float64[np.ndarray, "4 4"]
) -> list[Float64[np.ndarray, "K 2"]]:
    """Outlines in the world to outlines in the vehicle frame, taken at the vehicle's height."""
    vehicle_from_world = inverse_rigid(world_from_vehicle)
    moved = []
    for zone in zones:
        points = np.c_[zone, np.full(len(zone), world_from_vehicle[2, 3])]
        moved.append(points @ vehicle_from_world[:2, :3].T + vehicle_from_world[:2, 3])
    return moved


def boxes_in_zones(
    boxes: Float[np.ndarray, "N 7+"], zones: Sequence[Float64[np.ndarray, "K 2"]]
) -> Bool[np.ndarray, " N"]:
    """True where a box, seen from above, shares ground with any of the outlines.

    Outlines may be concave; both are in the same frame.
    """
    boxes = np.asarray(boxes, np.float64)
    inside = np.zeros(len(boxes), bool)
    if not len(boxes):
        return inside
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])           # (N, 1)
    half = boxes[:, None, 3:5] / 2                                            # (N, 1, 2)
    for zone in zones:
        offset = zone - boxes[:, None, :2]                                    # (N, K, 2)
        local = np.stack(
            [offset[..., 0] * cos + offset[..., 1] * sin,
             offset[..., 1] * cos - offset[..., 0] * sin], -1,
        )  # fmt: skip
        edge = np.roll(local, -1, 1) - local
        inside |= _edges_cross(local, edge, half).any(1) | _holds_origin(local, edge)
    return inside


def _edges_cross(start: np.ndarray, edge: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(N, K) whether a part of each edge lies in the rectangle about the origin (Liang and Barsky,
    "A new concept and method for line clipping", 1984)."""
    enter, leave = np.zeros(start.shape[:2]), np.ones(start.shape[:2])
    possible = np.ones(start.shape[:2], bool)
    for axis in range(2):
        for sign in (-1, 1):
            speed = sign * edge[..., axis]
            room = half[..., axis] - sign * start[..., axis]
            with np.errstate(divide="ignore", invalid="ignore"):
                share = room / speed
            possible &= (speed != 0) | (room >= 0)
            enter = np.where(speed < 0, np.maximum(enter, share), enter)
            leave = np.where(speed > 0, np.minimum(leave, share), leave)
    return possible & (enter <= leave)


def _holds_origin(start: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """(N,) whether the origin lies inside the outline: a ray along +x crosses it an odd number of
    times."""
    end_y = start[..., 1] + edge[..., 1]
    spans = (start[..., 1] > 0) != (end_y > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = start[..., 0] - start[..., 1] / edge[..., 1] * edge[..., 0]
    return (spans & (crossing > 0)).sum(1) % 2 == 1
