"""What the metric returns: numbers, their JSON in the official keys, and a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from detector.metrics.nuscenes.boxes import CLASS_RANGE_M, CLASSES

if TYPE_CHECKING:
    from rich.table import Table

DISTANCE_THRESHOLDS_M = (0.5, 1.0, 2.0, 4.0)
TP_THRESHOLD_M = 2.0
MIN_RECALL = 0.1
MIN_PRECISION = 0.1
MAX_BOXES_PER_SAMPLE = 500
MEAN_AP_WEIGHT = 5
ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
ERROR_NAMES = dict(zip(ERRORS, ("ATE", "ASE", "AOE", "AVE", "AAE"), strict=True))


@dataclass(frozen=True)
class Curve:
    """One class at one distance threshold, at 101 recalls from 0 to 1."""

    precision: Float64[np.ndarray, " 101"]
    """0 beyond the highest recall reached."""
    confidence: Float64[np.ndarray, " 101"]
    """The score at which each recall is reached; 0 beyond the highest."""
    errors: dict[str, Float64[np.ndarray, " 101"]]
    """Mean errors of the hits down to that score."""

    @classmethod
    def nothing_found(cls) -> Curve:
        """No true box, or none of them matched."""
        return cls(np.zeros(101), np.zeros(101), {error: np.ones(101) for error in ERRORS})


@dataclass(frozen=True)
class NuScenesResult:
    """mAP, true-positive errors and NDS of a split."""

    label_aps: dict[str, dict[float, float]]
    """AP by class and distance threshold in metres."""
    label_tp_errors: dict[str, dict[str, float]]
    """Errors by class: metres, 1 - IoU, radians, m/s, 1 - accuracy; NaN where undefined."""
    eval_time_s: float
    curves: dict[tuple[str, float], Curve] = field(repr=False)
    """By class and distance threshold."""

    @property
    def mean_dist_aps(self) -> dict[str, float]:
        """AP by class, mean over the distance thresholds."""
        return {name: float(np.mean(list(aps.values()))) for name, aps in self.label_aps.items()}

    @property
    def mean_ap(self) -> float:
        return float(np.mean(list(self.mean_dist_aps.values())))

    @property
    def tp_errors(self) -> dict[str, float]:
        """Mean of each error over the classes that have it."""
        return {
            error: float(np.nanmean([self.label_tp_errors[name][error] for name in CLASSES]))
            for error in ERRORS
        }

    @property
    def tp_scores(self) -> dict[str, float]:
        return {error: max(0.0, 1.0 - value) for error, value in self.tp_errors.items()}

    @property
    def nd_score(self) -> float:
        """NDS: mAP five times, each error's score once."""
        scores = list(self.tp_scores.values())
        total = float(MEAN_AP_WEIGHT * self.mean_ap + np.sum(scores))
        return total / (MEAN_AP_WEIGHT + len(scores))

    def as_dict(self, meta: dict | None = None) -> dict:
        """The content of the official `metrics_summary.json`; `meta` is that of the result file.

        Undefined errors are NaN, which `json` writes as the official tool does.
        """
        summary = {
            "label_aps": {
                name: {str(threshold): ap for threshold, ap in aps.items()}
                for name, aps in self.label_aps.items()
            },
            "mean_dist_aps": self.mean_dist_aps,
            "mean_ap": self.mean_ap,
            "label_tp_errors": self.label_tp_errors,
            "tp_errors": self.tp_errors,
            "tp_scores": self.tp_scores,
            "nd_score": self.nd_score,
            "eval_time": self.eval_time_s,
            "cfg": {
                "class_range": dict(CLASS_RANGE_M),
                "dist_fcn": "center_distance",
                "dist_ths": list(DISTANCE_THRESHOLDS_M),
                "dist_th_tp": TP_THRESHOLD_M,
                "min_recall": MIN_RECALL,
                "min_precision": MIN_PRECISION,
                "max_boxes_per_sample": MAX_BOXES_PER_SAMPLE,
                "mean_ap_weight": MEAN_AP_WEIGHT,
            },
        }
        return summary if meta is None else {**summary, "meta": meta}

    def scalars(self) -> dict[str, float]:
        """Flat names to numbers, for logs: NDS, mAP, mATE ..., car/AP, car/AP/4.0, car/ATE ..."""
        flat = {"NDS": self.nd_score, "mAP": self.mean_ap}
        flat |= {f"m{ERROR_NAMES[error]}": value for error, value in self.tp_errors.items()}
        for name in CLASSES:
            flat[f"{name}/AP"] = self.mean_dist_aps[name]
            flat |= {f"{name}/AP/{t}": ap for t, ap in self.label_aps[name].items()}
            flat |= {
                f"{name}/{ERROR_NAMES[error]}": value
                for error, value in self.label_tp_errors[name].items()
                if not np.isnan(value)
            }
        return flat

    def table(self) -> Table:
        """One row a class, the means last."""
        from rich.table import Table

        means = self.mean_dist_aps
        title = f"NDS {self.nd_score:.4f}   mAP {self.mean_ap:.4f}"
        table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("AP at", no_wrap=True)
        thresholds = [f"{threshold} m" for threshold in DISTANCE_THRESHOLDS_M]
        for name in (*thresholds, "AP", *ERROR_NAMES.values()):
            table.add_column(name, justify="right", no_wrap=True)
        for name in CLASSES:
            values = [*self.label_aps[name].values(), means[name]]
            values += self.label_tp_errors[name].values()
            table.add_row(name, *("-" if np.isnan(v) else f"{v:.3f}" for v in values))
        over_classes = [
            np.mean([self.label_aps[name][t] for name in CLASSES]) for t in DISTANCE_THRESHOLDS_M
        ]
        values = [*over_classes, self.mean_ap, *self.tp_errors.values()]
        table.add_row("mean", *(f"{v:.3f}" for v in values), style="bold")
        return table
