"""Scores a result file of any detector against the tables: what `tools/score.py nuscenes` runs."""

from __future__ import annotations

from pathlib import Path

from datasets.nuscenes.index import open_index
from datasets.nuscenes.results import read_results
from datasets.nuscenes.splits import OFFICIAL, default_split
from datasets.nuscenes.tables import table_folder
from datasets.nuscenes.truth import bike_racks, ego_translations, samples_of_split, true_boxes
from detector.metrics.nuscenes import NuScenesResult, evaluate_nuscenes


def score_results(
    root: str | Path,
    version: str,
    results: str | Path,
    split: str | None = None,
    index: str | Path | None = None,
) -> tuple[NuScenesResult, dict]:
    """The metric of a result file, and the file's `meta`.

    Args:
        split: an official split or one of `splits.json`; by default the one that the version is
            evaluated on (val, mini_val, test), or "all" samples of an unofficial version.

    Raises:
        InputError: faults of the tables, the split or the result file.
    """
    folder = table_folder(root, version)
    database = open_index(root, version, index)
    split = default_split(version) if split is None else split
    samples = samples_of_split(database, folder, split)
    tokens = database.sample_tokens.tolist()
    detections, meta = read_results(
        results,
        [tokens[row] for row in samples],
        tokens,
        table_order=split not in OFFICIAL,
    )
    result = evaluate_nuscenes(
        true_boxes(database, samples),
        detections,
        ego_translations(database, samples),
        bike_racks(database, samples),
    )
    return result, meta
