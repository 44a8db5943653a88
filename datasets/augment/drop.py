"""Fewer points: as of a scanner with fewer beams, or at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detector.records import Sample


@dataclass(frozen=True)
class BeamDrop:
    """Removes whole beams of a spinning scanner.

    Beams are bands of equal elevation as seen from the scanner, as data sets do not say which
    beam measured a point; where the bands begin is drawn as well.

    Args:
        probability: of a frame to lose beams at all.
        max_share: the share of beams that is removed is drawn evenly from 0 to this.
        spacing_deg: height of a band; the scanner's own spacing or a little more.
        scanner: x, y, z of the scanner in the ego frame, metres.
    """

    probability: float = 0.5
    max_share: float = 0.5
    spacing_deg: float = 0.45
    scanner: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self):
        _check_share("probability", self.probability)
        _check_share("max_share", self.max_share)
        if not self.spacing_deg > 0:
            raise ValueError(f"spacing_deg must be positive, got {self.spacing_deg}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        chance, share, phase = rng.random(3)
        bands = math.ceil(180 / self.spacing_deg) + 1
        dropped = rng.random(bands) < share * self.max_share
        if chance >= self.probability:
            return sample
        offset = sample.points[:, :3] - np.float32(self.scanner)
        elevation = np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1]))
        band = (elevation + np.float32(np.pi / 2)) / np.float32(math.radians(self.spacing_deg))
        band = np.clip((band + np.float32(phase)).astype(np.int64), 0, bands - 1)
        return sample.replace(points=sample.points[~dropped[band]])


@dataclass(frozen=True)
class PointDrop:
    """Removes points at random.

    Args:
        max_share: the share of points that is removed is drawn evenly from 0 to this.
    """

    max_share: float = 0.1

    def __post_init__(self):
        _check_share("max_share", self.max_share)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        share = rng.random() * self.max_share
        return sample.replace(points=sample.points[rng.random(len(sample.points)) >= share])


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
