"""Boxes projected onto a camera's picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw

from detector.errors import InputError
from detector.geometry import box_corners
from detector.records import Camera, Detections, Sample
from detector.viz.style import (
    Marks,
    class_color,
    draw_caption,
    draw_legend,
    draw_path,
    lighter,
    marks_of,
    save_png,
)

_SUPERSAMPLING = 2
# What is nearer to the camera's plane than this is cut off, metres.
_NEAR = 0.2
_FRONT = (0, 3, 7, 4)
_EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7),
)  # fmt: skip


def draw_image(
    sample: Sample,
    classes: Sequence[str],
    path: str | Path | None = None,
    detections: Detections | None = None,
    *,
    camera: int = 0,
    min_score: float = 0.0,
    title: str | None = None,
) -> Image.Image:
    """One of the frame's pictures with true boxes and detections; the front face is tinted.

    Args:
        sample: the frame, with cameras; its boxes are the truth.
        classes: names of the labels.
        path: PNG to write; None: only return the picture.
        detections: of the same frame.
        camera: which of `sample.cameras`.
        min_score: detections below are not drawn.
        title: None: the frame's id and the camera's name.

    Raises:
        InputError: the frame has no such camera, or the path can't be written.
    """
    if camera >= len(sample.cameras):
        raise InputError(
            f"frame {sample.frame_id} has {len(sample.cameras)} pictures, none of number {camera}; "
            f"read the data set with its images"
        )
    picture = sample.cameras[camera]
    image = Image.fromarray(picture.image)
    size = image.size
    image = image.resize((size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    draw = ImageDraw.Draw(image, "RGBA")
    marks = marks_of(sample, detections, min_score)
    captions = []
    for kind in reversed(marks):                                   # truth on top
        captions += _draw_marks(draw, picture, kind)
    image = image.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image, "RGBA")
    for (column, row), words, color in captions:
        spot = (np.clip(column, 0, size[0] - 30), np.clip(row, 14, size[1]))
        draw_caption(draw, spot, words, color, anchor="lb")
    title = f"{sample.frame_id}   {picture.name}" if title is None else title
    draw_legend(image, classes, marks, title)
    if path is not None:
        save_png(image, path)
    return image


def draw_images(
    sample: Sample,
    classes: Sequence[str],
    path: str | Path | None = None,
    detections: Detections | None = None,
    *,
    min_score: float = 0.0,
    columns: int = 3,
) -> Image.Image:
    """All of the frame's pictures as `draw_image` draws them, `columns` in a row, each under its
    camera's name; raises as that."""
    pictures = [
        draw_image(
            sample, classes, None, detections, camera=i, min_score=min_score, title=camera.name
        )
        for i, camera in enumerate(sample.cameras)
    ] or [draw_image(sample, classes)]
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    columns = min(columns, len(pictures))
    whole = Image.new("RGB", (width * columns, height * -(-len(pictures) // columns)))
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % columns * width, i // columns * height))
    if path is not None:
        save_png(whole, path)
    return whole


def _draw_marks(
    draw: ImageDraw.ImageDraw, camera: Camera, kind: Marks
) -> list[tuple[tuple[float, float], str, tuple[int, int, int]]]:
    """Draws boxes; returns the captions (place in the picture, words, colour)."""
    if not len(kind):
        return []
    boxes = torch.from_numpy(np.asarray(kind.boxes[:, :7], np.float64))
    corners = box_corners(boxes).numpy()                                    # (N, 8, 3)
    camera_from_ego = camera.camera_from_ego.astype(np.float64)
    corners = corners @ camera_from_ego[:3, :3].T + camera_from_ego[:3, 3]
    height, width = camera.image.shape[:2]
    captions = []
    for i in np.argsort(-corners[..., 2].mean(1)):                          # far ones first
        color = lighter(class_color(kind.labels[i]), 0.45 if kind.dashed else 0)
        lines = [
            clipped for a, b in _EDGES
            if (clipped := project_segment(corners[i, a], corners[i, b], camera)) is not None
        ]  # fmt: skip
        if not lines:
            continue
        ends = np.concatenate(lines)
        low, high = ends.min(0), ends.max(0)
        if (high < 0).any() or (low > [width, height]).any():
            continue
        if (corners[i][list(_FRONT), 2] > _NEAR).all() and not kind.dashed:
            front = _project(corners[i][list(_FRONT)], camera) * _SUPERSAMPLING
            draw.polygon([tuple(p) for p in front.tolist()], fill=(*color, 70))
        for line in lines:
            dash = 7.0 * _SUPERSAMPLING if kind.dashed else None
            draw_path(draw, line * _SUPERSAMPLING, color, 2 * _SUPERSAMPLING - 1, dash)
        if kind.scores is not None:
            captions.append(((float(low[0]), float(low[1]) - 2), f"{kind.scores[i]:.2f}", color))
    return captions


def project_segment(
    start: Float[np.ndarray, " 3"], end: Float[np.ndarray, " 3"], camera: Camera
) -> Float[np.ndarray, "2 2"] | None:
    """Pixels of the ends of a segment in the camera's frame, cut where it passes behind the
    camera; None where all of it does."""
    if start[2] < _NEAR and end[2] < _NEAR:
        return None
    if start[2] < _NEAR or end[2] < _NEAR:
        crossing = start + (_NEAR - start[2]) / (end[2] - start[2]) * (end - start)
        start, end = (crossing, end) if start[2] < _NEAR else (start, crossing)
    return _project(np.stack([start, end]), camera)


def _project(points: Float[np.ndarray, "P 3"], camera: Camera) -> Float[np.ndarray, "P 2"]:
    intrinsics = camera.intrinsics.astype(np.float64)
    projected = points @ intrinsics[:, :3].T + intrinsics[:, 3]
    return projected[:, :2] / projected[:, 2:]
