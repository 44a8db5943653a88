"""One frame of KITTI labels or results, as its file holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class KittiObjects:
    """The objects of one frame, a row each, in the file's own frame and units.

    Fields may be given as anything that NumPy makes an array of; they are kept as arrays.

    Raises:
        ValueError: fields whose shapes don't fit together.
    """

    types: Sequence[str]
    """`Car`, `Van`, `Pedestrian`, `DontCare`, ...; kept as a tuple."""
    truncation: Float64[np.ndarray, " N"]
    """0 (wholly in the picture) to 1; -1 where unknown."""
    occlusion: Int64[np.ndarray, " N"]
    """0 visible, 1 partly and 2 largely hidden, 3 unknown; -1 in results."""
    alpha: Float64[np.ndarray, " N"]
    """Observation angle, radians; -10 where unknown."""
    bbox: Float64[np.ndarray, "N 4"]
    """Left, top, right, bottom in the picture, pixels."""
    dimensions: Float64[np.ndarray, "N 3"]
    """Height, width, length, metres; -1 where unknown."""
    location: Float64[np.ndarray, "N 3"]
    """Centre of the bottom face in the rectified camera frame (x right, y down, z forward),
    metres; -1000 where unknown."""
    rotation_y: Float64[np.ndarray, " N"]
    """Turn about the camera's y axis, radians; -10 where unknown."""
    score: Float64[np.ndarray, " N"] | None = None
    """Confidence, any scale; None in labels."""

    def __post_init__(self):
        count = len(self.types)
        object.__setattr__(self, "types", tuple(map(str, self.types)))
        self._keep("truncation", np.float64, (count,))
        self._keep("occlusion", np.int64, (count,))
        self._keep("alpha", np.float64, (count,))
        self._keep("bbox", np.float64, (count, 4))
        self._keep("dimensions", np.float64, (count, 3))
        self._keep("location", np.float64, (count, 3))
        self._keep("rotation_y", np.float64, (count,))
        if self.score is not None:
            self._keep("score", np.float64, (count,))

    def _keep(self, name: str, dtype: type, shape: tuple[int, ...]) -> None:
        value: ArrayLike = getattr(self, name)
        array = np.asarray(value, dtype)
        if array.size == 0 and shape[0] == 0:
            array = array.reshape(shape)
        if array.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} for {shape[0]} types, got {array.shape}"
            )
        object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def empty(cls, *, with_scores: bool = False) -> KittiObjects:
        """A frame without objects."""
        return cls((), [], [], [], [], [], [], [], [] if with_scores else None)
