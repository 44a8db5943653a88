"""Scans for benchmarks: streets of boxes seen by a spinning LiDAR, in plain torch on any device.

Only how many points and voxels there are, and how they lie on surfaces, matters here; the
simulator in `datasets.simulation` is the one to train on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from detector.geometry import VoxelGrid


@dataclass(frozen=True)
class Workload:
    """A sensor, what part of the world is kept, and the grid."""

    name: str
    grid: VoxelGrid
    elevations_deg: tuple[float, ...]
    """Of the beams, upwards."""
    azimuth_steps: int
    sweeps: int
    """Scans put together, the sensor moving between them."""
    reach_m: float
    sensor_height_m: float
    columns: int
    """x, y, z, intensity and, from the fifth, age."""
    view_deg: float = 360.0
    """Width of what is kept, ahead."""
    ground_at_zero: bool = False
    """Whether z counts from the ground rather than from the sensor."""

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """With the empty layer that SECOND's encoder adds above."""
        z, y, x = self.grid.shape
        return z + 1, y, x


def _between(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(low + (high - low) * i / (count - 1) for i in range(count))


WORKLOADS = {
    "kitti": Workload(
        "kitti", VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1)),
        _between(-24.8, -8.5, 32) + _between(-8.3, 2.0, 32), 2083, 1, 120, 1.73, 4, 82.0,
    ),
    "nuscenes": Workload(
        "nuscenes", VoxelGrid((-54, -54, -5, 54, 54, 3), (0.075, 0.075, 0.2)),
        _between(-30.67, 10.67, 32), 1084, 10, 100, 1.84, 5, 360.0, True,
    ),
    "waymo": Workload(
        "waymo", VoxelGrid((-75.2, -75.2, -2, 75.2, 75.2, 4), (0.1, 0.1, 0.15)),
        _between(-17.6, 2.4, 64), 3500, 1, 75, 2.0, 5, 360.0, True,
    ),
}  # fmt: skip


def make_frames(
    workload: Workload, count: int, device: torch.device | str = "cpu", seed: int = 0
) -> list[Float[Tensor, "P C"]]:
    """`count` scans of different streets, points in the order in which they were measured."""
    return [_scan(workload, seed * 1000 + index, torch.device(device)) for index in range(count)]


def unsorted_voxels(
    points: Float[Tensor, "P C"], grid: VoxelGrid, frame: int, seed: int = 0
) -> tuple[Int32[Tensor, "V 4"], Float[Tensor, "V C"]]:
    """Occupied cells in the order of their first points, as most voxelizers give them, with the
    features of one of their points."""
    cells = grid.coordinates(points)
    inside = cells[:, 0] >= 0
    cells, points = cells[inside].long(), points[inside]
    z, y, x = grid.shape
    keys = (cells[:, 0] * y + cells[:, 1]) * x + cells[:, 2]
    _, inverse = torch.unique(keys, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(keys), device=keys.device)
    first.scatter_reduce_(0, inverse, torch.arange(len(keys), device=keys.device), "amin")
    rows = first.sort().values
    batch = torch.full((len(rows), 1), frame, device=rows.device)
    return torch.cat([batch, cells[rows]], 1).int().contiguous(), points[rows].contiguous()


def _scan(workload: Workload, seed: int, device: torch.device) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    boxes = _street(rng, workload.reach_m).to(device)
    elevation = torch.deg2rad(torch.tensor(workload.elevations_deg))
    azimuth = torch.arange(workload.azimuth_steps) / workload.azimuth_steps * 2 * math.pi
    parts = []
    for sweep in range(workload.sweeps):
        turn = azimuth + 0.37 * sweep / workload.azimuth_steps
        ray = torch.stack(
            [
                elevation.cos()[:, None] * turn.cos(), elevation.cos()[:, None] * turn.sin(),
                elevation.sin()[:, None].expand(-1, len(turn)),
            ],
            -1,
        ).reshape(-1, 3)  # fmt: skip
        origin = torch.tensor([-0.6 * sweep, 0.02 * sweep, 0.0], device=device)
        distance = _cast(origin, ray.to(device), boxes, workload.sensor_height_m)
        noise = 0.015 * torch.randn(distance.shape, generator=rng).to(device)
        kept = torch.rand(distance.shape, generator=rng).to(device) > 0.08
        kept &= distance < workload.reach_m
        kept &= (turn.cos() > math.cos(math.radians(workload.view_deg / 2)) - 1e-6).repeat(
            len(elevation)
        ).to(device)
        points = origin + (distance + noise)[:, None] * ray.to(device)
        if workload.ground_at_zero:
            points[:, 2] += workload.sensor_height_m
        intensity = torch.rand(len(points), 1, generator=rng).to(device)
        age = torch.full((len(points), 1), 0.05 * sweep, device=device)
        parts.append(torch.cat([points, intensity, age], 1)[kept, : workload.columns])
    return torch.cat(parts).contiguous()


def _street(rng: torch.Generator, reach_m: float) -> Float[Tensor, "N 7"]:
    """Cars, people, poles, trees and houses along two roads; z from the sensor's ground at 0."""

    def boxes(count, low_high_xy, length, width, height, free_yaw):
        xy = (torch.rand(count, 2, generator=rng) * 2 - 1) * low_high_xy
        size = torch.tensor([length, width, height]) * (
            0.7 + 0.6 * torch.rand(count, 3, generator=rng)
        )
        yaw = torch.rand(count, 1, generator=rng) * (math.pi if free_yaw else 0.2)
        return torch.cat([xy, size[:, 2:] / 2, size, yaw], 1)

    far = min(reach_m, 75.0)
    parts = [
        boxes(60, far, 4.3, 1.8, 1.6, True), boxes(30, far, 0.6, 0.6, 1.75, True),
        boxes(60, far, 0.3, 0.3, 6.0, True), boxes(60, far, 2.5, 2.5, 1.2, True),
        boxes(28, 1.2 * far, 16.0, 9.0, 8.0, False),
    ]  # fmt: skip
    found = torch.cat(parts)
    clear = found[:, :2].norm(dim=1) > 5 + found[:, 3:5].norm(dim=1) / 2
    road = (found[:, 1].abs() > 4 + found[:, 4] / 2) | (found[:, 3] < 5)
    return found[clear & road]


def _cast(
    origin: Tensor, rays: Float[Tensor, "R 3"], boxes: Float[Tensor, "N 7"], height_m: float
) -> Float[Tensor, " R"]:
    """Distance to the nearest box or the rolling ground; infinite where there is none."""
    ground = -height_m * (1 + 0.03 * torch.sin(7 * rays[:, 0]) * torch.cos(5 * rays[:, 1]))
    down = rays[:, 2] < -0.004
    nearest = torch.where(down, ground / torch.where(down, rays[:, 2], -1.0), torch.inf)
    for box in boxes:
        cos, sin = box[6].cos(), box[6].sin()
        start = origin - torch.stack([box[0], box[1], box[2] - height_m])
        x = rays[:, 0] * cos + rays[:, 1] * sin
        y = rays[:, 1] * cos - rays[:, 0] * sin
        local = torch.stack([start[0] * cos + start[1] * sin, start[1] * cos - start[0] * sin,
                             start[2]])
        inverse = 1 / torch.stack([x, y, rays[:, 2]], 1)
        near = (-box[3:6] / 2 - local) * inverse
        far = (box[3:6] / 2 - local) * inverse
        enter = torch.minimum(near, far).amax(1)
        leave = torch.maximum(near, far).amin(1)
        hit = (enter < leave) & (enter > 0.5)
        nearest = torch.where(hit & (enter < nearest), enter, nearest)
    return nearest
