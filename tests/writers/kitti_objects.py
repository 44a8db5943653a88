"""KITTI objects one at a time, for tests that state a case row by row."""

from dataclasses import dataclass, replace

import numpy as np

from detector.metrics.kitti import KittiObjects


@dataclass(frozen=True)
class Row:
    """One line of a label or result file; a car straight ahead unless said otherwise."""

    type: str = "Car"
    truncation: float = 0.0
    occlusion: int = 0
    alpha: float = 0.0
    bbox: tuple[float, float, float, float] = (100, 100, 200, 160)
    dimensions: tuple[float, float, float] = (1.5, 1.6, 4.0)
    location: tuple[float, float, float] = (0.0, 1.7, 20.0)
    rotation_y: float = 0.0
    score: float | None = None

    def but(self, **changes) -> "Row":
        return replace(self, **changes)


def objects(rows, *, with_scores=False) -> KittiObjects:
    """One frame of rows."""
    if not rows:
        return KittiObjects.empty(with_scores=with_scores)
    return KittiObjects(
        types=[r.type for r in rows],
        truncation=[r.truncation for r in rows],
        occlusion=[r.occlusion for r in rows],
        alpha=[r.alpha for r in rows],
        bbox=[r.bbox for r in rows],
        dimensions=[r.dimensions for r in rows],
        location=[r.location for r in rows],
        rotation_y=[r.rotation_y for r in rows],
        score=[r.score for r in rows] if with_scores else None,
    )


def rows(frame: KittiObjects) -> list[Row]:
    """The rows of one frame."""
    scores = [None] * len(frame) if frame.score is None else frame.score.tolist()
    columns = [
        frame.truncation, frame.occlusion, frame.alpha, frame.bbox, frame.dimensions,
        frame.location, frame.rotation_y,
    ]  # fmt: skip
    return [
        Row(name, *(np.asarray(c[i]).tolist() for c in columns), score=scores[i])
        for i, name in enumerate(frame.types)
    ]
