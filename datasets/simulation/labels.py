"""What a camera sees of the actors: their boxes in the picture, how far cut off, how far hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from datasets.simulation.camera import CameraModel
from datasets.simulation.meshes import Mesh
from datasets.simulation.raycast import RayScene, owners
from datasets.simulation.world import Snapshot

_NEAR = 0.3
"""Nearer to the camera's plane than this, an actor is cut off before it is projected, metres."""
_SAMPLES = 26
"""An actor's visibility is tried on a lattice of at most this many pixels each way."""


@dataclass(frozen=True)
class View:
    """What a camera sees of one actor."""

    actor: int
    """Index in `World.actors`."""
    bbox: Float64[np.ndarray, " 4"]
    """Left, top, right, bottom: tight around the actor, cut to the picture, pixels."""
    truncation: float
    """Share of the uncut box that lies outside the picture."""
    visible: float
    """Share of the actor's pixels in the picture that nothing hides."""


def views(
    camera: CameraModel,
    scene: RayScene,
    snapshot: Snapshot,
    world_from_camera: Float[np.ndarray, "4 4"],
) -> list[View]:
    """A view of each actor whose outline lies at least partly in the picture, hidden or not."""
    camera_from_world = np.linalg.inv(world_from_camera)
    found, pixels, counts = [], [], []
    for actor in range(len(snapshot.ranges)):
        part = snapshot.part(actor)
        outline = projected_extent(camera, camera_from_world, part)
        if outline is None:
            continue
        bbox = np.clip(outline, 0, np.tile(camera.size, 2) - 1)
        if (bbox[2:] <= bbox[:2]).any():
            continue
        lattice = _lattice(bbox)
        alone = RayScene(part).cast(camera.rays(world_from_camera, lattice)).met
        if not alone.any():
            continue
        found.append((actor, bbox, 1 - _area(bbox) / _area(outline)))
        pixels.append(lattice[alone])
        counts.append(int(alone.sum()))
    if not found:
        return []
    hits = scene.cast(camera.rays(world_from_camera, np.concatenate(pixels)))
    seen_owner = np.split(owners(hits, snapshot), np.cumsum(counts)[:-1])
    return [
        View(actor, bbox, float(np.clip(cut, 0, 1)), float((seen == actor).mean()))
        for (actor, bbox, cut), seen in zip(found, seen_owner, strict=True)
    ]


def projected_extent(
    camera: CameraModel, camera_from_world: Float[np.ndarray, "4 4"], part: Mesh
) -> Float64[np.ndarray, " 4"] | None:
    """Left, top, right, bottom of a mesh in the picture's plane, not cut to the picture; None
    where it lies behind the camera."""
    points = part.vertices.astype(np.float64) @ camera_from_world[:3, :3].T
    points += camera_from_world[:3, 3]
    if (points[:, 2] < _NEAR).any():
        if (points[:, 2] < _NEAR).all():
            return None
        edges = points[part.triangles[:, [0, 1, 1, 2, 2, 0]]].reshape(-1, 2, 3)
        starts, ends = edges[:, 0], edges[:, 1]
        crosses = (starts[:, 2] < _NEAR) != (ends[:, 2] < _NEAR)
        starts, ends = starts[crosses], ends[crosses]
        share = (_NEAR - starts[:, 2]) / (ends[:, 2] - starts[:, 2])
        cut = starts + share[:, None] * (ends - starts)
        points = np.concatenate([points[points[:, 2] >= _NEAR], cut])
    projected = points @ camera.projection[:, :3].T + camera.projection[:, 3]
    flat = projected[:, :2] / projected[:, 2:]
    return np.concatenate([flat.min(0), flat.max(0)])


def occlusion_level(visible: float) -> int:
    """KITTI's degree for a visible share: 0 wholly visible, 1 partly and 2 largely hidden, 3
    hardly to be judged. KITTI gives no figures; these limits reproduce how often it uses each."""
    return int(np.searchsorted([-0.88, -0.50, -0.08], -visible))


def merged(boxes: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "M 4"]:
    """Boxes with those that overlap replaced by the box around them."""
    groups: list[np.ndarray] = []
    for box in boxes:
        box = box.copy()
        while True:
            touching = [
                g for g in groups if (g[:2] < box[2:]).all() and (box[:2] < g[2:]).all()
            ]
            if not touching:
                break
            groups = [g for g in groups if not any(g is t for t in touching)]
            together = np.stack([box, *touching])
            box = np.concatenate([together[:, :2].min(0), together[:, 2:].max(0)])
        groups.append(box)
    return np.array(groups, np.float64).reshape(-1, 4)


def points_per_actor(owner: Int64[np.ndarray, " P"], actors: int) -> Int64[np.ndarray, " N"]:
    """How many points of a scan lie on each actor."""
    return np.bincount(owner[owner >= 0], minlength=actors)


def _lattice(bbox) -> Float[np.ndarray, "N 2"]:
    """Pixels spread evenly over a box, whole ones where it is small."""
    axes = []
    for low, high in zip(bbox[:2], bbox[2:], strict=True):
        count = int(np.clip(np.ceil(high - low), 2, _SAMPLES))
        axes.append(low + (np.arange(count) + 0.5) * (high - low) / count)
    u, v = np.meshgrid(*axes)
    return np.stack([u, v], -1).reshape(-1, 2)


def _area(bbox) -> float:
    return float((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))
