"""A pinhole camera that shades what it sees: sun, shadows, sky, haze and a little texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from datasets.simulation.materials import Material
from datasets.simulation.meshes import turned
from datasets.simulation.raycast import Hits, RayScene
from datasets.simulation.world import Snapshot

HAZE = np.array([0.80, 0.86, 0.93], np.float32)
SKY = np.array([0.42, 0.60, 0.86], np.float32)


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
        homogeneous = np.column_stack([pixels, np.ones(len(pixels))]).astype(np.float32)
        directions = turned(homogeneous, world_from_camera[:3, :3] @ np.linalg.inv(intrinsics))
        directions /= np.sqrt(np.einsum("ij,ij->i", directions, directions))[:, None]
        origin = world_from_camera[:3, :3] @ center + world_from_camera[:3, 3]
        rays = np.empty((len(pixels), 6), np.float32)
        rays[:, :3], rays[:, 3:] = origin, directions
        return rays

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
    hits = scene.cast(rays)
    up = rays[:, 5]
    fade = np.clip(up * 3.2, 0, 1)[:, None]
    picture = HAZE * (1 - fade) + SKY * fade
    met = np.flatnonzero(hits.met)
    picture[met] = _shade(rays[met], _subset(hits, met), scene, snapshot, light)
    width, height = camera.size
    encoded = np.sqrt(np.clip(light.exposure * picture, 0, 1))
    return (encoded * 255).astype(np.uint8).reshape(height, width, 3)


def _shade(rays, hits: Hits, scene: RayScene, snapshot: Snapshot, light: Light):
    places = rays[:, :3] + hits.distance_m[:, None] * rays[:, 3:]
    normals = hits.normals
    materials = snapshot.mesh.materials[hits.triangle]
    colors = np.square(snapshot.mesh.colors)[hits.triangle]               # to linear light
    colors *= _texture(materials, places)[:, None]

    sun = light.sun.astype(np.float32)
    facing = np.einsum("ij,j->i", normals, sun)
    lit = (facing > 0) & (light.strength > 0)
    towards = np.flatnonzero(lit)
    shadow_rays = np.empty((len(towards), 6), np.float32)
    shadow_rays[:, :3] = places[towards] + 0.02 * normals[towards]
    shadow_rays[:, 3:] = sun
    direct = np.zeros(len(rays), np.float32)
    direct[towards] = facing[towards] * ~scene.blocked(shadow_rays)

    ambient = 0.36 + 0.20 * normals[:, 2] + 0.25 * (light.strength == 0)
    warm = np.array([1.12, 1.02, 0.88], np.float32) * np.float32(light.strength)
    shaded = colors * (ambient[:, None] * HAZE + direct[:, None] * warm)

    # Glass and paint mirror the sky, the more the flatter one looks at them.
    cosine = np.abs(np.einsum("ij,ij->i", rays[:, 3:], normals))
    mirrored = rays[:, 5] + 2 * cosine * normals[:, 2]
    shine = np.where(materials == Material.GLASS, 0.55, 0.0)
    shine = np.where(materials == Material.PAINT, 0.18, shine) * (1 - 0.8 * cosine)
    shine = (shine * np.clip(0.25 + mirrored, 0, 1)).astype(np.float32)[:, None]
    shaded = shaded * (1 - shine) + SKY * shine

    haze = 1 - np.exp(-hits.distance_m / 450)
    return shaded * (1 - haze[:, None]) + HAZE * haze[:, None]


def _texture(materials, places) -> Float32[np.ndarray, " N"]:
    """Grain of ground and walls, joints of paving and bricks: a factor around 1."""
    factor = np.ones(len(materials), np.float32)
    grain = {
        Material.ASPHALT: (0.05, 0.22), Material.PAVING: (0.12, 0.16), Material.GRASS: (0.10, 0.5),
        Material.PLASTER: (0.3, 0.08), Material.BRICK: (0.15, 0.3), Material.ROOF: (0.25, 0.3),
        Material.CONCRETE: (0.2, 0.12), Material.KERB: (0.1, 0.15), Material.BARK: (0.05, 0.3),
    }  # fmt: skip
    cell, depth = np.ones((2, len(Material)), np.float32)
    depth[:] = 0
    for material, (size, amount) in grain.items():
        cell[material], depth[material] = size, amount
    amount = depth[materials]
    some = np.flatnonzero(amount)
    scaled = places[some] / cell[materials[some]][:, None]
    factor[some] += amount[some] * (_hash(scaled) - 0.5)
    factor[some] += 0.6 * amount[some] * (_hash(scaled / 17) - 0.5)
    return factor


def _hash(places) -> Float32[np.ndarray, " N"]:
    """A number in [0, 1) for each cell of a unit lattice; looks random."""
    cells = np.floor(places).astype(np.int32).astype(np.uint32)
    mixed = cells[:, 0] * np.uint32(73856093) ^ cells[:, 1] * np.uint32(19349663)
    mixed ^= cells[:, 2] * np.uint32(83492791)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(1274126177)
    return ((mixed >> np.uint32(8)) & np.uint32(0xFFFF)).astype(np.float32) / 65536


def _subset(hits: Hits, rows) -> Hits:
    return Hits(hits.distance_m[rows], hits.triangle[rows], hits.normals[rows])
