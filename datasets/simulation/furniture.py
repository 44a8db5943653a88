"""What stands beside a carriageway, how often and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.simulation import clutter, plants, scenery
from datasets.simulation.meshes import Mesh


@dataclass(frozen=True)
class Furniture:
    """A kind of thing that stands beside the carriageway."""

    draw: Callable[[np.random.Generator], Mesh] | None
    share: float
    radius: float
    """Of the place that it takes, metres."""
    place: str
    """At the kerb, before the fronts, anywhere in between, or in the row of parked cars."""
    turn: float = 0.0
    """Against the traffic of its side."""
    turned: bool = False
    """Whether it stands any way round."""
    category: str | None = None
    """What it is where it has a label; see `town.draw_world`."""


def _shrub(rng: np.random.Generator) -> Mesh:
    return plants.bush(rng, *rng.uniform((0.5, 0.5, 0.5), (1.3, 0.9, 1.9)))


_QUARTER = np.pi / 2
ON_STREETS = (
    Furniture(scenery.lamp_post, 0.15, 0.25, "kerb", _QUARTER),
    Furniture(scenery.road_sign, 0.14, 0.25, "kerb"),
    Furniture(scenery.traffic_light, 0.02, 0.25, "kerb"),
    Furniture(scenery.bollard, 0.10, 0.2, "kerb"),
    Furniture(clutter.bins, 0.11, 0.9, "front"),
    Furniture(clutter.cabinet, 0.05, 0.5, "front"),
    Furniture(_shrub, 0.06, 0.6, "front"),
    Furniture(clutter.bicycles, 0.07, 1.2, "front", _QUARTER),
    Furniture(clutter.bench, 0.03, 0.8, "front", _QUARTER),
    Furniture(clutter.post_with_poster, 0.03, 0.5, "middle", turned=True),
    Furniture(clutter.motorcycle, 0.04, 0.7, "kerb", category="motorcycle"),
    Furniture(clutter.stack, 0.04, 0.8, "front", turned=True),
    Furniture(clutter.planter, 0.04, 0.8, "middle"),
    Furniture(clutter.shelter, 0.02, 1.6, "front", _QUARTER),
    Furniture(clutter.barrier, 0.03, 1.3, "middle", turned=True, category="barrier"),
    Furniture(clutter.trailer, 0.05, 1.9, "parked", category="trailer"),
    Furniture(clutter.container, 0.02, 1.4, "parked"),
)
IN_ZONES = (
    Furniture(scenery.lamp_post, 0.09, 0.25, "middle", _QUARTER),
    Furniture(scenery.road_sign, 0.05, 0.25, "middle"),
    Furniture(scenery.bollard, 0.08, 0.2, "middle"),
    Furniture(clutter.rubbish_bin, 0.06, 0.4, "middle", turned=True),
    Furniture(_shrub, 0.05, 0.6, "middle"),
    Furniture(clutter.bicycles, 0.17, 1.2, "middle", turned=True),
    Furniture(clutter.bench, 0.08, 0.8, "front", _QUARTER),
    Furniture(clutter.post_with_poster, 0.09, 0.5, "middle", turned=True),
    Furniture(clutter.table_with_parasol, 0.09, 1.2, "middle"),
    Furniture(clutter.display, 0.13, 0.9, "front", turned=True),
    Furniture(clutter.planter, 0.09, 0.8, "middle", turned=True),
    Furniture(clutter.motorcycle, 0.02, 0.7, "middle", turned=True, category="motorcycle"),
)
