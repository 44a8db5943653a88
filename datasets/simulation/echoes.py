"""What comes back of a scanner's pulses: through leaves and panes, off paint and walls, down to
what the receiver just makes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from datasets.simulation import materials as optics
from datasets.simulation.meshes import Mesh
from datasets.simulation.raycast import Hits, RayScene
from datasets.simulation.world import Snapshot

if TYPE_CHECKING:
    from datasets.simulation.lidar import LidarModel

_PASSAGES = 4
"""A pulse that went through this many panes or leaves is given up."""
_STEP_M = 0.02
"""A pulse goes on this far behind what it went through."""


@dataclass(frozen=True)
class Echoes:
    """What comes back of N pulses, one by one."""

    hits: Hits
    """What each met, behind what it went through; distances from where the pulse started."""
    seen: Bool[np.ndarray, " N"]
    """Whether enough light came back; the rest is only meant where it did."""
    distance_m: Float32[np.ndarray, " N"]
    """As measured."""
    intensity: Float32[np.ndarray, " N"]
    """In [0, 1)."""


def measure(
    lidar: LidarModel,
    scene: RayScene,
    snapshot: Snapshot,
    rays: Float[np.ndarray, "N 6"],
    rng: np.random.Generator,
) -> Echoes:
    """Sends pulses along any rays (world frame) with a scanner's laser and receiver."""
    mesh = snapshot.mesh
    hits, fate, left = _through(scene, mesh, rays, rng)
    draws = rng.random((3, len(rays)), dtype=np.float32)
    noise = rng.standard_normal(len(rays), dtype=np.float32)
    material, color = mesh.materials[hits.triangle], mesh.colors[hits.triangle]
    cosine = np.abs(np.einsum("ij,ij->i", hits.normals, rays[:, 3:]))
    reflectance = left * optics.laser_reflectance(material, color)

    # Never 0: a pulse that starts behind leaves may meet the next one at once.
    distance = np.where(hits.met, np.maximum(hits.distance_m, np.float32(1e-3)), np.float32(1e6))
    # The light that arrives falls with the square of the distance; its detection is a matter of
    # chance around the threshold.
    arriving = reflectance * (0.05 + 0.95 * cosine) / 0.4 * (lidar.reach_m / distance) ** 2
    seen = draws[0] < arriving**1.5 / (1 + arriving**1.5)
    seen &= fate < 1 - optics.lost_share(material, color, cosine)
    seen &= draws[1] > lidar.missed_share
    distance = distance + lidar.range_noise_m * noise
    seen &= (distance > lidar.minimum_range_m) & (distance < lidar.maximum_range_m)

    # Spread as measured: a tenth of all returns comes out near zero.
    spread = np.minimum(0.55 + 0.75 * draws[2], 8 * draws[2])
    shown = 1.1 * reflectance * (0.55 + 0.45 * np.sqrt(cosine)) * spread
    # Calibration takes the distance out, but not below what the receiver makes out: from 20 m on
    # the more surfaces show as black the farther and the flatter they are met.
    far = np.maximum(distance / lidar.reach_m - 0.115, 0)
    floor = 0.06 + far * (2.3 - 0.9 * np.minimum(2 * cosine, 1))
    return Echoes(hits, seen, distance, np.clip(shown - floor, 0.0, 0.99).astype(np.float32))


def _through(
    scene: RayScene, mesh: Mesh, rays: Float[np.ndarray, "N 6"], rng: np.random.Generator
) -> tuple[Hits, Float32[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """What pulses meet behind the leaves and panes that they pass.

    A pane is alike all over: one draw decides about the pulses that meet it, and whole windscreens
    stay dark. Leaves are met one by one.

    Returns:
        hits; each pulse's fate at what it met: a number in [0, 1), passed ones below; the share
        of its light that got there.
    """
    # Both triangles of a four-cornered face share their first vertex.
    by_face = rng.random(len(mesh.vertices), dtype=np.float32)
    hits = scene.cast(rays)
    distance, triangle, normals = hits.distance_m, hits.triangle, hits.normals
    fate = _fate(mesh, triangle, by_face, rng)
    left = np.ones(len(rays), np.float32)
    underway = np.arange(len(rays))
    for _ in range(_PASSAGES):
        material = mesh.materials[triangle[underway]]
        through = hits.met & (fate[underway] < optics.passed_share(material))
        underway = underway[through]
        if not len(underway):
            break
        left[underway] *= optics.clearness(material[through])
        onward = rays[underway].copy()
        gone = distance[underway] + np.float32(_STEP_M)
        onward[:, :3] += gone[:, None] * onward[:, 3:]
        hits = scene.cast(onward)
        distance[underway] = hits.distance_m + gone
        triangle[underway], normals[underway] = hits.triangle, hits.normals
        fate[underway] = _fate(mesh, hits.triangle, by_face, rng)
    return Hits(distance, triangle, normals), fate, left


def _fate(
    mesh: Mesh, triangle: Int64[np.ndarray, " N"], by_face, rng: np.random.Generator
) -> Float32[np.ndarray, " N"]:
    own = rng.random(len(triangle), dtype=np.float32)
    alike = optics.SMOOTH[mesh.materials[triangle]]
    shared = by_face[mesh.triangles[triangle, 0]]
    # A few pulses fare otherwise than the rest of their pane: dirt, seals, edges.
    return np.where(alike & (own > 0.08), shared, own)
