"""Fences, walls, poles and signs that line a street.

Everything stands on z = 0 at the origin; fences and walls run from the origin along +x.
"""

from __future__ import annotations

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, box, disc, join, mesh, quads, repeated, tube

STEEL, DARK = (0.50, 0.52, 0.54), (0.12, 0.13, 0.14)
SIGN_COLORS: tuple[Color, ...] = ((0.75, 0.08, 0.08), (0.08, 0.20, 0.60), (0.90, 0.90, 0.88),
                                  (0.92, 0.75, 0.10))  # fmt: skip


# -------------------------------------------------------------------------- fences and walls


def picket_fence(rng: np.random.Generator, length: float) -> Mesh:
    """Upright bars or boards between posts, with gaps to look through."""
    height = rng.uniform(0.9, 1.6)
    wooden = rng.random() < 0.5
    color, material = ((0.36, 0.25, 0.16), Material.WOOD) if wooden else (DARK, Material.METAL)
    breadth, gap = (0.09, 0.16) if wooden else (0.03, 0.14)
    places = np.arange(0, length, gap)
    bar = box(breadth, 0.03, height, color, material)
    parts = [repeated(bar, _shifts(places))]
    for level in (0.2, 0.85):
        parts.append(
            box(length, 0.05, 0.06, color, material, length / 2, 0, level * height)
        )
    post = box(0.1, 0.1, height + 0.08, color, material)
    parts.append(repeated(post, _shifts(np.linspace(0, length, max(2, int(length / 2.5) + 1)))))
    return join(parts)


def wall(rng: np.random.Generator, length: float, height: float | None = None) -> Mesh:
    """A garden or retaining wall, some with pillars, some in steps of different height."""
    height = rng.uniform(0.5, 2.2) if height is None else height
    material = Material(rng.choice([Material.BRICK, Material.CONCRETE, Material.PLASTER]))
    tone = rng.uniform(0.35, 0.7)
    color = (tone * 0.8, tone * 0.5, tone * 0.4) if material == Material.BRICK else (tone,) * 3
    stretch = rng.uniform(2.2, 5.0)
    edges = np.linspace(0, length, max(2, int(length / stretch) + 1))
    step = rng.uniform(0.05, 0.4) if rng.random() < 0.3 else 0.0
    pillars = rng.random() < 0.4
    parts = []
    for number, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        top, middle = height + step * (number % 2), (first + last) / 2
        parts.append(box(last - first, 0.25, top, color, material, middle))
        parts.append(box(last - first, 0.33, 0.07, (0.45,) * 3, Material.CONCRETE, middle, 0, top))
        if pillars:
            parts.append(box(0.42, 0.42, top + 0.25, color, material, first))
    return join(parts)


def wall_with_fence(rng: np.random.Generator, length: float) -> Mesh:
    """A low wall that carries a fence."""
    low = rng.uniform(0.3, 1.0)
    return join([wall(rng, length, low), picket_fence(rng, length).at(0, 0, low)])


def board_fence(rng: np.random.Generator, length: float) -> Mesh:
    """Boards or reed mats without gaps, as high as a person, between posts."""
    height = rng.uniform(1.3, 2.3)
    edges = np.linspace(0, length, max(2, int(length / rng.uniform(1.6, 2.6)) + 1))
    wood = tuple(np.array((0.40, 0.29, 0.19)) * rng.uniform(0.6, 1.3))
    parts = [
        box(last - first - 0.04, 0.05, height + rng.normal(0, 0.03), wood, Material.WOOD,
            (first + last) / 2, rng.normal(0, 0.02), 0.04)
        for first, last in zip(edges[:-1], edges[1:], strict=True)
    ]  # fmt: skip
    post = box(0.1, 0.1, height + 0.1, wood, Material.WOOD)
    return join([*parts, repeated(post, _shifts(edges))])


def guard_rail(length: float) -> Mesh:
    """A steel crash barrier on posts."""
    profile = np.array([(0, 0.42), (0.06, 0.49), (0, 0.57), (0.06, 0.65), (0, 0.73)])
    corners = [
        [(0, y0, z0), (length, y0, z0), (length, y1, z1), (0, y1, z1)]
        for (y0, z0), (y1, z1) in zip(profile[:-1], profile[1:], strict=True)
    ]
    posts = repeated(box(0.06, 0.1, 0.7, STEEL, Material.METAL), _shifts(np.arange(0, length, 3)))
    return join([quads(np.array(corners), STEEL, Material.METAL), posts])


# ---------------------------------------------------------------------------- poles and signs


def lamp_post(rng: np.random.Generator) -> Mesh:
    """A street lamp on a pole with an arm."""
    height, arm = rng.uniform(4.5, 8.5), rng.uniform(0.3, 2.0)
    return join([
        tube((0, 0, 0), (0, 0, height), (0.09, 0.05), STEEL, Material.METAL, 8),
        tube((0, 0, height), (arm, 0, height + 0.15), 0.035, STEEL, Material.METAL, 5),
        box(0.6, 0.2, 0.1, DARK, Material.METAL, arm, 0, height + 0.1),
    ])  # fmt: skip


def road_sign(rng: np.random.Generator) -> Mesh:
    """A round, triangular or square sign on a post; it faces -x."""
    height = rng.uniform(2.1, 2.9)
    color = SIGN_COLORS[rng.integers(len(SIGN_COLORS))]
    post = tube((0, 0, 0), (0, 0, height), 0.032, STEEL, Material.METAL, 6)
    sides = int(rng.choice([3, 4, 14]))
    angle = np.arange(sides) * 2 * np.pi / sides + np.pi / 2
    rim = 0.36 * np.column_stack([np.zeros(sides), np.cos(angle), np.sin(angle)])
    fan = np.column_stack([np.zeros(sides - 2), np.arange(1, sides - 1), np.arange(2, sides)])
    plate = mesh(rim + (-0.05, 0, height - 0.3), fan, color, Material.RETRO)
    face = mesh(
        rim * 0.7 + (-0.055, 0, height - 0.3), fan, (0.92, 0.92, 0.9), Material.RETRO
    )
    return join([post, plate, face])


def direction_board(rng: np.random.Generator) -> Mesh:
    """A large board on two posts; it faces -x."""
    width, height = rng.uniform(1.4, 3.0), rng.uniform(1.0, 2.0)
    bottom = rng.uniform(0.6, 2.2)
    color = SIGN_COLORS[rng.integers(len(SIGN_COLORS))]
    posts = [
        tube((0.05, y, 0), (0.05, y, bottom + height), 0.05, STEEL, Material.METAL, 6)
        for y in (-0.35 * width, 0.35 * width)
    ]
    return join([*posts, box(0.04, width, height, color, Material.RETRO, 0, 0, bottom)])


def traffic_light(rng: np.random.Generator) -> Mesh:
    """Signal heads on a pole; they face -x."""
    height = rng.uniform(3.0, 3.6)
    parts = [
        tube((0, 0, 0), (0, 0, height), 0.06, STEEL, Material.METAL, 7),
        box(0.2, 0.28, 0.85, DARK, Material.PLASTIC, -0.12, 0, height - 0.9),
    ]
    for i, color in enumerate(((0.1, 0.5, 0.15), (0.6, 0.4, 0.05), (0.7, 0.05, 0.05))):
        lens = disc(0.09, 0.03, color, Material.PLASTIC, 8).at(yaw=np.pi / 2)
        parts.append(lens.at(-0.23, 0, height - 0.76 + 0.28 * i))
    return join(parts)


def bollard(rng: np.random.Generator) -> Mesh:
    """A post at the kerb."""
    radius, height = rng.uniform(0.05, 0.14), rng.uniform(0.6, 1.2)
    top = (0.85, 0.85, 0.82)
    return join([
        tube((0, 0, 0), (0, 0, height), radius, DARK, Material.METAL, 7),
        tube((0, 0, height * 0.8), (0, 0, height * 0.9), radius * 1.1, top, Material.RETRO, 7),
    ])  # fmt: skip


def _shifts(places: np.ndarray) -> np.ndarray:
    """(N, 4, 4) shifts along x."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, 0, 3] = places
    return poses
