"""Trees, bushes, hedges: ragged outlines that pulses pass in part.

Everything stands on z = 0 at the origin; hedges run from the origin along +x.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from datasets.simulation.materials import Material
from datasets.simulation.meshes import Color, Mesh, join, leaves, loft, tube

GREENS: tuple[Color, ...] = ((0.16, 0.30, 0.08), (0.22, 0.34, 0.10), (0.12, 0.24, 0.09),
                             (0.30, 0.36, 0.12))  # fmt: skip
_SHADE: Color = (0.10, 0.14, 0.06)


def tree(rng: np.random.Generator, height: float, clear: float = 0.0) -> Mesh:
    """A broad-leaved tree: trunk, boughs, and a crown of leaves with holes to look through.

    Args:
        clear: no leaf hangs lower than this.
    """
    trunk = max(height * rng.uniform(0.18, 0.40), clear)
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
    centers[:, 2] = np.maximum(centers[:, 2], max(trunk * 0.85, clear + 0.3))
    parts.append(leaves(rng, centers, 0.34, _green(rng)))
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
    slices, around = 6, 8
    along = np.linspace(-0.94, 0.94, slices)
    angle = np.arange(around) * (2 * np.pi / around)
    reach = np.sqrt(1 - along**2)[:, None] * rng.uniform(0.70, 1.1, (slices, around))
    core = np.stack(
        [np.broadcast_to(along[:, None], reach.shape) * 0.42 * length,
         reach * np.cos(angle) * 0.42 * width,
         (0.46 + 0.44 * reach * np.sin(angle)) * height], -1,
    )  # fmt: skip
    count = int(np.clip(90 * length * width * height, 50, 600))
    size = (0.48 * length, 0.48 * width, 0.50 * height)
    centers = _ball(rng, count) * size + (0, 0, 0.5 * height)
    return join([loft(core, _SHADE, Material.FOLIAGE), leaves(rng, centers, 0.14, _green(rng))])


def hedge(
    rng: np.random.Generator, length: float, height: float, width: float = 0.7,
    ragged: float = 0.0, bottom: float = 0.0,
) -> Mesh:  # fmt: skip
    """A hedge: clipped, or the more overgrown and bulging the greater `ragged` (0 to 1) is.

    Args:
        bottom: height at which it begins, such as the top of a wall that it hangs over.
    """
    profile = np.array([(-0.42, 0), (-0.5, 0.3), (-0.48, 0.75), (-0.36, 0.97), (0, 1.0),
                        (0.36, 0.97), (0.48, 0.75), (0.5, 0.3), (0.42, 0)])  # fmt: skip
    stations = np.linspace(0, length, max(3, int(length / 0.5) + 1))
    swell = 1 + (0.05 + 0.25 * ragged) * _wavering(rng, len(stations))[:, None]
    outline = profile * (width, height - bottom)
    outline = outline[None] * swell[..., None]                           # (S, K, 2)
    outline = outline + rng.normal(0, 0.03 + 0.11 * ragged, outline.shape) * (1, 0.7)
    outline[:, [0, -1], 1] = 0
    along = stations[:, None] + rng.normal(0, 0.05, outline.shape[:2])
    core = np.concatenate([along[..., None], outline + (0, bottom)], -1)
    count = int(np.clip((28 + 20 * ragged) * length * (height - bottom), 40, 1100))
    at = rng.integers(len(stations), size=count), rng.integers(len(profile), size=count)
    centers = core[at] + rng.normal(0, 0.08 + 0.12 * ragged, (count, 3))
    centers[:, 0] += rng.uniform(-0.3, 0.3, count)
    # Leaves between the outline's corners too, and some within.
    centers[:, 1] *= rng.uniform(0.75, 1.05, count)
    centers[:, 2] = bottom + (centers[:, 2] - bottom) * np.sqrt(rng.uniform(0.1, 1, count))
    centers[:, 2] = np.maximum(centers[:, 2], 0.1)
    parts = [loft(core, _SHADE, Material.FOLIAGE)]
    if bottom == 0:
        parts.append(_twigs(rng, length, 0.55 * width, 0.8 * height))
    return join([*parts, leaves(rng, centers, 0.15 + 0.06 * ragged, _green(rng))])


def grass_tufts(rng: np.random.Generator, length: float, width: float) -> Mesh:
    """Weeds and tall grass on a verge: a low, ragged surface."""
    count = int(np.clip(5 * length * width, 10, 500))
    centers = rng.uniform((0, -width / 2, 0.0), (length, width / 2, 0.22), (count, 3))
    return leaves(rng, centers, 0.17, (0.32, 0.38, 0.14))


def shrubbery(rng: np.random.Generator, length: float, depth: float) -> Mesh:
    """Bushes of all sizes that grow into each other."""
    parts = []
    for x in np.arange(0.8, length, 2.2):
        size = rng.uniform((1.0, 1.0, 0.5), (3.4, 2.2, 2.4))
        parts.append(bush(rng, *size).at(x + rng.normal(0, 0.5), rng.uniform(0.8, depth)))
    return join(parts)


def _twigs(rng: np.random.Generator, length: float, width: float, height: float) -> Mesh:
    """What pulses meet that got into a hedge."""
    count = int(np.clip(10 * length * height, 10, 300))
    centers = rng.uniform((0, -width / 2, 0.05), (length, width / 2, height), (count, 3))
    return leaves(rng, centers, 0.16, (0.16, 0.15, 0.08))


def _wavering(rng: np.random.Generator, count: int) -> Float[np.ndarray, " N"]:
    """A smooth random line about zero, seldom beyond 1."""
    steps = rng.normal(0, 0.5, count + 6)
    return np.convolve(steps, np.ones(7) / np.sqrt(7), "valid")


def _green(rng: np.random.Generator) -> Color:
    return GREENS[rng.integers(len(GREENS))]


def _ball(rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 3"]:
    """Points in the unit ball, denser towards its surface."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * rng.random((count, 1)) ** 0.2
