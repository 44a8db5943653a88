"""What an augmentation is."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from detector.records import Sample


class Transform(Protocol):
    """Any callable of this form; it draws from `rng` alone and does not change its input."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...
