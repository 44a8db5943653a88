"""A frame as coloured points and triangles in the ego frame, and where it is looked at from.

Plain arrays: `offscreen` and `viewer` hand them to Open3D. Box edges are thin prisms and not
lines, as OpenGL draws lines one pixel wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32

from detector.geometry import box_corners
from detector.records import Detections, Sample
from detector.viz.style import (
    BACKGROUND,
    FAINT,
    Marks,
    class_color,
    lighter,
    marks_of,
    point_colors,
    road_height,
)

_EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7),
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """A pinhole camera in the ego frame."""

    eye: tuple[float, float, float]
    """Where it is, metres."""
    target: tuple[float, float, float]
    """What it looks at, metres; not straight below or above the eye."""
    field_of_view: float = 50.0
    """Across the picture's height, degrees."""

    def pixels(
        self, points: Float[np.ndarray, "P 3"], size: tuple[int, int]
    ) -> tuple[Float[np.ndarray, "P 2"], Float[np.ndarray, " P"]]:
        """Column and row in a picture of (width, height), and depth in metres, of ego points."""
        forward = np.subtract(self.target, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0, 1])
        right /= np.linalg.norm(right)
        camera_points = (points - self.eye) @ np.stack([right, np.cross(forward, right), forward]).T
        depth = camera_points[:, 2]
        focal_length = size[1] / 2 / np.tan(np.deg2rad(self.field_of_view) / 2)
        safe = np.where(np.abs(depth) > 1e-6, depth, 1e-6)
        return camera_points[:, :2] / safe[:, None] * focal_length + np.array(size) / 2, depth


# From above and behind the ego vehicle, as if on a mast.
BEHIND = View(eye=(-12.5, 0.0, 8.0), target=(17.0, 0.0, -1.5), field_of_view=42.0)


@dataclass(frozen=True)
class Scene:
    """What is drawn; colours are RGB in [0, 1]."""

    points: Float32[np.ndarray, "P 3"]
    point_colors: Float32[np.ndarray, "P 3"]
    vertices: Float32[np.ndarray, "V 3"]
    triangles: Int32[np.ndarray, "T 3"]
    vertex_colors: Float32[np.ndarray, "V 3"]
    view: View
    classes: tuple[str, ...]
    marks: tuple[Marks, ...]
    """What the triangles were made from, for the legend."""
    title: str
    background: tuple[int, int, int] = BACKGROUND


def build_scene(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None = None,
    *,
    color_by: str = "height",
    min_score: float = 0.0,
    view: View = BEHIND,
    title: str | None = None,
) -> Scene:
    """The scene of one frame: points, true boxes, detections, range rings and the ego vehicle.

    Args:
        sample: the frame; its boxes are the truth.
        classes: names of the labels.
        detections: of the same frame.
        color_by: "height" or a point column's name.
        min_score: detections below are not drawn.
        view: where to look from.
        title: None: the frame's id and its number of points.

    Raises:
        InputError: an unknown column.
    """
    marks = marks_of(sample, detections, min_score)
    road = road_height(sample.points)
    meshes = [*_rings(road), _ego_vehicle(road)]
    for kind in marks:
        meshes += [_box_mesh(box, label, kind, view) for box, label in zip(
            np.asarray(kind.boxes, np.float64), kind.labels, strict=True
        )]  # fmt: skip
    vertices, triangles, colors = _joined(meshes)
    return Scene(
        points=np.ascontiguousarray(sample.points[:, :3], np.float32),
        point_colors=(
            point_colors(sample.points, sample.point_features, color_by) / np.float32(255)
        ).astype(np.float32),
        vertices=vertices,
        triangles=triangles,
        vertex_colors=colors,
        view=view,
        classes=tuple(classes),
        marks=tuple(marks),
        title=f"{sample.frame_id}   {len(sample.points):,} points" if title is None else title,
    )


_Mesh = tuple[np.ndarray, np.ndarray, np.ndarray]


def _box_mesh(box: np.ndarray, label: int, kind: Marks, view: View) -> _Mesh:
    """Edges of a box, a cross on its front face and an arrow on the ground before it."""
    corners = box_corners(torch.from_numpy(box[None, :7]))[0].numpy()
    segments = [(corners[a], corners[b]) for a, b in _EDGES]
    # Corners 0 and 3 are the front's bottom, 4 and 7 its top.
    segments += [(corners[0], corners[7]), (corners[3], corners[4])]
    heading = np.array([np.cos(box[6]), np.sin(box[6]), 0])
    nose = (corners[0] + corners[3]) / 2
    segments.append((nose, nose + heading * max(0.6, min(box[3], 4) / 3)))
    # As thick on the screen far away as near by, within limits.
    distance = float(np.linalg.norm(box[:3] - view.eye))
    radius = np.clip(distance * 0.0011, 0.018, 0.07)
    if kind.dashed:
        segments = [piece for segment in segments for piece in _dashes(*segment, radius * 10)]
        radius = radius * 0.8
    color = lighter(class_color(label), 0.35 if kind.dashed else 0)
    return _prisms(np.array(segments), radius, color)


def _dashes(start: np.ndarray, end: np.ndarray, dash: float) -> list[tuple[np.ndarray, np.ndarray]]:
    length = float(np.linalg.norm(end - start))
    pieces = 2 * max(1, round(length / (2 * dash))) + 1
    steps = start + np.linspace(0, 1, pieces + 1)[:, None] * (end - start)
    return list(zip(steps[:-1:2], steps[1::2], strict=True))


def _prisms(
    segments: Float[np.ndarray, "S 2 3"], radius: float, color: tuple[int, int, int]
) -> _Mesh:
    """A square bar around each segment, a little longer than it so that corners close."""
    along = segments[:, 1] - segments[:, 0]
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(along[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    side = np.cross(along, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(along, side)
    ring = np.stack([side + up, side - up, -side - up, -side + up], 1) * radius * 0.71  # (S, 4, 3)
    starts = segments[:, :1] - along[:, None] * radius * 0.7 + ring
    ends = segments[:, 1:] + along[:, None] * radius * 0.7 + ring
    vertices = np.concatenate([starts, ends], 1)                                       # (S, 8, 3)
    faces = [(0, 2, 1), (0, 3, 2), (4, 5, 6), (4, 6, 7)]
    for i in range(4):
        j = (i + 1) % 4
        faces += [(i, j, 4 + j), (i, 4 + j, 4 + i)]
    triangles = np.arange(len(segments))[:, None, None] * 8 + np.array(faces)          # (S, 12, 3)
    vertices = vertices.reshape(-1, 3)
    return vertices, triangles.reshape(-1, 3), np.tile(np.array(color) / 255, (len(vertices), 1))


def _rings(road: float) -> list[_Mesh]:
    """Flat rings on the road, every 10 m to 80 m."""
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    first = np.arange(180)[:, None] * 2
    both = np.concatenate([first + [0, 1, 2], first + [1, 3, 2]])
    triangles = np.concatenate([both, both[:, ::-1]])                 # seen from both sides
    meshes = []
    for radius in range(10, 81, 10):
        half = 0.01 + radius * 0.0018
        rim = np.stack([circle * (radius - half), circle * (radius + half)], 1).reshape(-1, 2)
        vertices = np.column_stack([rim, np.full(len(rim), road - 0.1)])
        meshes.append((vertices, triangles, np.tile(np.array(FAINT) / 255, (len(rim), 1))))
    return meshes


def _ego_vehicle(road: float) -> _Mesh:
    """A plain body with a cabin at the origin, shaded by hand."""
    parts = []
    for x, length, width, low, high, shade in (
        (-0.2, 4.3, 1.8, 0.25, 0.85, 0.30), (-0.45, 2.3, 1.5, 0.85, 1.45, 0.38),
    ):  # fmt: skip
        box = np.array([[x, 0, road + (low + high) / 2, length, width, high - low, 0]])
        corners = box_corners(torch.from_numpy(box))[0].numpy()
        # Every face has its own corners, so that it can have its own shade.
        for face, light in (
            ((4, 5, 6, 7), 1.25), ((0, 3, 7, 4), 0.9), ((2, 1, 5, 6), 0.8),
            ((1, 0, 4, 5), 1.0), ((3, 2, 6, 7), 1.0),
        ):  # fmt: skip
            parts.append(
                (
                    corners[list(face)],
                    np.array([(0, 1, 2), (0, 2, 3), (0, 2, 1), (0, 3, 2)]),
                    np.tile(np.array([0.92, 0.97, 1.05]) * shade * light, (4, 1)),
                )
            )
    vertices, triangles, colors = _joined(parts)
    return vertices, triangles, colors


def _joined(meshes: Sequence[_Mesh]) -> _Mesh:
    offsets = np.cumsum([0] + [len(mesh[0]) for mesh in meshes[:-1]])
    return (
        np.concatenate([mesh[0] for mesh in meshes]).astype(np.float32),
        np.concatenate(
            [mesh[1] + offset for mesh, offset in zip(meshes, offsets, strict=True)]
        ).astype(np.int32),
        np.concatenate([mesh[2] for mesh in meshes]).astype(np.float32),
    )
