"""Colours, fonts and marks that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from detector.errors import InputError

BACKGROUND = (13, 16, 22)
FOREGROUND = (226, 230, 236)
FAINT = (54, 62, 74)
# Told apart on a dark ground with any common colour blindness, in the order of the classes.
PALETTE = (
    (64, 190, 255), (255, 170, 40), (230, 110, 220), (60, 220, 150), (250, 235, 90),
    (255, 95, 85), (160, 150, 255), (180, 210, 120), (235, 180, 160), (120, 225, 230),
)  # fmt: skip
# Low to high: blue grey to sand to white; boxes keep the saturated colours for themselves.
_RAMP = np.array(
    [(58, 78, 112), (78, 112, 140), (112, 146, 150), (160, 168, 148), (206, 190, 150),
     (240, 226, 200)], np.float64,
)  # fmt: skip


def class_color(label: int) -> tuple[int, int, int]:
    """RGB of a class index; repeats after ten classes."""
    return PALETTE[label % len(PALETTE)]


def lighter(color: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    """The colour mixed with that share of white."""
    return tuple(round(channel + (255 - channel) * share) for channel in color)


@dataclass(frozen=True)
class Marks:
    """Boxes of one kind in one frame, ready to be drawn."""

    boxes: Float[np.ndarray, "N 7+"]
    labels: Sequence[int]
    scores: Float[np.ndarray, " N"] | None = None
    """None for truth."""
    dashed: bool = False

    def __len__(self) -> int:
        return len(self.boxes)


def marks_of(sample, detections, min_score: float) -> list[Marks]:
    """Truth and detections of a frame; truth is dashed where there are detections to compare.

    Args:
        sample: `detector.records.Sample`.
        detections: `detector.records.Detections`, or None.
        min_score: detections below are left out.
    """
    marks = []
    if len(sample.boxes):
        marks.append(
            Marks(sample.boxes, sample.labels.tolist(), None, dashed=detections is not None)
        )
    if detections is not None:
        detections = detections.cpu()
        scores = detections.scores.numpy()
        kept = scores >= min_score
        labels = detections.labels.numpy()[kept].tolist()
        marks.append(Marks(detections.boxes.numpy()[kept], labels, scores[kept]))
    return marks


def ramp(values: Float[np.ndarray, " P"], low: float, high: float) -> UInt8[np.ndarray, "P 3"]:
    """RGB of values between `low` and `high`, clipped at both ends."""
    position = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(position, range(len(_RAMP)), _RAMP[:, i]) for i in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def point_colors(
    points: Float[np.ndarray, "P C"], features: Sequence[str], color_by: str
) -> UInt8[np.ndarray, "P 3"]:
    """RGB of each point by `height` (about the road to 3 m above it) or a column's name.

    Raises:
        InputError: a column that the points don't have.
    """
    if color_by == "height":
        road = road_height(points)
        return ramp(points[:, 2], road - 0.3, road + 3)
    if color_by not in features:
        raise InputError(
            f"points can't be coloured by '{color_by}'; this frame has height, "
            f"{', '.join(features)}"
        )
    values = points[:, list(features).index(color_by)]
    low, high = np.quantile(values, [0.02, 0.98]) if len(values) else (0, 1)
    return ramp(values, low, high)


def road_height(points: Float[np.ndarray, "P C"]) -> float:
    """z of the road near the ego vehicle, roughly: a low quantile of what is not far away."""
    near = points[np.hypot(points[:, 0], points[:, 1]) < 25, 2]
    near = near if len(near) else points[:, 2]
    return float(np.quantile(near, 0.15)) if len(near) else 0.0


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def draw_caption(
    draw: ImageDraw.ImageDraw,
    spot: tuple[float, float],
    words: str,
    color: tuple[int, int, int],
    *,
    anchor: str,
    size: int = 13,
) -> None:
    """Small text with a dark seam, readable on points and pictures; `anchor` as Pillow has it."""
    draw.text(
        spot, words, font=font(size), fill=color, anchor=anchor,
        stroke_width=2, stroke_fill=(*BACKGROUND, 220),
    )  # fmt: skip


def draw_path(
    draw: ImageDraw.ImageDraw,
    corners: Sequence[tuple[float, float]],
    color: tuple[int, ...],
    width: int,
    dash: float | None = None,
) -> None:
    """Straight lines through the corners; `dash` is the length of a dash and of the gap after."""
    points = np.asarray(corners, np.float64)
    for start, end in zip(points[:-1], points[1:], strict=True):
        if dash is None:
            draw.line([*start, *end], fill=color, width=width)
            continue
        length = float(np.hypot(*(end - start)))
        # An odd number of pieces, so that both ends of the line are drawn.
        pieces = 2 * max(1, round(length / (2 * dash))) + 1 if length > dash else 1
        steps = np.linspace(0, 1, pieces + 1)
        for low, high in zip(steps[:-1:2], steps[1::2], strict=True):
            draw.line(
                [*(start + low * (end - start)), *(start + high * (end - start))],
                fill=color, width=width,
            )  # fmt: skip


def draw_legend(
    image: Image.Image, classes: Sequence[str], marks: Sequence[Marks], title: str
) -> None:
    """The title at the top left; at the top right the classes that occur, with their numbers of
    boxes, and how truth and detections are drawn. Draws into `image`."""
    draw = ImageDraw.Draw(image, "RGBA")
    scale = max(1.0, image.width / 1280)
    size, pad = round(15 * scale), round(10 * scale)
    text, bold = font(size), font(size, bold=True)
    if title:
        box = draw.textbbox((2 * pad, 2 * pad), title, font=bold)
        draw.rounded_rectangle(
            (box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad), pad // 2, (*BACKGROUND, 200)
        )
        draw.text((2 * pad, 2 * pad), title, font=bold, fill=FOREGROUND)
    rows: list[tuple[str, tuple[int, int, int], str]] = []
    for label, name in enumerate(classes):
        counts = [sum(each == label for each in kind.labels) for kind in marks]
        if any(counts):
            words = " / ".join(map(str, counts))
            rows.append(("swatch", class_color(label), f"{name}  {words}"))
    for kind in marks:
        name = "labelled" if kind.scores is None else "detected"
        rows.append(("dash" if kind.dashed else "line", FOREGROUND, f"{name}  {len(kind)}"))
    if not rows:
        return
    line, mark = round(size * 1.5), round(26 * scale)
    width = mark + pad + max(round(draw.textlength(row[2], font=text)) for row in rows)
    left, top = image.width - width - 2 * pad, 2 * pad
    draw.rounded_rectangle(
        (left - pad, top - pad, image.width - pad, top + line * len(rows) + pad // 2), pad // 2,
        (*BACKGROUND, 200),
    )  # fmt: skip
    for kind, color, words in rows:
        middle = top + size * 0.6
        if kind == "swatch":
            half = round(5 * scale)
            draw.rectangle((left, middle - half, left + mark - 6 * scale, middle + half), color)
        else:
            ends = [(left, middle), (left + mark - 6 * scale, middle)]
            draw_path(
                draw, ends, color, round(2 * scale), 4 * scale if kind == "dash" else None
            )
        draw.text((left + mark + pad / 2, top), words, font=text, fill=FOREGROUND)
        top += line


def save_png(image: Image.Image, path: str | Path) -> Path:
    """Writes the picture, making its folder first.

    Raises:
        InputError: the file can't be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="PNG")
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from None
    return path
