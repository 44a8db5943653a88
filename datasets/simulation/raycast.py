"""Rays against a snapshot of the world, by Open3D's ray caster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32
from numba import njit

from datasets.simulation.meshes import Mesh
from datasets.simulation.world import Snapshot

NOTHING = -2
"""The owner of a ray that meets nothing; -1 is the town, 0 and above are actors."""


@dataclass(frozen=True)
class Hits:
    """What N rays met first."""

    distance_m: Float32[np.ndarray, " N"]
    """Along the ray; infinite where it met nothing."""
    triangle: Int32[np.ndarray, " N"]
    """Index in the snapshot's mesh; only meant where the distance is finite."""
    normals: Float32[np.ndarray, "N 3"]
    """Of the surface, on the side that the ray came from; unit length, world frame."""

    @property
    def met(self) -> Bool[np.ndarray, " N"]:
        return np.isfinite(self.distance_m)


class RayScene:
    """A mesh made ready for rays.

    Args:
        mesh: what there is.
        threads: how many to cast with; 0 for all.
    """

    def __init__(self, mesh: Mesh, threads: int = 1):
        import open3d as o3d

        self._tensor = o3d.core.Tensor
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=threads)
        self._scene.add_triangles(
            self._tensor(np.ascontiguousarray(mesh.vertices, np.float32)),
            self._tensor(np.ascontiguousarray(mesh.triangles, np.uint32)),
        )
        self._threads = threads

    def cast(self, rays: Float[np.ndarray, "N 6"]) -> Hits:
        """Origin and unit direction of each ray in the world frame -> what it meets first."""
        rays = np.ascontiguousarray(rays, np.float32)
        found = self._scene.cast_rays(self._tensor(rays), nthreads=self._threads)
        distance = found["t_hit"].numpy()
        triangle = found["primitive_ids"].numpy()
        normals = found["primitive_normals"].numpy()
        triangle = np.where(np.isfinite(distance), triangle, 0).astype(np.int32)
        return Hits(distance, triangle, _towards(rays, normals))

    def blocked(self, rays: Float[np.ndarray, "N 6"]) -> Bool[np.ndarray, " N"]:
        """Whether each ray meets anything at all."""
        rays = np.ascontiguousarray(rays, np.float32)
        return self._scene.test_occlusions(
            self._tensor(rays), tnear=0.02, nthreads=self._threads
        ).numpy()


@njit(cache=True, nogil=True)
def _towards(rays, normals):
    """Normals of unit length on the side that the rays come from."""
    result = np.empty((len(rays), 3), np.float32)
    for i in range(len(rays)):
        x, y, z = normals[i, 0], normals[i, 1], normals[i, 2]
        length = np.sqrt(x * x + y * y + z * z)
        scale = np.float32(1) / length if length > 0 else np.float32(1)
        if x * rays[i, 3] + y * rays[i, 4] + z * rays[i, 5] > 0:
            scale = -scale
        result[i, 0], result[i, 1], result[i, 2] = x * scale, y * scale, z * scale
    return result


def owners(hits: Hits, snapshot: Snapshot) -> Int32[np.ndarray, " N"]:
    """Which actor each ray met; -1 for the town, NOTHING where it met nothing."""
    return np.where(hits.met, snapshot.owner[hits.triangle], NOTHING).astype(np.int32)
