"""What the KITTI metric found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from rich.table import Table

METRICS = ("bbox", "bev", "3d", "aos")
DIFFICULTIES = ("easy", "moderate", "hard")
# Which of the 41 recall steps 0, 1/40, ..., 1 are averaged. R11 is what papers up to 2019 report;
# the benchmark itself has used R40 since 08.10.2019.
RECALL_STEPS = {"R40": slice(1, None), "R11": slice(None, None, 4)}


@dataclass(frozen=True)
class KittiResult:
    """Average precision by class, metric, difficulty."""

    classes: tuple[str, ...]
    """As they were asked for."""
    precision: Float64[np.ndarray, "C 4 3 41"]
    """Interpolated precision by class, metric (`METRICS`), difficulty (`DIFFICULTIES`) and recall
    step, in [0, 1]. For `aos` it is the orientation similarity instead, NaN throughout where a
    detection of any class has alpha -10 (unknown)."""
    truth_counts: Int64[np.ndarray, "C 3"]
    """True boxes that count, by class and difficulty."""

    def average_precision(self, recall: str = "R40") -> Float64[np.ndarray, "C 4 3"]:
        """Percentages by class, metric and difficulty; `recall` is R40 or R11."""
        return 100 * self.precision[..., RECALL_STEPS[recall]].mean(-1)

    def as_dict(self) -> dict[str, dict[str, dict[str, list[float | None]]]]:
        """`{class: {metric: {"R40": [easy, moderate, hard], "R11": [...]}}}`, percentages.

        None stands for what was not computed, see `precision`; in JSON it becomes null.
        """
        average = {recall: self.average_precision(recall) for recall in RECALL_STEPS}
        return {
            name: {
                metric: {
                    recall: [None if np.isnan(v) else float(v) for v in average[recall][c, m]]
                    for recall in RECALL_STEPS
                }
                for m, metric in enumerate(METRICS)
            }
            for c, name in enumerate(self.classes)
        }

    def scalars(self) -> dict[str, float]:
        """Flat names such as `Car/3d/R40/moderate`, percentages; without what wasn't computed."""
        return {
            f"{name}/{metric}/{recall}/{difficulty}": value
            for name, metrics in self.as_dict().items()
            for metric, recalls in metrics.items()
            for recall, values in recalls.items()
            for difficulty, value in zip(DIFFICULTIES, values, strict=True)
            if value is not None
        }

    def table(self) -> Table:
        """All percentages, for a terminal."""
        table = Table(title="KITTI average precision, %")
        table.add_column("class,\ntrue boxes", no_wrap=True)
        table.add_column("")
        for recall in RECALL_STEPS:
            for difficulty in ("easy", "mod.", "hard"):
                table.add_column(f"{recall}\n{difficulty}", justify="right", no_wrap=True)
        values = self.as_dict()
        for name, counts in zip(self.classes, self.truth_counts, strict=True):
            first_cells = iter((name, "{} / {} / {}".format(*counts), "", ""))
            for metric in METRICS:
                table.add_row(
                    next(first_cells),
                    metric,
                    *(
                        "-" if value is None else f"{value:.2f}"
                        for recall in RECALL_STEPS
                        for value in values[name][metric][recall]
                    ),
                    end_section=metric == METRICS[-1],
                )
        return table
