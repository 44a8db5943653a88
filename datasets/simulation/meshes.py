"""Triangle meshes in NumPy and the shapes that everything is put together from. Metres, z up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8
from numba import njit

from datasets.simulation.materials import Material

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Mesh:
    """Triangles with a colour and a material each. Which way a triangle winds has no meaning."""

    vertices: Float32[np.ndarray, "V 3"]
    triangles: Int32[np.ndarray, "T 3"]
    colors: Float32[np.ndarray, "T 3"]
    """Red, green, blue, 0 to 1."""
    materials: UInt8[np.ndarray, " T"]

    def __len__(self) -> int:
        return len(self.triangles)

    def moved(self, target_from_mesh: Float[np.ndarray, "4 4"]) -> Mesh:
        """The mesh under a 4 x 4 transform, which may scale."""
        matrix = np.asarray(target_from_mesh, np.float32)
        return replace(self, vertices=turned(self.vertices, matrix) + matrix[:3, 3])

    def at(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> Mesh:
        """The mesh turned about z by `yaw`, then shifted."""
        return self.moved(pose(x, y, z, yaw))

    def stretched(self, x: float, y: float, z: float) -> Mesh:
        """The mesh scaled along the axes."""
        return replace(self, vertices=self.vertices * np.array([x, y, z], np.float32))

    @property
    def extent(self) -> tuple[Float32[np.ndarray, " 3"], Float32[np.ndarray, " 3"]]:
        """Lowest and highest x, y, z."""
        return self.vertices.min(0), self.vertices.max(0)


def pose(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0, pitch: float = 0.0,
    roll: float = 0.0,
) -> Float[np.ndarray, "4 4"]:  # fmt: skip
    """Roll about x, then pitch about y (positive: nose down), then yaw about z, then a shift."""
    cos, sin = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    matrix = np.eye(4)
    matrix[:3, :3] = (
        np.array([[cos[0], -sin[0], 0], [sin[0], cos[0], 0], [0, 0, 1]])
        @ np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
        @ np.array([[1, 0, 0], [0, cos[2], -sin[2]], [0, sin[2], cos[2]]])
    )
    matrix[:3, 3] = x, y, z
    return matrix


def turned(
    vectors: Float32[np.ndarray, "N 3"], target_from_source: Float[np.ndarray, "3+ 3+"]
) -> Float32[np.ndarray, "N 3"]:
    """Vectors under the rotation of a transform, without its shift."""
    return _turned(np.asarray(vectors, np.float32), np.asarray(target_from_source, np.float32))


@njit(cache=True, nogil=True)
def _turned(vectors, matrix):
    # A threaded matrix product may round by how it splits its rows, and simulations must not
    # depend on the number of threads.
    result = np.empty((len(vectors), 3), np.float32)
    for i in range(len(vectors)):
        x, y, z = vectors[i, 0], vectors[i, 1], vectors[i, 2]
        for k in range(3):
            result[i, k] = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z
    return result


def mesh(vertices, triangles, color, material: Material | Sequence[Material]) -> Mesh:
    """A mesh with one colour and material for all triangles, or one each."""
    triangles = np.asarray(triangles, np.int32).reshape(-1, 3)
    count = len(triangles)
    return Mesh(
        vertices=np.asarray(vertices, np.float32).reshape(-1, 3),
        triangles=triangles,
        colors=np.ascontiguousarray(np.broadcast_to(np.asarray(color, np.float32), (count, 3))),
        materials=np.ascontiguousarray(np.broadcast_to(np.asarray(material, np.uint8), (count,))),
    )


EMPTY = mesh(np.zeros((0, 3)), np.zeros((0, 3)), (0, 0, 0), Material.PLASTIC)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All meshes as one."""
    meshes = [m for m in meshes if len(m)]
    if not meshes:
        return EMPTY
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]]).astype(np.int32)
    return Mesh(
        vertices=np.concatenate([m.vertices for m in meshes]),
        triangles=np.concatenate([m.triangles + s for m, s in zip(meshes, starts, strict=True)]),
        colors=np.concatenate([m.colors for m in meshes]),
        materials=np.concatenate([m.materials for m in meshes]),
    )


def repeated(
    part: Mesh, poses: Float[np.ndarray, "N 4 4"], tints: Float[np.ndarray, "N 3"] | None = None
) -> Mesh:
    """A copy of `part` at each of N transforms, its colours times the copy's tint."""
    count = len(poses)
    poses = np.asarray(poses, np.float32)
    vertices = np.einsum("nij,vj->nvi", poses[:, :3, :3], part.vertices) + poses[:, None, :3, 3]
    starts = np.arange(count, dtype=np.int32)[:, None, None] * len(part.vertices)
    colors = np.broadcast_to(part.colors, (count, *part.colors.shape))
    if tints is not None:
        colors = np.clip(colors * np.asarray(tints, np.float32)[:, None], 0, 1)
    return Mesh(
        vertices=vertices.reshape(-1, 3),
        triangles=(part.triangles + starts).reshape(-1, 3),
        colors=np.ascontiguousarray(colors.reshape(-1, 3)),
        materials=np.tile(part.materials, count),
    )


# ------------------------------------------------------------------------------------- shapes

_BOX_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)])
_BOX_QUADS = np.array(
    [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (1, 5, 7, 3), (0, 2, 6, 4)]
)


def box(
    length: float, width: float, height: float, color: Color, material: Material,
    x: float = 0.0, y: float = 0.0, z: float = 0.0,
) -> Mesh:  # fmt: skip
    """An upright box on (x, y, z): the middle of its bottom face."""
    vertices = _BOX_CORNERS * (length, width, height) + (x, y, z)
    return mesh(vertices, _split(_BOX_QUADS), color, material)


def quads(corners: Float[np.ndarray, "N 4 3"], color, material: Material) -> Mesh:
    """N separate four-cornered faces; `color` is one, or one each."""
    corners = np.asarray(corners, np.float32)
    order = np.arange(4 * len(corners)).reshape(-1, 4)
    color = np.asarray(color, np.float32)
    if color.ndim == 2:
        color = np.repeat(color, 2, 0)
    return mesh(corners.reshape(-1, 3), _split(order), color, material)


def surface(points: Float[np.ndarray, "M N 3"], color, material: Material) -> Mesh:
    """A lattice of points joined to a surface."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    corners = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1)
    return mesh(points, _split(corners.reshape(-1, 4)), color, material)


def loft(sections: Float[np.ndarray, "S K 3"], color, material) -> Mesh:
    """S closed outlines of K points each, joined one to the next and closed at both ends.

    `color` and `material` are one for all, or lists of one for each of the (S - 1) * K faces,
    which run around the first strip, then around the second; the ends take face K / 2's.
    """
    triangles, ends = _loft_triangles(*sections.shape[:2])

    def per_triangle(values, width):
        values = np.asarray(values)
        if values.ndim == width:
            return values
        end = values[[sections.shape[1] // 2]]
        return np.concatenate([np.repeat(values, 2, 0), np.repeat(end, ends, 0)])

    return mesh(sections, triangles, per_triangle(color, 1), per_triangle(material, 0))


@lru_cache(256)
def _loft_triangles(count: int, around: int) -> tuple[Int32[np.ndarray, "T 3"], int]:
    """Triangles of a loft: its strips, then its two ends; and how many the ends have."""
    index = np.arange(count * around, dtype=np.int32).reshape(count, around)
    ahead = np.roll(index, -1, 1)
    faces = np.stack([index[:-1], index[1:], ahead[1:], ahead[:-1]], -1).reshape(-1, 4)
    fan = np.stack([np.zeros(around - 2, int), np.arange(1, around - 1), np.arange(2, around)], 1)
    caps = np.concatenate([fan, fan + (count - 1) * around])
    return np.concatenate([_split(faces), caps]).astype(np.int32), len(caps)


def tube(
    start: Sequence[float], end: Sequence[float], radius: float | tuple[float, float],
    color: Color, material: Material, sides: int = 6,
) -> Mesh:  # fmt: skip
    """A round bar between two points, of one radius or of one at each end."""
    ax, ay, az = (float(b - a) for a, b in zip(start, end, strict=True))
    length = math.sqrt(ax * ax + ay * ay + az * az) or 1.0
    ax, ay, az = ax / length, ay / length, az / length
    # Two directions across the axis: its product with z, or with x where it points up itself.
    first = (ay, -ax, 0.0) if abs(az) < 0.9 else (0.0, az, -ay)
    norm = math.sqrt(sum(part * part for part in first))
    fx, fy, fz = (part / norm for part in first)
    basis = np.array([[fx, fy, fz], [ay * fz - az * fy, az * fx - ax * fz, ax * fy - ay * fx]])
    ring = _circle(sides) @ basis
    radii = radius if isinstance(radius, tuple) else (radius, radius)
    return loft(np.stack([start + radii[0] * ring, end + radii[1] * ring]), color, material)


@lru_cache
def _circle(sides: int) -> Float[np.ndarray, "N 2"]:
    angle = np.arange(sides) * (2 * np.pi / sides)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def ellipsoid(
    radii: Sequence[float], center: Sequence[float], color: Color, material: Material,
    rings: int = 5, sides: int = 8,
) -> Mesh:  # fmt: skip
    """A ball stretched along the axes."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rings + 2)[1:-1, None]
    angle = np.arange(sides) * (2 * np.pi / sides)
    shape = [np.cos(latitude) * np.cos(angle), np.cos(latitude) * np.sin(angle)]
    unit = np.stack([*shape, np.broadcast_to(np.sin(latitude), (rings, sides))], -1)
    # The end rings close flat; stretch them so that the ball still reaches its poles.
    unit[..., 2] /= np.sin(latitude).max()
    return loft(unit * np.asarray(radii) + np.asarray(center), color, material)


def disc(radius: float, thickness: float, color: Color, material: Material, sides=16) -> Mesh:
    """A wheel-like cylinder about the y axis, centred on the origin."""
    half = thickness / 2
    return tube((0, -half, 0), (0, half, 0), radius, color, material, sides)


def leaves(
    rng: np.random.Generator, centers: Float[np.ndarray, "N 3"], size: float, color: Color
) -> Mesh:
    """A small triangle in a random direction at each centre, in shades of `color`."""
    count = len(centers)
    corners = rng.normal(0, 1, (count, 3, 3))
    corners *= size / np.linalg.norm(corners, axis=-1, keepdims=True)
    shade = rng.uniform(0.55, 1.25, (count, 1)) * np.asarray(color)
    vertices = (centers[:, None] + corners).reshape(-1, 3)
    return mesh(vertices, np.arange(3 * count), np.clip(shade, 0, 1), Material.FOLIAGE)


def _split(faces: np.ndarray) -> np.ndarray:
    """Four-cornered faces (N, 4) as triangles (2 N, 3), a face's two after one another."""
    return np.stack([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]], 1).reshape(-1, 3)
