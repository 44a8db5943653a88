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
# brightness of the surface; the share of pulses that find no surface (they pass glass, leave a
# mirror-like paint sideways, or slip through leaves).
_OPTICS = {
    Material.ASPHALT: (0.46, 0.2, 0.00),
    Material.MARKING: (0.62, 0.0, 0.00),
    Material.PAVING: (0.46, 0.3, 0.00),
    Material.KERB: (0.46, 0.3, 0.00),
    Material.GRASS: (0.46, 0.0, 0.03),
    Material.PLASTER: (0.44, 0.4, 0.00),
    Material.BRICK: (0.36, 0.3, 0.00),
    Material.ROOF: (0.30, 0.3, 0.00),
    Material.CONCRETE: (0.36, 0.3, 0.00),
    Material.WOOD: (0.38, 0.3, 0.00),
    Material.METAL: (0.35, 0.5, 0.08),
    Material.BARK: (0.30, 0.2, 0.00),
    Material.FOLIAGE: (0.38, 0.0, 0.06),
    Material.PAINT: (0.38, 0.9, 0.10),
    Material.GLASS: (0.08, 0.0, 0.62),
    Material.RUBBER: (0.06, 0.2, 0.15),
    Material.PLASTIC: (0.28, 0.6, 0.03),
    Material.CLOTH: (0.42, 0.5, 0.01),
    Material.SKIN: (0.36, 0.2, 0.01),
    Material.RETRO: (0.95, 0.0, 0.00),
}
_TABLE = np.array([_OPTICS[material] for material in Material], np.float32)


def laser_reflectance(
    materials: UInt8[np.ndarray, " T"], colors: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, " T"]:
    """Share of the light that a surface met perpendicularly sends back, 0 to 1."""
    base, tint, _ = _TABLE[materials].T
    red, green, blue = colors.T
    brightness = 0.30 * red + 0.59 * green + 0.11 * blue
    return np.clip(base * (1 - tint + tint * 2 * brightness), 0.0, 1.0)


def lost_share(materials: UInt8[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Share of the pulses that a surface sends nowhere near the scanner, 0 to 1."""
    return _TABLE[materials, 2]
