"""Houses and blocks with windows, doors, balconies and roofs.

A building's front runs from the origin along +x on y = 0; the building lies behind it, y > 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, box, join, mesh, quads

FACADES: tuple[Color, ...] = (
    (0.80, 0.77, 0.70), (0.72, 0.66, 0.52), (0.62, 0.60, 0.58), (0.76, 0.60, 0.48),
    (0.70, 0.72, 0.74), (0.85, 0.84, 0.82), (0.60, 0.36, 0.28), (0.78, 0.72, 0.45),
)  # fmt: skip
ROOFS: tuple[Color, ...] = ((0.42, 0.20, 0.14), (0.30, 0.17, 0.13), (0.22, 0.21, 0.22))
PANE, FRAME, DARK_ROOF = (0.10, 0.13, 0.17), (0.88, 0.88, 0.86), (0.22, 0.21, 0.22)


def building(
    rng: np.random.Generator, length: float, depth: float, floors: int, pitched: bool,
    shop: bool = False,
) -> Mesh:  # fmt: skip
    """A building of `floors` storeys; `shop`: the ground floor is a row of shop windows."""
    storey = rng.uniform(2.7, 3.3)
    height = floors * storey + 0.5
    skin = _Skin(
        FACADES[rng.integers(len(FACADES))],
        Material.BRICK if rng.random() < 0.15 else Material.PLASTER,
        inset=float(rng.uniform(0.05, 0.28)),
        blinds=float(rng.uniform(0.1, 0.8)),
    )
    base = tuple(0.65 * np.array(skin.color))
    parts = [
        box(length + 0.1, depth + 0.1, 0.55, base, Material.CONCRETE, length / 2, depth / 2, 0),
        quads(_panel(0, length, 0, height, depth), skin.color, skin.material),
        # Rooms end somewhere.
        quads(_panel(0.2, length - 0.2, 0, height, rng.uniform(1.2, 4.5)), (0.6, 0.57, 0.52),
              Material.PLASTER),
    ]  # fmt: skip
    first = storey if shop else 0.0
    parts.append(_windows(rng, skin, length, first, height, floors - shop, storey))
    sides = _windows(rng, skin, depth, 0.0, height, floors, storey)
    quarter = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    right = quarter.copy()
    right[0, 3] = length
    mirrored = np.diag([-1.0, 1, 1, 1]) @ quarter          # the left flank looks towards -x
    mirrored[0, 3] = 0
    parts += [sides.moved(right), sides.moved(mirrored)]
    if shop:
        parts.append(_shop_front(rng, skin, length, storey))
    else:
        parts.append(_door(rng, length))
        if floors > 2 and rng.random() < 0.4:
            parts += _balconies(rng, length, floors, storey)
        elif rng.random() < 0.2:
            parts.append(_bay(rng, skin, length, height, storey))
    if pitched:
        parts.append(_gable(rng, length, depth, height))
    else:
        parts.append(
            box(length + 0.3, depth + 0.3, 0.35, (0.4, 0.4, 0.4), Material.CONCRETE, length / 2,
                depth / 2, height)
        )  # fmt: skip
    for _ in range(rng.integers(0, 3)):                  # drain pipes
        x = rng.uniform(0.2, length - 0.2)
        parts.append(box(0.1, 0.1, height, (0.45, 0.45, 0.45), Material.METAL, x, -0.07))
    return join(parts)


def garages(rng: np.random.Generator, count: int) -> Mesh:
    """A row of low garages whose doors lie back behind the wall."""
    width, height = rng.uniform(2.8, 3.6), rng.uniform(2.4, 2.9)
    length = count * width
    skin = _Skin(FACADES[rng.integers(len(FACADES))], Material.PLASTER, rng.uniform(0.08, 0.6), 0)
    left = width * np.arange(count) + 0.25
    front, doors = _pierced(
        skin, length, 0, height, (left, left + width - 0.5), (np.zeros(1), np.full(1, 2.1)),
        np.ones((1, count), bool),
    )  # fmt: skip
    over = rng.uniform(0.05, 0.6)
    shade = tuple(np.full(3, rng.uniform(0.2, 0.7)))
    return join([
        front,
        quads(doors + (0, skin.inset, 0), shade, Material.METAL),
        box(length, 5.3, height, skin.color, skin.material, length / 2, 3.35),
        box(length + 0.2, 6.2 + over, 0.2, DARK_ROOF, Material.ROOF, length / 2, 3.1 - over / 2,
            height),
    ])  # fmt: skip


# ----------------------------------------------------------------------------- parts of a front


@dataclass(frozen=True)
class _Skin:
    """How a building's outer walls look."""

    color: Color
    material: Material
    inset: float
    """How far panes and doors lie behind the wall, metres."""
    blinds: float
    """Share of the panes with a shutter drawn, which sends light back."""


def _pierced(
    skin: _Skin, length: float, low: float, high: float, columns, rows, kept
) -> tuple[Mesh, np.ndarray]:
    """A wall with openings.

    Args:
        columns, rows: (first, last) x of each column of openings, z of each row.
        kept: (rows, columns) which openings there are.

    Returns:
        the wall with its reveals, and the corners (N, 4, 3) of the openings at y = 0.
    """
    (x0, x1), (z0, z1) = columns, rows
    bands_z0, bands_z1 = np.append(low, z1), np.append(z0, high)
    piers_x0, piers_x1 = np.append(0.0, x1), np.append(x0, length)
    some = bands_z1 > bands_z0 + 1e-6
    pieces = [_panel(0.0, length, bands_z0[some], bands_z1[some], 0.0)]
    if len(z0):
        left, bottom = np.meshgrid(piers_x0, z0)
        right, top = np.meshgrid(piers_x1, z1)
        pieces.append(_panel(left.ravel(), right.ravel(), bottom.ravel(), top.ravel(), 0.0))
    left, bottom = np.meshgrid(x0, z0)
    right, top = np.meshgrid(x1, z1)
    openings = _panel(left.ravel(), right.ravel(), bottom.ravel(), top.ravel(), 0.0)
    kept = kept.ravel()
    pieces.append(openings[~kept])
    openings = openings[kept]
    behind = openings + (0, skin.inset, 0)
    ahead, ahead_behind = np.roll(openings, -1, 1), np.roll(behind, -1, 1)
    reveals = np.stack([openings, ahead, ahead_behind, behind], 2).reshape(-1, 4, 3)
    pieces.append(reveals)
    return quads(np.concatenate(pieces), skin.color, skin.material), openings


def _windows(
    rng, skin: _Skin, length: float, low: float, high: float, floors: int, storey: float
) -> Mesh:
    """A wall from z = `low` to `high` with rows of windows that lie back behind it."""
    spacing = rng.uniform(2.0, 3.0)
    width, height = rng.uniform(0.9, 1.4), rng.uniform(1.2, 1.7)
    columns = max(1, int((length - 0.6) / spacing))
    x = (length - (columns - 1) * spacing) / 2 + spacing * np.arange(columns) - width / 2
    z = low + rng.uniform(0.9, 1.3) + storey * np.arange(floors)
    kept = rng.random((floors, columns)) > 0.08
    wall, openings = _pierced(skin, length, low, high, (x, x + width), (z, z + height), kept)
    parts = [wall, *_panes(rng, skin, openings)]
    low_x, low_z, high_x = openings[:, 0, 0], openings[:, 0, 2], openings[:, 1, 0]
    sills = _ledge(low_x - 0.1, high_x + 0.1, low_z - 0.02, rng.uniform(0.05, 0.2))
    parts.append(quads(sills, (0.6, 0.6, 0.58), Material.CONCRETE))
    if rng.random() < 0.25:                              # shutters beside the windows
        shutter = tuple(rng.uniform(0.1, 0.6, 3))
        high_z = openings[:, 2, 2]
        for left, right in ((low_x - 0.45, low_x - 0.03), (high_x + 0.03, high_x + 0.45)):
            parts.append(quads(_panel(left, right, low_z, high_z, -0.05), shutter, Material.WOOD))
    return join(parts)


def _panes(rng, skin: _Skin, openings: np.ndarray) -> list[Mesh]:
    """Frames and glass at the back of the openings, roller shutters before some."""
    at_back = openings + (0, skin.inset, 0)
    tint = np.array(PANE) * rng.uniform(0.6, 2.2, (len(openings), 1))
    frame = at_back - (0, 0.015, 0)
    middle = frame.mean(1, keepdims=True)
    inner = middle + 0.86 * (frame - middle)
    ahead, inner_ahead = np.roll(frame, -1, 1), np.roll(inner, -1, 1)
    bars = np.stack([frame, ahead, inner_ahead, inner], 2).reshape(-1, 4, 3)
    drawn = at_back[rng.random(len(openings)) < skin.blinds] - (0, 0.008, 0)
    drawn = drawn.copy()
    drawn[:, :2, 2] += rng.choice([0.0, 0.0, 0.5], len(drawn))[:, None]     # some half way down
    return [
        quads(bars, FRAME, Material.PLASTER),
        quads(at_back, tint, Material.GLASS),
        quads(drawn, rng.uniform(0.35, 0.9, (len(drawn), 1)) * np.ones(3), Material.CLOTH),
    ]


def _door(rng, length: float) -> Mesh:
    """A door in its frame, some under a roof, some up a few steps."""
    at = rng.uniform(1.2, max(1.3, length - 1.2))
    rise = 0.17 * int(rng.integers(0, 5))
    parts = [
        quads(_panel(at - 0.5, at + 0.5, rise, rise + 2.1, -0.03), (0.25, 0.18, 0.14),
              Material.WOOD),
        box(0.14, 0.2, 2.25 + rise, FRAME, Material.PLASTER, at - 0.57, -0.05),
        box(0.14, 0.2, 2.25 + rise, FRAME, Material.PLASTER, at + 0.57, -0.05),
    ]  # fmt: skip
    for number in range(round(rise / 0.17)):
        out = 0.3 * (rise / 0.17 - number)
        parts.append(
            box(1.5, out, 0.17 * (number + 1), (0.5,) * 3, Material.CONCRETE, at, -out / 2)
        )
    if rng.random() < 0.3:
        parts.append(box(1.8, 1.0, 0.1, (0.4,) * 3, Material.ROOF, at, -0.5, rise + 2.4))
    return join(parts)


def _bay(rng, skin: _Skin, length: float, height: float, storey: float) -> Mesh:
    """A part of the front that stands out of it."""
    width, out = rng.uniform(2.0, 3.5), rng.uniform(0.5, 1.3)
    from_z = float(rng.choice([0.0, storey]))
    at = rng.uniform(width / 2, max(width / 2 + 0.1, length - width / 2))
    body = box(width, out, height - from_z - 0.6, skin.color, skin.material, at, -out / 2, from_z)
    pane = _panel(at - 0.35 * width, at + 0.35 * width, from_z + 1.0, from_z + 2.3, -out - 0.02)
    return join([body, quads(pane, PANE, Material.GLASS)])


def _shop_front(rng, skin: _Skin, length: float, storey: float) -> Mesh:
    """Panes almost from wall to wall, a sign board over them, sometimes an awning."""
    panes = max(1, int(length / rng.uniform(2.2, 4.0)))
    edges = np.linspace(0.2, length - 0.2, panes + 1)
    left, right = edges[:-1] + 0.12, edges[1:] - 0.12
    kept = rng.random((1, panes)) > 0.1
    wall, openings = _pierced(
        skin, length, 0.0, storey, (left, right),
        (np.full(1, rng.uniform(0.1, 0.7)), np.full(1, storey - 0.55)), kept,
    )  # fmt: skip
    parts = [wall, *_panes(rng, skin, openings)]
    sign = tuple(rng.uniform(0.15, 0.85, 3))
    parts.append(
        box(length - 0.4, 0.15, 0.5, sign, Material.PLASTIC, length / 2, -0.08, storey - 0.5)
    )
    if rng.random() < 0.4:
        out = rng.uniform(0.9, 1.8)
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
