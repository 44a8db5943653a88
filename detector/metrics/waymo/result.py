"""What a Waymo evaluation says, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int

from detector.metrics.waymo.average_precision import average_precision, precision_and_recall
from detector.metrics.waymo.counting import FALSE, FOUND, MISSED, MISSED_LEVEL_1

if TYPE_CHECKING:
    from rich.table import Table

SCORE_CUTOFFS = np.array([*(i * 0.01 for i in range(100)), 1.0], np.float32)
TYPES = ("VEHICLE", "PEDESTRIAN", "SIGN", "CYCLIST")
RANGES = ("[0, 30)", "[30, 50)", "[50, +inf)")
LEVELS = ("LEVEL_1", "LEVEL_2")
# The leaderboard's mean leaves signs out.
MEAN_TYPES = ("VEHICLE", "PEDESTRIAN", "CYCLIST")
# The official tool's names, in the order of the counted parts.
PARTS = tuple(f"OBJECT_TYPE_TYPE_{kind}" for kind in TYPES) + tuple(
    f"RANGE_TYPE_{kind}_{distance}" for kind in TYPES for distance in RANGES
)


@dataclass(frozen=True)
class Curve:
    """One breakdown: its average precision and the curves beneath."""

    ap: float
    """Area under precision over recall ("mAP" in the official output)."""
    aph: float
    """The same with each match weighted by its heading accuracy ("mAPH")."""
    precision: Float32[np.ndarray, " C"]
    """At each of SCORE_CUTOFFS."""
    heading_precision: Float32[np.ndarray, " C"]
    recall: Float32[np.ndarray, " C"]


@dataclass(frozen=True)
class WaymoResult:
    """AP and APH by object type, range and difficulty level."""

    curves: dict[str, Curve]
    """By the official tool's name of the breakdown, in its order."""
    frame_count: int
    bev: bool
    """Boxes were compared as seen from above."""

    @classmethod
    def from_counts(
        cls,
        counts: Int[np.ndarray, "parts C 4"],
        heading_sums: Float32[np.ndarray, "parts C"],
        *,
        frame_count: int,
        bev: bool,
    ) -> WaymoResult:
        """Sums over all frames, see `detector.metrics.waymo.counting`, to curves."""
        curves = {}
        for part, name in enumerate(PARTS):
            found, false = counts[part, :, FOUND], counts[part, :, FALSE]
            for level, column in zip(LEVELS, (MISSED_LEVEL_1, MISSED), strict=True):
                missed = counts[part, :, column]
                precision, recall = precision_and_recall(
                    found, false, missed, found.astype(np.float32)
                )
                heading_precision, _ = precision_and_recall(
                    found, false, missed, heading_sums[part]
                )
                curves[f"{name}_{level}"] = Curve(
                    ap=average_precision(precision, recall),
                    aph=average_precision(heading_precision, recall),
                    precision=precision,
                    heading_precision=heading_precision,
                    recall=recall,
                )
        return cls(curves, frame_count, bev)

    def as_dict(self) -> dict[str, dict[str, float]]:
        """`{"OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1": {"mAP": ..., "mAPH": ...}, ...}`, in the order
        and with the names that the official tool prints."""
        return {name: {"mAP": c.ap, "mAPH": c.aph} for name, c in self.curves.items()}

    def scalars(self) -> dict[str, float]:
        """Flat names to numbers: `vehicle/L1/AP`, `vehicle/L2/APH`, ..., `mean/L2/APH` (the mean
        of vehicle, pedestrian and cyclist, the leaderboard's ALL_NS)."""
        numbers = {}
        for short, level in (("L1", "LEVEL_1"), ("L2", "LEVEL_2")):
            for kind in TYPES:
                curve = self.curves[f"OBJECT_TYPE_TYPE_{kind}_{level}"]
                numbers[f"{kind.lower()}/{short}/AP"] = curve.ap
                numbers[f"{kind.lower()}/{short}/APH"] = curve.aph
            for measure in ("AP", "APH"):
                values = [numbers[f"{kind.lower()}/{short}/{measure}"] for kind in MEAN_TYPES]
                numbers[f"mean/{short}/{measure}"] = float(np.mean(values))
        return numbers

    def table(self) -> Table:
        """For a terminal, in percent: a row a type and range."""
        from rich.table import Table

        view = "seen from above" if self.bev else "3D"
        table = Table(title=f"Waymo, {view}, {self.frame_count} frames, percent")
        for heading in ("", "L1 AP", "L1 APH", "L2 AP", "L2 APH"):
            table.add_column(heading, justify="right" if heading else "left")
        scalars = self.scalars()
        table.add_row(
            "mean without signs",
            *(f"{100 * scalars[f'mean/{key}']:.2f}" for key in _COLUMNS),
            end_section=True,
        )
        for kind in TYPES:
            for place, part in enumerate(p for p in PARTS if f"_TYPE_{kind}" in p):
                easy, hard = (self.curves[f"{part}_{level}"] for level in LEVELS)
                numbers = (easy.ap, easy.aph, hard.ap, hard.aph)
                table.add_row(
                    kind.lower() if place == 0 else f"  {RANGES[place - 1]} m",
                    *(f"{100 * number:.2f}" for number in numbers),
                    end_section=place == len(RANGES),
                )
        return table


_COLUMNS = ("L1/AP", "L1/APH", "L2/AP", "L2/APH")
