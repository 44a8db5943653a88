"""A frame seen from above, forward to the right; needs neither Open3D nor a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from detector.errors import InputError
from detector.records import Detections, Sample
from detector.viz.style import (
    BACKGROUND,
    FAINT,
    FOREGROUND,
    Marks,
    class_color,
    draw_caption,
    draw_legend,
    draw_path,
    lighter,
    marks_of,
    point_colors,
    save_png,
)

_SUPERSAMPLING = 2
_EGO = (4.2, 1.8)       # length and width of the vehicle drawn at the origin, metres


def draw_bev(
    sample: Sample,
    classes: Sequence[str],
    path: str | Path | None = None,
    detections: Detections | None = None,
    *,
    view: tuple[float, float, float, float] | None = None,
    color_by: str = "height",
    min_score: float = 0.0,
    title: str | None = None,
    size: int = 1400,
) -> Image.Image:
    """Points, true boxes and detections from above, with range rings and a scale bar.

    Args:
        sample: the frame; its boxes are the truth.
        classes: names of the labels.
        path: PNG to write; None: only return the picture.
        detections: of the same frame.
        view: (x_min, y_min, x_max, y_max) to show, metres; None: where the points are.
        color_by: "height" or a point column's name.
        min_score: detections below are not drawn.
        title: None: the frame's id and its number of points.
        size: pixels of the longer side.

    Raises:
        InputError: no point lies in the view, an unknown column, or a path that can't be written.
    """
    marks = marks_of(sample, detections, min_score)
    view = view or fitting_view(sample.points, marks)
    canvas = _Canvas(view, size)
    inside = canvas.inside(sample.points)
    if not inside.any():
        raise InputError(
            f"frame {sample.frame_id}: none of its {len(sample.points)} points lies in the view "
            f"x {view[0]:g} to {view[2]:g} m, y {view[1]:g} to {view[3]:g} m; choose another view"
        )
    canvas.rings()
    colors = point_colors(sample.points, sample.point_features, color_by)[inside]
    canvas.points(sample.points[inside], colors)
    canvas.ego()
    for kind in reversed(marks):                                   # truth on top
        canvas.marks(kind)
    image = canvas.finish(marks)
    if title is None:
        title = f"{sample.frame_id}   {len(sample.points):,} points"
    draw_legend(image, classes, marks, title)
    if path is not None:
        save_png(image, path)
    return image


def fitting_view(
    points: Float[np.ndarray, "P C"], marks: Sequence[Marks]
) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) around nearly all points, all boxes and the ego vehicle, in
    whole steps of 5 m, at most 100 m away; the shorter side is at least half of the longer."""
    lows, highs = [np.array([-5.0, -5.0])], [np.array([5.0, 5.0])]
    if len(points):
        lows.append(np.quantile(points[:, :2], 0.003, axis=0))
        highs.append(np.quantile(points[:, :2], 0.997, axis=0))
    for kind in marks:
        if len(kind):
            reach = np.hypot(kind.boxes[:, 3:4], kind.boxes[:, 4:5]) / 2 + 1
            lows.append((kind.boxes[:, :2] - reach).min(0))
            highs.append((kind.boxes[:, :2] + reach).max(0))
    low = np.clip(np.floor(np.min(lows, 0) / 5) * 5, -100, 0)
    high = np.clip(np.ceil(np.max(highs, 0) / 5) * 5, 0, 100)
    missing = np.maximum(0, max(40, (high - low).max()) / 2 - (high - low)) / 2
    low, high = low - missing, high + missing
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class _Canvas:
    """Draws in metres onto a picture of twice the size, which `finish` brings down."""

    def __init__(self, view: tuple[float, float, float, float], size: int):
        x_min, y_min, x_max, y_max = view
        self.low, self.high = np.array([x_min, y_min]), np.array([x_max, y_max])
        self.scale = size / max(x_max - x_min, y_max - y_min) * _SUPERSAMPLING    # pixels a metre
        width, height = ((self.high - self.low) * self.scale).round().astype(int)
        self.image = Image.new("RGB", (int(width), int(height)), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.captions: list[tuple[tuple[float, float], str, tuple[int, int, int]]] = []

    def inside(self, points: np.ndarray) -> np.ndarray:
        return ((points[:, :2] >= self.low) & (points[:, :2] < self.high)).all(1)

    def pixels(self, xy: np.ndarray) -> np.ndarray:
        """Column and row of (..., 2) ego coordinates: x to the right, y up."""
        across = np.stack([xy[..., 0] - self.low[0], self.high[1] - xy[..., 1]], -1)
        return across * self.scale

    def rings(self) -> None:
        reach = float(np.abs(np.stack([self.low, self.high])).max() * 1.5)
        step = 10 if reach < 160 else 20
        # Captions run towards the lower right corner, where every ring passes.
        to_corner = np.array([self.high[0], self.low[1]]) + [-3, 1]
        to_corner = to_corner / np.hypot(*to_corner)
        for radius in np.arange(step, reach, step):
            (left, top), (right, bottom) = self.pixels(
                np.array([[-radius, radius], [radius, -radius]])
            )
            self.draw.ellipse((left, top, right, bottom), outline=FAINT, width=_SUPERSAMPLING)
            spot = radius * to_corner
            if (spot > self.low + 1).all() and (spot < self.high - 2).all():
                self.captions.append((tuple(self.pixels(spot)), f"{radius:g} m", (110, 120, 136)))

    def points(self, points: np.ndarray, colors: np.ndarray) -> None:
        order = np.argsort(points[:, 2], kind="stable")           # the highest on top
        columns, rows = self.pixels(points[order, :2]).astype(int).T
        array = np.array(self.image)
        # A dot of 3 x 3 becomes one and a half pixels; where a metre is large, dots grow too.
        dot = max(3, round(self.scale * 0.08))
        for down in range(dot):
            for right in range(dot):
                row = np.minimum(rows + down, array.shape[0] - 1)
                array[row, np.minimum(columns + right, array.shape[1] - 1)] = colors[order]
        self.image.paste(Image.fromarray(array))

    def ego(self) -> None:
        half_length, half_width = _EGO[0] / 2, _EGO[1] / 2
        outline = np.array([
            (half_length, 0), (half_length * 0.55, half_width), (-half_length, half_width),
            (-half_length, -half_width), (half_length * 0.55, -half_width),
        ])  # fmt: skip
        polygon = [tuple(p) for p in self.pixels(outline)]
        self.draw.polygon(polygon, fill=(90, 98, 112, 200), outline=FOREGROUND)

    def marks(self, kind: Marks) -> None:
        width = 3 if kind.dashed else 4
        for i, box in enumerate(np.asarray(kind.boxes, np.float64)):
            color = lighter(class_color(kind.labels[i]), 0.45 if kind.dashed else 0)
            corners = _ground_corners(box)
            outline = [tuple(p) for p in self.pixels(corners)]
            if not kind.dashed:
                self.draw.polygon(outline, fill=(*color, 46))
            dash = self.scale * 0.35 if kind.dashed else None
            draw_path(self.draw, [*outline, outline[0]], color, width, dash)
            # The heading: from the centre through the front, half a width ahead.
            heading = np.array([np.cos(box[6]), np.sin(box[6])])
            nose = box[:2] + heading * (box[3] / 2 + max(0.6, min(box[4], 2) / 2))
            draw_path(self.draw, self.pixels(np.stack([box[:2], nose])), color, width, dash)
            if kind.scores is not None:
                spot = box[:2] + [np.abs(corners[:, 0] - box[0]).max() + 0.3, 0]
                self.captions.append((tuple(self.pixels(spot)), f"{kind.scores[i]:.2f}", color))

    def finish(self, marks: Sequence[Marks]) -> Image.Image:
        size = (self.image.width // _SUPERSAMPLING, self.image.height // _SUPERSAMPLING)
        image = self.image.resize(size, Image.Resampling.LANCZOS)
        draw = ImageDraw.Draw(image, "RGBA")
        for (column, row), words, color in self.captions:
            spot = (column / _SUPERSAMPLING, row / _SUPERSAMPLING)
            draw_caption(draw, spot, words, color, anchor="lm")
        self._scale_bar(draw, image)
        return image

    def _scale_bar(self, draw: ImageDraw.ImageDraw, image: Image.Image) -> None:
        pixels_a_metre = self.scale / _SUPERSAMPLING
        metres = max(m for m in (1, 2, 5, 10, 20, 50) if m * pixels_a_metre < image.width / 4)
        left, row = 24, image.height - 28
        right = left + metres * pixels_a_metre
        draw.line((left, row, right, row), fill=FOREGROUND, width=2)
        for end in (left, right):
            draw.line((end, row - 5, end, row + 5), fill=FOREGROUND, width=2)
        draw_caption(draw, ((left + right) / 2, row - 6), f"{metres} m", FOREGROUND, anchor="mb")


def _ground_corners(box: Float[np.ndarray, " 7"]) -> Float[np.ndarray, "4 2"]:
    cos, sin = np.cos(box[6]), np.sin(box[6])
    along = np.array([1, -1, -1, 1]) * box[3] / 2
    across = np.array([1, 1, -1, -1]) * box[4] / 2
    return box[:2] + np.stack([along * cos - across * sin, along * sin + across * cos], -1)
