"""Spinning laser scanners: where their beams point, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32

from datasets.simulation.echoes import measure
from datasets.simulation.meshes import turned
from datasets.simulation.raycast import RayScene, owners
from datasets.simulation.world import Snapshot


@dataclass(frozen=True)
class LidarModel:
    """A scanner that turns about its z axis, once in `1 / rate_hz` seconds.

    In the scanner's frame x points forward, y left, z up. Beams are listed from the top down.
    """

    elevations_deg: Float64[np.ndarray, " B"]
    """Of each beam above the horizon."""
    heights_m: Float64[np.ndarray, " B"]
    """Where each beam leaves the turning axis, above the scanner's origin."""
    columns: int
    """Firings a turn."""
    range_noise_m: float
    """Standard deviation of the distance."""
    maximum_range_m: float
    minimum_range_m: float
    reach_m: float
    """Distance at which half the pulses that a grey wall (40 %) sends back are still seen."""
    mounting_height_m: float
    """Of the origin above the ground."""
    missed_share: float = 0.008
    """Pulses that go missing for no reason of the scene."""
    rate_hz: float = 10.0
    gains: tuple[float, ...] = ()
    """How strong each beam's intensity comes out, about 1; empty for alike."""
    biases_m: tuple[float, ...] = ()
    """How much too far each beam measures, what calibration leaves; empty for nothing."""
    lowest_clear_deg: tuple[float, ...] = ()
    """Below these elevations the scanner's own car is in the way, in even sectors of azimuth,
    counter-clockwise from +x; empty for nowhere."""

    @property
    def beams(self) -> int:
        return len(self.elevations_deg)

    @cached_property
    def rays(self) -> Float32[np.ndarray, "R 6"]:
        """Origin and direction of a turn's rays in the scanner's frame, beam after beam, each
        beam counter-clockwise from +x. The beams' azimuths are staggered a little."""
        step = 2 * np.pi / self.columns
        stagger = (np.arange(self.beams) * 0.618034) % 1.0                   # (B,) of a step
        azimuth = (np.arange(self.columns) + stagger[:, None]) * step        # (B, columns)
        elevation = np.radians(self.elevations_deg)[:, None]
        direction = np.stack(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth),
             np.broadcast_to(np.sin(elevation), azimuth.shape)], -1,
        )  # fmt: skip
        origin = np.zeros_like(direction)
        origin[..., 2] = self.heights_m[:, None]
        return np.concatenate([origin, direction], -1).reshape(-1, 6).astype(np.float32)

    @cached_property
    def clear(self) -> Bool[np.ndarray, " R"]:
        """Which rays the scanner's own car leaves free."""
        if not self.lowest_clear_deg:
            return np.ones(len(self.rays), bool)
        x, y, z = self.rays[:, 3:].T
        sector = np.arctan2(y, x) % (2 * np.pi) * len(self.lowest_clear_deg) / (2 * np.pi)
        lowest = np.array(self.lowest_clear_deg)[sector.astype(int) % len(self.lowest_clear_deg)]
        return np.degrees(np.arcsin(z)) > lowest


def _hdl_64e() -> LidarModel:
    # Two blocks of 32 lasers, one above the other, of different pitch. Angles and heights as a
    # straight line through the rings of real KITTI scans shows them (z against horizontal range);
    # gains and the car's shadow as strong as there. The lower block's lasers differ most.
    rng = np.random.default_rng(64)
    return LidarModel(
        elevations_deg=np.concatenate(
            [np.linspace(1.94, -8.71, 32), np.linspace(-9.03, -25.0, 32)]
        ),
        heights_m=np.concatenate([np.linspace(0.209, 0.198, 32), np.linspace(0.126, 0.116, 32)]),
        columns=2160,
        range_noise_m=0.018,
        maximum_range_m=80.0,
        minimum_range_m=1.0,
        reach_m=170.0,
        mounting_height_m=1.73,
        biases_m=tuple(rng.normal(0, 0.010, 64)),
        gains=(*rng.uniform(0.85, 1.15, 32), *rng.uniform(0.25, 1.25, 32)),
        lowest_clear_deg=(
            -23.0, -24.3, -25, -25, -25, -25, -25, -25, -21.5, -20.5, -18.5, -17.5, -17.5, -18.0,
            -21.5, -21.5, -25, -25, -20.0, -17.0, -19.5, -25, -24.3, -23.0,
        ),
    )


def _hdl_32e() -> LidarModel:
    # Data sheet: 32 beams 1.33 degrees apart from +10.67 to -30.67. Mounted as on nuScenes' cars.
    return LidarModel(
        elevations_deg=np.linspace(10.67, -30.67, 32),
        heights_m=np.zeros(32),
        columns=1084,
        range_noise_m=0.02,
        maximum_range_m=100.0,
        minimum_range_m=1.0,
        reach_m=110.0,
        mounting_height_m=1.84,
        rate_hz=20.0,
    )


def _waymo_top() -> LidarModel:
    # 64 beams from +2.4 to -17.6 degrees, closer together near the horizon, 2650 columns, 75 m
    # (Sun et al., "Scalability in perception for autonomous driving", CVPR 2020).
    share = np.linspace(0, 1, 64)
    return LidarModel(
        elevations_deg=2.4 - 20.0 * (0.55 * share + 0.45 * share**2),
        heights_m=np.zeros(64),
        columns=2650,
        range_noise_m=0.012,
        maximum_range_m=75.0,
        minimum_range_m=1.0,
        reach_m=190.0,
        mounting_height_m=2.18,
    )


LIDARS = {"hdl64e": _hdl_64e, "hdl32e": _hdl_32e, "waymo": _waymo_top}
"""Scanners by name."""


@dataclass(frozen=True)
class Scan:
    """One turn of a scanner."""

    points: Float32[np.ndarray, "P 4"]
    """x, y, z in the scanner's frame, intensity in [0, 1]."""
    owner: Int32[np.ndarray, " P"]
    """Actor that each point lies on; -1: none."""
    ring: Int32[np.ndarray, " P"]
    """Beam of each point."""


def scan(
    lidar: LidarModel,
    scene: RayScene,
    snapshot: Snapshot,
    world_from_lidar: Float[np.ndarray, "4 4"],
    rng: np.random.Generator,
    *,
    world_from_lidar_end: Float[np.ndarray, "4 4"] | None = None,
) -> Scan:
    """What a scanner sees of a snapshot.

    Args:
        scene: the snapshot's mesh.
        world_from_lidar: where the scanner is, at the start of its turn if it moves.
        rng: for noise and drop-outs.
        world_from_lidar_end: where it is at the end of the turn; the scan is then bent by the
            motion as a raw scan is: points are in the scanner's frame at their own moment.
    """
    rays = _world_rays(lidar, world_from_lidar, world_from_lidar_end)
    echoes = measure(lidar, scene, snapshot, rays, rng)
    seen = echoes.seen & lidar.clear
    ring = np.repeat(np.arange(lidar.beams, dtype=np.int32), lidar.columns)[seen]
    local, distance = lidar.rays[seen], echoes.distance_m[seen]
    if lidar.biases_m:
        distance = distance + np.array(lidar.biases_m, np.float32)[ring]
    points = local[:, :3] + distance[:, None] * local[:, 3:]
    shown = echoes.intensity[seen]
    if lidar.gains:
        shown = np.clip(shown * np.array(lidar.gains, np.float32)[ring], 0.0, 0.99)
    # Millimetres and hundredths, as Velodyne's own driver gives them.
    scan_points = np.column_stack([np.round(points, 3), np.round(shown, 2)])
    return Scan(scan_points.astype(np.float32), owners(echoes.hits, snapshot)[seen], ring)


def _world_rays(lidar: LidarModel, start, end) -> Float32[np.ndarray, "R 6"]:
    local = lidar.rays
    start = np.asarray(start, np.float32)
    origin = turned(local[:, :3], start) + start[:3, 3]
    if end is not None:
        # A tenth of a second turns a car by little: the shift alone is followed.
        share = np.tile(np.arange(lidar.columns, dtype=np.float32) / lidar.columns, lidar.beams)
        origin = origin + share[:, None] * (np.asarray(end, np.float32)[:3, 3] - start[:3, 3])
    return np.concatenate([origin, turned(local[:, 3:], start)], 1)
