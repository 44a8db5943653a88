"""Buses, trailers of lorries, excavators and loaders; see `vehicles` for the convention.

Mean sizes are those that nuScenes' labels have.
"""

from __future__ import annotations

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, box, disc, join, quads, tube
from datasets.simulation.vehicles import DARK, Size, draw_paint, draw_size

BUS_SIZE, BUS_SPREAD = (11.2, 2.9, 3.4), (1.3, 0.10, 0.25)
TRAILER_SIZE, TRAILER_SPREAD = (10.5, 2.7, 3.6), (2.2, 0.15, 0.35)
EXCAVATOR_SIZE, EXCAVATOR_SPREAD = (6.4, 2.7, 3.1), (0.9, 0.2, 0.3)
_SLACK = 0.1
"""How much longer and wider than a body of flat sides its box is drawn, metres."""
_LAMP = (0.6, 0.05, 0.05)
_ENGINE = 1.5
"""Length of a bus's rear that has no windows, metres."""


def draw_bus(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A city bus: glass all round but for the engine's room at the back."""
    size = draw_size(rng, BUS_SIZE, BUS_SPREAD)
    length, width, height = size[0] - _SLACK, size[1] - _SLACK, size[2]
    paint, front, back = draw_paint(rng, 0.3), length / 2, -length / 2
    parts = [
        box(length, width, 1.0, paint, Material.PAINT, 0, 0, 0.3),
        box(length, width, 0.35, paint, Material.PAINT, 0, 0, height - 0.35),
        box(0.3 * length, 0.7 * width, 0.25, DARK, Material.METAL, -0.1 * length, 0, height - 0.25),
        box(length - 0.6, width - 0.5, 0.3, DARK, Material.METAL, 0, 0, 0.2),
        # The engine's room, as high as the bus, and cooling on the roof above it.
        box(_ENGINE, width, height - 1.3, paint, Material.PAINT, back + _ENGINE / 2, 0, 1.3),
    ]
    for y in (-width / 2, width / 2):
        parts.append(_pane((back + _ENGINE, y, 1.3), (front - 0.1, y, height - 0.35)))
        for x in np.arange(back + 0.06, front, 1.4):
            parts.append(box(0.12, 0.06, height - 1.6, DARK, Material.PLASTIC, x, 0.985 * y, 1.3))
        parts.append(box(0.06, 0.25, 0.3, _LAMP, Material.RETRO, back, 0.8 * y, 0.9))
        mirror = front - 0.06, 1.05 * y, height - 0.9
        parts.append(box(0.12, 0.22, 0.4, DARK, Material.PLASTIC, *mirror))
    parts.append(_pane((front, -0.48 * width, 0.9), (front, 0.48 * width, height - 0.4)))
    parts += [
        box(0.5, 0.4, 0.9, DARK, Material.CLOTH, x, side * 0.32 * width, 0.7)
        for x in np.arange(back + 1, front - 2, 1.1) for side in (-1, 1)
    ]  # fmt: skip
    return size, join(parts + _wheels((front - 2.6, back + 3.2), width, 0.48))


def draw_trailer(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """A lorry's trailer: a box, a curtain or a flat bed with a load, wheels far back."""
    size = draw_size(rng, TRAILER_SIZE, TRAILER_SPREAD)
    length, width, height = size[0] - _SLACK, size[1] - _SLACK, size[2]
    paint, back = draw_paint(rng, 0.5), -length / 2
    floor = 1.15
    parts = [
        box(length, width, 0.2, DARK, Material.METAL, 0, 0, floor - 0.2),
        box(length - 0.6, 0.9, 0.3, DARK, Material.METAL, 0, 0, floor - 0.5),
        box(0.08, 0.96 * width, 0.16, DARK, Material.METAL, back + 0.05, 0, 0.45),
        tube((length / 2, 0, 0.8), (length / 2 + 1.4, 0, 0.7), 0.06, DARK, Material.METAL, 5),
    ]
    if rng.random() < 0.75:
        cover = Material.PAINT if rng.random() < 0.5 else Material.CLOTH
        parts.append(box(length, width, height - floor, paint, cover, 0, 0, floor))
    else:
        loads = back + length * (np.arange(count := int(rng.integers(2, 6))) + 0.5) / count
        parts += [
            box(0.8 * length / count, 0.85 * width, rng.uniform(0.4, 1) * (height - floor),
                draw_paint(rng), Material.WOOD, x, 0, floor)
            for x in loads
        ]  # fmt: skip
        parts.append(
            box(0.08, width, height - floor, DARK, Material.METAL, length / 2 - 0.04, 0, floor)
        )
    for side in (-1, 1):
        y = side * 0.42 * width
        parts.append(box(0.05, 0.3, 0.14, _LAMP, Material.RETRO, back, y, 0.75))
        parts.append(box(0.1, 0.12, 0.9, DARK, Material.METAL, 0.3 * length, y, 0.05))
    axles = (back + 1.3, back + 2.5, back + 3.7)[: int(rng.integers(2, 4))]
    return size, join(parts + _wheels(axles, width, 0.46))


def draw_construction_vehicle(rng: np.random.Generator) -> tuple[Size, Mesh]:
    """An excavator or a wheel loader, its arm ahead."""
    length, width, height = draw_size(rng, EXCAVATOR_SIZE, EXCAVATOR_SPREAD)
    yellow: Color = tuple(np.array((0.80, 0.55, 0.08)) * rng.uniform(0.7, 1.15))
    back, front = -length / 2, length / 2
    digs = rng.random() < 0.55
    body = 0.5 * length
    middle = back + body / 2
    parts = [
        box(body, 0.86 * width, 0.35 * height, yellow, Material.PAINT, middle, 0, 0.34 * height),
        box(0.3 * body, 0.8 * width, 0.18 * height, DARK, Material.METAL, back + 0.16 * body, 0,
            0.62 * height),
        *_cab(middle + 0.18 * body, 0.2 * width if digs else 0.0, 0.32 * body, 0.42 * width,
              0.52 * height, height, yellow),
    ]  # fmt: skip
    if digs:
        parts += [
            box(0.92 * body, 0.24 * width, 0.3 * height, DARK, Material.RUBBER, middle,
                side * 0.38 * width) for side in (-1, 1)
        ]  # fmt: skip
        elbow = (middle + 0.75 * (front - middle), -0.1 * width, 0.95 * height)
        parts += [
            tube((middle, -0.1 * width, 0.5 * height), elbow, 0.2, yellow, Material.PAINT),
            tube(elbow, (front - 0.45, -0.1 * width, 0.35 * height), 0.15, yellow, Material.PAINT),
            box(0.9, 0.4 * width, 0.22 * height, DARK, Material.METAL, front - 0.45, -0.1 * width,
                0.1 * height),
        ]  # fmt: skip
    else:
        for side in (-1, 1):
            shoulder = (middle + 0.3 * body, side * 0.25 * width, 0.5 * height)
            hand = (front - 0.8, side * 0.25 * width, 0.2 * height)
            parts.append(tube(shoulder, hand, 0.13, yellow, Material.PAINT))
        parts.append(
            box(0.9, width, 0.3 * height, DARK, Material.METAL, front - 0.45, 0, 0.06 * height)
        )
        parts += _wheels((back + 0.24 * body, back + 0.95 * body), 0.98 * width, 0.27 * height)
    shape = join(parts)
    low, high = shape.extent
    shape = shape.at(*(-(low + high) / 2)[:2].tolist(), -float(low[2]))
    return (*(high - low).tolist(),), shape


def _cab(x, y, length, width, bottom, top, paint) -> list[Mesh]:
    """A cab's roof, posts and panes."""
    parts = [box(length, width, 0.1, paint, Material.PAINT, x, y, top - 0.1)]
    for side in (-1, 1):
        edge = y + side * width / 2
        parts.append(_pane((x - length / 2, edge, bottom), (x + length / 2, edge, top - 0.1)))
        end = x + side * length / 2
        parts.append(_pane((end, y - width / 2, bottom), (end, y + width / 2, top - 0.1)))
        for other in (-1, 1):
            post = y + other * width / 2
            parts.append(box(0.1, 0.1, top - bottom, paint, Material.PAINT, end, post, bottom))
    return parts


def _pane(low, high) -> Mesh:
    """An upright pane between two of its corners."""
    (x, y, z), (u, v, w) = low, high
    corners = np.array([(x, y, z), (u, v, z), (u, v, w), (x, y, w)])
    return quads(corners[None], DARK, Material.GLASS)


def _wheels(axles, width: float, radius: float) -> list[Mesh]:
    return [
        disc(radius, 0.3, DARK, Material.RUBBER, 12).at(x, side * (width / 2 - 0.16), radius)
        for x in axles for side in (-1, 1)
    ]  # fmt: skip
