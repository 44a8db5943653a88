"""Automotive radar at 77 GHz: a few targets a sweep, coarse in angle, exact in radial speed.

It differs from the laser where real radars do: it looks below vehicles and through leaves, gets
little from people and much from metal, sees walls twice, and reports no height. Orders of magnitude
are those of the data sheet of Continental's ARS 408-21, the radar of nuScenes' cars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from datasets.simulation.materials import Material
from datasets.simulation.moments import TwoScenes
from datasets.simulation.raycast import RayScene, owners
from datasets.simulation.world import Snapshot, World

# Mean radar cross-section in dBsm, its spread, and how many returns one near object gives.
CROSS_SECTIONS = {
    "car": (10.0, 4.0, 3.0), "van": (13.0, 4.0, 3.5), "truck": (18.0, 5.0, 5.0),
    "pedestrian": (-1.0, 3.0, 0.6), "sitting_person": (-2.0, 3.0, 0.4),
    "cyclist": (3.0, 3.0, 1.0),
}  # fmt: skip
# Chance that a ray on a surface of the town comes back as a target, and its mean dBsm.
BACKGROUND = {
    Material.METAL: (0.6, 8.0), Material.RETRO: (0.6, 6.0), Material.CONCRETE: (0.25, 4.0),
    Material.BRICK: (0.2, 3.0), Material.PLASTER: (0.15, 2.0), Material.BARK: (0.15, 0.0),
    Material.WOOD: (0.1, -2.0), Material.KERB: (0.08, -6.0), Material.FOLIAGE: (0.06, -5.0),
    Material.GRASS: (0.006, -10.0), Material.ASPHALT: (0.003, -12.0),
}  # fmt: skip
MOVING, STATIONARY, ONCOMING, CROSSING_MOVING, STOPPED = 0, 1, 2, 6, 7
VALID, MIRRORED = 0, 6
_BACKGROUND_RAYS = 200
_POINTS_OF_ACTOR = 10


@dataclass(frozen=True)
class RadarModel:
    """What one radar sees; its frame is x forward, y left."""

    half_view_deg: float = 60.0
    maximum_range_m: float = 100.0
    maximum_targets: int = 125
    range_noise_m: float = 0.15
    angle_noise_deg: float = 0.5
    """At the middle of the view; twice that at its edge."""
    speed_noise_mps: float = 0.1
    step_m: float = 0.2
    """Positions are multiples of it."""
    rate_hz: float = 13.0


@dataclass(frozen=True)
class RadarTargets:
    """One sweep, in the radar's frame."""

    position: Float64[np.ndarray, "P 2"]
    rcs_dbsm: Float64[np.ndarray, " P"]
    velocity: Float64[np.ndarray, "P 2"]
    """The radial part of the velocity over ground, as a vector."""
    relative_velocity: Float64[np.ndarray, "P 2"]
    """The radial part of the velocity against the radar."""
    owner: Int64[np.ndarray, " P"]
    """Actor that the target lies on; -1: none."""
    dynamic_property: Int64[np.ndarray, " P"]
    invalid_state: Int64[np.ndarray, " P"]
    false_alarm: Int64[np.ndarray, " P"]
    """Class of its probability, 1 (< 25 %) to 7."""


def sense(
    radar: RadarModel,
    scene: RayScene | TwoScenes,
    snapshot: Snapshot,
    world: World,
    time_s: float,
    world_from_radar: Float[np.ndarray, "4 4"],
    rng: np.random.Generator,
) -> RadarTargets:
    """What a radar reports of a moment."""
    origin, turn = world_from_radar[:3, 3], world_from_radar[:3, :3]
    actor_rays, actor_of_ray = _rays_at_actors(radar, snapshot, world, time_s, origin, turn, rng)
    angle = np.radians(rng.uniform(-radar.half_view_deg, radar.half_view_deg, _BACKGROUND_RAYS))
    rise = np.radians(rng.uniform(-1.5, 3.0, _BACKGROUND_RAYS))
    ahead = np.stack(
        [np.cos(angle) * np.cos(rise), np.sin(angle) * np.cos(rise), np.sin(rise)], -1
    )
    directions = np.concatenate([actor_rays, ahead @ turn.T])
    rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], 1)
    hits = scene.cast(rays)
    owner = owners(hits, snapshot)
    distance = np.where(hits.met, hits.distance_m, 0.0)
    places = (distance[:, None] * directions) @ turn                            # (N, 3) radar
    materials = snapshot.mesh.materials[hits.triangle]

    count = len(actor_rays)
    on_actors = _returns_of_actors(
        world, actor_of_ray, owner[:count], materials[:count], places[:count], rng
    )
    of_town = _returns_of_town(owner[count:], materials[count:], places[count:], rng)
    clutter = _clutter(radar, rng)
    position, rcs, target_owner = (
        np.concatenate(parts) for parts in zip(on_actors, of_town, clutter, strict=True)
    )
    ghosts = np.flatnonzero((target_owner >= 0) & (rng.random(len(rcs)) < 0.04))
    stretch = rng.uniform(1.2, 1.7, (len(ghosts), 1))
    position = np.concatenate([position, position[ghosts] * stretch])
    rcs = np.concatenate([rcs, rcs[ghosts] - rng.uniform(4, 10, len(ghosts))])
    mover = np.concatenate([target_owner, target_owner[ghosts]])
    target_owner = np.concatenate([target_owner, np.full(len(ghosts), -1)])

    distance = np.hypot(*position.T)
    heard = 1 / (1 + np.exp(-(rcs - 40 * np.log10(np.maximum(distance, 1) / 50)) / 3))
    azimuth = np.abs(np.degrees(np.arctan2(position[:, 1], position[:, 0])))
    keep = (rng.random(len(rcs)) < heard) & (azimuth < radar.half_view_deg)
    keep &= (distance > 0.5) & (distance < radar.maximum_range_m)
    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(-rcs[kept], kind="stable")][: radar.maximum_targets]
    is_ghost = kept >= len(rcs) - len(ghosts)
    return _report(
        radar, position[kept], rcs[kept], mover[kept], target_owner[kept], is_ghost, world, time_s,
        turn, rng,
    )  # fmt: skip


def _rays_at_actors(radar, snapshot, world, time_s, origin, turn, rng):
    """Directions towards points on the actors in view, and whose points they are."""
    directions, whose = [np.zeros((0, 3))], [np.zeros(0, np.int64)]
    for index, actor in enumerate(world.actors):
        first, last = snapshot.ranges[index]
        offset = (actor.track.pose(time_s)[:3, 3] - origin) @ turn
        if first == last or np.hypot(*offset[:2]) > radar.maximum_range_m + 5:
            continue
        if abs(np.degrees(np.arctan2(offset[1], offset[0]))) > radar.half_view_deg + 10:
            continue
        triangles = snapshot.mesh.triangles[rng.integers(first, last, _POINTS_OF_ACTOR)]
        points = snapshot.mesh.vertices[triangles].mean(1) - origin               # (K, 3)
        directions.append(points / np.linalg.norm(points, axis=1, keepdims=True))
        whose.append(np.full(len(points), index))
    return np.concatenate(directions), np.concatenate(whose)


def _returns_of_actors(world, actor_of_ray, owner, materials, places, rng):
    """Places, cross-sections and owners of the targets on actors."""
    rows, strengths = [], []
    for index in np.unique(actor_of_ray):
        rays = np.flatnonzero(actor_of_ray == index)
        seen = owner[rays] == index
        # Below another vehicle, or through leaves, part of the wave gets by.
        hidden = (owner[rays] >= 0) & ~seen
        by = hidden & (rng.random(len(rays)) < 0.15)
        by |= ~seen & (materials[rays] == Material.FOLIAGE) & (rng.random(len(rays)) < 0.4)
        mean, spread, returns = CROSS_SECTIONS[world.actors[index].category]
        strength = rng.normal(mean, spread)
        near = 20 / max(np.hypot(*places[rays, :2].T).min(), 20)
        chosen = rays[seen][: 1 + rng.poisson(returns * near)]
        rows.append(chosen)
        strengths.append(strength + rng.normal(-2, 2, len(chosen)))
        if not len(chosen) and by.any():
            rows.append(rays[by][:1])
            strengths.append(strength + rng.normal(-9, 2, 1))
    chosen = np.concatenate([np.zeros(0, np.int64), *rows])
    strengths = np.concatenate([np.zeros(0), *strengths])
    return places[chosen, :2], strengths, actor_of_ray[chosen]


def _returns_of_town(owner, materials, places, rng):
    chance, strength = np.zeros((2, len(Material)))
    for material, (share, mean) in BACKGROUND.items():
        chance[material], strength[material] = share, mean
    rows = np.flatnonzero((owner == -1) & (rng.random(len(owner)) < chance[materials]))
    rcs = strength[materials[rows]] + rng.normal(0, 4, len(rows))
    return places[rows, :2], rcs, np.full(len(rows), -1)


def _clutter(radar: RadarModel, rng: np.random.Generator):
    """Targets where nothing is."""
    count = rng.poisson(1.5)
    angle = np.radians(rng.uniform(-radar.half_view_deg, radar.half_view_deg, count))
    distance = rng.uniform(2, 60, count)
    position = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return position, rng.normal(0, 5, count), np.full(count, -1)


def _report(
    radar, position, rcs, mover, owner, is_ghost, world, time_s, turn, rng
) -> RadarTargets:
    """Targets as the radar measures them: with noise, in steps, with radial speeds."""
    count = len(rcs)
    unit = position / np.maximum(np.linalg.norm(position, axis=1, keepdims=True), 1e-9)
    velocity = np.zeros((count, 2))
    speed = np.zeros(count)
    for index in np.unique(mover[mover >= 0]):
        full = world.actors[index].track.velocity(time_s)
        velocity[mover == index] = (full @ turn)[:2]
        speed[mover == index] = np.hypot(*full[:2])
    own = (world.drive.velocity(time_s) @ turn)[:2]
    wobble = np.where(speed > 0.3, 0.2, 0.0) * rng.standard_normal(count)
    radial = (velocity * unit).sum(1) + wobble + rng.normal(0, radar.speed_noise_mps, count)
    relative = radial - unit @ own

    distance = np.linalg.norm(position, axis=1) + rng.normal(0, radar.range_noise_m, count)
    angle = np.arctan2(position[:, 1], position[:, 0])
    widening = 1 + np.abs(np.degrees(angle)) / radar.half_view_deg
    angle = angle + np.radians(radar.angle_noise_deg) * widening * rng.standard_normal(count)
    measured = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    crossing = (speed > 1) & (np.abs(radial) < 0.5 * speed)
    state = np.where(radial < -0.5, ONCOMING, MOVING)
    state = np.where(crossing, CROSSING_MOVING, state)
    halted = np.where((mover >= 0) & (rng.random(count) < 0.15), STOPPED, STATIONARY)
    return RadarTargets(
        position=np.round(measured / radar.step_m) * radar.step_m,
        rcs_dbsm=np.round(rcs * 2) / 2,
        velocity=radial[:, None] * unit,
        relative_velocity=relative[:, None] * unit,
        owner=owner,
        dynamic_property=np.where(np.abs(radial) > 0.5, state, halted),
        invalid_state=np.where(is_ghost & (rng.random(count) < 0.5), MIRRORED, VALID),
        false_alarm=np.where(is_ghost | (rcs < -5), rng.integers(2, 5, count), 1),
    )
