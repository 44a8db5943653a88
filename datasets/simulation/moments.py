"""Many moments of one world, made cheap: what stands still is made ready for rays once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from datasets.simulation.meshes import Mesh, join
from datasets.simulation.raycast import Hits, RayScene
from datasets.simulation.world import Snapshot, World

POSTURES_HZ = 10.0


class Moments:
    """Snapshots of a world at any time, with the scenes to cast rays in.

    Things are where they are at that time; how they hold their limbs changes ten times a second.

    Args:
        reach_m: moving actors farther than this from the drive's place are left out of a moment.
        threads: to cast with.
    """

    def __init__(self, world: World, reach_m: float = 100.0, threads: int = 1):
        self.world, self.reach_m, self.threads = world, reach_m, threads
        standing = [i for i, a in enumerate(world.actors) if len(a.track.times_s) == 1]
        self._moving = [i for i in range(len(world.actors)) if i not in set(standing)]
        shapes = [world.actors[i].shape(0.0).moved(world.actors[i].track.pose(0.0))
                  for i in standing]  # fmt: skip
        self._still = join([world.town, *shapes])
        lengths = [len(world.town), *map(len, shapes)]
        self._still_owner = np.repeat(np.array([-1, *standing], np.int32), lengths)
        ends = np.cumsum(lengths).tolist()
        self._still_ranges = dict(zip(standing, zip(ends[:-1], ends[1:], strict=True), strict=True))
        self._still_scene = RayScene(self._still, threads)
        self._postures: dict[tuple[int, int], Mesh] = {}

    def at(self, time_s: float) -> tuple[TwoScenes, Snapshot]:
        """The scene and the snapshot at one moment; absent actors have no triangles."""
        actors, here = self.world.actors, self.world.drive.pose(time_s)[:2, 3]
        near = [
            i for i in self._moving
            if np.hypot(*(actors[i].track.pose(time_s)[:2, 3] - here)) < self.reach_m
        ]  # fmt: skip
        shapes = [self._posture(i, time_s).moved(actors[i].track.pose(time_s)) for i in near]
        lengths = list(map(len, shapes))
        ends = (len(self._still) + np.cumsum([0, *lengths])).tolist()
        ranges = dict(zip(near, zip(ends[:-1], ends[1:], strict=True), strict=True))
        ranges |= self._still_ranges
        snapshot = Snapshot(
            mesh=join([self._still, *shapes]),
            owner=np.concatenate(
                [self._still_owner, np.repeat(np.array(near, np.int32), lengths)]
            ).astype(np.int32),
            ranges=tuple(ranges.get(i, (0, 0)) for i in range(len(actors))),
        )
        moving = RayScene(join(shapes), self.threads) if shapes else None
        return TwoScenes(self._still_scene, moving, len(self._still)), snapshot

    def _posture(self, actor: int, time_s: float) -> Mesh:
        """The actor's shape at the nearest step of POSTURES_HZ."""
        key = actor, round(time_s * POSTURES_HZ)
        if key not in self._postures:
            self._postures[key] = self.world.actors[actor].shape(key[1] / POSTURES_HZ)
        return self._postures[key]


class TwoScenes:
    """Two scenes as one; triangles of the second are numbered after those of the first."""

    def __init__(self, still: RayScene, moving: RayScene | None, first: int):
        self._still, self._moving, self._first = still, moving, first

    def cast(self, rays: Float[np.ndarray, "N 6"]) -> Hits:
        """As `RayScene.cast`."""
        hits = self._still.cast(rays)
        if self._moving is None:
            return hits
        others = self._moving.cast(rays)
        nearer = others.distance_m < hits.distance_m
        return Hits(
            np.where(nearer, others.distance_m, hits.distance_m),
            np.where(nearer, others.triangle + self._first, hits.triangle).astype(np.int32),
            np.where(nearer[:, None], others.normals, hits.normals),
        )

    def blocked(self, rays: Float[np.ndarray, "N 6"]) -> Bool[np.ndarray, " N"]:
        """As `RayScene.blocked`."""
        blocked = self._still.blocked(rays)
        return blocked if self._moving is None else blocked | self._moving.blocked(rays)
