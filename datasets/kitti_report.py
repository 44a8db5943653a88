"""Tables about a folder in KITTI's layout, from what `datasets.kitti_check` found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from datasets.kitti_boxes import EASY, HARD, MODERATE
from datasets.kitti_check import FrameCheck
from datasets.kitti_files import KITTI_TYPES

# As many points as a box needs to be learnt from, roughly.
FEW_POINTS = 5


def frames_table(name: str, checks: Sequence[FrameCheck]) -> Table:
    """One row: how many frames there are, and how many points are in them."""
    table = _table(
        f"{name}: frames", "frames", "with\nerrors", "without\nobjects",
        "points\nmin", "\nmedian", "\nmax", "in view\nmin", "\nmedian",
    )  # fmt: skip
    points = np.array([check.points for check in checks])
    seen = np.array([check.points_in_view for check in checks])
    table.add_row(
        f"{len(checks):,}",
        f"{sum(bool(check.errors) for check in checks):,}",
        f"{sum(not check.types for check in checks):,}" if name == "training" else "-",
        *(f"{value:,.0f}" for value in (points.min(), np.median(points), points.max())),
        *(f"{value:,.0f}" for value in (seen.min(), np.median(seen))),
    )
    return table


def objects_tables(checks: Sequence[FrameCheck]) -> tuple[Table, Table]:
    """A row for each type that occurs: number, difficulty and size; range and points."""
    types = np.array([name for check in checks for name in check.types], np.str_)
    levels = np.concatenate([check.levels for check in checks])
    boxes = np.concatenate([check.boxes for check in checks])
    points = np.concatenate([check.box_points for check in checks])
    sizes = _table(
        "training: objects", "", "number", "easy", "moderate", "hard", "mean length",
        "width", "height, m",
    )  # fmt: skip
    places = _table(
        "training: points in objects", "", "range, m\nmedian", "\nmaximum", "points\nmedian",
        f"objects with\nunder {FEW_POINTS}", "\nnone",
    )  # fmt: skip
    for name in [*KITTI_TYPES, *sorted(set(types) - set(KITTI_TYPES))]:
        mine = types == name
        if not mine.any():
            continue
        sizes.add_row(
            name,
            f"{mine.sum():,}",
            *(f"{(levels[mine] == level).sum():,}" for level in (EASY, MODERATE, HARD)),
            *(f"{side:.2f}" for side in boxes[mine, 3:6].mean(0)),
        )
        ranges = np.hypot(boxes[mine, 0], boxes[mine, 1])
        places.add_row(
            name,
            f"{np.median(ranges):.1f}",
            f"{ranges.max():.1f}",
            f"{np.median(points[mine]):,.0f}",
            f"{(points[mine] < FEW_POINTS).sum():,}",
            f"{(points[mine] == 0).sum():,}",
        )
    return sizes, places


def _table(title: str, *columns: str) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table
