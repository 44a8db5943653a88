"""What answers a radar: the same places in one sweep after the other.

A wave comes back from a few scattering centres - corners, wheel houses, posts - and not from all of
a surface, so that sweeps that are laid over each other show the same places again, and what answers
weakly stays weak. As in Bühren, Yang: "Simulation of Automotive Radar Target Lists using a Novel
Approach of Object Representation", IEEE Intelligent Vehicles Symposium 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from datasets.simulation.world import Snapshot, World

CENTRES = 16
"""Scattering centres of an actor, all around it."""
_CELL_M = 0.6
_DISPERSION = 1.3
"""Shape of the Gamma distribution of how well actors answer. Of the 8 people within 20 m in an
annotated key frame of nuScenes 5 have no target, 2 have one and 1 has three: a shape of 0.8; its 21
barriers within 50 m agree with shapes from 2 on."""


@dataclass(frozen=True)
class Reflectors:
    """What is drawn once for a drive."""

    centres: Float64[np.ndarray, "N K"]
    """Of each actor, as shares of its triangles; the better ones first."""
    gain: Float64[np.ndarray, " N"]
    """Factor of each actor's number of targets; 1 on average."""
    strength: Float64[np.ndarray, " N"]
    """Of each actor, in standard deviations of its kind's cross-section."""
    seed: int
    """Of the town's."""

    @classmethod
    def draw(cls, world: World, rng: np.random.Generator) -> Reflectors:
        count = len(world.actors)
        return cls(
            rng.random((count, CENTRES)),
            rng.gamma(_DISPERSION, 1 / _DISPERSION, count),
            rng.standard_normal(count),
            int(rng.integers(2**62)),
        )

    def places_on(self, actor: int, snapshot: Snapshot) -> Float[np.ndarray, "K 3"]:
        """Where an actor's centres are at a moment."""
        first, last = snapshot.ranges[actor]
        triangles = first + (self.centres[actor] * (last - first)).astype(int)
        return snapshot.mesh.vertices[snapshot.mesh.triangles[triangles]].mean(1)

    def of_town(
        self, places: Float[np.ndarray, "P 3"]
    ) -> tuple[Int64[np.ndarray, " P"], Float64[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
        """For places in the world: the cell that each lies in, a factor of its chance to answer (1
        on average, exponentially distributed), and its strength in standard deviations."""
        cells = np.floor(np.asarray(places, np.float64) / _CELL_M).astype(np.int64)
        cells = cells.astype(np.uint64)
        key = np.full(len(cells), self.seed, np.uint64)
        for axis in range(3):
            key = _mixed(key ^ cells[:, axis])
        one, two = (_uniform(_mixed(key + np.uint64(n))) for n in (1, 2))
        # A sum of two even variables is near enough to a normal one.
        strength = (two + _uniform(_mixed(key + np.uint64(3))) - 1) * np.sqrt(6)
        return key.view(np.int64), -np.log(1 - one), strength


def _mixed(key):
    """Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014."""
    with np.errstate(over="ignore"):
        key = key + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def _uniform(key) -> Float64[np.ndarray, " P"]:
    return (key >> np.uint64(11)).astype(np.float64) * 2.0**-53
