"""What lines a street: plants, poles, signs, and clutter that a detector may take for an object.

Everything stands on z = 0 at the origin; fences, hedges and walls run from the origin along +x.
"""

from __future__ import annotations

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import (
    Color,
    Mesh,
    box,
    disc,
    ellipsoid,
    join,
    leaves,
    mesh,
    quads,
    repeated,
    tube,
)

GREENS: tuple[Color, ...] = ((0.16, 0.30, 0.08), (0.22, 0.34, 0.10), (0.12, 0.24, 0.09),
                             (0.30, 0.36, 0.12))  # fmt: skip
STEEL, DARK = (0.50, 0.52, 0.54), (0.12, 0.13, 0.14)
SIGN_COLORS: tuple[Color, ...] = ((0.75, 0.08, 0.08), (0.08, 0.20, 0.60), (0.90, 0.90, 0.88),
                                  (0.92, 0.75, 0.10))  # fmt: skip


# ------------------------------------------------------------------------------------- plants


def tree(rng: np.random.Generator, height: float) -> Mesh:
    """A broad-leaved tree: trunk, boughs, and a crown of leaves with holes to look through."""
    trunk = height * rng.uniform(0.28, 0.40)
    radius = 0.018 * height + rng.uniform(0.02, 0.08)
    bark = (0.24, 0.19, 0.14)
    spread = height * rng.uniform(0.22, 0.32)
    middle = np.array([0, 0, (trunk + height) / 2])
    parts = [tube((0, 0, -0.1), (0, 0, trunk * 1.25), (radius, radius * 0.7), bark, Material.BARK)]
    clumps = rng.normal(0, 0.42, (7, 3)) * (spread, spread, (height - trunk) / 2) + middle
    parts += [
        tube((0, 0, trunk * 0.95), clump, (radius * 0.5, 0.03), bark, Material.BARK, 4)
        for clump in clumps[:4]
    ]
    count = int(70 * height)
    inside = _ball(rng, count) * spread * rng.uniform(0.5, 0.62, (count, 1)) * (1, 1, 0.9)
    centers = clumps[rng.integers(len(clumps), size=count)] + inside
    centers[:, 2] = np.clip(centers[:, 2], trunk * 0.85, None)
    parts.append(leaves(rng, centers, 0.34, GREENS[rng.integers(len(GREENS))]))
    return join(parts)


def conifer(rng: np.random.Generator, height: float) -> Mesh:
    """A fir-like tree, leaved down to the ground."""
    count = int(60 * height)
    level = 1 - np.sqrt(rng.random(count))
    angle = rng.uniform(0, 2 * np.pi, count)
    reach = (1 - level) * height * 0.2 * np.sqrt(rng.uniform(0.4, 1, count))
    centers = np.column_stack(
        [reach * np.cos(angle), reach * np.sin(angle), 0.3 + level * (height - 0.4)]
    )
    trunk = tube((0, 0, 0), (0, 0, height * 0.6), (0.13, 0.05), (0.2, 0.15, 0.1), Material.BARK, 5)
    return join([trunk, leaves(rng, centers, 0.30, (0.10, 0.20, 0.10))])


def bush(rng: np.random.Generator, length: float, width: float, height: float) -> Mesh:
    """A shrub with leaves all over it; some have about the size of a person or a car."""
    core = ellipsoid(
        (0.40 * length, 0.40 * width, 0.44 * height), (0, 0, 0.46 * height), (0.10, 0.14, 0.06),
        Material.FOLIAGE, 4, 7,
    )  # fmt: skip
    count = int(np.clip(110 * length * width * height, 60, 700))
    size = (0.46 * length, 0.46 * width, 0.48 * height)
    centers = _ball(rng, count) * size + (0, 0, 0.5 * height)
    return join([core, leaves(rng, centers, 0.14, GREENS[rng.integers(len(GREENS))])])


def hedge(rng: np.random.Generator, length: float, height: float, width: float = 0.7) -> Mesh:
    """A clipped hedge."""
    core = box(
        length, width * 0.8, height * 0.95, (0.10, 0.15, 0.07), Material.FOLIAGE, length / 2
    )
    count = int(np.clip(30 * length * height, 40, 1200))
    centers = rng.uniform(
        (0, -0.5 * width, 0.05), (length, 0.5 * width, height * 1.02), (count, 3)
    )
    return join([core, leaves(rng, centers, 0.15, GREENS[rng.integers(len(GREENS))])])


def grass_tufts(rng: np.random.Generator, length: float, width: float) -> Mesh:
    """Weeds and tall grass on a verge: a low, ragged surface."""
    count = int(np.clip(5 * length * width, 10, 500))
    centers = rng.uniform((0, -width / 2, 0.0), (length, width / 2, 0.22), (count, 3))
    return leaves(rng, centers, 0.17, (0.32, 0.38, 0.14))


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


def wall(rng: np.random.Generator, length: float) -> Mesh:
    """A garden or retaining wall."""
    height = rng.uniform(0.5, 2.1)
    material = Material(rng.choice([Material.BRICK, Material.CONCRETE, Material.PLASTER]))
    tone = rng.uniform(0.35, 0.7)
    color = (tone * 0.8, tone * 0.5, tone * 0.4) if material == Material.BRICK else (tone,) * 3
    body = box(length, 0.25, height, color, material, length / 2)
    cap = box(length, 0.33, 0.07, (0.45,) * 3, Material.CONCRETE, length / 2, 0, height)
    return join([body, cap])


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


# -------------------------------------------------------------------------------------- clutter


def rubbish_bin(rng: np.random.Generator) -> Mesh:
    """A wheeled household bin, about as high as a child."""
    width, height = rng.uniform(0.48, 0.62), rng.uniform(0.95, 1.15)
    color = ((0.15, 0.15, 0.16), (0.12, 0.25, 0.14), (0.14, 0.20, 0.40), (0.55, 0.45, 0.10))
    body = color[rng.integers(4)]
    return join([
        box(0.52, width * 0.9, height * 0.9, body, Material.PLASTIC, 0, 0, 0.05),
        box(0.60, width, 0.08, body, Material.PLASTIC, 0, 0, height * 0.93),
        disc(0.1, width, DARK, Material.RUBBER, 8).at(-0.24, 0, 0.1),
    ])  # fmt: skip


def container(rng: np.random.Generator) -> Mesh:
    """A skip or a bottle bank, between a van and a large bin in size."""
    length, width, height = rng.uniform((1.2, 1.0, 1.1), (3.2, 1.7, 1.7))
    color = np.array(GREENS[rng.integers(4)]) if rng.random() < 0.6 else np.full(3, 0.45)
    body = box(length, width, height, tuple(color), Material.METAL, 0, 0, 0.1)
    lid = box(length + 0.1, width + 0.1, 0.12, DARK, Material.PLASTIC, 0, 0, height + 0.1)
    feet = [box(0.2, width, 0.1, DARK, Material.METAL, s * 0.4 * length) for s in (-1, 1)]
    return join([body, lid, *feet])


def cabinet(rng: np.random.Generator) -> Mesh:
    """A grey box of a telephone or power company."""
    size = rng.uniform((0.3, 0.5, 0.8), (0.5, 1.6, 1.6))
    return box(*size, (0.52, 0.54, 0.50), Material.PLASTIC)


def post_with_poster(rng: np.random.Generator) -> Mesh:
    """A stand-up advertising board or a poster column."""
    if rng.random() < 0.4:
        height = rng.uniform(2.6, 3.4)
        color = tuple(rng.uniform(0.3, 0.8, 3))
        return tube((0, 0, 0), (0, 0, height), 0.62, color, Material.PLASTER, 14)
    slope = np.array([(-0.3, -0.32, 0), (-0.3, 0.32, 0), (0, 0.32, 1.15), (0, -0.32, 1.15)])
    color = tuple(rng.uniform(0.2, 0.9, 3))
    return quads(np.stack([slope, slope * (-1, 1, 1)]), color, Material.PLASTIC)


def bench(rng: np.random.Generator) -> Mesh:
    """A bench with a back, 1.7 m along y; sitters look towards +x."""
    wood = (0.40, 0.28, 0.17)
    parts = [box(0.42, 1.7, 0.05, wood, Material.WOOD, 0, 0, 0.42)]
    parts += [box(0.04, 1.7, 0.12, wood, Material.WOOD, -0.22, 0, z) for z in (0.58, 0.76)]
    parts += [box(0.4, 0.07, 0.42, STEEL, Material.METAL, 0, y) for y in (-0.7, 0.7)]
    return join(parts)


def table_with_parasol(rng: np.random.Generator) -> Mesh:
    """A cafe table with chairs; its parasol hides whoever sits below from above."""
    color = tuple(np.array(SIGN_COLORS[rng.integers(4)]) * 0.9)
    shade = tube((0, 0, 2.15), (0, 0, 2.6), (1.4, 0.05), color, Material.CLOTH, 8)
    parts = [
        shade,
        tube((0, 0, 0), (0, 0, 2.6), 0.025, STEEL, Material.METAL, 5),
        tube((0, 0, 0.70), (0, 0, 0.74), 0.42, (0.5, 0.4, 0.3), Material.WOOD, 10),
    ]
    for angle in rng.uniform(0, 2 * np.pi, 3):
        x, y = 0.85 * np.cos(angle), 0.85 * np.sin(angle)
        chair = join([
            box(0.42, 0.42, 0.06, DARK, Material.PLASTIC, 0, 0, 0.42),
            box(0.05, 0.42, 0.45, DARK, Material.PLASTIC, 0.2, 0, 0.46),
            box(0.36, 0.36, 0.42, DARK, Material.PLASTIC),
        ])  # fmt: skip
        parts.append(chair.at(x, y, 0, angle))
    return join(parts)


def _ball(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) points in the unit ball, denser towards its surface."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * rng.random((count, 1)) ** 0.2


def _shifts(places: np.ndarray) -> np.ndarray:
    """(N, 4, 4) shifts along x."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, 0, 3] = places
    return poses
