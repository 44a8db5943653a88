"""Kinds of places, and what stands behind the pavement in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.simulation import clutter, plants, scenery
from datasets.simulation.buildings import building, garages
from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, join

Range = tuple[float, float]


@dataclass(frozen=True)
class District:
    """What is drawn for a street; ranges are drawn from evenly."""

    share: float
    """Of all worlds."""
    half_width: Range
    """Of two lanes."""
    pavement: Range
    lanes: tuple[int, ...]
    speed: Range
    """Metres a second of the traffic."""
    parked: float
    """Share of the parking places along a side that are taken, at most."""
    spacing: Range
    """Mean gap between driving cars of a lane, metres."""
    walkers: Range
    """People on foot along 100 m."""
    cyclists: Range
    """Along 100 m."""
    furniture: float
    """Mean distance between poles, trees, bins along the kerb, metres."""
    trees: float
    """Share of trees among these."""
    pieces: dict[str, float]
    """What stands behind the pavement, with shares."""
    kerb: float
    hilliness: float
    plots: tuple[Color, Material]
    paving: tuple[Color, Material]


_LAWN = ((0.28, 0.36, 0.16), Material.GRASS)
_GRAVEL = ((0.46, 0.43, 0.38), Material.PAVING)
_SLABS = ((0.47, 0.46, 0.45), Material.PAVING)
_SETTS = ((0.42, 0.38, 0.36), Material.PAVING)

DISTRICTS: dict[str, District] = {
    "residential": District(
        share=0.30, half_width=(2.3, 3.4), pavement=(1.2, 2.4), lanes=(2,), speed=(5, 9),
        parked=0.9, spacing=(80, 250), walkers=(0, 1.5), cyclists=(0, 2.5), furniture=8,
        trees=0.30, kerb=0.10, hilliness=1.3, plots=_LAWN, paving=_SLABS,
        pieces={"house": 0.32, "garden": 0.16, "wall": 0.12, "fence": 0.12, "garage": 0.10,
                "yard": 0.08, "grove": 0.10},
    ),
    "lane": District(
        share=0.22, half_width=(2.0, 2.8), pavement=(0.2, 1.3), lanes=(2,), speed=(4, 8),
        parked=0.7, spacing=(120, 350), walkers=(0, 1.5), cyclists=(0, 2.5), furniture=9,
        trees=0.12, kerb=0.06, hilliness=1.8, plots=_GRAVEL, paving=_SLABS,
        pieces={"house": 0.26, "hedge": 0.22, "wall": 0.14, "fence": 0.14, "garage": 0.14,
                "yard": 0.05, "grove": 0.05},
    ),
    "city": District(
        share=0.18, half_width=(2.8, 3.9), pavement=(1.8, 4.5), lanes=(2, 2, 4), speed=(6, 11),
        parked=1.0, spacing=(40, 130), walkers=(0.5, 4), cyclists=(0.5, 4), furniture=7,
        trees=0.30, kerb=0.13, hilliness=0.8, plots=_GRAVEL, paving=_SLABS,
        pieces={"block": 0.56, "shops": 0.24, "yard": 0.08, "car_park": 0.06, "grove": 0.06},
    ),
    "road": District(
        share=0.20, half_width=(3.2, 4.4), pavement=(1.6, 3.0), lanes=(2, 4, 4), speed=(9, 16),
        parked=0.15, spacing=(35, 130), walkers=(0, 0.7), cyclists=(0, 2), furniture=11,
        trees=0.55, kerb=0.12, hilliness=1.5, plots=_LAWN, paving=_SLABS,
        pieces={"grove": 0.32, "verge": 0.16, "rail": 0.20, "car_park": 0.10, "wall": 0.08,
                "hedge": 0.06, "block": 0.08},
    ),
    "pedestrian_zone": District(
        share=0.10, half_width=(2.4, 5.0), pavement=(1.6, 3.2), lanes=(1,), speed=(2, 3.5),
        parked=0.08, spacing=(200, 400), walkers=(5, 18), cyclists=(2, 9), furniture=6,
        trees=0.20, kerb=0.025, hilliness=0.5, plots=_GRAVEL, paving=_SETTS,
        pieces={"shops": 0.66, "block": 0.20, "yard": 0.07, "grove": 0.07},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """What fills a stretch of frontage: a mesh from the origin along +x, the plot at y > 0."""

    length: float
    mesh: Mesh
    parking: tuple[tuple[float, float, float], ...] = ()
    """x, y and heading of places where cars may stand."""


def draw_piece(rng: np.random.Generator, kind: str) -> Piece:
    """A piece of one of the kinds named in `District.pieces`."""
    return _PIECES[kind](rng)


def _house(rng: np.random.Generator) -> Piece:
    length, depth = rng.uniform(8, 14), rng.uniform(8, 11)
    floors = int(rng.choice([1, 2, 3], p=(0.2, 0.55, 0.25)))
    setback = float(rng.choice([0.0, rng.uniform(2, 6)], p=(0.45, 0.55)))
    parts = [building(rng, length, depth, floors, pitched=True).at(0, setback + 0.3)]
    if setback:
        parts.append(_border(rng, length * 0.7))
        for _ in range(rng.integers(0, 4)):
            size = rng.uniform((0.5, 0.5, 0.5), (2.2, 1.4, 2.2))
            parts.append(plants.bush(rng, *size).at(rng.uniform(0.5, length), setback * 0.55))
        if rng.random() < 0.4:
            parts.append(_stored(rng).at(length * 0.85, setback * 0.6, 0, rng.uniform(0, 6.28)))
    return Piece(length + rng.uniform(0, 3.5), join(parts))


def _block(rng: np.random.Generator, shop: bool = False) -> Piece:
    length, depth = rng.uniform(12, 26), rng.uniform(10, 14)
    pitched = rng.random() < 0.5
    front = building(rng, length, depth, int(rng.integers(3, 7)), pitched, shop)
    setback = 0.1 if rng.random() < 0.6 else rng.uniform(0.2, 2.5)
    return Piece(
        length + (0.05 if rng.random() < 0.7 else rng.uniform(2, 6)), front.at(0, setback)
    )


def _shops(rng: np.random.Generator) -> Piece:
    return _block(rng, shop=True)


def _garden(rng: np.random.Generator) -> Piece:
    length = rng.uniform(7, 16)
    parts = [_border(rng, length)]
    for _ in range(rng.integers(1, 4)):
        height = rng.uniform(3, 8)
        plant = plants.tree if rng.random() < 0.7 else plants.conifer
        parts.append(plant(rng, height).at(rng.uniform(1, length), rng.uniform(1.5, 9)))
    for _ in range(rng.integers(2, 7)):
        size = rng.uniform((0.6, 0.6, 0.5), (3.6, 1.9, 2.2))
        parts.append(plants.bush(rng, *size).at(rng.uniform(1, length), rng.uniform(1.2, 7)))
    return Piece(length, join(parts))


def _hedge(rng: np.random.Generator) -> Piece:
    """A tall hedge at the pavement's edge, or a wall with one that grows over it."""
    length, height = rng.uniform(8, 26), rng.uniform(1.4, 4.0)
    width, ragged = rng.uniform(0.7, 1.6), rng.uniform(0.1, 1.0)
    if rng.random() < 0.35:
        low = rng.uniform(0.4, 1.5)
        grown = plants.hedge(rng, length, low + height * 0.7, width, ragged, bottom=0.8 * low)
        parts = [scenery.wall(rng, length, low).at(0, 0.2), grown.at(0, 0.3)]
    else:
        parts = [plants.hedge(rng, length, height, width, ragged).at(0, width / 2)]
    parts += [
        plants.tree(rng, rng.uniform(5, 10)).at(rng.uniform(0, length), width + 1.5)
        for _ in range(rng.integers(0, 3))
    ]
    return Piece(length, join(parts))


def _wall(rng: np.random.Generator) -> Piece:
    length = rng.uniform(8, 25)
    parts = [scenery.wall(rng, length).at(0, 0.2)]
    for _ in range(rng.integers(1, 5)):
        parts.append(plants.tree(rng, rng.uniform(4, 9)).at(rng.uniform(0, length), 3.5))
    if rng.random() < 0.5:
        parts.append(plants.shrubbery(rng, length, 2.5).at(0, 0.8))
    return Piece(length, join(parts))


def _fence(rng: np.random.Generator) -> Piece:
    length = rng.uniform(8, 22)
    fences = (scenery.picket_fence, scenery.wall_with_fence, scenery.board_fence)
    parts = [fences[rng.integers(3)](rng, length).at(0, 0.15)]
    if rng.random() < 0.6:
        parts.append(plants.shrubbery(rng, length, 2.5).at(0, 0.7))
    else:
        grown = rng.uniform(1.2, 2.8), rng.uniform(0.8, 1.6), rng.uniform(0.3, 1.0)
        parts.append(plants.hedge(rng, length, *grown).at(0, 1.1))
    return Piece(length, join(parts))


def _garage(rng: np.random.Generator) -> Piece:
    count = int(rng.integers(1, 4))
    row = garages(rng, count)
    length = float(row.extent[1][0])
    setback = float(rng.choice([0.2, rng.uniform(4.5, 7)]))
    place = ((length / 2, setback - 2.4, np.pi / 2 * rng.choice([-1, 1])),)
    parts = [row.at(0, setback + 0.3)]
    if rng.random() < 0.5:
        parts.append(clutter.bins(rng).at(length - 0.5, max(setback - 0.3, 0.1), 0, np.pi / 2))
    return Piece(length + 0.3, join(parts), place if setback > 4 and rng.random() < 0.5 else ())


def _yard(rng: np.random.Generator) -> Piece:
    """An opening between buildings with bins, boxes, a trailer, a parked car."""
    length = rng.uniform(5, 10)
    parts = [
        _stored(rng).at(rng.uniform(0.5, length), rng.uniform(0.8, 9), 0, rng.uniform(0, 6.28))
        for _ in range(rng.integers(2, 7))
    ]
    places = ((length * 0.4, 5.0, rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.1)),)
    return Piece(length, join(parts), places if rng.random() < 0.5 else ())


def _grove(rng: np.random.Generator) -> Piece:
    """Trees and undergrowth."""
    length = rng.uniform(14, 34)
    kinds = [plants.tree(rng, rng.uniform(6, 13)) for _ in range(2)]
    parts = []
    for x in np.arange(1, length, rng.uniform(3, 6)):
        parts.append(
            kinds[rng.integers(2)].at(x + rng.normal(0, 0.7), rng.uniform(1.5, 9), 0, x)
        )
    if rng.random() < 0.6:
        parts.append(plants.shrubbery(rng, length, rng.uniform(1.5, 6)).at(0, 0.5))
    parts.append(plants.grass_tufts(rng, length, 2.0).at(0, 1.4))
    return Piece(length, join(parts))


def _verge(rng: np.random.Generator) -> Piece:
    """Open ground with tall grass and a board here and there."""
    length = rng.uniform(12, 30)
    parts = [plants.grass_tufts(rng, length, 4.0).at(0, 2.6)]
    if rng.random() < 0.5:
        parts.append(scenery.direction_board(rng).at(length / 2, 2.0, 0, rng.normal(0, 0.2)))
    for x in np.arange(2, length, 6):
        size = rng.uniform((0.6, 0.6, 0.5), (4.0, 1.8, 2.0))
        parts.append(plants.bush(rng, *size).at(x, rng.uniform(2.0, 6.0)))
    return Piece(length, join(parts))


def _rail(rng: np.random.Generator) -> Piece:
    length = rng.uniform(20, 45)
    parts = [scenery.guard_rail(length).at(0, 0.2)]
    if rng.random() < 0.5:
        parts.append(scenery.guard_rail(length).at(0, rng.uniform(1.5, 4.0)))
    grown = rng.uniform(0.8, 4.0), rng.uniform(0.7, 2.5), rng.uniform(0.2, 1.0)
    parts.append(plants.hedge(rng, length, *grown).at(0, rng.uniform(3.0, 6.0)))
    return Piece(length, join(parts))


def _car_park(rng: np.random.Generator) -> Piece:
    """Cars side by side, their noses or tails to the street, before a hedge."""
    count = int(rng.integers(3, 9))
    width = rng.uniform(2.45, 2.8)
    turn = np.pi / 2 + (rng.uniform(-0.5, 0.5) if rng.random() < 0.3 else 0.0)
    taken = rng.uniform(0.2, 0.9)
    places = tuple(
        (width * (i + 0.6), 3.0, turn + (np.pi if rng.random() < 0.4 else 0) + rng.normal(0, 0.04))
        for i in range(count)
        if rng.random() < taken
    )
    length = width * count + 1
    row = plants.hedge(rng, length, rng.uniform(0.6, 1.8), rng.uniform(0.6, 1.2), rng.random())
    return Piece(length, row.at(0, 6.5), places)


def _border(rng: np.random.Generator, length: float) -> Mesh:
    """A hedge, a low wall or a fence along the pavement."""
    kind = rng.integers(5)
    if kind < 2:
        grown = rng.uniform(0.7, 2.4), rng.uniform(0.5, 1.2), rng.random()
        return plants.hedge(rng, length, *grown).at(0, 0.6)
    edges = (scenery.wall, scenery.picket_fence, scenery.wall_with_fence)
    return edges[kind - 2](rng, length).at(0, 0.2)


def _stored(rng: np.random.Generator) -> Mesh:
    """Something that stands in a yard."""
    things = (clutter.bins, clutter.container, clutter.cabinet, clutter.trailer, clutter.stack,
              clutter.motorcycle, clutter.bicycles, clutter.planter)  # fmt: skip
    return things[rng.integers(len(things))](rng)


_PIECES: dict[str, Callable[[np.random.Generator], Piece]] = {
    "house": _house, "block": _block, "shops": _shops, "garden": _garden, "hedge": _hedge,
    "wall": _wall, "fence": _fence, "garage": _garage, "yard": _yard, "grove": _grove,
    "verge": _verge, "rail": _rail, "car_park": _car_park,
}  # fmt: skip
