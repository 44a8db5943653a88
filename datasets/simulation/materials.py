"""What surfaces are made of: how they look to a camera and what they send back to a laser."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from jaxtyping import Float, UInt8


class Material(IntEnum):
    """Kind of a surface; a mesh names one for each triangle."""

    ASPHALT = 0
    MARKING = 1
    PAVING = 2
    KERB = 3
    GRASS = 4
    PLASTER = 5
    BRICK = 6
    ROOF = 7
    CONCRETE = 8
    WOOD = 9
    METAL = 10
    BARK = 11
    FOLIAGE = 12
    PAINT = 13
    GLASS = 14
    RUBBER = 15
    PLASTIC = 16
    CLOTH = 17
    SKIN = 18
    RETRO = 19
    """Road signs, number plates, lamps: sends light back where it came from."""


# Per material: share of the light of 905 nm that a perpendicular surface of middle brightness
# sends back, on the scale of a Velodyne's calibrated intensity; how far that follows the visible
# brightness of the surface; the share of pulses that find no surface (they leave a mirror-like
# face sideways); the share that goes on behind it (through a pane, between leaves).
_OPTICS = {
    Material.ASPHALT: (0.50, 0.2, 0.00, 0.00),
    Material.MARKING: (0.66, 0.0, 0.00, 0.00),
    Material.PAVING: (0.50, 0.3, 0.00, 0.00),
    Material.KERB: (0.50, 0.3, 0.00, 0.00),
    Material.GRASS: (0.50, 0.0, 0.01, 0.00),
    Material.PLASTER: (0.48, 0.4, 0.00, 0.00),
    Material.BRICK: (0.40, 0.3, 0.00, 0.00),
    Material.ROOF: (0.34, 0.3, 0.00, 0.00),
    Material.CONCRETE: (0.40, 0.3, 0.00, 0.00),
    Material.WOOD: (0.42, 0.3, 0.00, 0.00),
    Material.METAL: (0.36, 0.5, 0.02, 0.00),
    Material.BARK: (0.34, 0.2, 0.00, 0.00),
    Material.FOLIAGE: (0.44, 0.0, 0.01, 0.28),
    Material.PAINT: (0.25, 0.95, 0.10, 0.00),
    Material.GLASS: (0.10, 0.0, 0.52, 0.30),
    Material.RUBBER: (0.08, 0.2, 0.12, 0.00),
    Material.PLASTIC: (0.31, 0.6, 0.02, 0.00),
    Material.CLOTH: (0.45, 0.5, 0.01, 0.00),
    Material.SKIN: (0.40, 0.2, 0.01, 0.00),
    Material.RETRO: (0.95, 0.0, 0.00, 0.00),
}
_TABLE = np.array([_OPTICS[material] for material in Material], np.float32)
SMOOTH = np.isin(np.arange(len(Material)), (Material.GLASS, Material.PAINT))
"""Per material: whether a whole face sends light the same way."""
_CLEAR = np.ones(len(Material), np.float32)
_CLEAR[Material.GLASS], _CLEAR[Material.FOLIAGE] = 0.7, 0.9


def laser_reflectance(
    materials: UInt8[np.ndarray, " T"], colors: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, " T"]:
    """Share of the light that a surface met perpendicularly sends back, 0 to 1."""
    base, tint = _TABLE[materials, 0], _TABLE[materials, 1]
    return np.clip(base * (1 - tint + tint * 2 * _brightness(colors)), 0.0, 1.0)


def lost_share(
    materials: UInt8[np.ndarray, " T"], colors: Float[np.ndarray, "T 3"],
    cosine: Float[np.ndarray, " T"],
) -> Float[np.ndarray, " T"]:  # fmt: skip
    """Share of the pulses that a surface sends nowhere near the scanner, 0 to 1.

    Args:
        cosine: of the angle between the pulse and the surface's normal.
    """
    lost = _TABLE[materials, 2] * (1.25 - 0.5 * cosine)
    # Dark paint under a clear coat is a mirror: what meets it slantwise is gone.
    dark = np.clip(1 - 3 * _brightness(colors), 0, 1) * (materials == Material.PAINT)
    return lost + 0.7 * dark * (1 - cosine)


def passed_share(materials: UInt8[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Share of the pulses that go on behind a surface, 0 to 1."""
    return _TABLE[materials, 3]


def clearness(materials: UInt8[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Share of its light that a pulse keeps when it goes on, there and back."""
    return _CLEAR[materials]


def _brightness(colors: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, " T"]:
    red, green, blue = colors.T
    return 0.30 * red + 0.59 * green + 0.11 * blue
