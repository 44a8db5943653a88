"""Houses and blocks with windows, doors, balconies and roofs.

A building's front runs from the origin along +x on y = 0; the building lies behind it, y > 0.
"""

from __future__ import annotations

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, box, join, mesh, quads

FACADES: tuple[Color, ...] = (
    (0.80, 0.77, 0.70), (0.72, 0.66, 0.52), (0.62, 0.60, 0.58), (0.76, 0.60, 0.48),
    (0.70, 0.72, 0.74), (0.85, 0.84, 0.82), (0.60, 0.36, 0.28), (0.78, 0.72, 0.45),
)  # fmt: skip
ROOFS: tuple[Color, ...] = ((0.42, 0.20, 0.14), (0.30, 0.17, 0.13), (0.22, 0.21, 0.22))
PANE, FRAME = (0.10, 0.13, 0.17), (0.88, 0.88, 0.86)


def building(
    rng: np.random.Generator, length: float, depth: float, floors: int, pitched: bool,
    shop: bool = False,
) -> Mesh:  # fmt: skip
    """A building of `floors` storeys; `shop`: the ground floor is a row of shop windows."""
    storey = rng.uniform(2.7, 3.3)
    height = floors * storey + 0.5
    color = FACADES[rng.integers(len(FACADES))]
    material = Material.BRICK if rng.random() < 0.15 else Material.PLASTER
    base = tuple(0.65 * np.array(color))
    parts = [
        box(length, depth, height, color, material, length / 2, depth / 2, 0),
        box(length + 0.1, depth + 0.1, 0.55, base, Material.CONCRETE, length / 2, depth / 2, 0),
    ]
    parts.append(_windows(rng, length, floors, storey, from_floor=1 if shop else 0))
    sides = _windows(rng, depth, floors, storey)
    quarter = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    right = quarter.copy()
    right[0, 3] = length
    mirrored = np.diag([-1.0, 1, 1, 1]) @ quarter          # the left flank looks towards -x
    mirrored[0, 3] = 0
    parts += [sides.moved(right), sides.moved(mirrored)]
    if shop:
        parts.append(_shop_front(rng, length, storey))
    elif rng.random() < 0.4 and floors > 2:
        parts += _balconies(rng, length, floors, storey)
    if pitched:
        parts.append(_gable(rng, length, depth, height))
    else:
        parts.append(
            box(length + 0.3, depth + 0.3, 0.35, (0.4, 0.4, 0.4), Material.CONCRETE, length / 2,
                depth / 2, height)
        )  # fmt: skip
    if rng.random() < 0.6:                               # a drain pipe
        x = rng.uniform(0.2, length - 0.2)
        parts.append(box(0.1, 0.1, height, (0.45, 0.45, 0.45), Material.METAL, x, -0.07))
    return join(parts)


def garage(rng: np.random.Generator, length: float) -> Mesh:
    """A low garage or shed with a door."""
    color = FACADES[rng.integers(len(FACADES))]
    door = _panel(0.4, length - 0.4, 0.1, 2.1, -0.02)
    return join([
        box(length, 5.5, 2.6, color, Material.PLASTER, length / 2, 2.75),
        quads(door, (0.55, 0.56, 0.55), Material.METAL),
    ])  # fmt: skip


def _windows(rng, length: float, floors: int, storey: float, from_floor: int = 0) -> Mesh:
    """Rows of framed windows, and a door on the ground floor; the panes lie behind the frames."""
    spacing = rng.uniform(2.0, 3.0)
    width, height = rng.uniform(0.9, 1.4), rng.uniform(1.2, 1.7)
    columns = max(1, int((length - 0.6) / spacing))
    first = (length - (columns - 1) * spacing) / 2
    x = first + spacing * np.arange(columns)
    z = 1.25 + storey * np.arange(from_floor, floors)
    if not len(z):
        return join([])
    x, z = (grid.ravel() for grid in np.meshgrid(x, z))
    kept = rng.random(len(x)) > 0.06
    x, z = x[kept], z[kept]
    panes = _panel(x - width / 2, x + width / 2, z, z + height, -0.03)
    frames = _panel(x - width / 2 - 0.1, x + width / 2 + 0.1, z - 0.1, z + height + 0.1, -0.02)
    tint = np.array(PANE) * rng.uniform(0.6, 2.2, (len(x), 1))
    parts = [quads(frames, FRAME, Material.PLASTER), quads(panes, tint, Material.GLASS)]
    sills = _ledge(x - width / 2 - 0.12, x + width / 2 + 0.12, z - 0.12, 0.14)
    parts.append(quads(sills, (0.6, 0.6, 0.58), Material.CONCRETE))
    if from_floor == 0:
        at = rng.uniform(0.7, max(0.8, length - 0.7))
        parts.append(quads(_panel(at - 0.5, at + 0.5, 0.0, 2.2, -0.06), (0.25, 0.18, 0.14),
                           Material.WOOD))  # fmt: skip
    return join(parts)


def _shop_front(rng, length: float, storey: float) -> Mesh:
    """Panes almost from wall to wall, a sign board over them, sometimes an awning."""
    panes = max(1, int(length / 3.2))
    edges = np.linspace(0.2, length - 0.2, panes + 1)
    glass = _panel(edges[:-1] + 0.12, edges[1:] - 0.12, 0.4, storey - 0.55, -0.03)
    parts = [quads(glass, np.array(PANE) * rng.uniform(0.6, 3.0, (panes, 1)), Material.GLASS)]
    sign = tuple(rng.uniform(0.15, 0.85, 3))
    parts.append(
        box(length - 0.4, 0.15, 0.5, sign, Material.PLASTIC, length / 2, -0.08, storey - 0.5)
    )
    if rng.random() < 0.4:
        out = rng.uniform(0.9, 1.5)
        slope = np.array([(0.3, 0, storey - 0.4), (length - 0.3, 0, storey - 0.4),
                          (length - 0.3, -out, storey - 0.9), (0.3, -out, storey - 0.9)])
        parts.append(quads(slope[None], tuple(rng.uniform(0.2, 0.8, 3)), Material.CLOTH))
    return join(parts)


def _balconies(rng, length: float, floors: int, storey: float) -> list[Mesh]:
    parts = []
    for at in np.arange(rng.uniform(1.5, 3), length - 2, rng.uniform(4.5, 7)):
        for floor in range(1, floors):
            z = floor * storey + 0.3
            parts.append(box(2.2, 1.1, 0.15, (0.6,) * 3, Material.CONCRETE, at, -0.55, z))
            parts.append(box(2.2, 0.05, 0.95, (0.5,) * 3, Material.METAL, at, -1.08, z + 0.15))
    return parts


def _gable(rng, length: float, depth: float, height: float) -> Mesh:
    """A saddle roof whose ridge runs along the street."""
    rise, over = depth * rng.uniform(0.35, 0.5), 0.35
    eaves = height - 0.1
    x0, x1 = -over, length + over
    front, back, ridge = (-over, eaves), (depth + over, eaves), (depth / 2, height + rise)
    slopes = [[(x0, *a), (x1, *a), (x1, *ridge), (x0, *ridge)] for a in (front, back)]
    color = ROOFS[rng.integers(len(ROOFS))]
    ends = [[(x, 0, height), (x, depth, height), (x, *ridge)] for x in (0, length)]
    triangles = mesh(np.array(ends), np.arange(6), (0.7, 0.66, 0.6), Material.PLASTER)
    return join([quads(np.array(slopes), color, Material.ROOF), triangles])


def _panel(x0, x1, z0, z1, y: float) -> np.ndarray:
    """(N, 4, 3) upright rectangles parallel to the front, at y."""
    x0, x1, z0, z1 = np.broadcast_arrays(*map(np.atleast_1d, (x0, x1, z0, z1)))
    corners = [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]
    return np.stack([np.stack([x, np.full(x.shape, y), z], -1) for x, z in corners], 1)


def _ledge(x0, x1, z, out: float) -> np.ndarray:
    """(N, 4, 3) level rectangles that stand out of the front."""
    corners = [(x0, 0.0), (x1, 0.0), (x1, -out), (x0, -out)]
    return np.stack([np.stack([x, np.full(x.shape, y), z], -1) for x, y in corners], 1)
