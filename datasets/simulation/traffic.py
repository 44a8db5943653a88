"""Puts cars, vans, people and cyclists on streets so that nothing ever drives into another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from datasets.simulation.meshes import Mesh
from datasets.simulation.people import Person, draw_cyclist, draw_person
from datasets.simulation.terrain import Ground, Street
from datasets.simulation.vehicles import draw_car, draw_truck, draw_van
from datasets.simulation.world import Actor, Track

_CLEARANCE = 0.25


@dataclass
class Crowd:
    """The actors placed so far, with the places that they and the town's furniture take."""

    ground: Ground
    times_s: np.ndarray
    """Moments at which nothing may touch."""
    actors: list[Actor] = field(default_factory=list)
    _standing: list[np.ndarray] = field(default_factory=list)
    """Discs (D, 3) of x, y, radius."""
    _moving: list[np.ndarray] = field(default_factory=list)
    """Discs (K, D, 3), one row a moment."""

    def reserve(self, track: Track, length: float, width: float) -> bool:
        """Takes the place of a moving box, unless another has it at some moment."""
        discs = self._discs(track, length, width)                            # (1 or K, D, 3)
        if self._standing and _touch(discs, np.concatenate(self._standing)[None]):
            return False
        if self._moving and _touch(discs, np.concatenate(self._moving, 1)):
            return False
        (self._standing if len(discs) == 1 else self._moving).append(
            discs[0] if len(discs) == 1 else discs
        )
        return True

    def add(
        self, category: str, size: tuple[float, float, float], track: Track,
        shape: Callable[[float], Mesh],
    ) -> bool:  # fmt: skip
        """Places an actor; False where there is no room for it."""
        if not self.reserve(track, size[0], size[1]):
            return False
        self.actors.append(Actor(category, size, track, shape))
        return True

    def parked(self, x: float, y: float, yaw: float, upright: bool = False) -> Track:
        """Standing still on the ground."""
        return Track(np.zeros(1), self._poses(np.array([x]), np.array([y]), [yaw], upright))

    def along(
        self, street: Street, s: float, d: float, speed: float, forward: bool,
        upright: bool = False,
    ) -> Track:  # fmt: skip
        """Moving along a street, d metres left of its middle, at s at time 0."""
        sign = 1 if forward else -1
        x, y, heading = street.at(s + sign * speed * self.times_s, d)
        yaw = heading + (0 if forward else np.pi)
        return Track(self.times_s, self._poses(x, y, yaw, upright))

    def across(self, x: float, y: float, yaw: float, speed: float) -> Track:
        """Walking straight on from a place at time 0."""
        way = speed * self.times_s
        x, y = x + np.cos(yaw) * way, y + np.sin(yaw) * way
        return Track(self.times_s, self._poses(x, y, np.full(len(way), yaw), True))

    def _poses(self, x, y, yaw, upright: bool) -> np.ndarray:
        z = self.ground.height(x, y)
        pitch, roll = np.zeros(len(x)), np.zeros(len(x))
        if not upright:
            east, north = self.ground.terrain.gradient(x, y)
            cos, sin = np.cos(yaw), np.sin(yaw)
            pitch = -np.arctan(east * cos + north * sin)
            roll = np.arctan(-east * sin + north * cos)
        return np.column_stack([x, y, z, np.unwrap(yaw), pitch, roll])

    def _discs(self, track: Track, length: float, width: float) -> np.ndarray:
        x, y, yaw = track.poses[:, 0], track.poses[:, 1], track.poses[:, 3]
        if width > 3 * length:                                      # such as a barrier
            length, width, yaw = width, length, yaw + np.pi / 2
        count = max(1, int(np.ceil(length / max(width, 0.3))))
        along = (np.arange(count) - (count - 1) / 2) * (length / count)
        radius = np.full((len(x), count), 0.5 * np.hypot(width, length / count) + _CLEARANCE / 2)
        return np.stack(
            [x[:, None] + np.cos(yaw)[:, None] * along, y[:, None] + np.sin(yaw)[:, None] * along,
             radius], -1,
        )  # fmt: skip


# -------------------------------------------------------------------------------- what to place


def _touch(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether any of the discs (1 or K, D, 3) overlap at the same moment."""
    apart = first[:, :, None, :2] - second[:, None, :, :2]                    # (K, D, D', 2)
    reach = first[:, :, None, 2] + second[:, None, :, 2]
    return bool((np.einsum("kdei,kdei->kde", apart, apart) < reach**2).any())


def still(shape: Mesh) -> Callable[[float], Mesh]:
    """The shape of something that never changes."""
    return partial(_constant, shape)


def add_vehicle(crowd: Crowd, rng: np.random.Generator, track: Track, truck=0.0, van=0.09) -> bool:
    """A vehicle on a track: a truck or van with these chances, else a car."""
    draw = rng.random()
    if draw < truck:
        category, (size, shape) = "truck", draw_truck(rng)
    elif draw < truck + van:
        category, (size, shape) = "van", draw_van(rng)
    else:
        category, (size, shape) = "car", draw_car(rng)
    return crowd.add(category, size, track, still(shape))


def park_along(
    crowd: Crowd, rng: np.random.Generator, street: Street, first: float, last: float, side: int,
    taken: float, on_kerb: bool,
) -> None:  # fmt: skip
    """A row of cars parked at the kerb, `taken` of its places occupied."""
    offset = street.half_width + (0.25 if on_kerb else -1.05)
    s = first + rng.uniform(0, 4)
    while s < last:
        if rng.random() < taken:
            d = side * (offset + rng.normal(0, 0.10))
            x, y, heading = street.at(s, d)
            # Most stand as the traffic on their side goes.
            ahead = (side < 0) == (rng.random() < 0.85)
            yaw = float(heading) + (0 if ahead else np.pi) + rng.normal(0, 0.025)
            add_vehicle(crowd, rng, crowd.parked(float(x), float(y), yaw), truck=0.01, van=0.08)
        s += rng.uniform(5.0, 6.4)


def drive_along(
    crowd: Crowd, rng: np.random.Generator, street: Street, lanes: int, half_width: float,
    speed: float, spacing: float, last: float,
) -> None:  # fmt: skip
    """Traffic in all lanes up to s = `last` at time 0, everybody of a lane at one speed.

    Args:
        half_width: of all lanes together.
    """
    duration = float(crowd.times_s[-1])
    for lane in range(lanes):
        d = half_width * (2 * (lane + 0.5) / lanes - 1)
        forward = d < 0 or lanes == 1
        pace = speed * rng.uniform(0.85, 1.1)
        s = -45.0 + rng.exponential(spacing)
        while s < (last - 10 if forward else last + pace * duration):
            track = crowd.along(street, s, d + rng.normal(0, 0.15), pace, forward)
            add_vehicle(crowd, rng, track, truck=0.06, van=0.10)
            s += 7 + rng.exponential(spacing)


def walk_along(
    crowd: Crowd, rng: np.random.Generator, street: Street, count: int, first: float, last: float,
    band: tuple[float, float],
) -> None:  # fmt: skip
    """People on foot between d = band[0] and band[1] on both sides; some stand, some in pairs."""
    placed, tries = 0, 0
    while placed < count and tries < 4 * count:
        tries += 1
        s, side = rng.uniform(first, last), rng.choice([-1, 1])
        d = side * rng.uniform(*band)
        walking, forward = rng.random() < 0.72, rng.random() < 0.5
        speed = float(rng.choice([1.1, 1.35, 1.55]))
        party = int(rng.choice([1, 2, 3], p=(0.62, 0.30, 0.08)))
        for member in range(party):
            who = draw_person(rng, walking)
            if walking:
                where = d + 0.75 * member if d + 0.75 * member <= band[1] else d - 0.75 * member
                track = crowd.along(street, s, where, speed, forward, upright=True)
            else:
                x, y, heading = street.at(s + 0.8 * member, d)
                turn = float(heading) + rng.uniform(0, 2 * np.pi)
                track = crowd.parked(float(x), float(y), turn, upright=True)
            placed += add_person(crowd, who, track)


def cross_street(
    crowd: Crowd, rng: np.random.Generator, street: Street, count: int, first: float, last: float
) -> None:
    """People who walk over the carriageway."""
    for _ in range(count):
        side = rng.choice([-1, 1])
        start = side * rng.uniform(-0.5, 1.0) * street.half_width
        x, y, heading = street.at(rng.uniform(first, last), start)
        yaw = float(heading) - side * np.pi / 2 + rng.normal(0, 0.2)
        track = crowd.across(float(x), float(y), yaw, rng.uniform(1.0, 1.6))
        add_person(crowd, draw_person(rng, walking=True), track)


def cycle_along(
    crowd: Crowd, rng: np.random.Generator, street: Street, count: int, first: float, last: float,
    band: tuple[float, float],
) -> None:  # fmt: skip
    """Cyclists at the edge of the carriageway or on the pavement, mostly on the right side."""
    for _ in range(count):
        s, right_hand = rng.uniform(first, last), rng.random() < 0.8
        side = rng.choice([-1, 1])
        forward = (side < 0) == right_hand
        who = draw_cyclist(rng)
        track = crowd.along(
            street, s, side * rng.uniform(*band), rng.uniform(3.0, 5.5), forward, upright=True
        )
        crowd.add("cyclist", who.size, track, who.posed)


def add_person(crowd: Crowd, who: Person, track: Track) -> bool:
    """A person walking or standing on a track."""
    return crowd.add("pedestrian", who.walking_size, track, who.posed)


def seat_person(crowd: Crowd, rng: np.random.Generator, x: float, y: float, yaw: float) -> None:
    """Somebody sitting on furniture that has its place already."""
    shape = draw_person(rng, walking=False).seated()
    low, high = shape.extent
    size = (*(high - low)[:2].tolist(), float(high[2]))
    middle = (low + high) / 2
    centred = shape.at(-float(middle[0]), -float(middle[1]))
    track = crowd.parked(x, y, yaw, upright=True)
    crowd.actors.append(Actor("sitting_person", size, track, still(centred)))


def _constant(shape: Mesh, time_s: float) -> Mesh:
    return shape
