"""The camera's inner loops: rays, pixels between others, light and shadow, a little texture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8
from numba import njit

from datasets.simulation.materials import Material

HAZE = (0.80, 0.86, 0.93)
SKY = (0.42, 0.60, 0.86)
_GLASS, _PAINT = int(Material.GLASS), int(Material.PAINT)
_GRAIN = {
    Material.ASPHALT: (0.05, 0.22), Material.PAVING: (0.12, 0.16), Material.GRASS: (0.10, 0.5),
    Material.PLASTER: (0.3, 0.08), Material.BRICK: (0.15, 0.3), Material.ROOF: (0.25, 0.3),
    Material.CONCRETE: (0.2, 0.12), Material.KERB: (0.1, 0.15), Material.BARK: (0.05, 0.3),
}  # fmt: skip
_TEXTURE = np.array([_GRAIN.get(material, (1.0, 0.0)) for material in Material], np.float32)
"""Per material: size of a grain in metres, and how far it changes the colour."""


@njit(cache=True, nogil=True)
def pixel_rays(
    pixels: Float32[np.ndarray, "N 2"], world_from_pixel: Float32[np.ndarray, "3 3"],
    origin: Float32[np.ndarray, " 3"],
) -> Float32[np.ndarray, "N 6"]:  # fmt: skip
    """Origin and unit direction of the ray through each pixel (u, v)."""
    rays = np.empty((len(pixels), 6), np.float32)
    for i in range(len(pixels)):
        length = np.float32(0)
        for k in range(3):
            row = world_from_pixel[k]
            along = row[0] * pixels[i, 0] + row[1] * pixels[i, 1] + row[2]
            rays[i, k], rays[i, 3 + k] = origin[k], along
            length += along * along
        for k in range(3):
            rays[i, 3 + k] /= np.sqrt(length)
    return rays


@njit(cache=True, nogil=True)
def between(
    width: int, height: int, rays: Float32[np.ndarray, "N 6"],
    distance: Float32[np.ndarray, " N"], triangle: Int32[np.ndarray, " N"],
    normals: Float32[np.ndarray, "N 3"],
) -> Int64[np.ndarray, " M"]:  # fmt: skip
    """Fills in what pixels of odd rows or columns meet where the cast ones around them met one
    triangle, or nothing; returns the others."""
    rest = np.empty(width * height, np.int64)
    count = 0
    for v in range(height):
        for u in range(width):
            if v % 2 == 0 and u % 2 == 0:
                continue
            pixel = v * width + u
            left, right, above, below = u - u % 2, u + u % 2, v - v % 2, v + v % 2
            same = right < width and below < height
            first = above * width + left
            if same:
                for other in (above * width + right, below * width + left, below * width + right):
                    met = distance[other] < np.inf
                    same = same and met == (distance[first] < np.inf)
                    same = same and (not met or triangle[other] == triangle[first])
            if not same:
                rest[count] = pixel
                count += 1
            elif distance[first] < np.inf:
                # The triangle's plane, met further along.
                before = after = np.float32(0)
                for k in range(3):
                    before += normals[first, k] * rays[first, 3 + k]
                    after += normals[first, k] * rays[pixel, 3 + k]
                    normals[pixel, k] = normals[first, k]
                distance[pixel] = distance[first] * before / after
                triangle[pixel] = triangle[first]
    return rest[:count]


@njit(cache=True, nogil=True)
def facing_sun(
    rays: Float32[np.ndarray, "N 6"], distance: Float32[np.ndarray, " N"],
    normals: Float32[np.ndarray, "N 3"], sun: Float32[np.ndarray, " 3"],
) -> tuple[Int64[np.ndarray, " M"], Float32[np.ndarray, "M 6"]]:  # fmt: skip
    """Which surfaces look towards the sun, and the rays from them that shadows stop."""
    which = np.empty(len(rays), np.int64)
    onward = np.empty((len(rays), 6), np.float32)
    count = 0
    for i in range(len(rays)):
        if distance[i] == np.inf:
            continue
        if normals[i, 0] * sun[0] + normals[i, 1] * sun[1] + normals[i, 2] * sun[2] <= 0:
            continue
        which[count] = i
        for k in range(3):
            place = rays[i, k] + distance[i] * rays[i, 3 + k]
            onward[count, k] = place + np.float32(0.02) * normals[i, k]
            onward[count, 3 + k] = sun[k]
        count += 1
    return which[:count], onward[:count]


@njit(cache=True, nogil=True)
def shade(
    rays: Float32[np.ndarray, "N 6"], distance: Float32[np.ndarray, " N"],
    triangle: Int32[np.ndarray, " N"], normals: Float32[np.ndarray, "N 3"],
    sunlit: Bool[np.ndarray, " N"], materials: UInt8[np.ndarray, " T"],
    colors: Float32[np.ndarray, "T 3"], sun: Float32[np.ndarray, " 3"], strength: float,
    exposure: float,
) -> UInt8[np.ndarray, "N 3"]:  # fmt: skip
    """The colour of every pixel: sun, sky light, what mirrors the sky, haze."""
    picture = np.empty((len(rays), 3), np.uint8)
    warm = (1.12 * strength, 1.02 * strength, 0.88 * strength)
    overcast = 0.25 if strength == 0 else 0.0
    for i in range(len(rays)):
        up = rays[i, 5]
        if distance[i] == np.inf:
            fade = min(max(3.2 * up, 0.0), 1.0)
            for k in range(3):
                picture[i, k] = _encoded(exposure * (HAZE[k] * (1 - fade) + SKY[k] * fade))
            continue
        material = materials[triangle[i]]
        texture = _texture(material, rays[i], distance[i])
        facing = normals[i, 0] * sun[0] + normals[i, 1] * sun[1] + normals[i, 2] * sun[2]
        direct = facing if sunlit[i] else 0.0
        ambient = 0.36 + 0.20 * normals[i, 2] + overcast
        shine = 0.0
        if material == _GLASS or material == _PAINT:
            # They mirror the sky; paint does the more the flatter one looks at it.
            cosine = 0.0
            for k in range(3):
                cosine += rays[i, 3 + k] * normals[i, k]
            cosine = abs(cosine)
            mirrored = up + 2 * cosine * normals[i, 2]
            shine = 0.55 if material == _GLASS else 0.18
            shine *= (1 - 0.8 * cosine) * min(max(0.25 + mirrored, 0.0), 1.0)
        clear = np.exp(-distance[i] / 450)
        for k in range(3):
            color = colors[triangle[i], k] ** 2 * texture                # in linear light
            lit = color * (ambient * HAZE[k] + direct * warm[k])
            lit = lit * (1 - shine) + SKY[k] * shine
            picture[i, k] = _encoded(exposure * (lit * clear + HAZE[k] * (1 - clear)))
    return picture


@njit(cache=True, nogil=True)
def _encoded(light):
    return np.uint8(255 * np.sqrt(min(max(light, 0.0), 1.0)))


@njit(cache=True, nogil=True)
def _texture(material, ray, distance):
    """Grain of ground and walls, joints of paving and bricks: a factor around 1."""
    cell, depth = _TEXTURE[material, 0], _TEXTURE[material, 1]
    if depth == 0:
        return 1.0
    x = (ray[0] + distance * ray[3]) / cell
    y = (ray[1] + distance * ray[4]) / cell
    z = (ray[2] + distance * ray[5]) / cell
    coarse = _hash(x / 17, y / 17, z / 17)
    return 1 + depth * (_hash(x, y, z) - 0.5) + 0.6 * depth * (coarse - 0.5)


@njit(cache=True, nogil=True)
def _hash(x, y, z):
    """A number in [0, 1) for each cell of a unit lattice; looks random."""
    mixed = _cell(x) * np.uint32(73856093) ^ _cell(y) * np.uint32(19349663)
    mixed = np.uint32(mixed ^ _cell(z) * np.uint32(83492791))          # products are wider
    mixed = np.uint32((mixed ^ (mixed >> np.uint32(13))) * np.uint32(1274126177))
    return ((mixed >> np.uint32(8)) & np.uint32(0xFFFF)) / 65536


@njit(cache=True, nogil=True)
def _cell(value):
    return np.uint32(np.int32(np.floor(value)))
