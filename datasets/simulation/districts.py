"""Kinds of places, and what stands behind the pavement in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.simulation import scenery
from datasets.simulation.buildings import building, garage
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
    parked: Range
    """Share of the parking places along each side that are taken."""
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
        share=0.42, half_width=(2.3, 3.4), pavement=(1.5, 2.4), lanes=(2,), speed=(5, 9),
        parked=(0.05, 0.75), spacing=(60, 180), walkers=(0, 2.5), cyclists=(0, 4), furniture=11,
        trees=0.35, kerb=0.10, hilliness=1.0, plots=_LAWN, paving=_SLABS,
        pieces={"house": 0.34, "garden": 0.20, "wall": 0.10, "fence": 0.10, "garage": 0.08,
                "yard": 0.08, "grove": 0.10},
    ),
    "city": District(
        share=0.24, half_width=(2.8, 3.9), pavement=(2.2, 4.5), lanes=(2, 2, 4), speed=(6, 11),
        parked=(0.1, 0.8), spacing=(30, 100), walkers=(1, 7), cyclists=(0.5, 6), furniture=9,
        trees=0.35, kerb=0.13, hilliness=0.6, plots=_GRAVEL, paving=_SLABS,
        pieces={"block": 0.56, "shops": 0.24, "yard": 0.08, "car_park": 0.06, "grove": 0.06},
    ),
    "road": District(
        share=0.22, half_width=(3.2, 4.4), pavement=(1.6, 3.0), lanes=(2, 4, 4), speed=(9, 16),
        parked=(0.0, 0.12), spacing=(28, 100), walkers=(0, 1), cyclists=(0, 3), furniture=13,
        trees=0.6, kerb=0.12, hilliness=1.3, plots=_LAWN, paving=_SLABS,
        pieces={"grove": 0.38, "verge": 0.20, "rail": 0.12, "car_park": 0.12, "wall": 0.08,
                "block": 0.10},
    ),
    "pedestrian_zone": District(
        share=0.12, half_width=(3.0, 5.5), pavement=(2.0, 3.5), lanes=(1,), speed=(2, 3.5),
        parked=(0.0, 0.05), spacing=(200, 400), walkers=(8, 22), cyclists=(2, 12), furniture=9,
        trees=0.25, kerb=0.025, hilliness=0.4, plots=_GRAVEL, paving=_SETTS,
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
    setback = float(rng.choice([0.0, rng.uniform(2, 6)], p=(0.4, 0.6)))
    parts = [building(rng, length, depth, floors, pitched=True).at(0, setback + 0.3)]
    if setback:
        parts.append(_border(rng, length * 0.7))
        for _ in range(rng.integers(0, 4)):
            size = rng.uniform((0.5, 0.5, 0.5), (1.6, 1.2, 1.9))
            parts.append(scenery.bush(rng, *size).at(rng.uniform(0.5, length), setback * 0.55))
    return Piece(length + rng.uniform(0, 3.5), join(parts))


def _block(rng: np.random.Generator, shop: bool = False) -> Piece:
    length, depth = rng.uniform(12, 26), rng.uniform(10, 14)
    pitched = rng.random() < 0.5
    front = building(rng, length, depth, int(rng.integers(3, 7)), pitched, shop)
    setback = 0.1 if rng.random() < 0.5 else rng.uniform(0.2, 2.5)
    return Piece(
        length + (0.05 if rng.random() < 0.7 else rng.uniform(2, 6)), front.at(0, setback)
    )


def _garden(rng: np.random.Generator) -> Piece:
    length = rng.uniform(7, 16)
    parts = [_border(rng, length)]
    for _ in range(rng.integers(1, 4)):
        height = rng.uniform(3, 8)
        plant = scenery.tree if rng.random() < 0.7 else scenery.conifer
        parts.append(plant(rng, height).at(rng.uniform(1, length), rng.uniform(2, 9)))
    for _ in range(rng.integers(1, 6)):
        size = rng.uniform((0.6, 0.6, 0.5), (2.8, 1.8, 2.0))
        parts.append(scenery.bush(rng, *size).at(rng.uniform(1, length), rng.uniform(1.2, 7)))
    return Piece(length, join(parts))


def _wall(rng: np.random.Generator) -> Piece:
    length = rng.uniform(8, 25)
    parts = [scenery.wall(rng, length).at(0, 0.2)]
    for _ in range(rng.integers(1, 5)):
        parts.append(scenery.tree(rng, rng.uniform(4, 9)).at(rng.uniform(0, length), 3.5))
    return Piece(length, join(parts))


def _fence(rng: np.random.Generator) -> Piece:
    length = rng.uniform(8, 22)
    parts = [scenery.picket_fence(rng, length).at(0, 0.15)]
    for _ in range(rng.integers(2, 7)):
        size = rng.uniform((0.8, 0.8, 0.6), (3.2, 1.8, 2.2))
        parts.append(scenery.bush(rng, *size).at(rng.uniform(0, length), rng.uniform(1.3, 5)))
    return Piece(length, join(parts))


def _garage(rng: np.random.Generator) -> Piece:
    length = rng.uniform(3.2, 6.5)
    setback = rng.uniform(4.5, 7)
    place = ((length / 2, setback - 2.4, np.pi / 2 * rng.choice([-1, 1])),)
    return Piece(length + 0.3, garage(rng, length).at(0, setback + 0.3), place)


def _yard(rng: np.random.Generator) -> Piece:
    """An opening between buildings with bins, boxes and a parked car."""
    length = rng.uniform(5, 10)
    parts = []
    for _ in range(rng.integers(2, 6)):
        thing = rng.choice([scenery.rubbish_bin, scenery.container, scenery.cabinet])
        parts.append(thing(rng).at(rng.uniform(0.5, length), rng.uniform(0.8, 9), 0,
                                   rng.uniform(0, np.pi)))  # fmt: skip
    places = ((length * 0.4, 5.0, rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.1)),)
    return Piece(length, join(parts), places if rng.random() < 0.6 else ())


def _grove(rng: np.random.Generator) -> Piece:
    """Trees and undergrowth."""
    length = rng.uniform(14, 34)
    kinds = [scenery.tree(rng, rng.uniform(6, 13)) for _ in range(2)]
    parts = []
    for x in np.arange(1, length, rng.uniform(3, 6)):
        parts.append(
            kinds[rng.integers(2)].at(x + rng.normal(0, 0.7), rng.uniform(1.5, 9), 0, x)
        )
    for _ in range(int(length / 4)):
        size = rng.uniform((0.8, 0.8, 0.5), (3.5, 2.2, 2.3))
        parts.append(scenery.bush(rng, *size).at(rng.uniform(0, length), rng.uniform(1, 7)))
    parts.append(scenery.grass_tufts(rng, length, 2.0).at(0, 1.4))
    return Piece(length, join(parts))


def _verge(rng: np.random.Generator) -> Piece:
    """Open ground with tall grass and a board here and there."""
    length = rng.uniform(12, 30)
    parts = [scenery.grass_tufts(rng, length, 4.0).at(0, 2.6)]
    if rng.random() < 0.4:
        parts.append(scenery.direction_board(rng).at(length / 2, 2.0, 0, rng.normal(0, 0.2)))
    parts.append(scenery.bush(rng, *rng.uniform((0.6, 0.6, 0.5), (4.0, 1.8, 1.8))).at(3, 3.5))
    return Piece(length, join(parts))


def _rail(rng: np.random.Generator) -> Piece:
    length = rng.uniform(20, 45)
    parts = [scenery.guard_rail(length).at(0, 0.2)]
    parts.append(scenery.hedge(rng, length * 0.8, rng.uniform(0.8, 2.4)).at(1, 3.0))
    return Piece(length, join(parts))


def _car_park(rng: np.random.Generator) -> Piece:
    """Cars side by side, their noses or tails to the street, before a hedge."""
    count = int(rng.integers(3, 9))
    width = rng.uniform(2.45, 2.8)
    turn = np.pi / 2 + (rng.uniform(-0.5, 0.5) if rng.random() < 0.3 else 0.0)
    places = tuple(
        (width * (i + 0.6), 3.0, turn + (np.pi if rng.random() < 0.4 else 0) + rng.normal(0, 0.04))
        for i in range(count)
        if rng.random() < 0.75
    )
    length = width * count + 1
    return Piece(length, scenery.hedge(rng, length, rng.uniform(0.6, 1.6)).at(0, 6.5), places)


def _border(rng: np.random.Generator, length: float) -> Mesh:
    """A hedge, a low wall or a fence along the pavement."""
    kind = rng.integers(3)
    if kind == 0:
        return scenery.hedge(rng, length, rng.uniform(0.7, 2.0)).at(0, 0.5)
    return (scenery.wall if kind == 1 else scenery.picket_fence)(rng, length).at(0, 0.2)


def _shops(rng: np.random.Generator) -> Piece:
    return _block(rng, shop=True)


_PIECES: dict[str, Callable[[np.random.Generator], Piece]] = {
    "house": _house, "block": _block, "shops": _shops, "garden": _garden, "wall": _wall,
    "fence": _fence, "garage": _garage, "yard": _yard, "grove": _grove, "verge": _verge,
    "rail": _rail, "car_park": _car_park,
}  # fmt: skip
