"""What nuScenes labels and KITTI does not: heavy traffic, motorcycles, and building sites with
cones, barriers and construction vehicles. See `traffic` for how things are placed.
"""

from __future__ import annotations

import numpy as np

from datasets.simulation import clutter
from datasets.simulation.heavy import draw_bus, draw_construction_vehicle, draw_trailer
from datasets.simulation.materials import Material
from datasets.simulation.meshes import Mesh, box, join, tube
from datasets.simulation.people import draw_motorcyclist
from datasets.simulation.scenery import DARK
from datasets.simulation.terrain import Street
from datasets.simulation.traffic import Crowd, still
from datasets.simulation.vehicles import Size, draw_truck

_ORANGE, _WHITE = (0.85, 0.30, 0.06), (0.85, 0.85, 0.85)
_COUPLING = 2.1
"""Between a lorry's end and its trailer, metres; discs round both must not touch."""


def draw_cone(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A traffic cone or a beacon of the same use."""
    height, foot = rng.uniform(0.65, 1.1), rng.uniform(0.34, 0.46)
    low, high = 0.35 * height, 0.6 * height
    wide = 0.4 * foot
    parts = [
        box(foot, foot, 0.06, DARK, Material.RUBBER),
        tube((0, 0, 0.05), (0, 0, low), (wide, 0.75 * wide), _ORANGE, Material.PLASTIC, 8),
        tube((0, 0, low), (0, 0, high), (0.75 * wide, 0.5 * wide), _WHITE, Material.RETRO, 8),
        tube((0, 0, high), (0, 0, height), (0.5 * wide, 0.2 * wide), _ORANGE, Material.PLASTIC, 8),
    ]
    return (foot, foot, height), join(parts)


def draw_barrier(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A barrier of concrete, water-filled plastic or boards; it runs along y and faces +x."""
    if rng.random() < 0.4:
        return upright(clutter.barrier(rng).at(yaw=np.pi / 2))
    length, height = rng.uniform(1.6, 3.0), rng.uniform(0.8, 1.1)
    color = (0.55, 0.54, 0.52) if rng.random() < 0.5 else (_ORANGE, _WHITE)[rng.integers(2)]
    material = Material.CONCRETE if color[0] == 0.55 else Material.PLASTIC
    return upright(join([
        box(0.5, length, 0.35 * height, color, material),
        box(0.24, 0.98 * length, 0.65 * height, color, material, 0, 0, 0.35 * height),
    ]))  # fmt: skip


def upright(shape: Mesh) -> tuple[Size, Mesh]:
    """A shape with the middle of its bottom over the origin, and its size."""
    low, high = shape.extent
    middle = (low + high) / 2
    return tuple((high - low).tolist()), shape.at(-middle[0], -middle[1], -low[2])


def drive_heavily(
    crowd: Crowd, rng: np.random.Generator, street: Street, lanes: int, half_width: float,
    speed: float, last: float,
) -> None:  # fmt: skip
    """Buses, lorries with trailers and motorcyclists in the lanes; see `traffic.drive_along`."""
    duration = float(crowd.times_s[-1])
    for lane in range(lanes):
        d = half_width * (2 * (lane + 0.5) / lanes - 1)
        forward = d < 0 or lanes == 1
        way = 0.0 if forward else speed * duration
        for _ in range(rng.poisson((last + 45 + way) / 70)):
            s, kind = rng.uniform(-45, last + way), rng.random()
            pace, aside = speed * rng.uniform(0.85, 1.1), d + rng.normal(0, 0.1)
            if kind < 0.3:
                rider = draw_motorcyclist(rng, clutter.motorcycle(rng))
                track = crowd.along(street, s, aside, pace, forward, upright=True)
                crowd.add("motorcyclist", rider.size, track, rider.posed)
                continue
            is_bus = kind < 0.6
            size, shape = draw_bus(rng) if is_bus else draw_truck(rng)
            track = crowd.along(street, s, aside, pace, forward)
            placed = crowd.add("bus" if is_bus else "truck", size, track, still(shape))
            if placed and kind > 0.65:
                towed, body = draw_trailer(rng)
                behind = (size[0] + towed[0]) / 2 + _COUPLING
                track = crowd.along(
                    street, s - behind if forward else s + behind, aside, pace, forward
                )
                crowd.add("trailer", towed, track, still(body))


def park_heavily(
    crowd: Crowd, rng: np.random.Generator, street: Street, first: float, last: float
) -> None:
    """Buses, lorries, trailers and motorcycles that stand at the kerbs."""
    kinds = (("bus", draw_bus), ("trailer", draw_trailer), ("truck", draw_truck))
    for _ in range(rng.poisson((last - first) / 30)):
        s, side = rng.uniform(first, last), rng.choice([-1, 1])
        d = min(street.half_width + 0.2, street.front - 1.6)
        x, y, heading = (float(v) for v in street.at(s, side * d))
        yaw = heading + (0 if side < 0 else np.pi) + rng.normal(0, 0.02)
        name, draw = kinds[rng.choice(3, p=(0.3, 0.45, 0.25))]
        size, shape = draw(rng)
        crowd.add(name, size, crowd.parked(x, y, yaw), still(shape))
    for _ in range(rng.poisson((last - first) / 30)):
        s, side = rng.uniform(first, last), rng.choice([-1, 1])
        lean = rng.uniform(-0.3, 0.3) + rng.choice([0, np.pi / 2])
        for place in range(int(rng.integers(1, 4))):
            d = min(street.half_width + 0.9, street.front - 0.8)
            x, y, heading = street.at(s + 1.3 * place, side * d)
            size, shape = upright(clutter.motorcycle(rng))
            track = crowd.parked(float(x), float(y), float(heading) + lean, upright=True)
            crowd.add("motorcycle", size, track, still(shape))


def dig_up(
    crowd: Crowd, rng: np.random.Generator, street: Street, first: float, last: float
) -> None:
    """A building site at one side: one or two machines, barriers, and cones in the carriageway."""
    start, length = rng.uniform(first, last), rng.uniform(14, 36)
    side, into = rng.choice([-1, 1]), rng.uniform(-0.6, 1.2)
    edge, deepest = street.half_width - into, street.front - 1.6

    def put(category: str, draw, s: float, d: float, turn: float) -> bool:
        size, shape = draw(rng)
        x, y, heading = (float(v) for v in street.at(s, side * d))
        return crowd.add(category, size, crowd.parked(x, y, heading + turn), still(shape))

    machines = int(rng.integers(1, 3))
    for _ in range(6):
        s, turn = start + rng.uniform(3, length - 3), rng.choice([0, np.pi]) + rng.normal(0, 0.4)
        d = min(edge + 2.2, deepest)
        machines -= put("construction_vehicle", draw_construction_vehicle, s, d, turn)
        if machines <= 0:
            break
    for s in (start - 1, start + length + 1):
        put("barrier", draw_barrier, s, min(edge + 2.0, deepest), rng.normal(0, 0.06))
    for s in np.arange(start + 1, start + length, 3.2):
        put("barrier", draw_barrier, s, edge + 0.1, np.pi / 2 + rng.normal(0, 0.06))
    for s in np.arange(start, start + length, rng.uniform(2.0, 4.5)):
        put("traffic_cone", draw_cone, s, edge - 0.9 + rng.normal(0, 0.08), 0.0)
