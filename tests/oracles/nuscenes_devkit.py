"""The official nuScenes evaluator, where it is installed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path


def official_summary(root: Path, version: str, results: Path, split: str) -> dict:
    """Content of the official `metrics_summary.json`."""
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    database = NuScenes(version=version, dataroot=str(root), verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        evaluation = DetectionEval(
            database, config_factory("detection_cvpr_2019"), str(results), split, folder,
            verbose=False,
        )  # fmt: skip
        evaluation.main(plot_examples=0, render_curves=False)
        return json.loads((Path(folder) / "metrics_summary.json").read_text())


def numbers(summary, prefix: str = "") -> dict[str, float]:
    """All numbers of a summary by path, without the time it took."""
    if isinstance(summary, dict):
        parts = [numbers(value, f"{prefix}/{key}") for key, value in summary.items()]
        merged = {key: value for part in parts for key, value in part.items()}
        return {key: value for key, value in merged.items() if "eval_time" not in key}
    if isinstance(summary, list):
        return numbers(dict(enumerate(summary)), prefix)
    return {prefix: summary}
