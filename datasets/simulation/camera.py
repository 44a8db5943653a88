"""A pinhole camera that shades what it sees: sun, shadows, sky, haze and a little texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from datasets.simulation.raycast import Hits, RayScene
from datasets.simulation.shading import between, facing_sun, pixel_rays, shade
from datasets.simulation.world import Snapshot


@dataclass(frozen=True)
class CameraModel:
    """Where a camera is and how it projects."""

    projection: Float[np.ndarray, "3 4"]
    """Homogeneous camera coordinates (x right, y down, z forward) -> pixels times depth."""
    size: tuple[int, int]
    """Width, height in pixels."""

    def rays(
        self, world_from_camera: Float[np.ndarray, "4 4"], pixels: Float[np.ndarray, "N 2"]
    ) -> Float32[np.ndarray, "N 6"]:
        """The ray through each pixel (u, v), in the world frame, from the camera's centre."""
        intrinsics = self.projection[:, :3]
        center = -np.linalg.solve(intrinsics, self.projection[:, 3])
        world_from_pixel = world_from_camera[:3, :3] @ np.linalg.inv(intrinsics)
        origin = world_from_camera[:3, :3] @ center + world_from_camera[:3, 3]
        return pixel_rays(
            np.asarray(pixels, np.float32), world_from_pixel.astype(np.float32),
            origin.astype(np.float32),
        )  # fmt: skip

    def all_pixels(self) -> Float32[np.ndarray, "N 2"]:
        """Every pixel, row by row."""
        width, height = self.size
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        return np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True)
class Light:
    """The day's light."""

    sun: Float[np.ndarray, " 3"]
    """Unit vector towards the sun, world frame."""
    strength: float
    """Of the sun against the sky's light; 0 is an overcast day."""
    exposure: float


def draw_light(rng: np.random.Generator) -> Light:
    """A day at random: sunny mostly, the sun between low and high."""
    turn, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.15)
    sun = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
    strength = 0.0 if rng.random() < 0.2 else rng.uniform(0.6, 1.1)
    return Light(sun, float(strength), float(rng.uniform(1.05, 1.4)))


def render(
    camera: CameraModel,
    scene: RayScene,
    snapshot: Snapshot,
    world_from_camera: Float[np.ndarray, "4 4"],
    light: Light,
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture, RGB."""
    rays = camera.rays(world_from_camera, camera.all_pixels())
    hits = _look(camera.size, scene, rays)
    materials, colors = snapshot.mesh.materials, snapshot.mesh.colors
    sun = light.sun.astype(np.float32)
    if light.strength > 0:
        towards, shadow_rays = facing_sun(rays, hits.distance_m, hits.normals, sun)
        sunlit = np.zeros(len(rays), np.bool_)
        sunlit[towards] = ~scene.blocked(shadow_rays)
    else:
        sunlit = np.zeros(len(rays), np.bool_)
    picture = shade(
        rays, hits.distance_m, hits.triangle, hits.normals, sunlit, materials, colors, sun,
        np.float32(light.strength), np.float32(light.exposure),
    )  # fmt: skip
    width, height = camera.size
    return picture.reshape(height, width, 3)


def _look(size: tuple[int, int], scene: RayScene, rays: Float32[np.ndarray, "N 6"]) -> Hits:
    """What the rays of all pixels meet. Every second one each way is cast; between those that meet
    one triangle or nothing, the others follow from them."""
    width, height = size
    lattice = np.arange(width * height, dtype=np.int64).reshape(height, width)
    chosen = lattice[::2, ::2].ravel()
    distance = np.full(len(rays), np.inf, np.float32)
    triangle = np.zeros(len(rays), np.int32)
    normals = np.zeros((len(rays), 3), np.float32)

    def cast(which) -> None:
        found = scene.cast(rays[which])
        distance[which], triangle[which] = found.distance_m, found.triangle
        normals[which] = found.normals

    cast(chosen)
    cast(between(width, height, rays, distance, triangle, normals))
    return Hits(distance, triangle, normals)
