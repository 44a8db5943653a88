"""Automotive radar at 77 GHz: a few targets a sweep, coarse in angle, exact in radial speed.

It differs from the laser where real radars do: it now and then sees what stands behind vehicles
and leaves, gets little from people and much from metal, sees walls twice, doubts itself, and
reports no height. What answers well does so sweep after sweep; see `reflectors`.

Accuracies of angles are those that Continental gives for its ARS 408-21, the radar of nuScenes'
cars, at near range. How many targets a thing gives, cross-sections, speeds of what stands, and the
share of each state follow two sweeps and one annotated key frame of nuScenes v1.0 (250 targets, 69
boxes): 53 and 77 targets within 55 m, median 2 dBsm and none below -5; 6 and 2 targets on cars at
22 and 36 m, 1 at 40 m, none beyond 70 m; 6 on 8 people within 20 m, none on 24 farther ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from datasets.simulation.materials import Material
from datasets.simulation.moments import TwoScenes
from datasets.simulation.raycast import RayScene, owners
from datasets.simulation.reflectors import Reflectors
from datasets.simulation.world import Snapshot, World

# Mean radar cross-section in dBsm, its spread, and how many returns one in plain view gives on
# average within `near_m`; with the square of the distance they get fewer.
CROSS_SECTIONS = {
    "car": (7.0, 5.0, 5.0), "van": (9.0, 5.0, 6.0), "truck": (13.0, 5.0, 11.0),
    "pedestrian": (-6.0, 4.0, 1.1), "sitting_person": (-7.0, 4.0, 0.8),
    "cyclist": (-1.0, 4.0, 2.4), "bus": (14.0, 5.0, 11.0), "trailer": (13.0, 5.0, 10.0),
    "construction_vehicle": (11.0, 5.0, 8.0), "motorcycle": (1.0, 4.0, 1.6),
    "motorcyclist": (2.0, 4.0, 2.4), "traffic_cone": (-7.0, 4.0, 0.3), "barrier": (2.0, 4.0, 0.9),
}  # fmt: skip
# Chance that a ray on a surface of the town comes back as a target, times what `Reflectors` gives
# the place, and its mean dBsm.
BACKGROUND = {
    Material.METAL: (1.5, 5.5), Material.RETRO: (1.5, 3.5), Material.CONCRETE: (0.6, 2.0),
    Material.BRICK: (0.5, 1.0), Material.PLASTER: (0.38, 0.0), Material.BARK: (0.38, -1.0),
    Material.WOOD: (0.25, -3.0), Material.KERB: (0.2, -5.0), Material.FOLIAGE: (0.15, -4.0),
    Material.GRASS: (0.015, -7.0), Material.ASPHALT: (0.0075, -8.0),
}  # fmt: skip
MOVING, STATIONARY, ONCOMING, UNKNOWN, CROSSING_MOVING, STOPPED = 0, 1, 2, 4, 6, 7
VALID, LOW_CROSS_SECTION, MIRRORED, NO_SPEED = 0, 4, 6, 7
# Other states, which say that a target may be an artefact, and their shares.
DOUBTFUL = {9: 0.08, 11: 0.12, 16: 0.07}
UNAMBIGUOUS = 3
_BACKGROUND_RAYS = 480


@dataclass(frozen=True)
class RadarModel:
    """What one radar sees; its frame is x forward, y left."""

    half_view_deg: float = 60.0
    maximum_range_m: float = 100.0
    maximum_targets: int = 125
    range_noise_m: float = 0.15
    angle_noise_deg: tuple[float, float, float] = (0.3, 1.0, 5.0)
    """At 0, 45 and 60 degrees off the middle of the view."""
    speed_noise_mps: float = 0.18
    own_speed_noise_mps: float = 0.08
    """Of what a sweep takes for the vehicle's own velocity, each way."""
    speed_step_mps: float = 0.25
    """Relative velocities are multiples of it."""
    no_speed_share: float = 0.05
    """Targets whose speed is not known: it is given as 0."""
    ambiguous_share: float = 0.05
    """Targets that get the speed of another, by an ambiguity that was not resolved."""
    weakest_dbsm: float = -5.0
    """Weaker targets are not reported."""
    near_m: float = 20.0
    """Up to here, things give all their returns; see CROSS_SECTIONS."""
    detour_share: float = 0.2
    """Returns that come by a longer way, of several bounces below a body or at a wheel."""
    passing_share: float = 0.15
    """Chance that a thing that is wholly hidden by vehicles or leaves is seen."""
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
    ambiguity_state: Int64[np.ndarray, " P"]
    false_alarm: Int64[np.ndarray, " P"]
    """Class of its probability, 1 (< 25 %) to 7."""


def sense(
    radar: RadarModel,
    scene: RayScene | TwoScenes,
    snapshot: Snapshot,
    world: World,
    reflectors: Reflectors,
    time_s: float,
    world_from_radar: Float[np.ndarray, "4 4"],
    rng: np.random.Generator,
) -> RadarTargets:
    """What a radar reports of a moment."""
    origin, turn = world_from_radar[:3, 3], world_from_radar[:3, :3]
    actor_rays, actor_of_ray, reach = _rays_at_actors(
        radar, snapshot, world, reflectors, time_s, origin, turn
    )
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
    # A thing answers from the side it shows; what is hidden, from where the ray was aimed.
    reach = np.where(owner[:count] == actor_of_ray, distance[:count], reach)
    aims = (reach[:, None] * actor_rays) @ turn
    passable = (owner >= 0) | ((owner == -1) & (materials == Material.FOLIAGE))
    on_actors = _returns_of_actors(
        radar, world, reflectors, actor_of_ray, owner[:count], passable[:count], aims, rng
    )
    town = count + np.flatnonzero(owner[count:] == -1)
    of_town = _returns_of_town(
        materials[town], places[town], reflectors.of_town(origin + places[town] @ turn.T), rng
    )
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
    keep &= (distance > 0.5) & (distance < radar.maximum_range_m) & (rcs >= radar.weakest_dbsm)
    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(-rcs[kept], kind="stable")][: radar.maximum_targets]
    is_ghost = kept >= len(rcs) - len(ghosts)
    return _report(
        radar, position[kept], rcs[kept], mover[kept], target_owner[kept], is_ghost, world, time_s,
        turn, rng,
    )  # fmt: skip


def _rays_at_actors(radar, snapshot, world, reflectors, time_s, origin, turn):
    """Directions towards centres of the actors in view, whose they are, and how far."""
    directions, whose, reach = [np.zeros((0, 3))], [np.zeros(0, np.int64)], [np.zeros(0)]
    offset = (world.places(time_s) - origin) @ turn                                # (N, 3)
    azimuth = np.degrees(np.arctan2(offset[:, 1], offset[:, 0]))
    near = np.hypot(offset[:, 0], offset[:, 1]) <= radar.maximum_range_m + 5
    for index in np.flatnonzero(near & (np.abs(azimuth) <= radar.half_view_deg + 10)):
        first, last = snapshot.ranges[index]
        if first == last:
            continue
        points = reflectors.places_on(index, snapshot) - origin                    # (K, 3)
        reach.append(np.linalg.norm(points, axis=1))
        directions.append(points / reach[-1][:, None])
        whose.append(np.full(len(points), index))
    return np.concatenate(directions), np.concatenate(whose), np.concatenate(reach)


def _returns_of_actors(radar, world, reflectors, actor_of_ray, owner, passable, aims, rng):
    """Places, cross-sections and owners of the targets on actors.

    Args:
        owner, passable: what each ray meets first, and whether a part of the wave may pass it.
        aims: the point of the actor that each ray answers from.
    """
    rows, strengths = [], []
    for index in np.unique(actor_of_ray):
        rays = np.flatnonzero(actor_of_ray == index)
        seen = owner[rays] == index
        mean, spread, returns = CROSS_SECTIONS[world.actors[index].category]
        distance = max(np.hypot(*aims[rays, :2].T).min(), radar.near_m)
        expected = reflectors.gain[index] * returns * (radar.near_m / distance) ** 2
        strength = mean + spread * (
            0.8 * reflectors.strength[index] + 0.6 * rng.standard_normal()
        )
        # Of a thing in the open about half of the points that were drawn face the radar.
        count = rng.poisson(expected * min(1.0, 2 * seen.mean()))
        rows.append(rays[seen][:count])
        strengths.append(strength + rng.normal(0, 2, len(rows[-1])))
        # Below a vehicle, or through leaves, a part of the wave gets by now and then.
        by = rays[~seen & passable[rays]]
        if not seen.any() and rng.random() < radar.passing_share * len(by) / len(rays):
            rows.append(by[:1])
            strengths.append(strength + rng.normal(-6, 2, 1))
    chosen = np.concatenate([np.zeros(0, np.int64), *rows])
    strengths = np.concatenate([np.zeros(0), *strengths])
    distance = np.maximum(np.hypot(*aims[chosen, :2].T), 1e-9)
    bounced = rng.random(len(chosen)) < radar.detour_share
    detour = np.where(bounced, rng.exponential(1.5, len(chosen)), 0.0)
    position = aims[chosen, :2] * (1 + detour / distance)[:, None]
    return position, strengths, actor_of_ray[chosen]


def _returns_of_town(materials, places, reflectors, rng):
    chance, mean = np.zeros((2, len(Material)))
    for material, (share, strength) in BACKGROUND.items():
        chance[material], mean[material] = share, strength
    cell, gain, strength = reflectors
    rows = np.flatnonzero(rng.random(len(places)) < chance[materials] * gain)
    # A radar does not tell apart what lies closer together than a cell.
    rows = rows[np.unique(cell[rows], return_index=True)[1]]
    rcs = mean[materials[rows]] + 5 * (
        0.8 * strength[rows] + 0.6 * rng.standard_normal(len(rows))
    )
    return places[rows, :2], rcs, np.full(len(rows), -1)


def _clutter(radar: RadarModel, rng: np.random.Generator):
    """Targets where nothing is."""
    count = rng.poisson(3)
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
    relative = np.round((radial - unit @ own) / radar.speed_step_mps) * radar.speed_step_mps
    radial = radial + unit @ rng.normal(0, radar.own_speed_noise_mps, 2)
    doubt = rng.random(count)
    no_speed = doubt < radar.no_speed_share
    ambiguous = (doubt > 1 - radar.ambiguous_share) & ~no_speed
    relative = np.where(no_speed, 0.0, relative)
    relative = relative + np.where(ambiguous, rng.normal(0, 12, count), 0.0)
    radial = np.where(no_speed | ambiguous, relative + unit @ own, radial)

    distance = np.linalg.norm(position, axis=1) + rng.normal(0, radar.range_noise_m, count)
    angle = np.arctan2(position[:, 1], position[:, 0])
    noise_deg = np.interp(np.abs(np.degrees(angle)), (0, 45, 60), radar.angle_noise_deg)
    angle = angle + np.radians(noise_deg) * rng.standard_normal(count)
    measured = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    crossing = (speed > 1) & (np.abs(radial) < 0.5 * speed)
    motion = np.where(radial < -0.5, ONCOMING, MOVING)
    motion = np.where(crossing, CROSSING_MOVING, motion)
    halted = np.where((mover >= 0) & (rng.random(count) < 0.15), STOPPED, STATIONARY)
    motion = np.where(np.abs(radial) > 0.8, motion, halted)
    states = np.array([VALID, *DOUBTFUL])
    valid_share = 1 - sum(DOUBTFUL.values())
    invalid = rng.choice(states, count, p=[valid_share, *DOUBTFUL.values()])
    invalid = np.where((rcs < 0) & (rng.random(count) < 0.3), LOW_CROSS_SECTION, invalid)
    invalid = np.where(is_ghost & (rng.random(count) < 0.5), MIRRORED, invalid)
    unsure = is_ghost | ambiguous | (invalid != VALID)
    return RadarTargets(
        position=np.round(measured / radar.step_m) * radar.step_m,
        rcs_dbsm=np.round(rcs * 2) / 2,
        velocity=radial[:, None] * unit,
        relative_velocity=relative[:, None] * unit,
        owner=owner,
        dynamic_property=np.where(no_speed, UNKNOWN, motion),
        invalid_state=np.where(no_speed, NO_SPEED, invalid),
        ambiguity_state=np.where(
            no_speed, 0, np.where(ambiguous, rng.integers(1, 3, count), UNAMBIGUOUS)
        ),
        false_alarm=np.where(unsure, rng.integers(2, 5, count), 1),
    )
