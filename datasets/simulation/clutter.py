"""What stands about in a street, much of it about as large as a person or a car.

Everything stands on z = 0 at the origin.
"""

from __future__ import annotations

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Mesh, box, disc, join, pose, quads, repeated, tube
from datasets.simulation.people import bicycle
from datasets.simulation.plants import GREENS, bush
from datasets.simulation.scenery import DARK, SIGN_COLORS, STEEL


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


def bins(rng: np.random.Generator) -> Mesh:
    """Household bins side by side along y, put out for collection."""
    count = int(rng.integers(1, 5))
    return join([
        rubbish_bin(rng).at(rng.normal(0, 0.06), 0.68 * (i - (count - 1) / 2), 0,
                            rng.normal(0, 0.15))
        for i in range(count)
    ])  # fmt: skip


def bicycles(rng: np.random.Generator) -> Mesh:
    """A rack full of bicycles, side by side along y."""
    count, gap = int(rng.integers(2, 8)), rng.uniform(0.4, 0.7)
    places = gap * (np.arange(count) - (count - 1) / 2)
    poses = np.stack([
        pose(rng.normal(0, 0.08), y, yaw=rng.normal(0, 0.12), roll=rng.normal(0, 0.05))
        for y in places
    ])  # fmt: skip
    one = bicycle(tuple(rng.uniform(0.1, 0.7, 3)))
    rail = tube((0.5, places[0], 0.45), (0.5, places[-1], 0.45), 0.025, STEEL, Material.METAL, 5)
    return join([repeated(one, poses, rng.uniform(0.3, 1.4, (count, 3))), rail])


def trailer(rng: np.random.Generator) -> Mesh:
    """A car trailer along x, with a tilt, a load or nothing on it."""
    length, width = rng.uniform(1.8, 3.4), rng.uniform(1.2, 1.8)
    height = rng.uniform(0.35, 0.5)
    color = tuple(np.full(3, rng.uniform(0.15, 0.5)) * rng.uniform(0.8, 1.2, 3))
    parts = [
        box(length, width, rng.uniform(0.35, 0.5), color, Material.METAL, 0, 0, height),
        tube((length / 2, 0, height), (length / 2 + 1.2, 0, height), 0.05, STEEL, Material.METAL),
        box(0.05, width, 0.12, (0.6, 0.05, 0.05), Material.RETRO, -length / 2 - 0.03, 0, height),
    ]
    for side in (-1, 1):
        wheel = disc(0.28, 0.16, DARK, Material.RUBBER, 10)
        parts.append(wheel.at(-0.1 * length, side * (width / 2 + 0.1), 0.28))
    kind = rng.integers(3)
    if kind == 0:
        tilt = rng.uniform(0.5, 1.3)
        parts.append(box(length, width, tilt, color, Material.CLOTH, 0, 0, height + 0.4))
    elif kind == 1:
        load = rng.uniform((0.4, 0.4, 0.2), (0.9, 0.9, 0.8))
        parts.append(bush(rng, load[0] * length, load[1] * width, load[2]).at(0, 0, height + 0.4))
    return join(parts)


def motorcycle(rng: np.random.Generator) -> Mesh:
    """A motorcycle or scooter that stands, along x."""
    paint = tuple(rng.uniform(0.05, 0.6, 3))
    wheel = disc(0.29, 0.12, DARK, Material.RUBBER, 10)
    parts = [
        wheel.at(0.68, 0, 0.29), wheel.at(-0.66, 0, 0.29),
        box(0.5, 0.34, 0.4, DARK, Material.METAL, 0.05, 0, 0.2),
        box(0.5, 0.30, 0.26, paint, Material.PAINT, 0.12, 0, 0.62),
        box(0.75, 0.28, 0.14, DARK, Material.CLOTH, -0.4, 0, 0.68),
        tube((0.64, 0, 0.32), (0.42, 0, 1.02), 0.05, STEEL, Material.METAL, 5),
        tube((0.40, -0.36, 1.04), (0.40, 0.36, 1.04), 0.02, DARK, Material.METAL, 5),
        box(0.16, 0.26, 0.2, paint, Material.PAINT, 0.56, 0, 0.82),
    ]
    parts += [
        box(0.05, 0.12, 0.1, DARK, Material.PLASTIC, 0.44, side * 0.33, 1.1) for side in (-1, 1)
    ]
    if rng.random() < 0.6:                                          # a screen ahead of the rider
        parts.append(box(0.08, 0.4, 0.42, paint, Material.PLASTIC, 0.56, 0, 0.9))
    if rng.random() < 0.4:                                          # a case behind the seat
        parts.append(box(0.36, 0.42, 0.34, DARK, Material.PLASTIC, -0.76, 0, 0.8))
    return join(parts)


def stack(rng: np.random.Generator) -> Mesh:
    """Crates, pallets or building material in a heap."""
    parts, size = [], rng.uniform((0.6, 0.5, 0.3), (1.6, 1.2, 0.5))
    for level in range(int(rng.integers(1, 5))):
        color = tuple(np.array((0.45, 0.36, 0.26)) * rng.uniform(0.5, 1.5))
        material = Material(rng.choice([Material.WOOD, Material.PLASTIC, Material.CONCRETE]))
        across = size * rng.uniform(0.75, 1.05, 3)
        parts.append(
            box(*across, color, material, *rng.normal(0, 0.05, 2), level * size[2]).at(
                yaw=rng.normal(0, 0.08)
            )
        )
    return join(parts)


def planter(rng: np.random.Generator) -> Mesh:
    """A tub or trough of concrete or wood with a shrub in it."""
    length, width, height = rng.uniform((0.5, 0.5, 0.35), (2.2, 0.9, 0.7))
    tub = box(length, width, height, (0.5, 0.47, 0.42), Material.CONCRETE)
    plant = bush(rng, 0.9 * length, 1.1 * width, rng.uniform(0.3, 1.3))
    return join([tub, plant.at(0, 0, height - 0.05)])


def shelter(rng: np.random.Generator) -> Mesh:
    """A bus stop or bicycle shelter, open towards -y."""
    length, depth, height = rng.uniform((2.5, 1.2, 2.2), (4.5, 1.8, 2.6))
    parts = [
        box(length + 0.2, depth + 0.3, 0.1, DARK, Material.METAL, 0, 0, height),
        box(length, 0.04, height - 0.4, (0.3, 0.34, 0.36), Material.GLASS, 0, depth / 2, 0.3),
        box(0.04, depth, height - 0.4, (0.3, 0.34, 0.36), Material.GLASS, length / 2, 0, 0.3),
        box(0.6 * length, 0.4, 0.06, (0.4, 0.28, 0.17), Material.WOOD, 0, depth / 2 - 0.35, 0.45),
    ]
    for x in (-length / 2, length / 2):
        for y in (-depth / 2, depth / 2):
            parts.append(box(0.08, 0.08, height, STEEL, Material.METAL, x, y))
    return join(parts)


def display(rng: np.random.Generator) -> Mesh:
    """What shops put out: a rail of clothes, a table of goods, a rack, along x."""
    length, height = rng.uniform(0.8, 2.2), rng.uniform(1.2, 1.7)
    parts = [
        tube((x, 0, 0), (x, 0, height), 0.02, STEEL, Material.METAL, 5)
        for x in (-length / 2, length / 2)
    ]
    if rng.random() < 0.5:
        for x in np.arange(-length / 2 + 0.1, length / 2, 0.12):
            color = tuple(rng.uniform(0.05, 0.9, 3))
            drop = rng.uniform(0.5, 1.0)
            parts.append(
                box(0.05, 0.45, drop, color, Material.CLOTH, x, rng.normal(0, 0.04), height - drop)
            )
    else:
        for level in np.linspace(0.3, height - 0.1, int(rng.integers(2, 5))):
            color = tuple(rng.uniform(0.1, 0.9, 3))
            parts.append(box(length, 0.4, 0.15, color, Material.PLASTIC, 0, 0, level))
    return join(parts)


def barrier(rng: np.random.Generator) -> Mesh:
    """Boards and fence panels round a building site, along x."""
    length = rng.uniform(1.5, 3.5)
    if rng.random() < 0.5:
        parts = [box(length, 0.04, 0.25, (0.85, 0.3, 0.25), Material.RETRO, 0, 0, z)
                 for z in (0.3, 0.85)]  # fmt: skip
    else:
        bars = np.linspace(-length / 2, length / 2, int(length / 0.18))
        parts = [box(0.012, 0.012, 1.9, STEEL, Material.METAL, x) for x in bars]
        parts += [box(length, 0.04, 0.04, STEEL, Material.METAL, 0, 0, z) for z in (0.05, 1.9)]
    parts += [box(0.3, 0.7, 0.12, DARK, Material.PLASTIC, x) for x in (-length / 2, length / 2)]
    return join(parts)


def steps(rng: np.random.Generator) -> Mesh:
    """Stairs up to a door, towards +y, with a handrail."""
    count, width = int(rng.integers(2, 7)), rng.uniform(1.0, 2.2)
    parts = [
        box(width, 0.3 * (count - i), 0.17 * (i + 1), (0.5, 0.49, 0.47), Material.CONCRETE, 0,
            -0.15 * (count - i))
        for i in range(count)
    ]  # fmt: skip
    side, top = width / 2 - 0.05, 0.17 * count
    parts.append(
        tube((side, -0.3 * count, 0.95), (side, 0, top + 0.95), 0.025, STEEL, Material.METAL, 5)
    )
    parts += [tube((side, y, 0), (side, y, z), 0.02, STEEL, Material.METAL, 5)
              for y, z in ((-0.3 * count, 0.95), (0, top + 0.95))]  # fmt: skip
    return join(parts)
