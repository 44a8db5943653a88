"""Draws whole worlds: a street of some district, built up, furnished, and full of traffic."""

from __future__ import annotations

import numpy as np

from datasets.simulation import clutter, plants, roadworks
from datasets.simulation.districts import DISTRICTS, District, draw_piece
from datasets.simulation.furniture import IN_ZONES, ON_STREETS, Furniture
from datasets.simulation.meshes import Mesh, join
from datasets.simulation.terrain import Ground, Street, draw_street, draw_terrain
from datasets.simulation.traffic import (
    Crowd,
    add_vehicle,
    cross_street,
    cycle_along,
    drive_along,
    park_along,
    seat_person,
    still,
    walk_along,
)
from datasets.simulation.world import Track, World

BEHIND, AHEAD = 75.0, 115.0
"""How far a street reaches behind the first and ahead of the last place of the drive."""
_TRACK_STEP_S = 0.25
PARKING_WIDTH = 2.05
_CROWDED = 25.0
"""Traffic thins out this far ahead of the drive's end."""


def draw_world(
    rng: np.random.Generator, duration_s: float = 5.0, district: str | None = None,
    many_kinds: bool = False,
) -> World:  # fmt: skip
    """A world and a drive of `duration_s` seconds through it.

    Args:
        district: a key of `DISTRICTS`; one by their shares where None.
        many_kinds: with buses, trailers, motorcycles and building sites, more of them than most
            streets have so that few worlds hold enough to learn from; such things are actors then.
    """
    if district is None:
        shares = np.array([d.share for d in DISTRICTS.values()])
        district = str(rng.choice(list(DISTRICTS), p=shares / shares.sum()))
    builder = _Builder(rng, DISTRICTS[district], duration_s, many_kinds)
    builder.build_frontages()
    builder.place_traffic()
    builder.furnish()
    return World(join(builder.meshes), tuple(builder.crowd.actors), builder.drive, district)


class _Builder:
    """Puts one world together, step by step, from one generator."""

    def __init__(
        self, rng: np.random.Generator, district: District, duration_s: float, many_kinds: bool
    ):
        self.rng, self.district, self.many_kinds = rng, district, many_kinds
        self.speed = rng.uniform(*district.speed)
        self.lanes = int(rng.choice(district.lanes))
        self.way = self.speed * duration_s
        # Rows of parked cars: side -> (share of places taken, whether half on the pavement).
        self.parking = {
            side: (district.parked * float(rng.random()) ** 1.6, bool(rng.random() < 0.3))
            for side in (-1, 1)
        }
        if self.lanes == 4:
            self.parking = {side: (taken * on, on) for side, (taken, on) in self.parking.items()}
        self.lanes_half = rng.uniform(*district.half_width) * (1 if self.lanes < 4 else 1.9)
        self.meshes: list[Mesh] = []
        self.ground = self._draw_ground()
        self.main = self.ground.streets[0]
        self.meshes.append(self.ground.mesh(district.plots, district.paving))
        if self.lanes > 1:
            self.meshes.append(self.ground.markings(self.lanes, self.lanes_half))
        times_s = np.arange(0.0, duration_s + _TRACK_STEP_S, _TRACK_STEP_S)
        self.crowd = Crowd(self.ground, times_s)
        self.drive = self._draw_drive()

    def _draw_ground(self) -> Ground:
        rng, district = self.rng, self.district
        pavement = rng.uniform(*district.pavement)
        at_kerb = any(taken > 0.1 and not on_kerb for taken, on_kerb in self.parking.values())
        half_width = self.lanes_half + (PARKING_WIDTH if at_kerb else 0)
        terrain = draw_terrain(rng, district.hilliness)
        start, end = -BEHIND, self.way + AHEAD
        layout = rng.choice(["straight", "bend", "crossing"], p=(0.38, 0.42, 0.20))
        bends, crossing, streets = (), None, []
        if layout == "bend":
            first = rng.uniform(-10, self.way + 25)
            turn = rng.choice([-1, 1]) * rng.uniform(0.2, 1.5)
            radius = rng.uniform(1.6, 4.0) * (half_width + pavement) + 12
            bends = ((first, first + max(12.0, radius * abs(turn)), turn),)
        streets.append(draw_street(start, end, half_width, pavement, bends))
        if layout == "crossing":
            crossing = rng.uniform(12, self.way + 35)
            x, y, _ = streets[0].at(crossing)
            other = rng.uniform(2.8, max(3.0, half_width))
            streets.append(
                draw_street(-80, 80, other, pavement, (), (float(x), float(y)), np.pi / 2)
            )
        return Ground(terrain, tuple(streets), district.kerb, crossing)

    def _draw_drive(self) -> Track:
        """The drive keeps to the right-most lane or the one beside it."""
        lane_width = 2 * self.lanes_half / self.lanes
        lane = int(self.rng.integers(max(1, self.lanes // 2)))
        d = -self.lanes_half + (lane + 0.5) * lane_width + self.rng.normal(0, 0.1)
        track = self.crowd.along(self.main, 0.0, d, self.speed, forward=True)
        self.crowd.reserve(track, 5.0, 2.0)
        return track

    # --------------------------------------------------------------------- beside the street

    def build_frontages(self) -> None:
        """Buildings, gardens, walls along both sides of every street."""
        main, crossing = self.main, self.ground.crossing
        if crossing is None:
            spans = [(main, main.start, main.end)]
        else:
            other = self.ground.streets[1]
            spans = [
                (main, main.start, crossing - other.front),
                (main, crossing + other.front, main.end),
                (other, other.start, -main.front - 12),
                (other, main.front + 12, other.end),
            ]
        for street, first, last in spans:
            for side in (-1, 1):
                self._fill(street, first, last, side)

    def _fill(self, street: Street, first: float, last: float, side: int) -> None:
        kinds, shares = zip(*self.district.pieces.items(), strict=True)
        shares = np.array(shares) / sum(shares)
        s = first
        while s < last - 4:
            piece = draw_piece(self.rng, str(self.rng.choice(kinds, p=shares)))
            if s + piece.length > last + 4 and s > first:
                break
            # The plot lies to the left of the piece's own x axis.
            origin = s if side > 0 else s + piece.length
            x, y, heading = street.at([s + piece.length / 2, origin], side * street.front)
            yaw = float(heading[0]) + (0 if side > 0 else np.pi)
            if not self._clear_of_streets(float(x[1]), float(y[1]), yaw, piece.length):
                s += 3.0                    # too long for the inside of this bend
                continue
            z = float(self.ground.height(x, y).min()) - 0.02
            self.meshes.append(piece.mesh.at(float(x[1]), float(y[1]), z, yaw))
            for px, py, turn in piece.parking:
                cx = float(x[1]) + np.cos(yaw) * px - np.sin(yaw) * py
                cy = float(y[1]) + np.sin(yaw) * px + np.cos(yaw) * py
                add_vehicle(self.crowd, self.rng, self.crowd.parked(cx, cy, yaw + turn))
            s += piece.length

    def _clear_of_streets(self, x: float, y: float, yaw: float, length: float) -> bool:
        """Whether a straight front from (x, y) on leaves all carriageways free."""
        along = np.append(np.arange(0, length, 2.0), length)
        x, y = x + along * np.cos(yaw), y + along * np.sin(yaw)
        return all((s.distance(x, y) > s.half_width).all() for s in self.ground.streets)

    # ---------------------------------------------------------------------------- what moves

    def place_traffic(self) -> None:
        rng, district, crowd, main = self.rng, self.district, self.crowd, self.main
        first, last = main.start + 20, self.way + _CROWDED
        clear = [] if self.ground.crossing is None else [self.ground.crossing]
        if self.many_kinds:
            for _ in range(1 + int(rng.random() < 0.4)):
                roadworks.dig_up(crowd, rng, main, -15, self.way + 20)
            roadworks.drive_heavily(crowd, rng, main, self.lanes, self.lanes_half, self.speed, last)
            band = (0.4 * self.lanes_half, main.half_width + 0.8)
            cycle_along(crowd, rng, main, int(rng.poisson(0.02 * (self.way + 60))), -10, last, band)
            roadworks.park_heavily(crowd, rng, main, first, last)
        for side, (taken, on_kerb) in self.parking.items():
            edges = [first, *[at + sign * 14 for at in clear for sign in (-1, 1)], main.end - 10]
            for begin, end in zip(edges[::2], edges[1::2], strict=True):
                park_along(crowd, rng, main, begin, min(end, last), side, taken, on_kerb)
                park_along(crowd, rng, main, max(begin, last), end, side, taken / 3, on_kerb)
        spacing = rng.uniform(*district.spacing)
        drive_along(crowd, rng, main, self.lanes, self.lanes_half, self.speed, spacing, last)
        if clear:
            self._fill_side_street()
        hundreds = (self.way + 60) / 100
        edge = main.half_width
        on_pavement = _footway(main)
        if district.kerb < 0.05:                                    # all of it is for walking
            on_pavement = (0.8, main.front - 0.4)
        more = 4.0 * self.many_kinds
        walkers = int(rng.poisson((rng.uniform(*district.walkers) + more) * hundreds))
        walk_along(crowd, rng, main, walkers, -25, last - 5, on_pavement)
        cross_street(crowd, rng, main, int(rng.poisson(0.12 * walkers)), 5, self.way + 40)
        on_edge = (max(0.5, self.lanes_half - 0.9), self.lanes_half - 0.2)
        if rng.random() < 0.4:
            on_edge = (edge + 0.5, edge + 1.0)
        riders = int(rng.poisson((rng.uniform(*district.cyclists) + more) * hundreds))
        cycle_along(crowd, rng, main, riders, -10, last, on_edge)

    def _fill_side_street(self) -> None:
        """Cars that wait at, or drive away from, the crossing; parked ones further on."""
        rng, crowd = self.rng, self.crowd
        street, main = self.ground.streets[1], self.main
        lane = street.half_width / 2
        for forward in (True, False):
            sign = 1 if forward else -1
            s = -sign * (main.half_width + 4.5)                     # the stop line
            for _ in range(int(rng.integers(0, 4))):
                x, y, heading = street.at(s, -sign * lane)
                yaw = float(heading) + (0 if forward else np.pi) + rng.normal(0, 0.05)
                add_vehicle(crowd, rng, crowd.parked(float(x), float(y), yaw))
                s -= sign * rng.uniform(6.0, 8.5)
        for side in (-1, 1):
            for begin, end in ((-75, -main.front - 14), (main.front + 14, 75)):
                taken = rng.uniform(0, 0.5)
                park_along(crowd, rng, street, begin, end, side, taken, on_kerb=False)
        band = _footway(street)
        count = int(rng.poisson(rng.uniform(*self.district.walkers)))
        walk_along(crowd, rng, street, count, -50, 50, band)

    # ----------------------------------------------------------------------------- furniture

    def furnish(self) -> None:
        """Poles, trees, bins, bicycles where nobody passes."""
        rng, district = self.rng, self.district
        trees = [plants.tree(rng, rng.uniform(5, 11), clear=2.5) for _ in range(3)]
        for street in self.ground.streets:
            for side in (-1, 1):
                s = street.start + rng.uniform(0, 10)
                while s < street.end:
                    self._furnish_at(street, s, side, trees)
                    s += 1.5 + rng.exponential(district.furniture)

    def _furnish_at(self, street: Street, s: float, side: int, trees: list[Mesh]) -> None:
        rng = self.rng
        if rng.random() < self.district.trees:
            thing = trees[rng.integers(3)].stretched(*rng.uniform(0.85, 1.15, 3))
            kind = Furniture(None, 0.0, 0.35, "kerb", rng.uniform(0, 6.28))
        else:
            choice = IN_ZONES if self.district.kerb < 0.05 else ON_STREETS
            shares = np.array([kind.share for kind in choice])
            kind = choice[rng.choice(len(choice), p=shares / shares.sum())]
            thing = kind.draw(rng)
        d = {
            "kerb": street.half_width + 0.45,
            "front": street.front - kind.radius - rng.uniform(0, 0.3),
            "middle": street.front - rng.uniform(0.5, max(0.6, street.pavement)),
            "parked": street.half_width - 1.0,
        }[kind.place]
        x, y, heading = (float(value) for value in street.at(s, side * d))
        slack = 1.2 if kind.place == "parked" else -0.2
        if any(abs(o.distance(x, y)) < o.half_width - slack for o in self.ground.streets):
            return
        if kind.place == "parked" and self.parking[side][0] < 0.1:
            return
        turn = heading + (0 if side < 0 else np.pi) + kind.turn
        turn += rng.uniform(0, 6.28) if kind.turned else rng.normal(0, 0.12)
        if self.many_kinds and kind.category:
            if kind.category == "barrier":                  # along y, as all barriers
                thing, turn = thing.at(yaw=np.pi / 2), turn - np.pi / 2
            size, shape = roadworks.upright(thing)
            self.crowd.add(kind.category, size, self.crowd.parked(x, y, turn, True), still(shape))
            return
        if not self.crowd.reserve(self.crowd.parked(x, y, turn), 2 * kind.radius, 2 * kind.radius):
            return
        self.meshes.append(thing.at(x, y, float(self.ground.height(x, y)) - 0.02, turn))
        if kind.draw is clutter.bench:
            for offset in (-0.45, 0.45):
                if rng.random() < 0.4:
                    px, py = x - np.sin(turn) * offset, y + np.cos(turn) * offset
                    seat_person(self.crowd, rng, px, py, turn)


def _footway(street: Street) -> tuple[float, float]:
    """Where people walk, from d to d; beside a narrow pavement at the carriageway's edge."""
    last = street.front - 0.4
    return min(street.half_width + 0.6, last - 0.3), last
